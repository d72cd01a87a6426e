"""The detector on features instead of images: a linear head, a scorer and a threshold."""

import os
from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, _fit_context
from sklearn.utils import check_consistent_length
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from skdfb._constraints import RANDOM_STATE, Interval
from skdfb.detector._calibration import check_calibration, known_labels
from skdfb.detector._linear_head import Features, LinearHead, checked_head, fitted_head
from skdfb.detector._thresholded import Scores, ThresholdedDetector, warn_of_unknown_class
from skdfb.images import encode_labels, label_array
from skdfb.scorers import ForegroundScorer, Mahalanobis, Representation, ViM, check_scorer
from skdfb.scorers._composite import check_nested_parameters
from skdfb.scorers._needs import needs_of
from skdfb.scoring import JointScore
from skdfb.scoring._parts import CLASSIFIER
from skdfb.utils import own_torch_modes, shallow_copy, spawn_seeds

__all__ = ["FeatureDetector"]

_DTYPES = (np.float64, np.float32)


class FeatureDetector(ThresholdedDetector, BaseEstimator):
    r"""Out-of-distribution (OOD) detector on features (n, C) instead of images.

    ``fit`` takes or fits a linear head on the features, fits a scorer on features, logits and head, and sets the
    threshold by split conformal prediction on held-out rows. There is no network and no background. **Every score is
    higher for in-distribution rows.** Use it for features from any source, or to choose a scorer and its parameters in
    seconds before a :class:`DFBDetector` is trained with them.

    Parameters
    ----------
    scorer : ForegroundScorer, default=None
        None is :class:`~skdfb.scorers.ViM`, or :class:`~skdfb.scorers.Mahalanobis` if there is one class. Scorers that
        need perturbed images or activations need a network, and are refused.
    head : classifier or tuple, default=None
        Gives the logits.

        - None fits ``LogisticRegression(max_iter=1000)`` on centred features, divided by one number so that their mean
          variance is 1, and folds both into weight and bias. (If each feature had its own number, features that hardly
          vary would dominate the logits of rows in which they do.)
        - A linear classifier of scikit-learn's kind, with ``coef_`` and ``intercept_``, is cloned and fitted on the
          features as they are. Two classes with the one row w of a binary classifier get the rows -w/2 and w/2, whose
          softmax is the sigmoid of w.
        - ``(weight, bias)``, arrays or tensors (K, C) and (K,), is the head of a network, with its rows in the order of
          ``np.unique(y)``. Nothing is fitted.
        - ``(weight, bias, labels)`` is the same with the label of each row, in any order. Rows whose label is not in
          ``y`` are dropped, so that it works in a cross-validation that leaves classes out.
    alpha : float or None, default=0.05
        Largest probability of rejecting an in-distribution row, over the rows of ``fit`` and the new one. None sets no
        threshold: ``offset_`` is -inf and nothing is rejected. A change by ``set_params`` acts at the next ``fit``;
        :meth:`with_alpha` sets another threshold at once.
    calibration_fraction : float or "auto", default="auto"
        Share of the rows that is held out to set the threshold, in (0, 0.5]. "auto" is a tenth, or as many more as
        ``alpha`` needs, up to half.
    random_state : int, RandomState or None, default=None
        Fixes which rows are held out. Head and scorer have their own.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
        Class labels; ``[0]`` if there were none.
    weight_ : ndarray of shape (K, C)
        Weight of the head: float64, or float32 if ``head`` is.
    bias_ : ndarray of shape (K,)
        Bias of the head.
    joint_score_ : JointScore
        The fitted scorer and the threshold.
    calibration_fraction_ : float
        The share of the rows that was held out.
    n_features_in_ : int
        Number of features C.
    feature_names_in_ : ndarray of shape (C,)
        Names of the features, if ``X`` is a data frame whose names are strings.

    Raises
    ------
    ValueError, TypeError
        From ``fit``, before anything is fitted, if features, labels, parameters, scorer or head are wrong.

    See Also
    --------
    DFBDetector : Trains a network on images; its ``transform`` gives features.
    skdfb.evaluation.LeaveClassesOut : Chooses parameters without OOD data.

    Notes
    -----
    With one class, or without labels (``y=None``), there is nothing to classify: the only logit is the constant 1
    (weight 0, bias 1), unless ``head`` is given as arrays. Scorers that compare classes then refuse to be fitted or
    give the same score to every row; scorers of features work. (ViM is 1 less the residual from the origin, in units
    of the mean residual of the training rows.)

    The head must take ``X`` itself: the input of the last layer of the network.

    A network separates the classes that it was trained on, and images that it was trained on from new ones. If it was
    trained on the rows of ``X``, the held-out rows are not like new images, and the guarantee of ``alpha`` does not
    hold for images. If it was trained on classes that a cross-validation leaves out, these classes are easier to find
    than unknown ones: candidates may be compared, but their figures are too good.

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
        "alpha": [Interval(Real, 0, 1, closed="neither"), None],
        "calibration_fraction": [Interval(Real, 0, 0.5, closed="right"), StrOptions({"auto"})],
        "random_state": RANDOM_STATE,
    }

    def __init__(
        self,
        scorer: ForegroundScorer | None = None,
        *,
        head: Any = None,
        alpha: float | None = 0.05,
        calibration_fraction: float | str = "auto",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.scorer = scorer
        self.head = head
        self.alpha = alpha
        self.calibration_fraction = calibration_fraction
        self.random_state = random_state

    # ------------------------------------------------------------------ fit

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        groups: Any = None,
        X_calibration: Any = None,
        y_calibration: Any = None,
        groups_calibration: Any = None,
    ) -> Self:
        """Fit head and scorer and set the threshold.

        Parameters
        ----------
        X : array-like of shape (n, C)
            Features of n in-distribution images, finite.
        y : array-like of shape (n,), default=None
            Class labels of any kind, with at least two rows per class; None is a single class.
        groups : array-like of shape (n,), default=None
            The group of each row, such as the video of a frame; see :meth:`DFBDetector.fit`.
        X_calibration : array-like of shape (n_calibration, C), default=None
            Rows of the known classes that set the threshold instead of held-out ones.
        y_calibration : array-like of shape (n_calibration,), default=None
            Their labels, for scorers that learn from held-out rows.
        groups_calibration : array-like of shape (n_calibration,), default=None
            The group of each of them.

        Returns
        -------
        self : FeatureDetector
            Either fully fitted, or, after an error, as it was before.
        """
        fitted = shallow_copy(self, fitted_state=False)
        fitted._fit(X, y, groups, X_calibration, y_calibration, groups_calibration)
        self.__dict__ = fitted.__dict__  # all at once
        return self

    @own_torch_modes()
    def _fit(self, X: Any, y: Any, groups: Any, X_calibration: Any, *calibration_set: Any) -> None:
        # 1. Check all that can be checked before anything is fitted.
        if self.scorer is not None:
            _check_scorer(self.scorer)
            check_nested_parameters(self.scorer, "scorer")
        _refuse_path(X)
        X = validate_data(self, X, dtype=_DTYPES, ensure_min_samples=2)
        # Labels and class indices: the head may be a classifier of the caller, which takes labels of any kind.
        self.classes_, indices = _class_indices(X, y)
        warn_of_unknown_class(self.classes_)
        labels, n_features = self.classes_[indices], X.shape[1]
        head = checked_head(self.head, self.classes_, n_features)
        scorer = _default_scorer(len(self.classes_)) if self.scorer is None else self.scorer
        joint_score = JointScore([("foreground", CLASSIFIER, scorer)], alpha=self.alpha)
        own = None if X_calibration is None else self._own_rows(X_calibration)
        calibration = check_calibration(len(X), y, groups, None if own is None else len(own), *calibration_set)
        # Rows of the caller's own come after those of X.
        every = X if own is None else np.concatenate([X, own])
        indices = np.concatenate([indices, calibration.class_indices(self.classes_)])

        # 2. Hold out rows for the threshold: which ones and in which order is drawn from two seeds.
        split = calibration.split(labels, self.calibration_fraction, joint_score, *spawn_seeds(self.random_state, 2))
        self.calibration_fraction_ = split.fraction
        joint_score.check(n_features, len(self.classes_), len(split.train), len(split.held_out))

        # 3. Fit the head, the scorer and the threshold.
        # Held-out rows must not influence the head either.
        if not isinstance(head, LinearHead):
            # scikit-learn takes neither enumerations nor integers of more than 64 bits.
            is_known = labels.dtype.kind != "O" or isinstance(labels[0], str)
            head = fitted_head(head, X[split.train], (labels if is_known else indices)[split.train])
        self.weight_, self.bias_ = head
        train, held_out = ({CLASSIFIER: self._represent(every[rows])} for rows in split)
        y_held_out, groups = known_labels(indices[split.held_out]), calibration.groups_of(split)
        more = () if groups is None else (groups,)
        self.joint_score_ = joint_score.fit(train, indices[split.train], held_out=(held_out, y_held_out, *more))

    # --------------------------------------------------------------- scores

    @own_torch_modes()
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
        X = self._checked(X)
        return self.joint_score_.score_samples({CLASSIFIER: self._represent(X)})

    def score_and_classify(self, X: Any) -> tuple[Scores, npt.NDArray[Any]]:
        """Return what ``score_samples`` and ``classify`` return.

        Parameters
        ----------
        X : array-like of shape (n, C)
            Features.

        Returns
        -------
        scores : ndarray of shape (n,)
            Higher is more in-distribution.
        labels : ndarray of shape (n,)
            Most probable label of each row.
        """
        return self.score_samples(X), self.classify(X)

    # -------------------------------------------------------------- classes

    @own_torch_modes()
    def predict_proba(self, X: Any) -> Scores:
        """Return the softmax of the logits.

        Parameters
        ----------
        X : array-like of shape (n, C)
            Features.

        Returns
        -------
        probabilities : ndarray of shape (n, K)
            In the order of ``classes_``. They do not tell whether a row is in-distribution.
        """
        probabilities: Scores = self._represent(self._checked(X)).logits.softmax(1).numpy()
        return probabilities

    def classify(self, X: Any) -> npt.NDArray[Any]:
        """Return the most probable label of each row, also of OOD rows.

        Parameters
        ----------
        X : array-like of shape (n, C)
            Features.

        Returns
        -------
        labels : ndarray of shape (n,)
            Labels of ``classes_``.
        """
        labels: npt.NDArray[Any] = self.classes_[self.predict_proba(X).argmax(1)]
        return labels

    def score(self, X: Any, y: Any) -> float:
        """Return the accuracy of :meth:`classify`.

        Parameters
        ----------
        X : array-like of shape (n, C)
            Features of in-distribution images.
        y : array-like of shape (n,)
            Their labels.

        Returns
        -------
        accuracy : float
            In [0, 1].
        """
        check_is_fitted(self)
        return self._accuracy(X, y)

    # -------------------------------------------------------------- private

    def _own_rows(self, X: Any) -> Features:
        try:
            features: Features = validate_data(self, X, reset=False, dtype=_DTYPES)
        except (TypeError, ValueError) as error:
            error.args = (f"X_calibration: {error}",)
            raise
        return features

    def _checked(self, X: Any) -> Features:
        check_is_fitted(self)
        _refuse_path(X)
        features: Features = validate_data(self, X, reset=False, dtype=_DTYPES)
        return features

    def _represent(self, X: Features) -> Representation:
        return Representation.from_numpy(features=X, weight=self.weight_, bias=self.bias_)


def _refuse_path(X: Any) -> None:
    if isinstance(X, str | os.PathLike):
        raise TypeError(
            f"X is the path {str(X)!r}: expected features of shape (n, n_features), as an array; for a folder of "
            "images use DFBDetector or FrozenDetector."
        )


def _default_scorer(n_classes: int) -> ForegroundScorer:
    return Mahalanobis() if n_classes == 1 else ViM()


def _check_scorer(scorer: Any) -> None:
    """Refuse objects that are no scorers, and scorers that need a network."""
    check_scorer(scorer)
    if needs := needs_of(scorer):
        # Perturbation is a number that can be set to 0; activations cannot be switched off.
        remedy = "choose a scorer that needs features and logits alone"
        if needs.perturbation:
            remedy = "set its input_perturbation to 0"
        raise ValueError(
            f"scorer={scorer!r} needs {needs}, which features do not have: {remedy}, or use DFBDetector on images."
        )


def _class_indices(X: Features, y: Any) -> tuple[npt.NDArray[Any], npt.NDArray[np.intp]]:
    """Return the class labels and the class index of each row; without labels there is one class."""
    if y is None:
        return np.zeros(1, dtype=np.intp), np.zeros(len(X), dtype=np.intp)
    labels = label_array(y)
    check_consistent_length(X, labels)
    return encode_labels(labels)
