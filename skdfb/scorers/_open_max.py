"""OpenMax: softmax with a class for the unknown."""

from collections.abc import Iterator
from dataclasses import replace
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from sklearn.utils._param_validation import Interval
from torch import Tensor

from skdfb.scorers._base import BaseScorer, as_double, check_class_indices, double_like
from skdfb.scorers._moments import class_means, labelled_batches
from skdfb.scorers._protocol import ScorerOutput
from skdfb.scorers._representation import Representation

# Shapes beyond this are steps; equal distances would give infinity.
_LARGEST_SHAPE = 1000.0
# Distances below this share of the largest in a tail are rounding errors of 0.
_ZERO = 1e-6


class OpenMax(BaseScorer):
    r"""OpenMax: how probable it is that the image is of a known class, as its logarithm.

    .. math::

        S(x) = \log (1 - P_0), \qquad P_0 = \frac{e^{v_0}}{e^{v_0} + \sum_k e^{v_k}}, \qquad
        v_k = z_k \, \omega_k, \qquad v_0 = \sum_k z_k \, (1 - \omega_k)

    where z are the K logits of image x. The a classes with the largest logits are revised, the others have
    :math:`\omega_k = 1`: for the class k in place i = 1, .., a of the largest logits

    .. math::

        \omega_k = 1 - \frac{a + 1 - i}{a} F_k(\lVert z - \mu_k \rVert), \qquad
        F_k(d) = 1 - e^{-(d / \lambda_k)^{\kappa_k}}

    with :math:`\mu_k` the mean logits of the correctly classified training images of class k, and :math:`F_k` the
    Weibull distribution, of scale λ and shape κ, fitted to the largest of their distances to it. Higher is more
    in-distribution; the largest value is 0.

    Parameters
    ----------
    tail_size : int, default=20
        Number of largest distances a class that its Weibull distribution is fitted to, at least 1; all, if a class
        has fewer.
    alpha : int, default=10
        Number a of classes to revise, at least 1; all, if there are fewer.

    Attributes
    ----------
    means_ : ndarray of shape (K, K)
        μ: mean logits of the correctly classified training images of each class; 0 for classes without any.
    shapes_, scales_ : ndarray of shape (K,)
        κ and λ of each class; λ is infinite for classes that are never revised (see Notes).
    n_features_in_ : int
        Number of features C seen in `fit`.
    n_classes_ : int
        Number of classes K seen in `fit`.
    output : str
        "log_probability": the exponential of the score, the probability of all known classes, is that of Eq. 7 of DFB
        (see :class:`~skdfb.fusion.TemperatureFusion`).

    See Also
    --------
    MSP : The softmax without a class for the unknown.

    Notes
    -----
    With :math:`o = \log \sum_k e^{v_k} - v_0` the score is :math:`-\log(1 + e^{-o})`: the probability of the unknown
    class is never subtracted from 1, so images that are surely known, or surely not, keep distinct ranks until
    :math:`e^{-o}` underflows, at o of about 700.

    The paper's Algorithm 2 has :math:`e^{-(d / \lambda)^{\kappa}}`, which falls with the distance, for F, and
    (a - i) / a for the factor before it, which would never revise the last of the a classes; its code has the terms
    given here. libMR, on which that code rests, adds 10,000 less the smallest distance of the tail to all distances
    before it fits. Here they are taken as they are, so that the fit does not depend on the unit of the logits. The
    authors' code takes the Euclidean distance over 200 plus the cosine distance by default; that 200 fits one
    network's logits, so the Euclidean distance alone is taken here, which their code offers, too. Some libraries take
    all training images, not the correctly classified ones.

    As in the paper, activations are taken to be positive: a negative logit z is revised towards 0, that is upwards,
    and adding a constant to all logits changes the score.

    The shape is the maximum likelihood estimate, at most 1000; distances of less than a millionth of the largest of the
    tail are left out of it. A tail without spread (one distance, or equal ones, as two images always have) takes the
    median shape of the other classes, or 1000 if there is none. A class whose distances are all 0 (a single image)
    or that has no correctly classified image is never revised. `fit` raises ValueError if that leaves no class.

    References
    ----------
    Bendale and Boult, *Towards Open Set Deep Networks*, CVPR 2016, arXiv 1511.06233.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import OpenMax, Representation
    >>> head = {"weight": np.eye(2), "bias": np.zeros(2)}
    >>> rng = np.random.default_rng(0)
    >>> features = np.repeat([[9.0, 0.0], [0.0, 9.0]], 50, axis=0) + rng.normal(size=(100, 2))
    >>> y = np.repeat([0, 1], 50)
    >>> scorer = OpenMax().fit(Representation.from_numpy(features=features, **head), y)
    >>> new = np.array([[9.0, 0.0], [9.0, 6.0], [30.0, 0.0]])
    >>> known, strange, strong = np.exp(scorer.score_samples(Representation.from_numpy(features=new, **head)))
    >>> bool(known > 0.99 and strange < 0.01 and strong < 0.01)
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "tail_size": [Interval(Integral, 1, None, closed="left")],
        "alpha": [Interval(Integral, 1, None, closed="left")],
    }
    output: ScorerOutput = "log_probability"

    def __init__(self, tail_size: int = 20, alpha: int = 10) -> None:
        self.tail_size = tail_size
        self.alpha = alpha

    def _fit(self, representation: Representation, y: ArrayLike | None) -> None:
        labels = check_class_indices(y, representation)
        means, correct = _correct_means(representation, labels)
        distances = _distances_to_mean(representation, labels, means)
        tails = [_tail(distances[correct & (labels == k)], self.tail_size) for k in range(len(means))]
        if not any(tail.size for tail in tails):
            raise ValueError(
                f"y and representation.logits leave OpenMax no class to fit: of {len(labels)} images, {correct.sum()} "
                "are classified correctly, and no class has two different ones among them. Give more or more varied "
                "images, check that y fits the logits, or use MSP()."
            )
        shapes, scales = _fit_weibulls(tails)
        self.means_ = means.numpy(force=True)
        self.shapes_ = shapes
        self.scales_ = scales

    def _score_batches(self, representation: Representation) -> Iterator[Tensor]:
        means, shapes, scales = (
            double_like(statistic, representation.features) for statistic in (self.means_, self.shapes_, self.scales_)
        )
        a = min(self.alpha, len(means))
        for batch in representation.batches():
            z = as_double(batch.logits)
            order = z.argsort(dim=1, descending=True, stable=True)
            unknown = torch.zeros_like(z)  # (m, K): 1 - ω
            for i in range(a):
                k = order[:, i]
                d = (z - means[k]).square().sum(dim=1).sqrt()
                F = -torch.expm1(-((d / scales[k]) ** shapes[k]))
                unknown.scatter_(1, k[:, None], ((a - i) / a * F)[:, None])
            odds = torch.logsumexp(z * (1 - unknown), dim=1) - (z * unknown).sum(dim=1)
            yield torch.nn.functional.logsigmoid(odds)


def _correct_means(representation: Representation, labels: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.bool_]]:
    """Return the mean logits (K, K) of the correctly classified images of each class, and which these are."""
    K, logits = representation.n_classes, representation.logits
    predicted = [batch.logits.argmax(dim=1).numpy(force=True) for batch in representation.batches()]
    correct = np.concatenate(predicted) == labels
    as_features = replace(representation, features=logits, weight=torch.eye(K).to(logits), activations=None)
    means, _ = class_means(as_features, np.where(correct, labels, K), K + 1)
    return means[:K], correct


def _distances_to_mean(representation: Representation, labels: NDArray[np.int64], means: Tensor) -> NDArray[np.float64]:
    """Return the distance of the logits of each image to the mean of its class."""
    found = []
    for batch, batch_labels in labelled_batches(representation, labels):
        difference = as_double(batch.logits) - means[batch_labels.to(means.device)]
        found.append(difference.square().sum(dim=1).sqrt().numpy(force=True))
    return np.concatenate(found)


def _tail(distances: NDArray[np.float64], tail_size: int) -> NDArray[np.float64]:
    """Return the largest distances, without those that are 0 but for rounding."""
    tail = np.sort(distances)[-tail_size:]
    return tail[tail > _ZERO * tail[-1]] if tail.size else tail


def _fit_weibulls(tails: list[NDArray[np.float64]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return shape and scale of a Weibull distribution for each tail; an empty one gets an infinite scale."""
    shapes = np.array([_weibull_shape(tail) for tail in tails])
    known = shapes[np.isfinite(shapes)]
    shapes[~np.isfinite(shapes)] = np.median(known) if known.size else _LARGEST_SHAPE
    scales = np.full(len(tails), np.inf)
    for k, (tail, shape) in enumerate(zip(tails, shapes, strict=True)):
        if tail.size:
            scales[k] = tail[-1] * np.mean((tail / tail[-1]) ** shape) ** (1 / shape)
    return shapes, scales


def _weibull_shape(tail: NDArray[np.float64]) -> float:
    """Return the maximum likelihood estimate of the shape, or infinity for a tail without spread."""
    if tail.size == 0 or tail[0] >= tail[-1] * (1 - _ZERO):
        return np.inf
    x = tail / tail[-1]  # in (0, 1], so that no power overflows
    logs = np.log(x)

    def slope(shape: float) -> float:
        powers = x**shape
        return float(powers @ logs / powers.sum() - 1 / shape - logs.mean())

    # The slope rises with the shape; at 0.01 it is below 0 as no log is below log(1e-6).
    return _LARGEST_SHAPE if slope(_LARGEST_SHAPE) <= 0 else float(brentq(slope, 0.01, _LARGEST_SHAPE))
