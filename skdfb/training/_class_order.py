"""The order of a trained classifier's outputs, compared with the classes of y."""

from typing import Any
from weakref import WeakSet

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment

from skdfb.images import Images, Indices, batch_size_of, spread_evenly
from skdfb.networks import DenseClassifier
from skdfb.networks._inputs import run_over
from skdfb.utils import evaluation_mode

__all__ = ["ORDERED", "check_order", "in_order_of"]

# Networks that an estimator built or took over: an inner mask generator gets them with their outputs in order. Without
# this, a weak classifier of the detector's own training would be refused after that training.
ORDERED: WeakSet[DenseClassifier] = WeakSet()

# Images that are compared: some of each class.
_LEAST, _PER_CLASS, _MOST = 200, 10, 1000
_MIN_GAIN = 0.2  # of accuracy
_MIN_DEVIATIONS = 2.5  # of the gain, in standard deviations


def in_order_of(network: DenseClassifier, classes: npt.NDArray[np.generic]) -> None:
    """Reorder the outputs of a network to ``classes``, by its own ``classes``; outputs of other labels are dropped.

    Raises
    ------
    ValueError
        If a class has no output.
    """
    own = list(network.classes or ())
    missing = [label for label in classes.tolist() if label not in own]
    if missing:
        further = [label for label in own if label not in classes.tolist()]
        raise ValueError(
            f"y has the classes {missing}, which are not among the classes of the DenseClassifier given as backbone "
            f"(of its classes, {further} are not in y): expected classes= to name every class of y, with the labels "
            "of y."
        )
    network.select_outputs([own.index(label) for label in classes.tolist()])


def check_order(estimator: Any, network: DenseClassifier, images: Images, labels: npt.NDArray[np.intp]) -> None:
    """Check, on images of the training, that no other order of the outputs fits the labels much better.

    Raises
    ------
    ValueError
        If another order fits much better, as where the outputs are not in the order of ``np.unique(y)``.
    """
    # Explicit labels were followed by take_over; a network of another estimator's fit has its order.
    if estimator.backbone.classes is not None or estimator.backbone in ORDERED:
        return
    classes = estimator.classes_
    chosen = spread_evenly(len(images), min(_MOST, max(_LEAST, _PER_CLASS * len(classes))))
    predicted, true = _predictions(estimator, network, images.subset(chosen)), labels[chosen]
    # The best order of one half is tested on the other: on its own half, the best of many orders gains by chance.
    halves = np.argsort(true, kind="stable")
    _, outputs = linear_sum_assignment(_confusion(true, predicted, halves[::2], len(classes)), maximize=True)
    counts = _confusion(true, predicted, halves[1::2], len(classes))
    given, best = np.diag(counts), counts[np.arange(len(classes)), outputs]
    gain, n_differ = (best - given).sum(), (best + given)[given != best].sum()
    if gain <= _MIN_GAIN * counts.sum() or gain <= _MIN_DEVIATIONS * np.sqrt(n_differ):
        return
    order = classes[np.argsort(outputs)].tolist()
    given_share, best_share = given.sum() / counts.sum(), best.sum() / counts.sum()
    raise ValueError(
        f"backbone is a DenseClassifier whose outputs seem to be in another order than np.unique(y): its accuracy on "
        f"{len(chosen)} training images is about {given_share:.2f}, and {best_share:.2f} with the outputs "
        f"in the order classes={order!r}. Give the labels of the outputs, in their order, by "
        f"DenseClassifier(..., classes=...) or DenseClassifier.from_classifier(..., classes=...)."
    )


def _confusion(
    true: npt.NDArray[np.intp], predicted: npt.NDArray[np.intp], rows: npt.NDArray[np.intp], n_classes: int
) -> npt.NDArray[np.float64]:
    """Return how many of these images of each class (row) have each prediction (column)."""
    counts = np.zeros((n_classes, n_classes))
    np.add.at(counts, (true[rows], predicted[rows]), 1)
    return counts


def _predictions(estimator: Any, network: DenseClassifier, images: Images) -> npt.NDArray[np.intp]:
    @torch.no_grad()
    def predict(indices: Indices, inputs: torch.Tensor) -> npt.NDArray[np.intp]:
        predicted: npt.NDArray[np.intp] = network(inputs).argmax(1).cpu().numpy()
        return predicted

    with evaluation_mode(network), batch_size_of(estimator) as batch_size:
        return np.concatenate(list(run_over(network, images, batch_size, estimator.n_jobs, predict)))
