"""KL matching: divergence of the softmax from the nearest template."""

from collections.abc import Iterator

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from skdfb.scorers._base import BaseScorer, as_double, double_like, logit_batches, product
from skdfb.scorers._protocol import ScorerOutput
from skdfb.scorers._representation import Representation
from skdfb.scorers._softmax import Softmax, row_by_row


class KLMatching(BaseScorer):
    r"""Negative KL divergence of the softmax from the nearest template, the mean softmax of a predicted class.

    .. math::

        S(x) = -\min_k \sum_j p_j \log \frac{p_j}{d_{kj}}, \qquad p = \mathrm{softmax}(z), \qquad
        d_k = \frac{1}{|I_k|} \sum_{i \in I_k} p(x_i)

    where z are the K logits of image x, :math:`I_k` are the training images *predicted* as class k (their labels are
    not used) and 0 log 0 = 0. Higher is more in-distribution; the largest value is 0, if the softmax equals a template
    :math:`d_k`.

    Attributes
    ----------
    log_templates_ : ndarray of shape (n_templates, K)
        Logarithms of the templates, one row per class that is predicted for at least one training image.
    template_classes_ : ndarray of shape (n_templates,)
        The class k of each row, in ascending order.
    n_features_in_ : int
        Number of features C in `fit`.
    n_classes_ : int
        Number of classes K in `fit`, at least 2.
    output : str
        "probability".

    See Also
    --------
    Entropy : Needs no training images; up to log K, the KL divergence from the uniform distribution.
    MSP : The largest probability.

    Notes
    -----
    A class that is predicted for no training image has no template and is left out of the minimum. The paper builds the
    templates from held-out images, `fit` from the images it is given. A network is more confident on its training
    images, so these give sharper templates.

    The logarithms of the softmax and of the templates are computed in float64, accurately also for confident images.
    Probabilities of a template below 2e-308, the smallest normal number, are replaced by it. So the score is above -709
    where the divergence would be infinite. If several logits are the largest, the first is the prediction.

    References
    ----------
    Hendrycks et al., *Scaling Out-of-Distribution Detection for Real-World Settings*, ICML 2022, arXiv 1911.11132.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import KLMatching, Representation
    >>> head = {"weight": np.eye(2), "bias": np.zeros(2)}
    >>> features = np.array([[4.0, 0.0], [3.0, 0.0], [0.0, 4.0], [0.0, 3.0]])
    >>> scorer = KLMatching().fit(Representation.from_numpy(features=features, **head))
    >>> new = np.array([[5.0, 0.0], [1.0, 1.0]])
    >>> scorer.score_samples(Representation.from_numpy(features=new, **head)).round(3)
    array([-0.016, -1.034])
    """

    _min_classes = 2
    output: ScorerOutput = "probability"

    def _fit(self, representation: Representation, y: ArrayLike | None) -> None:
        sums, counts = _sums_by_prediction(representation)
        if not torch.isfinite(sums).all():
            raise ValueError(
                "representation.logits hold NaN or infinity: expected finite numbers; compute them in a wider "
                "floating-point type, or leave out such images."
            )
        classes = counts.nonzero()[:, 0]
        log_templates = _log_templates(sums[classes] / counts[classes, None], classes)
        self.log_templates_ = log_templates.numpy(force=True)
        self.template_classes_ = classes.numpy(force=True)

    def _score_batches(self, representation: Representation) -> Iterator[Tensor]:
        log_templates = double_like(self.log_templates_, representation.logits)
        for batch in logit_batches(representation):
            yield row_by_row(batch.logits, lambda softmax: _nearest_divergence(softmax, log_templates))


def _nearest_divergence(softmax: Softmax, log_templates: Tensor) -> Tensor:
    """Return -min_k KL(p || d_k) of each row."""
    p, log_p = softmax.p(), softmax.log_p()
    log_templates = log_templates.to(p.dtype)
    # All divergences of a row share sum p log p, so the nearest template has the largest sum p log d. The divergence
    # from it is then summed term by term: a difference of two large sums would lose small divergences to rounding.
    nearest = product(p, log_templates.T).argmax(dim=1)
    divergence = (p * (log_p - log_templates[nearest])).sum(dim=1)
    return -divergence.clamp(min=0)  # only rounding errors make it negative


def _sums_by_prediction(representation: Representation) -> tuple[Tensor, Tensor]:
    """Return, for the images predicted as each class, the sum of the softmaxes (K, K) and their number (K,)."""
    K = representation.n_classes
    sums = as_double(representation.bias).new_zeros(K, K)
    counts = sums.new_zeros(K)
    for batch in logit_batches(representation):
        predicted = as_double(batch.logits).argmax(dim=1)
        p = Softmax.of(as_double(batch.logits)).p()
        sums.index_add_(0, predicted, p)
        counts.index_add_(0, predicted, torch.ones_like(p[:, 0]))
    return sums, counts


def _log_templates(templates: Tensor, classes: Tensor) -> Tensor:
    """Return the logarithms of the templates d_k of these classes, shape (n_templates, K)."""
    own = classes[:, None]
    # The probability of class k itself may round to 1. The sum of the others is accurate, so it gives log d_kk.
    others = templates.scatter(1, own, 0.0).sum(dim=1, keepdim=True)
    log_own = -torch.log1p(others / templates.gather(1, own))
    return templates.clamp(min=torch.finfo(torch.float64).tiny).log().scatter(1, own, log_own)
