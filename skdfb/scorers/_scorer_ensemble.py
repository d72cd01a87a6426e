"""Several scorers, of one network or of several, joined as tail probabilities."""

from collections.abc import Sequence
from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import _fit_context
from sklearn.utils import check_random_state
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted

from skdfb._constraints import RANDOM_STATE, Interval
from skdfb.scorers._composite import Labelled, check_member, fitted_clone, member_scores, named_scorers
from skdfb.scorers._protocol import check_scorer
from skdfb.scorers._representation import Representation
from skdfb.utils import NestedByName, TailProbability, joined_tails


class ScorerEnsemble(NestedByName):
    r"""Several scorers, each brought to in-distribution tail probabilities, joined by Fisher's rule.

    .. math:: S(x) = \sum_j \log p_j(S_j(x)), \qquad p_j(s) = P(S_j(X) \le s), \quad X \text{ in-distribution}

    where S_j is the score of member j. Each p_j is learned from held-out images and goes on smoothly beyond
    their scores, so no scale needs tuning and images far from all known ones keep their order. Higher is more
    in-distribution; all scores are negative.

    Parameters
    ----------
    scorers : list of ForegroundScorer, or of (str, ForegroundScorer) tuples
        The members. Their names are those of ``set_params(name__parameter=...)``. The default names are those of the
        classes, like ``"max_logit"``, numbered if a class occurs more than once.
    calibration_fraction : float, default=0.2
        Share of the training images that `fit` holds out at random if it gets no held-out images, in (0, 0.5].
    random_state : int, RandomState instance or None, default=None
        Seed of that choice; pass an int for the same one each time.

    Attributes
    ----------
    scorers_ : list of ForegroundScorer
        The fitted clones of the members.
    tails_ : list of TailProbability
        The tail probability p_j of each member.
    output : str
        "logit".

    See Also
    --------
    TemperatureScaled : Calibrates logits, not scores.

    Notes
    -----
    `fit` and `score_samples` take one representation for all members, or a list with one per member: from other
    networks, or of images that are perturbed for one member. A detector passes one representation, and so refuses
    members that need perturbed images or activations.

    Fisher's rule assumes independent members. Members that are not independent count more than once, so the sum is
    not a calibrated p-value. Only its order matters; a detector sets its threshold on the sum.

    If the network was trained on the images that `fit` holds out, their scores are a little too high. Pass
    ``held_out=(representation, y)`` if there are other images, as a detector does. Both shares are copied: pass
    `held_out` with a memory-mapped representation.

    References
    ----------
    Fisher, *Statistical Methods for Research Workers*, 4th edition, Oliver and Boyd, 1932, section 21.1.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import Energy, MSP, Representation, ScorerEnsemble
    >>> rng = np.random.default_rng(0)
    >>> head = {"weight": np.eye(2), "bias": np.zeros(2)}
    >>> known = Representation.from_numpy(features=rng.permuted(rng.normal([5, 0], 1, (200, 2)), axis=1), **head)
    >>> scorer = ScorerEnsemble([Energy(), MSP()], random_state=0).fit(known)
    >>> new = Representation.from_numpy(features=np.array([[6.0, 0.0], [1.0, 1.0], [0.5, 0.5]]), **head)
    >>> [int(place) for place in scorer.score_samples(new).argsort()[::-1]]  # from the most in-distribution one
    [0, 1, 2]
    >>> list(scorer.get_params(deep=True))
    ['calibration_fraction', 'random_state', 'scorers', 'energy', 'msp', 'energy__temperature']
    """

    __metadata_request__fit: ClassVar[dict[str, str]] = {"representation": UNUSED, "held_out": UNUSED}
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "scorers": [list, tuple],
        "calibration_fraction": [Interval(Real, 0, 0.5, closed="right")],
        "random_state": RANDOM_STATE,
    }

    learns_from_held_out: ClassVar[bool] = True
    _named: ClassVar[str] = "named_scorers"

    def __init__(
        self,
        scorers: Sequence[Any],
        *,
        calibration_fraction: float = 0.2,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.scorers = scorers
        self.calibration_fraction = calibration_fraction
        self.random_state = random_state

    @property
    def named_scorers(self) -> list[tuple[str, Any]]:
        """The members as (name, scorer) pairs."""
        return named_scorers(self.scorers)

    @named_scorers.setter
    def named_scorers(self, pairs: list[tuple[str, Any]]) -> None:
        self.scorers = pairs

    def check_sizes(self, n_features: int, n_classes: int, n_images: int) -> None:
        """Refuse members that cannot be fitted on one network of these sizes.

        Parameters
        ----------
        n_features : int
            Number of features C.
        n_classes : int
            Number of columns K of the logits.
        n_images : int
            Number of training images.

        Raises
        ------
        ValueError
            If a member cannot be fitted, or needs more than features and logits.
        """
        self._validate_params()
        self._check_members()
        for name, scorer in self.named_scorers:
            check_member(scorer, name, n_features, n_classes, n_images)

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(
        self,
        representation: Representation | Sequence[Representation],
        y: ArrayLike | None = None,
        held_out: Labelled | None = None,
    ) -> Self:
        """Fit the members, and their tail probabilities on held-out images.

        Parameters
        ----------
        representation : Representation, or sequence of them, one per member
            The n training images.
        y : array-like of shape (n,), default=None
            Their classes, integers 0..K-1.
        held_out : tuple of (Representation or sequence of them, array-like), default=None
            Images that the networks did not train on, and their classes.

        Returns
        -------
        ScorerEnsemble
            The fitted scorer itself.

        Raises
        ------
        ValueError
            If there are no members, representations do not fit them, or there are too few images to hold some out.
        """
        self._check_members()
        parts = self._one_each(representation, "representation")
        if held_out is None:
            (parts, y), held_out = self._hold_out(parts, y)
        held_out_parts = self._one_each(held_out[0], "held_out")
        scorers, tails = [], []
        for (name, scorer), part, held_out_part in zip(self.named_scorers, parts, held_out_parts, strict=True):
            scorers.append(fitted_clone(scorer, (part, y), (held_out_part, held_out[1])))
            tails.append(TailProbability.fit(member_scores(scorers[-1], held_out_part, name)))
        self.scorers_, self.tails_ = scorers, tails
        return self

    def score_samples(self, representation: Representation | Sequence[Representation]) -> NDArray[np.float64]:
        """Score images.

        Parameters
        ----------
        representation : Representation, or sequence of them, one per member
            The n images.

        Returns
        -------
        ndarray of shape (n,)
            Sums of the logarithms of tail probabilities, at most 0; higher is more in-distribution.
        """
        check_is_fitted(self)
        parts = self._one_each(representation, "representation")
        names = [name for name, _ in self.named_scorers]
        scores = [member_scores(*member) for member in zip(self.scorers_, parts, names, strict=True)]
        return joined_tails(self.tails_, scores, "fisher")

    def _check_members(self) -> None:
        names = [name for name, _ in self.named_scorers]
        if not names:
            raise ValueError("scorers is empty: expected a list of scorers, like [MSP(), KNN()].")
        self._validate_names(names)
        for name, scorer in self.named_scorers:
            check_scorer(scorer, f"scorers[{name!r}]")

    def _one_each(self, given: Any, argument: str) -> list[Any]:
        """Return one representation per member, all of the same images."""
        n_members = len(self.scorers)
        if isinstance(given, Representation):
            return [given] * n_members
        parts = list(given) if isinstance(given, (list, tuple)) else []
        if len(parts) != n_members or not all(isinstance(part, Representation) for part in parts):
            raise TypeError(
                f"{argument} is {type(given).__name__} of {len(parts)}: expected one Representation for all members, "
                f"or a list of {n_members}, one per member."
            )
        if len({len(part) for part in parts}) > 1:
            raise ValueError(f"{argument} holds {[len(part) for part in parts]} images: expected the same ones.")
        return parts

    def _hold_out(self, parts: list[Any], y: ArrayLike | None) -> tuple[Labelled, Labelled]:
        n_images = len(parts[0])
        n_held_out = round(self.calibration_fraction * n_images)
        if not 0 < n_held_out < n_images:
            raise ValueError(
                f"representation holds {n_images} image(s), of which calibration_fraction={self.calibration_fraction} "
                f"would hold out {n_held_out}: give more images, or pass held_out=."
            )
        order = check_random_state(self.random_state).permutation(n_images)
        held_out, kept = np.sort(order[:n_held_out]), np.sort(order[n_held_out:])
        labels = None if y is None else np.asarray(y)

        def subset(rows: NDArray[np.intp]) -> Labelled:
            return [part[rows] for part in parts], None if labels is None else labels[rows]

        return subset(kept), subset(held_out)
