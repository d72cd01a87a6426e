"""The detector for those who have features already: a linear head, a scorer and a threshold."""

from numbers import Real
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, _fit_context
from sklearn.utils import assert_all_finite, check_consistent_length, column_or_1d
from sklearn.utils._param_validation import Interval
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from skdfb.calibration import ConformalCalibrator, stratified_holdout
from skdfb.detector._input import check_scorer_sizes
from skdfb.detector._linear_head import Features, LinearHead, checked_head, fitted_head
from skdfb.detector._parts import Part, PartScorers, Scores, learning_share, lowered_by_rounding, number_to_hold_out
from skdfb.detector._thresholded import ThresholdedDetector
from skdfb.detector._views import FOREGROUND
from skdfb.scorers import ForegroundScorer, Mahalanobis, Representation, ViM, check_scorer
from skdfb.scorers._composite import fitted_clone, member_scores
from skdfb.scorers._protocol import needs_images, perturbation_of
from skdfb.utils import shallow_copy, spawn_seeds

__all__ = ["FeatureDetector"]

_DTYPES = (np.float64, np.float32)


class _Split(NamedTuple):
    train: npt.NDArray[np.intp]
    learning: npt.NDArray[np.intp]  # held out, and learned from by scorers that ask for such images
    threshold: npt.NDArray[np.intp]  # held out from everything but the threshold


class FeatureDetector(ThresholdedDetector, BaseEstimator):
    r"""Out-of-distribution (OOD) detector on features (n, C) instead of images.

    ``fit`` takes or fits a linear head on the features, fits a scorer on features, logits and head, and sets the
    threshold by split conformal prediction on held-out rows. There is no network, and no background. **Every score is
    higher for in-distribution rows.** It is for features from any source, and for choosing a scorer and its parameters
    in seconds, before a :class:`DFBDetector` is trained with them.

    Parameters
    ----------
    scorer : ForegroundScorer, default=None
        None is :class:`~skdfb.scorers.ViM`, or :class:`~skdfb.scorers.Mahalanobis` where there is one class. Scorers
        that ask for perturbed images or for activations need a network, and are refused.
    head : classifier or tuple, default=None
        Where the logits come from.

        - None fits ``LogisticRegression(max_iter=1000)`` on centred features, divided by one number so that their mean
          variance is 1, and folds both into weight and bias. (Divided by a number each, features that hardly vary would
          rule the logits of rows where they do.)
        - A linear classifier of scikit-learn's kind, with ``coef_`` and ``intercept_``, is cloned and fitted on the
          features as they are. Two classes with the one row w of a binary classifier get the rows -w/2 and w/2, whose
          softmax is the sigmoid of w.
        - ``(weight, bias)``, arrays or tensors (K, C) and (K,), is the head of a network, with its rows in the order of
          ``np.unique(y)``. Nothing is fitted.
        - ``(weight, bias, labels)`` is the same with the label of each row, in any order. Rows whose label is not in
          ``y`` are dropped; so it goes into a cross-validation that leaves classes out.
    alpha : float, default=0.05
        Largest probability of rejecting an in-distribution row, over the rows of ``fit`` and the new one.
    calibration_fraction : float, default=0.1
        Share of the rows that is held out to set the threshold, in (0, 0.5].
    random_state : int, RandomState or None, default=None
        Fixes which rows are held out. Head and scorer have their own.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
        Class labels; ``[0]`` where there were none.
    weight_ : ndarray of shape (K, C)
        Weight of the head: float64, or float32 where ``head`` is.
    bias_ : ndarray of shape (K,)
        Bias of the head.
    scorer_ : ForegroundScorer
        As fitted.
    calibrator_ : ConformalCalibrator
        Holds the scores of the held-out rows.
    offset_ : float
        The threshold: ``decision_function = score_samples - offset_``.
    n_features_in_ : int
        Number of features C.
    feature_names_in_ : ndarray of shape (C,)
        Names of the features, where ``X`` is a data frame with names of strings.

    Raises
    ------
    ValueError, TypeError
        From ``fit``, before anything is fitted, if features, labels, parameters, scorer or head are not as wanted.

    See Also
    --------
    DFBDetector : Trains a network on images; its ``transform`` gives features.
    skdfb.evaluation.LeaveClassesOut : Chooses parameters without OOD data.

    Notes
    -----
    With one class, or without labels (``y=None``), there is nothing to classify: the only logit is the constant 1
    (weight 0, bias 1), unless ``head`` is given as arrays. Scorers that compare classes then refuse to be fitted or
    give the same score to every row, those that look at features work. (ViM is 1 less the residual from the origin, in
    units of the mean residual of the training rows.)

    The head's features must be ``X`` itself: what the last layer of the network takes.

    Features of a network tell the classes it was trained on apart, and images it was trained on from new ones. If it
    was trained on the rows of ``X``, the held-out rows are not like new images, and the promise of ``alpha`` does not
    hold for images; if it was trained on classes that a cross-validation leaves out, the left-out classes are easier to
    find than unknown ones, so that candidates may be compared, but not taken by their figures.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdfb.detector import FeatureDetector
    >>> X, y = load_digits(return_X_y=True)
    >>> X, known = X / 16, y < 8
    >>> detector = FeatureDetector(random_state=0).fit(X[known], y[known])
    >>> bool(detector.predict(X[known]).mean() > detector.predict(X[~known]).mean())  # +1 in-distribution, -1 OOD
    True
    >>> detector.classify(X[:4])
    array([0, 1, 2, 3])

    The head of a network, with the label of each row:

    >>> head = detector.weight_, detector.bias_, detector.classes_
    >>> FeatureDetector(head=head, random_state=0).fit(X[y < 5], y[y < 5]).classes_
    array([0, 1, 2, 3, 4])
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "scorer": "no_validation",  # a protocol: checked by check_scorer
        "head": "no_validation",
        "alpha": [Interval(Real, 0, 1, closed="neither")],
        "calibration_fraction": [Interval(Real, 0, 0.5, closed="right")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        scorer: ForegroundScorer | None = None,
        *,
        head: Any = None,
        alpha: float = 0.05,
        calibration_fraction: float = 0.1,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.scorer = scorer
        self.head = head
        self.alpha = alpha
        self.calibration_fraction = calibration_fraction
        self.random_state = random_state

    # ------------------------------------------------------------------ fit

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit head and scorer and set the threshold.

        Parameters
        ----------
        X : array-like of shape (n, C)
            Features of n in-distribution images, finite.
        y : array-like of shape (n,), default=None
            Class labels of any kind, with at least two rows a class; None is a single class.

        Returns
        -------
        self : FeatureDetector
            Either fully fitted, or, after an error, as it was before.
        """
        fitted = shallow_copy(self, fitted_state=False)
        fitted._fit(X, y)
        self.__dict__ = fitted.__dict__  # all at once
        return self

    def _fit(self, X: Any, y: Any) -> None:
        if self.scorer is not None:
            _check_scorer(self.scorer)
        X = validate_data(self, X, dtype=_DTYPES, ensure_min_samples=2)
        self.classes_, indices = _class_indices(X, y)
        scorer = _default_scorer(len(self.classes_)) if self.scorer is None else self.scorer
        labels, n_features = self.classes_[indices], X.shape[1]
        head = checked_head(self.head, self.classes_, n_features)
        check_scorer_sizes(PartScorers({"scorer": Part(FOREGROUND, scorer)}), n_features, len(self.classes_), len(X))
        split = self._hold_out(labels, scorer)
        calibrator, n_learning = ConformalCalibrator(self.alpha), len(split.learning)
        calibrator.check_number(
            len(split.threshold) + n_learning,
            n_learned_from=n_learning,
            n_wanted=number_to_hold_out(calibrator.number_needed) if n_learning else None,
        )

        if not isinstance(head, LinearHead):
            head = fitted_head(head, X[split.train], labels[split.train])
        self.weight_, self.bias_ = head
        train, learning = ((self._representation(X[rows]), indices[rows]) for rows in (split.train, split.learning))
        self.scorer_ = fitted_clone(scorer, train, learning if len(split.learning) else None)
        # Neither head nor scorer have seen these.
        held_out = lowered_by_rounding(self._scores(X[split.threshold]))
        self.calibrator_ = ConformalCalibrator(self.alpha).fit(held_out, warn=False)
        self.offset_ = self.calibrator_.offset_

    def _hold_out(self, labels: npt.NDArray[Any], scorer: Any) -> _Split:
        choice, order = spawn_seeds(self.random_state, 2)
        train, held_out = stratified_holdout(labels, self.calibration_fraction, random_state=choice)
        # In random order: those that a scorer learns from must be like the others.
        held_out = np.random.RandomState(order).permutation(held_out)
        learns, n_needed = getattr(scorer, "learns_from_held_out", False), ConformalCalibrator(self.alpha).number_needed
        share = learning_share(len(held_out), n_needed) if learns else 0
        return _Split(train, held_out[:share], held_out[share:])

    # --------------------------------------------------------------- scores

    def score_samples(self, X: Any) -> Scores:
        """Return the score of each row.

        Parameters
        ----------
        X : array-like of shape (n, C)
            Features.

        Returns
        -------
        scores : ndarray of shape (n,)
            Higher is more in-distribution.
        """
        return self._scores(self._checked(X))

    # -------------------------------------------------------------- classes

    def predict_proba(self, X: Any) -> Scores:
        """Return the softmax of the logits.

        Parameters
        ----------
        X : array-like of shape (n, C)
            Features.

        Returns
        -------
        probabilities : ndarray of shape (n, K)
            In the order of ``classes_``; they say nothing of whether a row is in-distribution.
        """
        probabilities: Scores = self._representation(self._checked(X)).logits.softmax(1).numpy()
        return probabilities

    def classify(self, X: Any) -> npt.NDArray[Any]:
        """Return the most probable label of each row, whether it is in-distribution or not.

        Parameters
        ----------
        X : array-like of shape (n, C)
            Features.

        Returns
        -------
        labels : ndarray of shape (n,)
        """
        labels: npt.NDArray[Any] = self.classes_[self.predict_proba(X).argmax(1)]
        return labels

    # -------------------------------------------------------------- private

    def _checked(self, X: Any) -> Features:
        check_is_fitted(self)
        features: Features = validate_data(self, X, reset=False, dtype=_DTYPES)
        return features

    def _representation(self, X: Features) -> Representation:
        return Representation.from_numpy(features=X, weight=self.weight_, bias=self.bias_)

    def _scores(self, X: Features) -> Scores:
        return member_scores(self.scorer_, self._representation(X), "scorer")


def _default_scorer(n_classes: int) -> ForegroundScorer:
    return Mahalanobis() if n_classes == 1 else ViM()


def _check_scorer(scorer: Any) -> None:
    """Refuse what is no scorer, what needs a network, and parameters that its own ``fit`` would refuse."""
    check_scorer(scorer)
    if needs_images(scorer):
        asked, remedy = "activations", "choose a scorer that needs features and logits alone"
        if perturbation_of(scorer):
            asked, remedy = "perturbed images", "set its input_perturbation to 0"
        raise ValueError(
            f"scorer={scorer!r} asks for {asked}, which features do not give: {remedy}, or use DFBDetector on images."
        )
    if hasattr(scorer, "_parameter_constraints"):
        scorer._validate_params()


def _class_indices(X: Features, y: Any) -> tuple[npt.NDArray[Any], npt.NDArray[np.intp]]:
    """Return the labels and the class index of each row; without labels there is one class."""
    if y is None:
        return np.zeros(1, dtype=np.intp), np.zeros(len(X), dtype=np.intp)
    y = column_or_1d(y, warn=True)
    check_consistent_length(X, y)
    assert_all_finite(y, input_name="y")
    check_classification_targets(y)
    classes, indices = np.unique(y, return_inverse=True)
    return classes, indices
