"""Temperature scaling of the logits before any scorer."""

import math
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from sklearn.base import BaseEstimator, _fit_context
from sklearn.utils._param_validation import HasMethods
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted

from skdfb.scorers._base import as_double, check_class_indices
from skdfb.scorers._composite import Labelled, check_member, fitted_clone, member_scores
from skdfb.scorers._moments import labelled_batches
from skdfb.scorers._protocol import ScorerOutput, scorer_output
from skdfb.scorers._representation import Representation

# The temperatures looked at, as logarithms.
_BOUNDS = (math.log(1e-3), math.log(1e3))


class TemperatureScaled(BaseEstimator):
    r"""Any scorer on logits divided by a temperature that makes their probabilities honest.

    .. math::

        T = \arg\min_T \; -\sum_i \log \mathrm{softmax}(z_i / T)_{y_i}, \qquad S(x) = S_{\text{scorer}}(z(x) / T)

    where z are the K logits and y the classes of held-out images. The head is divided by T like the logits, so scorers
    that compute logits themselves see the same ones. Higher is more in-distribution.

    Parameters
    ----------
    scorer : ForegroundScorer
        Whose scores are wanted. It is cloned, and fitted on the representation with scaled logits.

    Attributes
    ----------
    temperature_ : float
        T, between 0.001 and 1000; 1 where there is one class.
    scorer_ : ForegroundScorer
        The fitted clone of `scorer`.
    output : str
        That of `scorer`.

    See Also
    --------
    ODIN : A high, fixed temperature.
    ScorerEnsemble : Puts scorers on one scale.

    Notes
    -----
    A network is surer of images it has trained on than of others, so T should come from held-out ones: pass
    ``fit(representation, y, held_out=(representation, y))``; a detector does so by itself. Without them T comes from
    the images of `fit`. Scorers that read the order of the logits alone are not changed by T. The scaled logits are
    held in memory; features stay where they are.

    Scorers that ask for perturbed images or for activations are refused: the first bring a temperature of their own.

    References
    ----------
    Guo et al., *On Calibration of Modern Neural Networks*, ICML 2017, arXiv 1706.04599.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import MSP, Representation, TemperatureScaled
    >>> features = 20 * np.array([[1.0, 0.0], [0.0, 1.0], [0.2, 0.1], [0.1, 0.3]])
    >>> representation = Representation.from_numpy(features=features, weight=np.eye(2), bias=np.zeros(2))
    >>> scorer = TemperatureScaled(MSP()).fit(representation, [0, 1, 1, 1])  # the third is not what it seems
    >>> bool(scorer.temperature_ > 1)
    True
    """

    __metadata_request__fit: ClassVar[dict[str, str]] = {"representation": UNUSED, "held_out": UNUSED}
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {"scorer": [HasMethods(["fit", "score_samples"])]}

    learns_from_held_out: ClassVar[bool] = True

    def __init__(self, scorer: Any) -> None:
        self.scorer = scorer

    @property
    def output(self) -> ScorerOutput:
        """The output of `scorer`."""
        return scorer_output(self.scorer)

    def check_sizes(self, n_features: int, n_classes: int, n_images: int) -> None:
        """Refuse a network that `scorer` cannot be fitted on; see :class:`ForegroundScorer`."""
        check_member(self.scorer, "scorer", n_features, n_classes, n_images)

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, representation: Representation, y: ArrayLike | None = None, held_out: Labelled | None = None) -> Self:
        """Find the temperature and fit the scorer.

        Parameters
        ----------
        representation : Representation
            The n training images.
        y : array-like of shape (n,), default=None
            Their classes, integers 0..K-1. Needed for T without `held_out`, and by scorers that learn classes.
        held_out : tuple of (Representation, array-like), default=None
            Images that the network did not train on, and their classes, for T.

        Returns
        -------
        TemperatureScaled
            The fitted scorer itself.

        Raises
        ------
        ValueError
            If `scorer` asks for more than features and logits, or classes are missing or no integers 0..K-1.
        """
        self.check_sizes(representation.n_features, representation.n_classes, len(representation))
        temperature = _honest_temperature(*((representation, y) if held_out is None else held_out))
        scaled_held_out = None if held_out is None else (_scaled(held_out[0], temperature), held_out[1])
        self.scorer_ = fitted_clone(self.scorer, (_scaled(representation, temperature), y), scaled_held_out)
        self.temperature_ = temperature
        return self

    def score_samples(self, representation: Representation) -> NDArray[np.float64]:
        """Score images.

        Parameters
        ----------
        representation : Representation
            The n images.

        Returns
        -------
        ndarray of shape (n,)
            The scores of `scorer` on scaled logits; higher is more in-distribution.
        """
        check_is_fitted(self)
        return member_scores(self.scorer_, _scaled(representation, self.temperature_))


def _scaled(representation: Representation, temperature: float) -> Representation:
    """Return a representation whose logits, and the head that gives them, are divided by T."""
    return replace(
        representation,
        logits=representation.logits / temperature,
        weight=representation.weight / temperature,
        bias=representation.bias / temperature,
    )


def _honest_temperature(representation: Representation, y: ArrayLike | None) -> float:
    """Return the T of the smallest negative log-likelihood, which is convex in 1 / T."""
    labels = check_class_indices(y, representation)
    if representation.n_classes == 1:
        return 1.0

    def loss(log_temperature: float) -> float:
        total = 0.0
        for batch, batch_labels in labelled_batches(representation, labels):
            logits = as_double(batch.logits) / math.exp(log_temperature)
            total += float(F.cross_entropy(logits, batch_labels.to(logits.device), reduction="sum"))
        return total / len(labels)

    return math.exp(minimize_scalar(loss, bounds=_BOUNDS, method="bounded", options={"xatol": 1e-10}).x)
