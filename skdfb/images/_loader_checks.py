"""Numbers that the loader of a dataset has changed before they arrive here."""

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["check_loader", "path_of"]


def check_loader(dataset: Any, index: int, image: npt.NDArray[Any]) -> None:
    """Refuse an image of bytes whose file, as far as the dataset names it, holds other numbers.

    PIL's conversion to colour, which the usual loader of torchvision's ``ImageFolder`` calls, makes every number above
    255 white.

    Raises
    ------
    ValueError
        If the file of the item holds integers of more than 8 bits or floats.
    """
    # uint16 as int16, which torch took for want of a type, has negative numbers.
    if image.dtype != np.uint8 and not (image.dtype == np.int16 and image.min() < 0):
        return
    path = path_of(dataset, index)
    if path is None:
        return
    try:
        with Image.open(path) as file:
            mode = file.mode
    except Exception:  # the dataset reads it in its own way
        return
    if mode[0] in "IF":
        raise ValueError(
            f"image {index} has 8 bits, or numbers below 0, but its file {str(path)!r} holds other numbers (PIL's "
            f"mode {mode}), which the loader of the dataset has cut off: expected all of them; pass the paths instead "
            "of the dataset, or a loader that keeps them, ImageFolder(folder, loader=PIL.Image.open)."
        )


def path_of(dataset: Any, index: int) -> Any:
    """Return the path of an item, for torchvision's folders and parts of them."""
    while hasattr(dataset, "indices") and hasattr(dataset, "dataset"):
        dataset, index = dataset.dataset, dataset.indices[index]
    samples = getattr(dataset, "samples", None)
    try:
        return samples[index][0] if samples is not None else None
    except (TypeError, IndexError, KeyError):
        return None
