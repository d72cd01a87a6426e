"""What the evaluation needs of a detector of any kind, and checks of labels."""

from typing import Any

import numpy as np
import numpy.typing as npt

from skdfb.images import Folder, label_array, label_places, opened, shown

__all__ = [
    "can_classify",
    "checked_labels",
    "known_images",
    "labels_in",
    "listed",
    "shown_labels",
]


def can_classify(step: Any) -> bool:
    """Return whether a fitted last step predicts class labels."""
    return hasattr(step, "classify") or (hasattr(step, "classes_") and hasattr(step, "predict_proba"))


def labels_in(labels: npt.NDArray[Any], classes: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return which labels are one of the classes, as a mask of shape (n,)."""
    return label_places(labels, classes) >= 0


def listed(X: Any, name: str) -> Any:
    """Return the paths of the images of a folder, if ``X`` is the path of one; anything else as it is."""
    found = opened(X, name)
    return found.paths if isinstance(found, Folder) else X


def known_images(step: Any, X: Any, y: Any, name: str) -> tuple[Any, Any]:
    """Return the paths of a folder and, if y is None, the names of its class folders; anything else as it is.

    Raises
    ------
    ValueError
        If y is None, the fitted last step classifies, and a class folder is none of its classes.
    """
    found = opened(X, name)
    if not isinstance(found, Folder):
        return X, y
    if y is not None or found.labels is None or not (can_classify(step) and hasattr(step, "classes_")):
        return found.paths, y
    labels = np.asarray(found.labels)
    others = np.unique(labels[~labels_in(labels, step.classes_)])
    if len(others):
        raise ValueError(
            f"{name} is the folder {str(X)!r} with the class folders {shown_labels(others)}, which are not "
            f"classes of fit: expected some of {shown_labels(step.classes_)}. Images of other classes are OOD: move "
            f"them to ood. To pass the images without labels, pass load_image_folder({str(X)!r}).paths."
        )
    return found.paths, labels


def shown_labels(classes: Any, most: int = 6) -> str:
    """Return labels as a text for messages; of many labels, the first ones."""
    texts = ", ".join(shown(label, 40) for label in np.asarray(classes)[:most].tolist())
    texts = texts if len(texts) <= 100 else f"{texts[:97]}..."
    return f"{texts}, ..." if len(classes) > most else texts


def checked_labels(step: Any, y: Any, n_images: int, X_name: str, y_name: str) -> npt.NDArray[Any]:
    """Return the labels of images as an array; refuse labels that are not classes of the fitted last step."""
    if not can_classify(step):
        raise TypeError(
            f"{y_name} is given, but {step!r} has neither classify nor predict_proba: expected {y_name}=None."
        )
    labels: npt.NDArray[Any] = label_array(y, y_name)
    if len(labels) != n_images:
        raise ValueError(
            f"{X_name} has {n_images} images and {y_name} has {len(labels)} labels: expected one label per image."
        )
    # An unknown label would count as an error of the classifier, although no classifier could predict it.
    unknown = ~labels_in(labels, step.classes_)
    if unknown.any():
        others = list(dict.fromkeys(labels[unknown].tolist()))
        raise ValueError(
            f"{y_name}: expected labels of the classes of fit, {shown_labels(step.classes_)}, but {unknown.sum()} of "
            f"{len(labels)} labels are not: {shown_labels(others)}. Images of other classes are OOD: move them to ood."
        )
    return labels
