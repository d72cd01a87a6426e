"""The joint score: scorers on views, fused, with a threshold."""

import inspect
from collections.abc import Mapping, Sequence
from contextlib import suppress
from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from skdfb._constraints import Interval
from skdfb.calibration import ConformalCalibrator
from skdfb.fusion import Fusion, TailProbabilityFusion
from skdfb.scorers import ForegroundScorer, Representation, scorer_output
from skdfb.scorers._composite import check_nested_parameters, fitted_clone, member_scores
from skdfb.scorers._needs import ScorerNeeds
from skdfb.scoring._hold_out import HeldOut, check_number, learning_share, least_to_learn_from, number_to_hold_out
from skdfb.scoring._parts import BACKGROUND, Part, as_parts, check_parts, labelled, view_needs
from skdfb.utils import NestedByName, TailProbability, check_groups, own_torch_modes, shallow_copy

__all__ = ["JointScore", "Scores", "Views"]

Scores = npt.NDArray[np.float64]

# Representations of the same images by the name of the view.
Views = Mapping[str, Representation]


class JointScore(NestedByName):
    r"""Scorers on views of images, fused into one score, with a conformal threshold.

    A *view* is a :class:`~skdfb.scorers.Representation` of the images by name, a *part* is a scorer on a view. No
    network is involved: whoever has one computes the views. **Every score is higher for in-distribution images.**

    .. math:: S(x) = \mathrm{fusion}\bigl(S_1(x), \dots, S_m(x)\bigr), \qquad
        \text{rejected if } S(x) < \mathrm{offset}

    Parameters
    ----------
    parts : list of (str, str, ForegroundScorer) tuples
        Name, view and scorer of each part. A :class:`~skdfb.DFBDetector` supplies these views:

        - ``"classifier"``: features and K logits of the classifier;
        - ``"dense"``: those of the dense network, without the background logit;
        - ``"foreground"``: the same with features pooled over the probability of not being background;
        - ``"background"``: features of the dense network, pooled over the background probability, and the background
          logit as the only one;
        - ``"pretrained"``: features of the backbone as it was before the training, which takes a second forward pass;
        - a layer of the classifier, the dense network or the pre-trained network: the mean over all places of the
          output of a module of the backbone, like ``"dense.layer3"`` or ``"dense.blocks.4"``.

        The last two have the logits of a linear discriminant analysis of the training features.
    fusion : Fusion, default=None
        Joins the parts. None is :class:`~skdfb.fusion.TailProbabilityFusion`; a single part then stays as it is.
    alpha : float or None, default=0.05
        Largest probability of rejecting an in-distribution image, in (0, 1), over the held-out images and the new one.
        None sets no threshold: ``offset_`` is -inf and nothing is rejected.

    Attributes
    ----------
    parts_ : list of (str, str, ForegroundScorer) tuples
        The parts with fitted scorers.
    fusion_ : Fusion or None
        The fitted fusion; None for a single part that stays as it is.
    calibrator_ : ConformalCalibrator
        Holds the joint scores of the held-out images that set the threshold.
    offset_ : float
        The threshold on the joint score.
    part_tails_ : dict of str to TailProbability, or None
        How the scores of each part are distributed among held-out images; see :meth:`part_p_values`. No score
        depends on them. None in models that were saved by older versions.

    See Also
    --------
    skdfb.DFBDetector : Trains networks that supply the views.
    skdfb.detector.FeatureDetector : A joint score of a single view of given features.
    skdfb.scorers.ScorerEnsemble : Several scorers as one scorer.

    Notes
    -----
    Held-out images have two purposes that exclude each other: those that the fusion or a scorer learned from must not
    set the threshold. If one of them learns, the first half of the held-out images is learned from and the other half
    sets the threshold (the first part is smaller if the threshold needs more). So the held-out images must be in random
    order; see :func:`hold_out`. With groups, such as videos, groups in random order are divided, and each group that
    sets the threshold counts as one image; see :class:`~skdfb.calibration.ConformalCalibrator`.

    Scorers of the background view get the label 0 for every image, since that view has one class.

    Parameters of scorers can be set by the name of the part, as ``set_params(foreground__n_components=10)``.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import KNN, Energy, Representation
    >>> from skdfb.scoring import JointScore
    >>> rng = np.random.default_rng(0)
    >>> head = {"weight": np.eye(2, 4), "bias": np.zeros(2)}
    >>> known = [Representation.from_numpy(features=rng.normal(3, 1, (n, 4)), **head) for n in (200, 100)]
    >>> y = [rng.integers(0, 2, 200), rng.integers(0, 2, 100)]
    >>> joint_score = JointScore([("foreground", "dense", Energy()), ("near", "dense", KNN(n_neighbors=5))])
    >>> joint_score = joint_score.fit({"dense": known[0]}, y[0], held_out=({"dense": known[1]}, y[1]))
    >>> new = {"dense": Representation.from_numpy(features=np.array([[3.0] * 4, [-9.0] * 4]), **head)}
    >>> joint_score.score_samples(new) >= joint_score.offset_
    array([ True, False])
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "parts": "no_validation",  # checked by as_parts
        "fusion": "no_validation",  # a protocol
        "alpha": [Interval(Real, 0, 1, closed="neither"), None],
    }

    _named: ClassVar[str] = "_named_scorers"

    part_tails_: dict[str, TailProbability] | None

    def __init__(
        self,
        parts: Sequence[tuple[str, str, ForegroundScorer]],
        *,
        fusion: Fusion | None = None,
        alpha: float | None = 0.05,
    ) -> None:
        self.parts = parts
        self.fusion = fusion
        self.alpha = alpha

    # ----------------------------------------------------------- parameters

    @property
    def _named_scorers(self) -> list[tuple[str, Any]]:
        """The scorers as (name, scorer) pairs, for scikit-learn's nested parameters."""
        try:
            return [(name, scorer) for name, _, scorer in self.parts]
        except (TypeError, ValueError):  # fit refuses such parts; until then get_params must return them
            return []

    @_named_scorers.setter
    def _named_scorers(self, pairs: list[tuple[str, Any]]) -> None:
        self.parts = [(name, part[1], scorer) for (name, scorer), part in zip(pairs, self.parts, strict=True)]

    # --------------------------------------------------------- early checks

    def check_parameters(self) -> None:
        """Refuse all that parameters alone can tell is wrong.

        Raises
        ------
        TypeError, ValueError
            Naming the parameter or the part.
        """
        self._validate_params()
        parts = as_parts(self.parts)
        # A part named like a parameter, or with a double underscore, could not be reached by set_params.
        self._validate_names([part.name for part in parts])
        check_parts(parts)
        missing = [name for name in ("fit", "combine") if not callable(getattr(self.fusion, name, None))]
        if self.fusion is not None and (missing or isinstance(self.fusion, type)):
            raise TypeError(f"fusion={self.fusion!r}: expected an object with the methods fit and combine.")
        check_nested_parameters(self.fusion, "fusion")
        fusion = self._fusion()
        if hasattr(fusion, "check_names"):
            fusion.check_names([part.name for part in parts])

    def check(self, n_features: int | Mapping[str, int], n_classes: int, n_train: int, n_held_out: int) -> None:
        """Refuse all that can be refused before a network is trained.

        Parameters
        ----------
        n_features : int or mapping of str to int
            Number of features C of all views, or of each view by its name.
        n_classes : int
            Number of classes K. The background view has one.
        n_train : int
            Number of images that the scorers are fitted on.
        n_held_out : int
            Number of held-out images.

        Raises
        ------
        TypeError, ValueError
            If parameters, parts or fusion are wrong, if a scorer cannot be fitted on views of these sizes, or if the
            held-out images are too few for a finite threshold.
        """
        self.check_parameters()
        # Optional in the protocol: a third-party scorer may not know the sizes that it needs.
        for name, view, scorer in as_parts(self.parts):
            if hasattr(scorer, "check_sizes"):
                width = n_features[view] if isinstance(n_features, Mapping) else n_features
                try:
                    scorer.check_sizes(width, 1 if view == BACKGROUND else n_classes, n_train)
                except ValueError as error:
                    raise ValueError(f"part {name!r}, {scorer!r}: {error}") from None
        self.check_number(n_held_out, n_train + n_held_out)

    def check_number(self, n_held_out: int, n_all: int | None, *, groups: npt.ArrayLike | None = None) -> None:
        """Refuse held-out images that are too few for a finite threshold.

        Parameters
        ----------
        n_held_out : int
            Number of held-out images; with `groups`, of held-out groups.
        n_all : int or None
            Number of all images, or groups, for the message; None if the held-out ones were not taken from these.
        groups : array-like of shape (n,), default=None
            The group of each image, held out or not.

        Raises
        ------
        ValueError
            If there are fewer than :meth:`number_needed`; the message gives the remedies.
        """
        unit, n_needed = "images" if groups is None else "groups", self.number_needed(groups)
        if self.alpha is not None:
            codes = None if groups is None else np.asarray(groups)
            held_out = HeldOut(n_held_out, n_all, least_to_learn_from(codes), unit)
            check_number(held_out, n_needed, float(self.alpha), learns=self._learns())
        elif n_held_out < n_needed:
            raise ValueError(f"{n_held_out} {unit[:-1]}(s) are held out: expected at least {n_needed}.")

    def number_needed(self, groups: npt.ArrayLike | None = None) -> int:
        """Return the least number of held-out images, or groups, for a finite threshold.

        Parameters
        ----------
        groups : array-like of shape (n,), default=None
            The group of each image. With it, groups are counted: those that are learned from must hold at least ten
            images.

        Returns
        -------
        n : int
            Those that are learned from included.
        """
        n_needed, codes = self._n_for_threshold(), None if groups is None else np.asarray(groups)
        return number_to_hold_out(n_needed, least_to_learn_from(codes)) if self._learns() else n_needed

    @property
    def n_held_out_needed(self) -> int:
        """The least number of held-out images for a finite threshold, those that are learned from included."""
        return self.number_needed()

    def view_needs(self, *, training: bool = False) -> dict[str, ScorerNeeds]:
        """Return which views the scorers need, and what of the network beyond features and logits.

        Parameters
        ----------
        training : bool, default=False
            Whether for the images that scorers are fitted on: scorers that do not learn from images need nothing then.

        Returns
        -------
        needs : dict of str to ScorerNeeds
            By the name of the view; perturbed images and activations.
        """
        return view_needs(as_parts(self.parts), training=training)

    # ------------------------------------------------------------------ fit

    @own_torch_modes()
    def fit(
        self,
        views: Views,
        y: npt.ArrayLike | None = None,
        *,
        held_out: tuple[Views, Any] | tuple[Views, Any, Any],
    ) -> Self:
        """Fit the scorers and the fusion, and set the threshold.

        Parameters
        ----------
        views : mapping of str to Representation
            The training images by the name of the view.
        y : array-like of shape (n,), default=None
            Their classes, integers 0..K-1.
        held_out : tuple of (mapping of str to Representation, array-like) or of these and a second array-like
            Views and classes of images that trained nothing, in random order, and optionally the group of each image.
            The classes may be None if no scorer learns from held-out images.

        Returns
        -------
        JointScore
            The joint score itself.

        Raises
        ------
        TypeError, ValueError
            If parameters, parts or views are wrong, or the held-out images are too few; see :meth:`check`.
        """
        self.check_parameters()
        if not isinstance(held_out, tuple | list) or len(held_out) not in (2, 3):
            raise TypeError(
                f"held_out is a {type(held_out).__name__}: expected a tuple (views, y) or (views, y, groups)."
            )
        parts, (held_out_views, y_held_out, groups) = as_parts(self.parts), (*held_out, None)[:3]
        _check_views(views, parts, "views", y)
        _check_views(held_out_views, parts, "held_out", y_held_out)
        first, rest, groups = self._divided(len(views[parts[0].view]), len(held_out_views[parts[0].view]), groups)

        # 1. Scorers learn from the training images, and from the first held-out images if they ask for such.
        y_first = None if y_held_out is None else np.asarray(y_held_out)[first]
        learned = {name: view[first] for name, view in held_out_views.items()} if self._learns() else {}
        fitted = [
            Part(
                name,
                view,
                fitted_clone(scorer, labelled(views, view, y), labelled(learned, view, y_first) if learned else None),
            )
            for name, view, scorer in parts
        ]

        # 2. The fusion learns from the scores of the first held-out images.
        scores = scores_of(fitted, held_out_views)
        fusion = self._fitted_fusion(fitted, scores, first)
        group_fusions = self._fitted_group_fusions(fitted, scores, first)

        # 3. The other held-out images, which nothing learned from, set the threshold.
        joint = _combine(fusion, {name: part[rest] for name, part in scores.items()})
        calibrator = ConformalCalibrator(self.alpha).fit(_lowered_by_rounding(joint), groups)

        # 4. The parts of images that no scorer learned from tell how unusual the part of a new image is.
        unseen = rest if self._scorers_learn() else slice(None)
        tails = {name: TailProbability.fit(part[unseen]) for name, part in scores.items()}

        # All at once: after a failed fit, new scores must not stand beside the threshold of an earlier fit.
        self.parts_, self.fusion_, self._group_fusions_ = [tuple(part) for part in fitted], fusion, group_fusions
        self.calibrator_, self.offset_, self.part_tails_ = calibrator, calibrator.offset_, tails
        return self

    def _divided(self, n_train: int, n_held_out: int, groups: Any) -> tuple[Any, Any, Any]:
        """Return which held-out images are learned from, which set the threshold, and the groups of the latter."""
        if groups is None:
            self.check_number(n_held_out, n_train + n_held_out)
            share = learning_share(n_held_out, self._n_for_threshold()) if self._learns() else 0
            return slice(share), slice(share, None), None
        # Codes count the groups in the order in which they occur.
        codes = check_groups(groups, n_held_out, "groups of held_out")
        n_groups = int(codes.max()) + 1
        self.check_number(n_groups, None, groups=codes)
        least = least_to_learn_from(codes)
        share = learning_share(n_groups, self._n_for_threshold(), least) if self._learns() else 0
        first, rest = np.flatnonzero(codes < share), np.flatnonzero(codes >= share)
        return first, rest, codes[rest]

    def _fitted_fusion(self, parts: Sequence[Part], scores: Mapping[str, Scores], first: Any) -> Any:
        """Return a clone of the fusion, fitted on the ``first`` scores; on all if it learns nothing."""
        fusion = clone(self._fusion(), safe=False)
        if fusion is None:
            return None
        # A fusion that learns nothing takes all scores: none are the first if no scorer learns either.
        learned = {name: part[first] for name, part in scores.items()} if _learns(fusion) else dict(scores)
        outputs = {part.name: scorer_output(part.scorer) for part in parts if part.name in scores}
        takes_outputs = "outputs" in inspect.signature(fusion.fit).parameters
        # The result of fit is not used: a third-party fit need not return the fusion itself.
        fusion.fit(learned, **({"outputs": outputs} if takes_outputs else {}))
        return fusion

    def _fitted_group_fusions(self, parts: Sequence[Part], scores: Mapping[str, Scores], first: Any) -> dict[str, Any]:
        """Return fusions of the foreground parts alone and of the background parts alone, if there are several."""
        fusions = {}
        for group, names in _groups(parts).items():
            if len(names) > 1:
                # A third-party fusion may join only all parts. That must not stop a fit, since the joint score does
                # not need the groups; combine_group reports it.
                with suppress(Exception):
                    fusions[group] = self._fitted_fusion(parts, {name: scores[name] for name in names}, first)
        return fusions

    def _fusion(self) -> Any:
        """Return the fusion, or its default; None if the single part is the joint score."""
        if self.fusion is None:
            return TailProbabilityFusion() if len(self.parts) > 1 else None
        return self.fusion

    def _learns(self) -> bool:
        """Return whether the fusion or a scorer learns from held-out images."""
        return self._scorers_learn() or _learns(self._fusion())

    def _scorers_learn(self) -> bool:
        return any(getattr(part[2], "learns_from_held_out", False) for part in self.parts)

    def _n_for_threshold(self) -> int:
        return 1 if self.alpha is None else ConformalCalibrator(self.alpha).number_needed

    # --------------------------------------------------------------- scores

    @own_torch_modes()
    def score_parts(self, views: Views) -> dict[str, Scores]:
        """Return the scores of each part.

        Parameters
        ----------
        views : mapping of str to Representation
            The n images by the name of the view.

        Returns
        -------
        parts : dict of str to ndarray of shape (n,)
            By the name of the part; higher is more in-distribution.
        """
        check_is_fitted(self)
        parts = [Part(*part) for part in self.parts_]
        _check_views(views, parts, "views")
        return scores_of(parts, views)

    @own_torch_modes()
    def score_samples(self, views: Views) -> Scores:
        """Return the joint score of each image.

        Parameters
        ----------
        views : mapping of str to Representation
            The n images by the name of the view.

        Returns
        -------
        scores : ndarray of shape (n,)
            Higher is more in-distribution.
        """
        return self.combine(self.score_parts(views))

    def combine(self, parts: Mapping[str, Scores]) -> Scores:
        """Return the joint score from the scores of the parts.

        Parameters
        ----------
        parts : mapping of str to ndarray of shape (n,)
            As from :meth:`score_parts`. Images that could not be read have NaN in every part.

        Returns
        -------
        scores : ndarray of shape (n,)
            Higher is more in-distribution; NaN for images that could not be read.

        Raises
        ------
        ValueError
            If ``parts`` has other names than the parts of this joint score.
        """
        check_is_fitted(self)
        self._check_names(parts)
        return _combine(self.fusion_, parts)

    def _check_names(self, parts: Mapping[str, Scores]) -> None:
        expected = [part[0] for part in self.parts_]
        if set(parts) != set(expected):
            raise ValueError(f"parts has the names {list(parts)}: expected {expected}.")

    def combine_group(self, group: str, parts: Mapping[str, Scores]) -> Scores:
        """Return the score of the foreground parts alone, or of the background parts alone.

        Parameters
        ----------
        group : {"foreground", "background"}
            Background parts are those on the view ``"background"``, foreground parts are all others.
        parts : mapping of str to ndarray of shape (n,)
            As from :meth:`score_parts`.

        Returns
        -------
        scores : ndarray of shape (n,)
            The part itself; several parts are joined by the fusion, fitted on them alone.

        Raises
        ------
        ValueError
            If there is no such part, or if the fusion cannot join these parts alone.
        """
        check_is_fitted(self)
        names = _groups([Part(*part) for part in self.parts_])[group]
        if not names:
            raise ValueError(f"there is no {group} part: expected one of the parts {list(parts)} to be one.")
        fusion = self._group_fusions_.get(group)
        if fusion is None and len(names) > 1:
            raise ValueError(
                f"fusion={self.fusion_!r} cannot be fitted on the {group} parts {names} alone: use their scores from "
                "score_parts."
            )
        return _combine(fusion, {name: parts[name] for name in names})

    def p_values(self, scores: npt.ArrayLike) -> Scores:
        """Return conformal p-values of joint scores.

        Parameters
        ----------
        scores : array-like of shape (n,)
            Joint scores; NaN for images that could not be read.

        Returns
        -------
        p_values : ndarray of shape (n,)
            In (0, 1]; an in-distribution image gets a p-value of at most a with probability at most a. NaN where the
            score is NaN.
        """
        check_is_fitted(self)
        scores = np.asarray(scores, dtype=np.float64)
        # The calibrator refuses NaN: only an image that could not be read may have it.
        readable = ~np.isnan(scores)
        p_values = np.full(scores.shape, np.nan)
        if readable.any():
            p_values[readable] = self.calibrator_.p_values(scores[readable])
        return p_values

    def part_p_values(self, parts: Mapping[str, Scores], *, log: bool = False) -> dict[str, Scores]:
        """Return how unusual the scores of each part are: the share of in-distribution images that score no higher.

        Parameters
        ----------
        parts : mapping of str to ndarray of shape (n,)
            As from :meth:`score_parts`.
        log : bool, default=False
            Whether to return logarithms. They tell images apart whose p-values round to 0.

        Returns
        -------
        p_values : dict of str to ndarray of shape (n,)
            By the name of the part, in [0, 1], learned from the held-out images and continued beyond their scores; NaN
            for images that could not be read.

        Raises
        ------
        ValueError
            If ``parts`` has other names than the parts of this joint score, or if it was saved by an older version,
            which did not keep what is needed.
        """
        check_is_fitted(self)
        self._check_names(parts)
        tails = self._tails()
        found = {name: tails[name].log_p(np.asarray(parts[name], dtype=np.float64)) for name, *_ in self.parts_}
        return found if log else {name: np.exp(log_p) for name, log_p in found.items()}

    def _tails(self) -> dict[str, TailProbability]:
        """Return the tail probabilities of the parts; older saved models have those of the fusion, if any."""
        names = [name for name, *_ in self.parts_]
        kept = getattr(self, "part_tails_", None) or getattr(self.fusion_, "tails_", None)
        if kept is not None and set(kept) == set(names):
            return dict(kept)
        # A single part is the joint score, whose held-out scores are kept.
        if self.fusion_ is None:
            return {names[0]: TailProbability.fit(self.calibrator_.scores_)}
        raise ValueError(
            f"it is not known how the parts {names} are distributed, since this model was saved by an older version: "
            "fit again, or call refit_scorer(X=X, y=y) of the detector with the images and labels of fit."
        )

    def with_alpha(self, alpha: float | None) -> Self:
        """Return a copy with the threshold for another ``alpha``; every score stays as it is.

        Parameters
        ----------
        alpha : float or None
            In (0, 1); None sets no threshold.

        Returns
        -------
        joint_score : JointScore
            A copy that shares everything else with this one.

        Raises
        ------
        ValueError
            If the kept held-out scores are too few for ``alpha``.
        """
        check_is_fitted(self)
        other = shallow_copy(self, fitted_state=True)
        # The calibrator keeps the scores of the images that nothing learned from: no other scores may be used.
        other.alpha = alpha
        other._validate_params()
        groups = getattr(self.calibrator_, "groups_", None)  # older saved models have none
        other.calibrator_ = ConformalCalibrator(alpha).fit(self.calibrator_.scores_, groups)
        other.offset_ = other.calibrator_.offset_
        return other

    def with_foreground(self, scorer: ForegroundScorer) -> Self:
        """Return an unfitted copy in which another scorer scores every foreground part.

        Parameters
        ----------
        scorer : ForegroundScorer
            Takes the place of the scorers on all views but ``"background"``.

        Returns
        -------
        joint_score : JointScore
            A clone with the same names and views.
        """
        copy: Self = clone(self)
        copy.parts = [
            (name, view, old if view == BACKGROUND else clone(scorer, safe=False)) for name, view, old in copy.parts
        ]
        return copy

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "offset_")


def _learns(fusion: Any) -> bool:
    # True if absent: a fusion that learns without declaring it would break the guarantee of the threshold.
    return fusion is not None and bool(getattr(fusion, "learns_from_scores", True))


def _groups(parts: Sequence[Part]) -> dict[str, list[str]]:
    """Return the names of the foreground and of the background parts."""
    groups: dict[str, list[str]] = {"foreground": [], "background": []}
    for name, view, _ in parts:
        groups["background" if view == BACKGROUND else "foreground"].append(name)
    return groups


def _check_views(views: Views, parts: Sequence[Part], name: str, y: Any = None) -> None:
    """Refuse views that are missing or of different images, and labels of another number."""
    if not isinstance(views, Mapping):
        raise TypeError(f"{name} holds a {type(views).__name__}: expected a dict like {{'dense': representation}}.")
    missing = sorted({part.view for part in parts} - set(views))
    if missing:
        raise ValueError(f"{name} holds the views {list(views)}: expected {missing} as well, which parts are on.")
    sizes = {part.view: len(views[part.view]) for part in parts}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"{name} holds views of {sizes} images: expected views of the same images.")
    n_images = sizes[parts[0].view]
    if y is not None and np.shape(y) != (n_images,):
        labels = "y" if name == "views" else f"y of {name}"
        raise ValueError(f"{labels} has shape {np.shape(y)}: expected ({n_images},), one class per image of the views.")


def scores_of(parts: Sequence[Part], views: Views) -> dict[str, Scores]:
    """Return the checked scores of parts whose scorers are fitted."""
    return {name: member_scores(scorer, views[view], f"scorer of part {name!r}") for name, view, scorer in parts}


def _combine(fusion: Any, parts: Mapping[str, Scores]) -> Scores:
    """Return the fused scores; NaN for images all of whose parts are NaN, which no fusion has to know."""
    readable = ~np.all([np.isnan(part) for part in parts.values()], axis=0)
    scores = np.full(len(readable), np.nan)
    if readable.any():
        kept = {name: part[readable] for name, part in parts.items()}
        (scores[readable],) = kept.values() if fusion is None else (_checked_scores(fusion, kept),)
    return scores


def _checked_scores(fusion: Any, parts: Mapping[str, Scores]) -> Scores:
    """Return what a fusion, which may be a third-party object, makes of finite parts: one number per image."""
    scores = np.asarray(fusion.combine(parts), dtype=np.float64)
    n_images = len(next(iter(parts.values())))
    # A single number would become the score of every image without an error.
    if scores.shape != (n_images,):
        raise ValueError(
            f"fusion={fusion!r}: combine returned shape {scores.shape} for {n_images} images: expected (n,)."
        )
    n_bad = int(np.isnan(scores).sum())
    if n_bad:
        raise ValueError(f"fusion={fusion!r}: combine returned NaN for {n_bad} of {n_images} images: expected numbers.")
    return scores


def _lowered_by_rounding(held_out: Scores) -> Scores:
    """Return held-out scores, lowered by what rounding may change in a score.

    One of these scores becomes the threshold. If its image is scored again in a batch of another size, the score may
    be lower by a few bits, and the image must not be rejected for that. The conformal guarantee still holds.
    """
    # The quartiles, because an outlier does not change them. Scores near 0 need the spread, others their own size.
    spread = float(np.subtract(*np.quantile(held_out, [0.75, 0.25])))
    lowered: Scores = held_out - 1e-6 * np.maximum(np.abs(held_out), spread)
    return lowered
