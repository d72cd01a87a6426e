"""Temperature scaling of the logits for any scorer."""

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
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skdfb.scorers._base import as_double, check_class_indices
from skdfb.scorers._composite import Labelled, check_member, fitted_clone, member_scores
from skdfb.scorers._moments import labelled_batches
from skdfb.scorers._protocol import ScorerOutput, computes_on_device, scorer_output
from skdfb.scorers._representation import Representation

# The range of temperatures that is searched, as logarithms.
_BOUNDS = (math.log(1e-3), math.log(1e3))


class TemperatureScaled(BaseEstimator):
    r"""Any scorer on logits that are divided by a temperature, which calibrates their probabilities.

    .. math::

        T = \arg\min_T \; -\sum_i \log \mathrm{softmax}(z_i / T)_{y_i}, \qquad S(x) = S_{\text{scorer}}(z(x) / T)

    where z are the logits and y the classes of the held-out images i. The head is also divided by T, so scorers that
    compute logits themselves get the same scaled logits. Higher is more in-distribution.

    Parameters
    ----------
    scorer : ForegroundScorer
        The scorer that is applied to the scaled logits. It is cloned before it is fitted.

    Attributes
    ----------
    temperature_ : float
        The temperature T, between 0.001 and 1000; 1 if there is a single class.
    scorer_ : ForegroundScorer
        The fitted clone of `scorer`.
    output : str
        The `output` of `scorer`.

    See Also
    --------
    ODIN : A high, fixed temperature.
    ScorerEnsemble : Puts scorers on a common scale.

    Notes
    -----
    A network is more confident on its training images than on other images, so T should be found on held-out images:
    call ``fit(representation, y, held_out=(representation, y))``. A detector does so. Without held-out images, T is
    found on the images of `fit`. T does not change scorers that use only the order of the logits. The scaled logits
    are held in memory; the features are not copied.

    Scorers that need perturbed images or activations are refused. Those with perturbed images have a temperature of
    their own.

    References
    ----------
    Guo et al., *On Calibration of Modern Neural Networks*, ICML 2017, arXiv 1706.04599.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import MSP, Representation, TemperatureScaled
    >>> features = 20 * np.array([[1.0, 0.0], [0.0, 1.0], [0.2, 0.1], [0.1, 0.3]])
    >>> representation = Representation.from_numpy(features=features, weight=np.eye(2), bias=np.zeros(2))
    >>> scorer = TemperatureScaled(MSP()).fit(representation, [0, 1, 1, 1])  # the third is classified wrongly
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
        """The `output` of `scorer`."""
        return scorer_output(self.scorer)

    def check_sizes(self, n_features: int, n_classes: int, n_images: int) -> None:
        """Check that `scorer` can be fitted on data of these sizes; a detector does so before it trains.

        Parameters
        ----------
        n_features : int
            Number of features C.
        n_classes : int
            Number of columns K of the logits; 1 for a background representation.
        n_images : int
            Number of training images n.

        Raises
        ------
        TypeError
            If `scorer` does not follow the protocol of :class:`ForegroundScorer`.
        ValueError
            If `scorer` needs more than features and logits, or cannot be fitted on data of these sizes.
        """
        self._validate_params()
        check_member(self.scorer, "scorer", n_features, n_classes, n_images)

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, representation: Representation, y: ArrayLike | None = None, held_out: Labelled | None = None) -> Self:
        """Find the temperature and fit the scorer.

        Parameters
        ----------
        representation : Representation
            The n training images.
        y : array-like of shape (n,), default=None
            Classes of the images, integers 0..K-1. Needed to find T if `held_out` is None, and by scorers that need
            classes.
        held_out : tuple of (Representation, array-like), default=None
            Images that the network was not trained on, and their classes, to find T.

        Returns
        -------
        TemperatureScaled
            The fitted scorer itself.

        Raises
        ------
        TypeError
            If the classes are not integers.
        ValueError
            If `scorer` needs more than features and logits, or classes are missing or outside 0..K-1.
        """
        self.check_sizes(representation.n_features, representation.n_classes, len(representation))
        temperature = _best_temperature(*((representation, y) if held_out is None else held_out))
        # A scorer that also learns from held-out images gets them with the same scaling.
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
            The scores of `scorer` on the scaled logits; higher is more in-distribution.

        Raises
        ------
        NotFittedError
            If the scorer is not fitted.
        """
        check_is_fitted(self)
        return member_scores(self.scorer_, _scaled(representation, self.temperature_))

    @available_if(lambda self: computes_on_device(getattr(self, "scorer_", self.scorer)))
    def score_on_device(self, representation: Representation) -> Tensor:
        """Score images where they are; only with a `scorer` that can.

        Parameters
        ----------
        representation : Representation
            The n images.

        Returns
        -------
        Tensor of shape (n,)
            The same scores, on the device of `representation`.

        Raises
        ------
        NotFittedError
            If the scorer is not fitted.
        """
        check_is_fitted(self)
        scores: Tensor = self.scorer_.score_on_device(_scaled(representation, self.temperature_))
        return scores


def _scaled(representation: Representation, temperature: float) -> Representation:
    """Return a representation whose logits and head are divided by T."""
    return replace(
        representation,
        logits=representation.logits / temperature,
        weight=representation.weight / temperature,
        bias=representation.bias / temperature,
    )


def _best_temperature(representation: Representation, y: ArrayLike | None) -> float:
    """Return the T with the smallest negative log-likelihood."""
    labels = check_class_indices(y, representation)
    # The softmax of a single logit is 1 at any temperature.
    if representation.n_classes == 1:
        return 1.0

    def loss(log_temperature: float) -> float:
        total = 0.0
        for batch, batch_labels in labelled_batches(representation, labels):
            logits = as_double(batch.logits) / math.exp(log_temperature)  # (m, K)
            total += float(F.cross_entropy(logits, batch_labels.to(logits.device), reduction="sum"))
        return total / len(labels)

    # The loss is convex in 1 / T, so it has a single minimum, also as a function of log T. The tolerance is small, so
    # that the order of the images does not change T.
    return math.exp(minimize_scalar(loss, bounds=_BOUNDS, method="bounded", options={"xatol": 1e-10}).x)
