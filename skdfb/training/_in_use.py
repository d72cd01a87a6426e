"""Whether a training is running in a folder, in this process or in another one."""

import os
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import ModuleType

__all__ = ["in_use", "is_in_use"]

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextmanager
def in_use(folder: Path) -> Generator[None]:
    """Mark a folder as in use inside of the block, as far as the system can; several may do so at once."""
    with ExitStack() as stack:
        if fcntl is not None:
            # Without a folder, on a full disk, or a file system that knows locks, the training runs without the mark.
            with suppress(OSError):
                descriptor = os.open(folder, os.O_RDONLY)
                stack.callback(os.close, descriptor)
                # The system removes the mark if the process is killed.
                fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield


def is_in_use(folder: Path) -> bool:
    """Return whether a folder is marked as in use, or cannot be asked."""
    if fcntl is None:
        return True
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # it was removed, or may not be read
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
