"""OpenMax: the softmax with an additional class for unknown images."""

from collections.abc import Iterator
from dataclasses import replace
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from torch import Tensor

from skdfb._constraints import Interval
from skdfb.scorers._base import BaseScorer, as_double, check_class_indices, double_like
from skdfb.scorers._moments import class_means, labelled_batches
from skdfb.scorers._protocol import ScorerOutput
from skdfb.scorers._representation import Representation

# With a larger shape the distribution is practically a step. Equal distances would give an infinite shape.
_LARGEST_SHAPE = 1000.0
# Distances below this share of the largest distance of a tail count as 0 with rounding errors.
_ZERO = 1e-6


class OpenMax(BaseScorer):
    r"""Logarithm of the probability that the image belongs to a known class, by OpenMax.

    .. math::

        S(x) = \log (1 - P_0), \qquad P_0 = \frac{e^{v_0}}{e^{v_0} + \sum_k e^{v_k}}, \qquad
        v_k = z_k \, \omega_k, \qquad v_0 = \sum_k z_k \, (1 - \omega_k)

    where z are the K logits of image x. The a classes with the largest logits are revised; the other classes have
    :math:`\omega_k = 1`. If class k has the i-th largest logit, i = 1, .., a, its weight is

    .. math::

        \omega_k = 1 - \frac{a + 1 - i}{a} F_k(\lVert z - \mu_k \rVert), \qquad
        F_k(d) = 1 - e^{-(d / \lambda_k)^{\kappa_k}}

    where :math:`\mu_k` are the mean logits of the correctly classified training images of class k. :math:`F_k` is the
    Weibull distribution with scale λ and shape κ that is fitted to the largest distances of these images to
    :math:`\mu_k`. Higher is more in-distribution; the largest value is 0.

    Parameters
    ----------
    tail_size : int, default=20
        Number of largest distances per class that the Weibull distribution is fitted to, at least 1. All distances are
        taken if a class has fewer.
    alpha : int, default=10
        Number a of classes to revise, at least 1. All classes are revised if there are fewer.

    Attributes
    ----------
    means_ : ndarray of shape (K, K)
        The means μ, one row per class; 0 for classes without correctly classified training images.
    shapes_, scales_ : ndarray of shape (K,)
        The shape κ and the scale λ of each class. λ is infinite for classes that are never revised (see Notes).
    n_features_in_ : int
        Number of features C in `fit`.
    n_classes_ : int
        Number of classes K in `fit`.
    output : str
        "log_probability": the exponential of the score, the probability of all known classes, is the probability in
        Eq. 7 of DFB (see :class:`~skdfb.fusion.TemperatureFusion`).

    See Also
    --------
    MSP : The softmax without a class for unknown images.

    Notes
    -----
    With :math:`o = \log \sum_k e^{v_k} - v_0` the score is :math:`-\log(1 + e^{-o})`. The probability of the unknown
    class is never subtracted from 1. So images that are almost certainly known, or almost certainly unknown, keep
    distinct ranks until :math:`e^{-o}` underflows, at o of about 700.

    Algorithm 2 of the paper has two different terms. For F it has :math:`e^{-(d / \lambda)^{\kappa}}`, which decreases
    with the distance. For the factor before F it has (a - i) / a, which never revises the last of the a classes. The
    paper's code has the terms given here. That code uses libMR, which adds 10,000 minus the smallest distance of the
    tail to all distances before the fit. Here the distances are not changed, so the fit does not depend on the unit of
    the logits. By default the authors' code takes the Euclidean distance divided by 200, plus the cosine distance.
    This factor of 200 suits the logits of one network only. So the Euclidean distance alone is taken here, which is an
    option of their code. Some libraries use all training images, not only the correctly classified ones.

    As in the paper, logits are assumed to be positive. A negative logit z is revised towards 0, so it increases.
    Adding a constant to all logits changes the score.

    The shape is the maximum likelihood estimate, at most 1000. Distances of less than a millionth of the largest
    distance of the tail are left out. A tail without spread has one distance or equal distances; the tail of a class
    with two images is always like this. It takes the median shape of the other classes, or 1000 if there is none. A
    class is never revised if it has no correctly classified image or all its distances are 0, as for a single image.
    `fit` raises ValueError if this applies to all classes.

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
    >>> known, mixed, far = np.exp(scorer.score_samples(Representation.from_numpy(features=new, **head)))
    >>> bool(known > 0.99 and mixed < 0.01 and far < 0.01)
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

    def _check_sizes(self, n_features: int, n_classes: int, n_images: int) -> None:
        # A single image is at distance 0 from the mean of its class.
        if n_images < 2:
            raise _no_class_to_fit(f"{n_images} image(s)")

    def _fit(self, representation: Representation, y: ArrayLike | None) -> None:
        labels = check_class_indices(y, representation)
        means, correct = _correct_means(representation, labels)
        distances = _distances_to_mean(representation, labels, means)
        tails = [_tail(distances[correct & (labels == k)], self.tail_size) for k in range(len(means))]
        if not any(tail.size for tail in tails):
            raise _no_class_to_fit(f"{len(labels)} image(s), of which {correct.sum()} are classified correctly")
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
            z = as_double(batch.logits)  # (m, K)
            # Stable, so that equal logits are revised in the order of the classes.
            order = z.argsort(dim=1, descending=True, stable=True)
            unknown = torch.zeros_like(z)  # (m, K): 1 - ω
            for i in range(a):
                k = order[:, i]
                d = (z - means[k]).square().sum(dim=1).sqrt()
                # An infinite scale gives F = 0, so the class is not revised.
                F = -torch.expm1(-((d / scales[k]) ** shapes[k]))
                # i counts from 0 here and from 1 in the docstring.
                unknown.scatter_(1, k[:, None], ((a - i) / a * F)[:, None])
            # The o of the docstring.
            odds = torch.logsumexp(z * (1 - unknown), dim=1) - (z * unknown).sum(dim=1)
            yield torch.nn.functional.logsigmoid(odds)


def _no_class_to_fit(given: str) -> ValueError:
    return ValueError(
        "y and representation.logits leave OpenMax no class to fit: expected a class with at least two different "
        f"images that are classified correctly, got {given}. Give more or more varied images, check that y belongs to "
        "the logits, or use MSP()."
    )


def _correct_means(representation: Representation, labels: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.bool_]]:
    """Return the mean logits (K, K) of the correctly classified images of each class, and a mask of these images."""
    K, logits = representation.n_classes, representation.logits
    predicted = [batch.logits.argmax(dim=1).numpy(force=True) for batch in representation.batches()]
    correct = np.concatenate(predicted) == labels
    # `class_means` averages features, so the logits take their place.
    as_features = replace(representation, features=logits, weight=torch.eye(K).to(logits), activations=None)
    # Images that are classified wrongly form an additional group K, which is dropped.
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
    """Return the largest distances in ascending order, without those that are 0 up to rounding."""
    tail = np.sort(distances)[-tail_size:]
    return tail[tail > _ZERO * tail[-1]] if tail.size else tail


def _fit_weibulls(tails: list[NDArray[np.float64]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the shape and the scale of a Weibull distribution for each tail; an empty tail gets an infinite scale."""
    shapes = np.array([_weibull_shape(tail) for tail in tails])
    # Tails without spread have an infinite shape.
    known = shapes[np.isfinite(shapes)]
    shapes[~np.isfinite(shapes)] = np.median(known) if known.size else _LARGEST_SHAPE
    scales = np.full(len(tails), np.inf)
    for k, (tail, shape) in enumerate(zip(tails, shapes, strict=True)):
        if tail.size:
            # The maximum likelihood scale for this shape; ratios to the largest distance do not overflow.
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

    # The slope increases with the shape. At 0.01 it is negative, since no logarithm is below log(1e-6).
    return _LARGEST_SHAPE if slope(_LARGEST_SHAPE) <= 0 else float(brentq(slope, 0.01, _LARGEST_SHAPE))
