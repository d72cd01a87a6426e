"""One page on a detector."""

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import check_scalar
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils.validation import _num_samples, check_is_fitted

from skdfb.evaluation._detectors import checked_labels, known_images
from skdfb.evaluation._table import check_ood
from skdfb.reports._html import Html, element, joined
from skdfb.reports._sections import (
    curves_section,
    images_section,
    numbers_section,
    parts_section,
    settings_section,
    training_section,
)
from skdfb.reports._sets import evaluated, scored
from skdfb.reports._style import STYLE
from skdfb.reports._verdict import cautions, verdict
from skdfb.utils import last_step, write_text

__all__ = ["write_report"]

_KNOWN = "known images"
_MOST_EXAMPLES = 50
_EXTENSIONS = (".html", ".htm")
# The page may load nothing, whatever names and labels hold.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_report(
    detector: Any,
    X_id: Any,
    ood: Mapping[str, Any],
    path: str | os.PathLike[str],
    *,
    y_id: Any = None,
    n_examples: int = 6,
    random_state: int | np.random.RandomState | None = None,
) -> Path:
    """Write one HTML page on how well a fitted detector works: numbers, plots, and images with the reason for each.

    The page is a single file that needs neither a network nor scripts. It has a light and a dark form and can be
    printed. Each image set is scored once.

    Parameters
    ----------
    detector : DFBDetector or FrozenDetector
        Fitted or loaded; also a pipeline or a parameter search that ends in one.
    X_id : images
        Test images of the known classes, in any form that the detector takes, such as a folder.
    ood : mapping of str to images
        OOD test images by name, such as ``{"textures": "textures/"}``.
    path : path
        The file, ``*.html`` or ``*.htm``. A file that is there is replaced.
    y_id : array-like of shape (n_id,), default=None
        Labels of ``X_id``. None takes those of a folder of class folders; without labels the page tells neither
        accuracy nor OSCR.
    n_examples : int, default=6
        Most images to show of each kind, in 0..50.
    random_state : int, RandomState or None, default=None
        Fixes the resamples of the intervals, which are those of :func:`~skdfb.evaluation.evaluate`.

    Returns
    -------
    path : Path
        The file.

    Raises
    ------
    FileNotFoundError, IsADirectoryError
        If there is no folder for the file, or the path is a folder; before any image is scored.
    TypeError, ValueError
        If the name of the file ends in anything else than .html or .htm, the detector cannot explain its scores, or for
        what :func:`~skdfb.evaluation.evaluate` refuses.
    ImportError
        If matplotlib is not installed.

    See Also
    --------
    skdfb.evaluation.evaluate : The numbers alone.
    skdfb.DFBDetector.explain : The reasons alone.

    Notes
    -----
    Images are shown as small pictures, with the last two parts of their path. With ``on_error="nan"`` of the detector,
    images that cannot be read are counted and left out.

    Examples
    --------
    >>> from skdfb.reports import write_report
    >>> write_report(detector, "flowers/test", {"textures": "textures"}, "report.html")  # doctest: +SKIP
    PosixPath('report.html')
    """
    # 1. Check all that can be checked before images are scored.
    check_matplotlib_support("write_report")
    target = _checked_path(path)
    check_scalar(n_examples, "n_examples", Integral, min_val=0, max_val=_MOST_EXAMPLES)
    step, prepared = last_step(detector)
    _check_detector(step)
    sets = check_ood(ood)
    X_id, y_id = known_images(step, X_id, y_id, "X_id")
    y = None if y_id is None else checked_labels(step, y_id, _num_samples(X_id), "X_id", "y_id")

    # 2. Score each set, then put the numbers together.
    known = scored(step, X_id, prepared, _KNOWN)
    unknown = {name: scored(step, X, prepared, str(name)) for name, X in sets.items()}
    numbers = evaluated(step, known, unknown, y, random_state)
    others, alpha = list(unknown.values()), known.explanation.alpha
    doubts = cautions(numbers, alpha, known, others)
    page = _page(
        f"Report on a {type(step).__name__}",
        element("p", verdict(numbers, alpha), class_="verdict"),
        element("ul", *(element("li", text) for text in doubts), class_="cautions") if doubts else "",
        numbers_section(numbers, known, others),
        curves_section(known, others, known.explanation.offset),
        parts_section(known, others),
        images_section(step, known, others, y, int(n_examples)),
        training_section(step),
        settings_section(step, f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"),
    )
    write_text(target, page)
    return target


def _checked_path(path: Any) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(
            f"path is a {type(path).__name__}: expected the path of a file, such as 'report.html'; the order is "
            "write_report(detector, X_id, ood, path)."
        )
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(
            f"path={str(path)!r} is a folder: expected a file, such as {str(target / 'report.html')!r}."
        )
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"path={str(path)!r}: there is no folder {str(target.parent)!r}: expected one; create it by "
            f"Path({str(target.parent)!r}).mkdir(parents=True)."
        )
    if target.suffix.lower() not in _EXTENSIONS:
        raise ValueError(
            f"path={str(path)!r}: expected a name that ends in .html, since the report is an HTML page, such as "
            f"{str(target.with_suffix('.html'))!r}; to make a PDF file of it, print it in a browser."
        )
    return target


def _check_detector(step: Any) -> None:
    if not hasattr(step, "explain"):
        raise TypeError(
            f"detector={step!r} has no explain: expected a fitted DFBDetector or FrozenDetector. For other detectors, "
            "skdfb.evaluation.evaluate has the numbers."
        )
    check_is_fitted(step)


def _page(title: str, *content: Any) -> str:
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Html(STYLE)),
    )
    body = element("body", element("h1", title), *content)
    return joined(Html("<!DOCTYPE html>\n"), element("html", head, body, lang="en"), Html("\n"))
