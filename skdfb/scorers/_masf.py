"""MaSF: p-values of the channel maxima of all layers, given the predicted class."""

from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state
from torch import Tensor

from skdfb._constraints import RANDOM_STATE, Interval
from skdfb.scorers._base import BaseScorer, activation, as_double, check_class_indices, tensor_like
from skdfb.scorers._representation import Representation
from skdfb.scorers._shaped_energy import nan_where_broken


class MaSF(BaseScorer):
    r"""Max-Simes-Fisher: p-values of the channel maxima of all layers, given the predicted class.

    .. math::

        S(x) = \sum_l \log q_l, \qquad
        q_l = \min_{j = 1..C_l} \frac{C_l}{j} \, p_{l(j)}, \qquad
        p_{lc} = \min\left(1, 2 \, \frac{1 + \min(\#\{i : t_{ilc} \le t_{lc}\}, \#\{i : t_{ilc} \ge t_{lc}\})}{m + 1}
        \right)

    where :math:`t_{lc}` is the maximum over the places of channel c of layer l for image x, and :math:`t_{ilc}` is that
    of the m training images i of the class predicted for x. So :math:`p_{lc}` is the two-sided p-value of this maximum,
    :math:`q_l` combines the p-values of the :math:`C_l` channels of a layer by Simes' rule, where :math:`p_{l(j)}` is
    the j-th smallest, and -2 S is Fisher's statistic of the layers. Higher is more in-distribution; the largest score
    is 0.

    Parameters
    ----------
    layers : list of str, default=None
        Names in ``representation.activations`` to use, at least one, each once. None uses all except "feature_map", in
        their order.
    samples_per_class : int, default=500
        Largest number of training images per class to keep, at least 1. They are chosen at random.
    random_state : int, RandomState instance or None, default=None
        Seed for choosing these images. Pass an int for the same scores in each `fit`.

    Attributes
    ----------
    layers_ : list of str
        Names of the L layers in use.
    layer_widths_ : ndarray of shape (L,)
        Number of channels C_l of each layer.
    class_counts_ : ndarray of shape (K,)
        Number of images m that are kept of each class.
    maxima_ : ndarray of shape (n_maxima,)
        Channel maxima of these images in float32, flattened. The classes follow each other. Each class has a row per
        channel, layer by layer, with the m values in ascending order.
    n_features_in_ : int
        Number of features C in `fit`.
    n_classes_ : int
        Number of classes K in `fit`.
    output : str
        "logit".
    needs_activations : tuple of str
        ("layers",).

    See Also
    --------
    ViM : Uses the last layer only.

    Notes
    -----
    The predicted class has the largest logit among the classes that have training images. The authors also try the
    largest p-value over all classes. They convert Fisher's statistic of the layers, which depend on each other, to a
    p-value by its distribution in the class. This does not change the ranking within a class, and it is left out here
    because the scores are calibrated later anyway. The authors take p-values from a table of quantiles; here they come
    from ranks. They are at least 2 / (m + 1), so classes with few images hardly give low scores, and classes with one
    image always give 0.

    Activations of shape (n, C_l, h, w) are reduced to their channel maxima. Values are compared in float32. `fit` reads
    the activations once and keeps m values per channel of all layers for each class.

    References
    ----------
    Haroush et al., *A Statistical Framework for Efficient Out of Distribution Detection in Deep Neural Networks*, ICLR
    2022, arXiv 2102.12967.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import MaSF, Representation
    >>> def representation(maxima):
    ...     head = {"weight": np.eye(2), "bias": np.zeros(2)}
    ...     features = np.ones((len(maxima), 2))
    ...     return Representation.from_numpy(features=features, **head, activations={"layer": maxima})
    >>> maxima = np.random.default_rng(0).normal(size=(100, 8))
    >>> scorer = MaSF().fit(representation(maxima), np.arange(100) % 2)
    >>> usual, unusual = scorer.score_samples(representation(np.array([[0.0] * 8, [9.0] * 8])))
    >>> bool(usual > unusual)
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "layers": [list, tuple, None],
        "samples_per_class": [Interval(Integral, 1, None, closed="left")],
        "random_state": RANDOM_STATE,
    }

    needs_activations = ("layers",)

    def __init__(
        self,
        layers: Sequence[str] | None = None,
        samples_per_class: int = 500,
        random_state: int | RandomState | None = None,
    ) -> None:
        self.layers = layers
        self.samples_per_class = samples_per_class
        self.random_state = random_state

    def _check_sizes(self, n_features: int, n_classes: int, n_images: int) -> None:
        if self.layers is not None and not 0 < len(set(self.layers)) == len(self.layers):
            raise ValueError(f"layers={self.layers!r}: expected one name or more, each once; None uses all layers.")

    def _fit(self, representation: Representation, y: ArrayLike | None) -> None:
        labels = check_class_indices(y, representation)
        chosen, counts = self._choose_images(labels, representation.n_classes)
        layers, widths, maxima = self._collect(representation, chosen)
        if not np.isfinite(maxima).all():
            raise ValueError(
                f"representation.activations of the layers {layers} hold NaN or infinity, or values too large for "
                "float32: expected finite numbers; leave out such images or layers."
            )
        self.layers_ = layers
        self.layer_widths_ = widths
        self.class_counts_ = counts
        self.maxima_ = _sorted_by_channel(maxima, counts)

    def _choose_images(self, labels: NDArray[np.int64], K: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows to keep, sorted by class, and their number in each class."""
        rng = check_random_state(self.random_state)
        # Row numbers sorted by class and cut where the next class begins.
        by_class = np.split(np.argsort(labels, kind="stable"), np.bincount(labels, minlength=K).cumsum()[:-1])
        kept = [
            rows if len(rows) <= self.samples_per_class else rng.choice(rows, self.samples_per_class, replace=False)
            for rows in by_class
        ]
        return np.concatenate(kept), np.array([len(rows) for rows in kept])

    def _collect(
        self, representation: Representation, chosen: NDArray[np.int64]
    ) -> tuple[list[str], NDArray[np.int64], NDArray[np.float32]]:
        """Return names and widths of the layers, and the maxima of the chosen images in their order."""
        # Activations exist only in batches, and only for one pass. `place` is the position of each row among the chosen
        # images, or -1.
        place = np.full(len(representation), -1)
        place[chosen] = np.arange(len(chosen))
        layers: list[str] = []
        start = 0
        for batch in representation.batches():
            # Names and widths of the layers are those of the first batch.
            if not layers:
                layers = self._layer_names(batch)
                widths = np.array([activation(batch, layer).shape[1:2].numel() for layer in layers])
                maxima = np.empty((len(chosen), widths.sum()), dtype=np.float32)
            rows = np.flatnonzero(place[start : start + len(batch)] >= 0)
            if len(rows):
                maxima[place[start + rows]] = _channel_maxima(batch, layers, widths, rows).numpy(force=True)
            start += len(batch)
        return layers, widths, maxima

    def _layer_names(self, batch: Representation) -> list[str]:
        if self.layers is not None:
            return list(self.layers)
        names = [name for name in batch.activations or () if name != "feature_map"]
        if not names:
            raise ValueError(
                f"layers=None with representation.activations of {list(batch.activations or ())}: expected one entry "
                "of activations per layer; fit through a detector, which supplies them, or pass activations={...} to "
                "Representation.from_numpy."
            )
        return names

    def _score_batches(self, representation: Representation) -> Iterator[Tensor]:
        flat = tensor_like(self.maxima_, representation.features)
        for batch in representation.batches():
            maxima = _channel_maxima(batch, self.layers_, self.layer_widths_).to(flat.device)  # (n, all channels)
            classes = self._predicted_classes(batch).to(flat.device)
            # One search per predicted class, over all its images and channels at once.
            ranks = torch.empty_like(maxima, dtype=torch.int32)
            for k in np.unique(classes.numpy(force=True)).tolist():
                images = (classes == k).nonzero().squeeze(1)
                ranks[images] = _ranks(self._class_maxima(flat, k), maxima[images])
            # Simes' rule within each layer, then the sum over the layers of Fisher's rule.
            m = torch.tensor(self.class_counts_, device=flat.device)[classes]
            log_q = [
                _log_simes(2 * layer_ranks.double() / (m + 1)[:, None])
                for layer_ranks in torch.split(ranks, self.layer_widths_.tolist(), dim=1)
            ]
            scores = torch.stack(log_q).sum(dim=0)
            # NaN among the maxima would get a rank like any number, so such images are marked here.
            yield nan_where_broken(torch.where(maxima.isnan().any(dim=1), torch.nan, scores), batch)

    def _predicted_classes(self, batch: Representation) -> Tensor:
        # A class without training images has no distribution to compare with.
        logits = as_double(batch.logits)
        empty = torch.tensor(self.class_counts_ == 0, device=logits.device)
        return logits.masked_fill(empty, -torch.inf).argmax(dim=1)

    def _class_maxima(self, flat: Tensor, k: int) -> Tensor:
        """Return the sorted maxima of the training images of class k, (all channels, m)."""
        # The classes before k have n_channels numbers for each of their images.
        n_channels = int(self.layer_widths_.sum())
        start = n_channels * int(self.class_counts_[:k].sum())
        m = int(self.class_counts_[k])
        return flat[start : start + n_channels * m].view(n_channels, m)


def _channel_maxima(
    batch: Representation, layers: list[str], widths: NDArray[np.int64], rows: NDArray[np.int64] | slice = slice(None)
) -> Tensor:
    """Return the channel maxima of these rows of a batch in float32, (m, all channels)."""
    reduced = []
    for layer, width in zip(layers, widths, strict=True):
        values = activation(batch, layer)
        if values.ndim < 2 or values.shape[1] != width or 0 in values.shape[1:]:
            raise ValueError(
                f"activations[{layer!r}] has shape {tuple(values.shape)}: expected (n, {width}), the maximum of each "
                f"channel, or (n, {width}, h, w), as in the first batch of fit."
            )
        # Rows are selected first, so that no maxima of other images are computed.
        values = values[rows]
        reduced.append(values.flatten(2).amax(dim=2) if values.ndim > 2 else values)
    return torch.cat([values.to(torch.float32) for values in reduced], dim=1)


def _sorted_by_channel(maxima: NDArray[np.float32], counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return `MaSF.maxima_` for rows of images, sorted by class; `maxima` is overwritten."""
    start = 0
    for m in counts:
        rows = maxima[start : start + m]
        # Transposed and sorted in place: a class keeps its number of values, and nothing else is copied.
        rows.reshape(-1)[:] = np.sort(np.ascontiguousarray(rows.T), axis=1).reshape(-1)
        start += m
    return maxima.reshape(-1)


def _ranks(reference: Tensor, maxima: Tensor) -> Tensor:
    """Return 1 + the number of reference values (channels, m) at or beyond each of the maxima (n, channels).

    Beyond means above or below, where there are fewer values.
    """
    # The reference is sorted, so a binary search counts the values on either side.
    values = maxima.T.contiguous()
    at_most = torch.searchsorted(reference, values, right=True, out_int32=True)
    at_least = reference.shape[1] - torch.searchsorted(reference, values, out_int32=True)
    return 1 + torch.minimum(at_most, at_least).T


def _log_simes(p_values: Tensor) -> Tensor:
    """Return the logarithm of Simes' p-value of each row; p-values above 1 count as 1."""
    C = p_values.shape[1]
    j = torch.arange(1, C + 1, device=p_values.device)
    return (p_values.sort(dim=1).values * C / j).amin(dim=1).clamp(max=1).log()
