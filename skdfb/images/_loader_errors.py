"""Tell an error of a reader, for a damaged file, from an error in the user's own code."""

import traceback
from pathlib import PurePath

from skdfb.images._files import READING_ERRORS

__all__ = ["is_reading_error"]

# Modules that decode files. Some raise errors of any type for a damaged one.
_READERS = ("ImageFile.py", "ImagePlugin.py", "TiffImagePlugin.py", "_npyio_impl.py", "_format_impl.py", "tifffile.py")
_READING_PACKAGES = ("torchvision/io/", "imageio/", "pillow_heif/", "rawpy/")


def is_reading_error(error: BaseException) -> bool:
    """Tell whether an error of a dataset means that the file of an item cannot be read.

    Errors of files count wherever they are raised. Others, such as a ``ValueError``, count if a module that decodes
    files raised them; a mistake in a transform raises the same types.
    """
    if isinstance(error, READING_ERRORS):
        return True
    if isinstance(error, Warning):  # raised where warnings are errors
        return False
    files = [PurePath(frame.filename).as_posix() for frame in traceback.extract_tb(error.__traceback__)]
    return any(file.endswith(_READERS) or any(part in file for part in _READING_PACKAGES) for file in files)
