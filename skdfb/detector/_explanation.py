"""Why images were rejected or accepted: all numbers of a joint score, and known images beside them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from skdfb.detector._outputs import Output, read_rows
from skdfb.detector._reference import ReferenceImages, image_names
from skdfb.detector._sentences import Finding, sentence
from skdfb.images import Images
from skdfb.scoring import JointScore
from skdfb.scoring._part_scores import PartScores

__all__ = ["Explanation", "check_n_neighbors", "explained"]

Floats = npt.NDArray[np.float64]

# Runs the networks once over images, and returns what each of the functions reads of the views.
Run = Callable[[list[Output]], list[Any]]


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """Why n images were rejected or accepted, as ``explain`` of a detector returns it.

    It can be indexed, sliced and iterated over: ``why[0]`` is the explanation of the first image,
    ``why[why.rejected]`` that of the rejected ones, and ``for one in why: print(one)`` prints a sentence per image.

    Images that cannot be read, with ``on_error="nan"``, have NaN in all numbers, None as labels, no neighbours, and ""
    as deciding part. They count as rejected, as in ``predict``.

    Parameters
    ----------
    names : list of str
        Path of each image, or "image 0" where it is no file.
    scores : ndarray of shape (n,)
        Joint scores; higher is more in-distribution.
    offset : float
        The threshold: images that score below it are rejected.
    alpha : float or None
        Largest probability of rejecting an in-distribution image; None if there is no threshold.
    p_values : ndarray of shape (n,)
        Conformal p-values of the joint scores.
    rejected : ndarray of bool of shape (n,)
        Where ``predict`` returns -1.
    part_p_values : dict of str to ndarray of shape (n,)
        By the name of the part: the share of in-distribution images whose part scores no higher, an estimate. A part is
        unusual where it is near 0. A single part has the p-values of the joint score, which it is.
    deciding_parts : list of str
        The part with the lowest of these.
    labels, runners_up : ndarray of shape (n,)
        The most probable and the second class.
    probabilities : ndarray of shape (n, 2)
        The probabilities of these two.
    neighbors : list of list of str
        Names of the most similar training images among those that the detector remembers (at most 50 of each class).
    neighbor_labels : list of list
        Their classes.
    neighbor_distances : ndarray of shape (n, k)
        Cosine distances of their features, in 0..2, ascending.
    sentences : list of str
        The reason in words, one sentence per image. Shares of the known images are estimates from the held-out ones.

    Examples
    --------
    >>> from skdfb import DFBDetector, Trainer
    >>> from skdfb.datasets import load_digits_on_photos
    >>> from skdfb.networks import create_backbone
    >>> data = load_digits_on_photos(n_train=400, n_test=20, n_ood=20, random_state=0)
    >>> trainer = Trainer(max_steps=3, batch_size=32)  # far too few, only to keep the example short
    >>> detector = DFBDetector(
    ...     create_backbone("test_resnet", pretrained=False, output_stride=8, random_state=0),
    ...     classifier_trainer=trainer,
    ...     dense_trainer=trainer,
    ...     image_size=32,
    ...     random_state=0,
    ... ).fit(data.images, data.target)
    >>> explanation = detector.explain(data.ood_images["unseen_photo"])
    >>> len(explanation), explanation.names[0], explanation.neighbor_distances.shape
    (20, 'image 0', (20, 3))
    >>> explanation[2:4].names
    ['image 2', 'image 3']
    >>> print(explanation)  # doctest: +SKIP
    rejected (p = 0.024): the background is unlike that of the known images (more unusual than 98.1 % of them); ...
    """

    names: list[str]
    scores: Floats
    offset: float
    alpha: float | None
    p_values: Floats
    rejected: npt.NDArray[np.bool_]
    part_p_values: dict[str, Floats]
    deciding_parts: list[str]
    labels: npt.NDArray[Any]
    runners_up: npt.NDArray[Any]
    probabilities: Floats
    neighbors: list[list[str]]
    neighbor_labels: list[list[Any]]
    neighbor_distances: Floats
    sentences: list[str]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.names)

    def __getitem__(self, rows: Any) -> "Explanation":
        """Return the explanation of some of the images: of one by its place, or by a slice, places or a mask.

        Raises
        ------
        IndexError
            If there is no such image.
        """
        places = np.atleast_1d(np.arange(len(self))[rows])
        return replace(self, **{name: _at(value, places) for name, value in vars(self).items()})

    def __iter__(self) -> Iterator["Explanation"]:
        """Yield the explanation of each image."""
        return (self[row] for row in range(len(self)))

    def __str__(self) -> str:
        """Return the sentences, one a line."""
        return "\n".join(self.sentences)

    def __repr__(self) -> str:
        return f"<Explanation of {len(self)} images, {int(self.rejected.sum())} rejected>"

    def to_frame(self) -> Any:
        """Return one row per image.

        Returns
        -------
        frame : pandas.DataFrame
            Its columns are ``name``, ``score``, ``p_value``, ``rejected``, ``deciding_part``, ``p_value_`` and the name
            of each part, ``label``, ``probability``, ``runner_up``, ``runner_up_probability``, ``neighbors``,
            ``neighbor_labels``, ``neighbor_distance`` (of the nearest) and ``sentence``.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("to_frame() needs pandas: run pip install pandas.") from error
        nearest = self.neighbor_distances[:, 0] if self.neighbor_distances.shape[1] else np.full(len(self), np.nan)
        return pd.DataFrame(
            {
                "name": self.names,
                "score": self.scores,
                "p_value": self.p_values,
                "rejected": self.rejected,
                "deciding_part": self.deciding_parts,
                **{f"p_value_{name}": values for name, values in self.part_p_values.items()},
                "label": self.labels,
                "probability": self.probabilities[:, 0],
                "runner_up": self.runners_up,
                "runner_up_probability": self.probabilities[:, 1],
                "neighbors": self.neighbors,
                "neighbor_labels": self.neighbor_labels,
                "neighbor_distance": nearest,
                "sentence": self.sentences,
            }
        )


def _at(value: Any, places: npt.NDArray[np.intp]) -> Any:
    """Return an attribute of an explanation for some of its images."""
    if isinstance(value, dict):
        return {name: values[places] for name, values in value.items()}
    if isinstance(value, list):
        return [value[place] for place in places]
    return value[places] if isinstance(value, np.ndarray) else value


def check_n_neighbors(n_neighbors: Any, reference: ReferenceImages | None) -> int:
    """Return the number of neighbours, or refuse it.

    Raises
    ------
    TypeError, ValueError
        If it is no number of images, or if the detector remembers no training images.
    """
    if not isinstance(n_neighbors, Integral) or isinstance(n_neighbors, bool):
        raise TypeError(f"n_neighbors={n_neighbors!r}: expected an integer of at least 0.")
    if n_neighbors < 0:
        raise ValueError(f"n_neighbors={n_neighbors!r}: expected at least 0.")
    if n_neighbors and reference is None:
        raise ValueError(
            f"n_neighbors={n_neighbors}, but this detector was saved by an older version and remembers no training "
            "images: pass n_neighbors=0, call refit_scorer(X=X, y=y) with the images and labels of fit, or fit again."
        )
    return int(n_neighbors)


def explained(detector: Any, images: Images, run: Run, whole: str, n_neighbors: int) -> Explanation:
    """Return the explanation of images, from one pass over them.

    Parameters
    ----------
    detector : NetworkDetector
        Fitted.
    images : Images
        The n images.
    run : callable
        See :data:`Run`.
    whole : str
        The key of the view of whole images.
    n_neighbors : int
        Number of neighbours of each image.
    """
    joint_score, reference = detector.joint_score_, getattr(detector, "reference_", None)
    outputs = [PartScores(joint_score).start, read_rows(lambda views: views[whole].logits, _two_classes)]
    if reference is not None:
        nearest_of = partial(_nearest, reference=reference, n_neighbors=n_neighbors)
        outputs.append(read_rows(lambda views: views[whole].features, nearest_of))
    parts, classes, *nearest = run(outputs)
    numbers = _numbers(joint_score, parts)
    readable = ~np.isnan(numbers["scores"])
    first, second = (_labels(detector.classes_, classes["places"][:, rank], readable) for rank in range(2))
    numbers |= {"labels": first, "runners_up": second, "probabilities": classes["probabilities"]}
    near = nearest[0] if nearest else dict.fromkeys(["distances", "rows"], np.empty((len(images), 0)))
    rows = [own[~np.isnan(own)].astype(int) for own in near["rows"]]
    return Explanation(
        names=image_names(images),
        neighbors=[[] if reference is None else [reference.names[row] for row in own] for own in rows],
        neighbor_labels=[_labels_of(detector.classes_, reference, own) for own in rows],
        neighbor_distances=near["distances"],
        sentences=_sentences(joint_score, numbers),
        **numbers,
    )


def _numbers(joint_score: JointScore, parts: dict[str, Floats]) -> dict[str, Any]:
    """Return what follows from the scores of the parts, by the name of the attribute."""
    scores = joint_score.combine(parts)
    p_values = joint_score.p_values(scores)
    # A single part is the joint score. Estimated as a part, it would have another number for the same thing.
    if len(parts) == 1:
        part_p_values = deciding = dict.fromkeys(parts, p_values)
    else:
        deciding = joint_score.part_p_values(parts, log=True)
        part_p_values = {name: np.exp(values) for name, values in deciding.items()}
    return {
        "scores": scores,
        "offset": float(joint_score.offset_),
        "alpha": joint_score.alpha,
        "p_values": p_values,
        # The comparison is false for NaN, as in predict.
        "rejected": ~(scores - joint_score.offset_ >= 0),
        "part_p_values": part_p_values,
        # By the logarithms, which tell parts apart whose p-values round to 0.
        "deciding_parts": _deciding(deciding),
    }


def _two_classes(logits: Tensor) -> dict[str, Floats]:
    """Return places and probabilities of the two most probable classes, shapes (n, 2)."""
    probabilities = logits.double().softmax(1).numpy()
    # Stable, so that the first of equal logits is first, as for argmax. Floats, since NaN marks unreadable images.
    places = np.argsort(-logits.numpy(), axis=1, kind="stable")[:, :2]
    return {"places": places.astype(np.float64), "probabilities": np.take_along_axis(probabilities, places, axis=1)}


def _nearest(features: Tensor, reference: ReferenceImages, n_neighbors: int) -> dict[str, Floats]:
    distances, rows = reference.nearest(features, n_neighbors)
    return {"distances": distances, "rows": rows.astype(np.float64)}  # floats as above


def _deciding(part_p_values: dict[str, Floats]) -> list[str]:
    """Return the part with the lowest of these of each image; "" for images that cannot be read."""
    names, table = list(part_p_values), np.stack(list(part_p_values.values()))  # (m, n)
    return ["" if np.isnan(column).any() else names[int(column.argmin())] for column in table.T]


def _labels(classes: npt.NDArray[Any], places: Floats, readable: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """Return labels by their place in ``classes``; None for images that cannot be read."""
    labels: npt.NDArray[Any] = classes[np.where(readable, places, 0).astype(int)]
    if not readable.all():
        labels = labels.astype(object)
        labels[~readable] = None
    return labels


def _labels_of(classes: npt.NDArray[Any], reference: ReferenceImages | None, rows: npt.NDArray[np.intp]) -> list[Any]:
    """Return the classes of training images."""
    return [] if reference is None else list(classes[reference.labels[rows]].tolist())


def _sentences(joint_score: JointScore, numbers: dict[str, Any]) -> list[str]:
    views = {name: view for name, view, _ in joint_score.parts_}
    labels = zip(numbers["labels"].tolist(), numbers["runners_up"].tolist(), strict=True)
    return [
        sentence(
            Finding(
                p_value=float(numbers["p_values"][row]),
                alpha=numbers["alpha"],
                rejected=bool(numbers["rejected"][row]),
                part_p_values={name: float(values[row]) for name, values in numbers["part_p_values"].items()},
                views=views,
                deciding_part=numbers["deciding_parts"][row],
                classes=classes,
                probabilities=tuple(numbers["probabilities"][row].tolist()),
                n_held_out=len(joint_score.calibrator_.scores_),
            )
        )
        for row, classes in enumerate(labels)
    ]
