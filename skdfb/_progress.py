"""Progress bars, and what long computations say of themselves: the only door to tqdm and to the library's log.

An estimator with the parameter ``verbose`` opens :func:`progress` around its work. Every loop inside, in whatever
package, shows a bar by :func:`progress_bar` and speaks by :func:`say`, without a parameter for it.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tqdm.auto import tqdm

__all__ = ["LaterWork", "later_work", "progress", "progress_bar", "say", "warn_once", "write_line"]

_logger = logging.getLogger("skdfb")


class LaterWork(NamedTuple):
    """What is to do after the first training: images to train on and images to pass forward, repetitions counted."""

    n_trained: float
    n_passed: float


# From the number of training images and the network that is trained.
Later = Callable[[int, Any], LaterWork]


@dataclass(frozen=True)
class _Setting:
    verbose: int = 0
    label: str = ""
    later: Later | None = None
    warned: list[str] = field(default_factory=list)


_NOTHING = _Setting()
_current: ContextVar[_Setting] = ContextVar("skdfb_progress", default=_NOTHING)


@contextmanager
def progress(verbose: int = 0, label: str = "", *, later: Later | None = None) -> Iterator[None]:
    """Show bars in the block, in all that it calls.

    Parameters
    ----------
    verbose : int, default=0
        0 shows nothing more than the block around this one.
    label : str, default=""
        What bars of the block say, unless the block around this one has a label, or a bar has one of its own.
    later : callable, default=None
        Returns what follows the first training, from the number of training images and the network. It is given by
        ``fit`` of a detector.
    """
    outer = _current.get()
    warned = [] if outer is _NOTHING else outer.warned
    inner = _Setting(max(int(verbose), outer.verbose), outer.label or label, later or outer.later, warned)
    token = _current.set(inner)
    try:
        yield
    finally:
        _current.reset(token)


def progress_bar(
    total: int,
    label: str = "",
    *,
    over: Iterable[Any] | None = None,
    initial: int = 0,
    unit: str = "image",
    is_long: bool = True,
) -> Any:
    """Return a tqdm bar of one line on standard error, which can be iterated if it is ``over`` something.

    It is hidden outside of :func:`progress`, without ``verbose``, in all launched processes but the first, and if the
    work is not long.
    """
    setting = _current.get()
    shown = is_long and setting.verbose > 0 and _speaks()
    return tqdm(
        over,
        total=total,
        initial=initial,
        desc=label or setting.label or "running the network",
        unit=unit,
        disable=not shown,
    )


def later_work(n_images: int, network: Any) -> LaterWork | None:
    """Return what follows the first training, of a network with ``n_images``; None outside of a detector's ``fit``."""
    later = _current.get().later
    return None if later is None else later(n_images, network)


def say(message: str, level: int = logging.INFO) -> None:
    """Log a message under ``skdfb``. With ``verbose`` it is also seen by users who have configured no logging."""
    if not _speaks():
        return
    is_logged = _logger.hasHandlers() and _logger.isEnabledFor(level)
    if is_logged or not _current.get().verbose:
        _logger.log(level, message)
    else:
        write_line(message)


def write_line(line: str) -> None:
    """Write a line to standard error, above the bars and not through them."""
    tqdm.write(line, file=sys.stderr)


def warn_once(message: str) -> None:
    """Log a warning, once in each outermost :func:`progress`."""
    warned = _current.get().warned
    if not warned:
        say(message, logging.WARNING)
    if _current.get() is not _NOTHING:
        warned.append(message)


def _speaks() -> bool:
    """Tell whether this process is the only one, or the first of those that were launched to train together."""
    launched = "TORCHELASTIC_RUN_ID" in os.environ  # RANK alone is not enough: another program may have set it
    return not launched or os.environ.get("RANK", "0") == "0"
