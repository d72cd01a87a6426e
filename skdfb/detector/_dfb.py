"""The detector: how it learns. What it says of images once it has is in ``_network_detector.py``."""

import os
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skdfb.calibration import ConformalCalibrator, stratified_holdout
from skdfb.detector._checkpoints import detector_checkpoints, kept_masks, kept_seeds
from skdfb.detector._collect import collect
from skdfb.detector._forward import ForwardPass
from skdfb.detector._input import check_components, check_scorer_sizes
from skdfb.detector._masks import make_masks
from skdfb.detector._network_detector import NetworkDetector
from skdfb.detector._parts import (
    FOREGROUND_NETWORKS,
    LabelledViews,
    PartScorers,
    fit_fusion,
    is_sequence,
    learning_share,
    lowered_by_rounding,
    make_parts,
    number_to_hold_out,
)
from skdfb.detector._pseudo_labels import check_unlabelled, pseudo_labels
from skdfb.detector._recipes import PAPER_IMAGE_SIZE, RECIPES
from skdfb.fusion import Fusion
from skdfb.images import Images, check_images, check_labels, check_readable, labels_given
from skdfb.networks import DenseClassifier, create_backbone
from skdfb.scorers import ForegroundScorer
from skdfb.scorers._protocol import needs_images
from skdfb.training import Trainer
from skdfb.training._checkpoints import Checkpoints
from skdfb.training._stages import build_classifier, take_over
from skdfb.utils import deterministic_algorithms, isolated_rng, resolve_device, shallow_copy, spawn_seeds

__all__ = ["DFBDetector"]


# One scorer, or several as parts of their own, with or without names.
BackgroundScorers = ForegroundScorer | Sequence[ForegroundScorer | tuple[str, ForegroundScorer]]


class _Seeds(NamedTuple):
    build: int
    split: int
    classifier: int
    masks: int
    dense: int
    order: int


class _Split(NamedTuple):
    """Which images of ``fit`` trained and which were held out, and the class index of each."""

    train: npt.NDArray[np.intp]
    held_out: npt.NDArray[np.intp]
    labels: npt.NDArray[np.intp]


class _Seen(NamedTuple):
    """What the networks said of the images of ``fit``."""

    train: LabelledViews
    held_out: LabelledViews
    pooling: str


def _stage_of(checkpoints: Checkpoints | None, name: str) -> dict[str, Any]:
    """Return the trainer's argument for a stage; none without checkpoints, which anybody's trainer may not know."""
    return {} if checkpoints is None else {"checkpoints": checkpoints.stage(name)}


class DFBDetector(NetworkDetector):
    r"""Out-of-distribution (OOD) image detector by disentangled foreground and background features.

    ``fit`` trains a classifier of K classes, makes pseudo masks from its class activation maps, trains a dense network
    of K + 1 classes, the last of which is the background, and takes it, with the same weights, as a classifier again.
    An image's score joins any foreground score with the background's:

    .. math:: S(x) = \log P\Bigl(\textstyle\sum_j g(p_j(S_j(X))) \le \sum_j g(p_j(S_j(x)))\Bigr)

    in short: parts :math:`S_j`, foreground and background, as in-distribution tail probabilities :math:`p_j`, joined;
    see :class:`~skdfb.fusion.TailProbabilityFusion`, and for the paper's sum :class:`~skdfb.fusion.TemperatureFusion`.
    **Every score is higher for in-distribution images.** The threshold is set by split conformal prediction on held-out
    training images: a new in-distribution image is rejected with probability at most ``alpha``.

    Parameters
    ----------
    backbone : str, torch.nn.Module or DenseClassifier, default="resnetv2_50x1_bit.goog_in21k"
        A timm model name, a timm model, or a module that maps images (n, 3, H, W) to feature maps (n, C, h, w). A
        :class:`~skdfb.networks.DenseClassifier` counts as a trained classifier, with its outputs in the order of
        ``np.unique(y)``: its training is left out. Modules are copied, never changed.
    pretrained : bool, default=True
        Whether a named backbone starts from the weights of timm's hub.
    checkpoint_path : path, default=None
        Local file of weights for a named backbone, instead of the hub's.
    recipe : {"default", "paper"}, default="default"
        What parameters stand for that are None: what measured best, or what the paper has. See Notes.
    scorer : ForegroundScorer, default=None
        What scores the foreground; None is :class:`~skdfb.scorers.ViM`.
    background_scorer : ForegroundScorer, or list of them or of (str, ForegroundScorer) tuples, default=None
        What scores the background representation: features pooled over the background probability of the places, and
        S_b as the only logit. Each of several is a part of its own. None is
        ``[BackgroundLogit(), Mahalanobis(shrinkage="auto")]``; in the paper's recipe
        :class:`~skdfb.scorers.BackgroundLogit`.
    fusion : Fusion, default=None
        What joins the parts; None is :class:`~skdfb.fusion.TailProbabilityFusion`, in the paper's recipe
        :class:`~skdfb.fusion.TemperatureFusion`.
    foreground_network : {"dense", "plain", "both"}, default="dense"
        The network that the foreground is scored on: the dense one (the paper's), the classifier of the first stage,
        or each of them as a part of its own. "plain" and "both" take a second forward pass an image.
    foreground_pooling : {"image", "foreground"}, default="image"
        Where the dense network's features for the foreground scorer are averaged: over all places (the paper's), or
        over the probability of not being background.
    mask_generator : transformer, default=None
        What makes the masks; None is :class:`~skdfb.masks.CAMMaskGenerator`. The trained classifier is handed to its
        ``backbone`` parameter. Another object needs ``fit_transform(X, y)``, which returns integer masks (n, H, W) as
        :class:`~skdfb.masks.CAMMaskGenerator` does; its ``y`` are class indices, its ``X`` has ``len(X)`` and
        ``X.read(indices)``, which gives pixels (b, 3, H, W), or a list of (3, H, W) where sizes differ.
    classifier_trainer, dense_trainer : Trainer, default=None
        How the two networks are trained; None is ``Trainer()``, whose number of steps follows the size of the data. In
        the paper's recipe None is ``Trainer.paper_classifier()`` and ``Trainer.paper_dense()``.
    image_size : int, default=None
        Side of the network's input in pixels; None takes the backbone's own, in the paper's recipe 128. Images of any
        size are resized to it.
    image_shape : tuple of int, default=None
        (H, W, C) of the images in the rows of a 2-d ``X``. Without it a row is shown to the network as one line of
        pixels, scaled by the smallest and largest value of the training data.
    alpha : float, default=0.05
        Largest probability of rejecting an in-distribution image, over the images of ``fit`` and the new one.
    calibration_fraction : float, default=0.1
        Share of the training images that is held out to set the threshold, in (0, 0.5].
    checkpoint_dir : path, default=None
        Folder to keep the state of ``fit`` in, of one fit alone. The same call of ``fit`` after a crash goes on from
        there, to the same weights. Scorers, fusion and ``alpha`` may be others then; data, and parameters that the
        networks depend on, may not. Pass an int as ``random_state`` to be sure of that.
    checkpoint_every : int, default=500
        Steps between two checkpoints of a training; the newest two are kept.
    batch_size : int, default=128
        Images a forward pass, outside training. Where so many do not fit into the device's memory, half as many are
        taken, and a :class:`~skdfb.exceptions.BatchSizeWarning` says so.
    device : str, default="auto"
        "auto" is the GPU where there is one.
    n_jobs : int, default=None
        Threads that read images; None is 1.
    on_error : {"raise", "nan"}, default="raise"
        What becomes of a file, a PIL image or an item of a dataset that cannot be read, after ``fit``, which always
        raises. "raise" raises :class:`~skdfb.exceptions.UnreadableImageError`. "nan" gives the image NaN for a score,
        a p-value, probabilities and features, so that ``predict`` says -1, and tells of all such images in one
        :class:`~skdfb.exceptions.UnreadableImageWarning`.
    deterministic : bool, default=False
        Whether a GPU, too, gives the same bits each time, which is slower there; a CPU does anyway, with the same
        number of threads. Backbones of operations that torch has no such algorithm for raise its ``RuntimeError``.
    random_state : int, RandomState or None, default=None
        Fixes the split, the augmentation and the order of the images.
    verbose : int, default=0
        1 shows progress bars of the training.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
        Class labels.
    classifier_ : DenseClassifier
        The network of K classes.
    network_ : DenseClassifier
        The dense network of K + 1 classes.
    scorer_ : ForegroundScorer
        As fitted; on the dense network, where the foreground is scored on both.
    background_scorer_ : ForegroundScorer or list of them
        As fitted.
    part_scorers_ : dict of str to ForegroundScorer
        All fitted scorers by the name of their part, as in :meth:`score_parts`.
    fusion_ : Fusion
        As fitted.
    calibrator_ : ConformalCalibrator
        Holds the scores of the held-out images.
    offset_ : float
        The threshold: ``decision_function = score_samples - offset_``.
    training_history_ : dict
        ``"classifier"`` and ``"dense"``: loss and learning rate of every step.
    n_features_in_ : int
        Number of features of a 2-d ``X``.
    batch_size_ : int
        Images a forward pass, as found to fit.
    pixel_format_ : tuple of (str, int) or None
        Where ``fit`` was given arrays: ``"integer"`` in 0..255 or ``"float"`` in 0..1, and the number of channels.
        Arrays of another kind are refused.

    Raises
    ------
    ValueError, TypeError
        From ``fit``, before any training, if images, labels, parameters or weights are not as wanted, or
        ``checkpoint_dir`` holds the state of another fit.
    skdfb.exceptions.CheckpointError
        From ``fit``, before any training, if ``checkpoint_dir`` cannot be written to. A disk that is full later on is
        told by a :class:`~skdfb.exceptions.CheckpointWarning`, and the training goes on.

    See Also
    --------
    skdfb.masks.CAMMaskGenerator : The masks alone.
    skdfb.scorers : Scorers for anyone with features and a linear head.

    Notes
    -----
    Without labels (``y=None``, and no torch dataset that brings them) the images that are not held out are clustered by
    k-means on the features of the untrained backbone, and the clusters serve as classes: ``min(10, n // 20)`` of them
    for n images, at least 2.

    The default recipe differs from the paper in three places: a classification loss beside the pixel loss (see
    :class:`~skdfb.Trainer`), a Mahalanobis score of the background's features beside S_b, and tail probabilities in the
    place of the sum of Eq. 7. Half of the held-out images fit the tail probabilities, the other half sets the
    threshold. ``recipe="paper"`` is the paper as it is written: 20,000 steps a stage at 128 pixels, Eq. 6, and Eq. 7
    with T = 2.5. Parameters that are given count in both.

    References
    ----------
    Ding and Pang, "Improving Out-of-Distribution Detection with Disentangled Foreground and Background Features",
    ACM MM 2024, :arxiv:`2303.08727`.

    Examples
    --------
    >>> from skdfb import DFBDetector
    >>> from skdfb.datasets import load_digits_on_photos
    >>> from skdfb.networks import create_backbone
    >>> from skdfb.scorers import Energy
    >>> from skdfb.training import Trainer
    >>> data = load_digits_on_photos(n_train=400, n_test=20, n_ood=20, random_state=0)
    >>> backbone = create_backbone("test_resnet", pretrained=False, output_stride=8)
    >>> trainer = Trainer(max_steps=3, batch_size=32)  # far too few, for the example's sake
    >>> detector = DFBDetector(
    ...     backbone,
    ...     scorer=Energy(),
    ...     classifier_trainer=trainer,
    ...     dense_trainer=trainer,
    ...     image_size=32,
    ...     random_state=0,
    ... ).fit(data.images, data.target)
    >>> detector.predict(data.images_test).shape  # +1 in-distribution, -1 OOD
    (20,)
    >>> detector.score_samples(data.ood_images["unseen_photo"]).shape
    (20,)
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "backbone": [str, nn.Module],
        "pretrained": ["boolean"],
        "checkpoint_path": [str, os.PathLike, None],
        "recipe": [StrOptions(set(RECIPES))],
        "scorer": "no_validation",  # a protocol: checked by check_scorer
        "background_scorer": "no_validation",
        "fusion": "no_validation",
        "foreground_network": [StrOptions(set(FOREGROUND_NETWORKS))],
        "foreground_pooling": [StrOptions({"image", "foreground"})],
        "mask_generator": "no_validation",
        "classifier_trainer": [Trainer, None],
        "dense_trainer": [Trainer, None],
        "image_size": [Interval(Integral, 1, None, closed="left"), None],
        "image_shape": ["array-like", None],
        "alpha": [Interval(Real, 0, 1, closed="neither")],
        "calibration_fraction": [Interval(Real, 0, 0.5, closed="right")],
        "checkpoint_dir": [str, os.PathLike, None],
        "checkpoint_every": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "device": [str, torch.device],
        "n_jobs": [Interval(Integral, None, -1, closed="right"), Interval(Integral, 1, None, closed="left"), None],
        "on_error": [StrOptions({"raise", "nan"})],
        "deterministic": ["boolean"],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        backbone: str | nn.Module = "resnetv2_50x1_bit.goog_in21k",
        *,
        pretrained: bool = True,
        checkpoint_path: str | os.PathLike[str] | None = None,
        recipe: str = "default",
        scorer: ForegroundScorer | None = None,
        background_scorer: BackgroundScorers | None = None,
        fusion: Fusion | None = None,
        foreground_network: str = "dense",
        foreground_pooling: str = "image",
        mask_generator: Any = None,
        classifier_trainer: Trainer | None = None,
        dense_trainer: Trainer | None = None,
        image_size: int | None = None,
        image_shape: tuple[int, ...] | None = None,
        alpha: float = 0.05,
        calibration_fraction: float = 0.1,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        checkpoint_every: int = 500,
        batch_size: int = 128,
        device: str | torch.device = "auto",
        n_jobs: int | None = None,
        on_error: str = "raise",
        deterministic: bool = False,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.backbone = backbone
        self.pretrained = pretrained
        self.checkpoint_path = checkpoint_path
        self.recipe = recipe
        self.scorer = scorer
        self.background_scorer = background_scorer
        self.fusion = fusion
        self.foreground_network = foreground_network
        self.foreground_pooling = foreground_pooling
        self.mask_generator = mask_generator
        self.classifier_trainer = classifier_trainer
        self.dense_trainer = dense_trainer
        self.image_size = image_size
        self.image_shape = image_shape
        self.alpha = alpha
        self.calibration_fraction = calibration_fraction
        self.checkpoint_dir = checkpoint_dir
        self.checkpoint_every = checkpoint_every
        self.batch_size = batch_size
        self.device = device
        self.n_jobs = n_jobs
        self.on_error = on_error
        self.deterministic = deterministic
        self.random_state = random_state
        self.verbose = verbose

    # ------------------------------------------------------------------ fit

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Train the networks, fit the scorers and set the threshold.

        Parameters
        ----------
        X : images
            n images: an array (n, H, W, 3), (n, H, W, 1) or (n, H, W), uint8 in 0..255 or float in 0..1; a sequence of
            paths or PIL images; a torch dataset; or a 2-d array, see ``image_shape``.
        y : array-like of shape (n,), default=None
            Class labels of any kind; without them, see Notes.

        Returns
        -------
        self : DFBDetector
            Either fully fitted, or, after an error or an interrupt, as it was before.
        """
        fitted = shallow_copy(self, fitted_state=False)
        # Gradients, also where the caller has switched them off.
        with torch.inference_mode(False), deterministic_algorithms(self.deterministic):
            fitted._fit(X, y)
        self.__dict__ = fitted.__dict__  # all at once
        return self

    def _fit(self, X: Any, y: Any) -> None:
        device = resolve_device(self.device)
        check_components(self)
        images = check_images(self, X, reset=True)
        check_readable(images, self.batch_size, self.n_jobs)
        checkpoints = detector_checkpoints(self, images, labels_given(X, y))
        seeds = _Seeds(*kept_seeds(checkpoints, lambda: spawn_seeds(self.random_state, len(_Seeds._fields))))
        self._split_ = self._hold_out(images, X, y, seeds, device)
        self._warn_if_too_few()
        train_images, train_labels = images.subset(self._split_.train), self._split_.labels[self._split_.train]

        self.training_history_: dict[str, dict[str, list[float]]] = {}
        self.classifier_ = self._fit_classifier(train_images, train_labels, seeds, device, checkpoints)
        masks = kept_masks(
            checkpoints,
            len(train_images),
            lambda: make_masks(
                self._unfitted_mask_generator(),
                self.classifier_,
                train_images,
                train_labels,
                random_state=seeds.masks,
                n_jobs=self.n_jobs,
            ),
        )
        self.network_ = self._fit_dense(train_images, train_labels, masks, seeds.dense, device, checkpoints)
        del masks

        self._fit_scores(images)

    def _hold_out(self, images: Images, X: Any, y: Any, seeds: _Seeds, device: torch.device) -> _Split:
        """Set ``classes_``, and choose which images to hold out; without labels, clusters are the classes."""
        y = labels_given(X, y)
        unlabelled = y is None and not isinstance(self.backbone, DenseClassifier)
        if unlabelled:
            check_unlabelled(len(images))
            stratified_by: npt.NDArray[Any] = np.zeros(len(images), dtype=np.intp)
        else:
            self.classes_, labels = check_labels(y, images, X)
            stratified_by = self.classes_[labels]
        train, held_out = stratified_holdout(stratified_by, self.calibration_fraction, random_state=seeds.split)
        if unlabelled:  # by the training images alone: those that set the threshold are to have no say in anything
            untrained = self._build(2, images, seeds.build).to(device)
            with self._batches() as batch_size:
                forward = ForwardPass(untrained, 2, batch_size, self.n_jobs)
                labels = pseudo_labels(forward, images, train, seeds.build)
            self.classes_ = np.unique(labels)
        # In random order: a fusion may learn from the first of them, and those left must be like any others.
        return _Split(train, np.random.RandomState(seeds.order).permutation(held_out), labels)

    def _build(self, n_classes: int, images: Images, seed: int) -> DenseClassifier:
        backbone = self.backbone
        image_size = PAPER_IMAGE_SIZE if self.image_size is None and self.recipe == "paper" else self.image_size
        if isinstance(backbone, str):
            with isolated_rng(seed, torch.device("cpu")):
                backbone = create_backbone(
                    backbone, pretrained=self.pretrained, checkpoint_path=self.checkpoint_path, image_size=image_size
                )
        elif self.checkpoint_path is not None:
            raise ValueError("backbone is a module, so checkpoint_path would have no effect; build the module with it.")
        return build_classifier(backbone, n_classes, images, image_size=image_size, seed=seed)

    def _fit_classifier(
        self,
        images: Images,
        labels: npt.NDArray[np.intp],
        seeds: _Seeds,
        device: torch.device,
        checkpoints: Checkpoints | None,
    ) -> DenseClassifier:
        trained = isinstance(self.backbone, DenseClassifier)
        network = take_over(self, self.classes_) if trained else self._build(len(self.classes_), images, seeds.build)
        scorers = self._part_scorers()
        check_scorer_sizes(scorers, network.num_features, len(self.classes_), len(images))
        if trained:
            return network.to(device).eval()
        self.training_history_["classifier"] = self._component("classifier_trainer").train(
            network,
            images,
            labels,
            device=device,
            random_state=seeds.classifier,
            n_jobs=self.n_jobs,
            verbose=self.verbose,
            **_stage_of(checkpoints, "classifier"),
        )
        return network

    def _fit_dense(
        self,
        images: Images,
        labels: npt.NDArray[np.intp],
        masks: npt.NDArray[np.integer],
        seed: int,
        device: torch.device,
        checkpoints: Checkpoints | None,
    ) -> DenseClassifier:
        network = self.classifier_.with_background()
        self.training_history_["dense"] = self._component("dense_trainer").train(
            network,
            images,
            labels,
            masks,
            device=device,
            random_state=seed,
            n_jobs=self.n_jobs,
            verbose=self.verbose,
            **_stage_of(checkpoints, "dense"),
        )
        if checkpoints is not None:
            checkpoints.remove("masks")
        return network

    def _fit_scores(self, images: Images) -> None:
        """Fit scorers, fusion and threshold on what the networks say of the images."""
        scorers = self._part_scorers()
        with self._batches() as batch_size:
            views = self._views(batch_size)
            train, held_out = (
                LabelledViews(collect(views, images.subset(rows), scorers.views, scorer), self._split_.labels[rows])
                for rows, scorer in (
                    (self._split_.train, scorers.learning_foreground),
                    (self._split_.held_out, scorers.foreground),
                )
            )
        seen = _Seen(train, held_out, self.foreground_pooling)
        self._fit_scores_on(seen)
        self._kept_ = None if needs_images(scorers.foreground) else seen

    def _fit_scores_on(self, seen: _Seen) -> None:
        fusion, share = self._component("fusion"), self._learning_share()
        scorers = self._part_scorers().fitted_clone(seen.train, seen.held_out.first(share) if share else None)
        parts = scorers.score(seen.held_out.views)
        self.fusion_, joint = fit_fusion(fusion, parts, scorers.outputs, share)
        self._group_fusions_ = {
            group: fit_fusion(fusion, {name: parts[name] for name in names}, scorers.outputs, share)[0]
            for group, names in scorers.groups.items()
            if len(names) > 1
        }
        self._parts_, self.part_scorers_ = scorers, {name: part.scorer for name, part in scorers.parts.items()}
        self.scorer_ = scorers.foreground
        several = is_sequence(self._component("background_scorer"))
        self.background_scorer_ = scorers.background if several else scorers.background[0]
        # Neither scorers nor fusion have seen these.
        self.calibrator_ = ConformalCalibrator(self.alpha).fit(lowered_by_rounding(joint), warn=False)
        self.offset_ = self.calibrator_.offset_

    def _component(self, name: str) -> Any:
        """Return a parameter, or what the recipe has in its place where it is None."""
        given = getattr(self, name)
        return RECIPES[self.recipe][name]() if given is None else given

    def _unfitted_mask_generator(self) -> Any:
        generator = self._component("mask_generator")
        return generator.set_params(batch_size=self.batch_size) if self.mask_generator is None else generator

    def _warn_if_too_few(self) -> None:
        """Warn of too few held-out images before time is spent on anything."""
        share, calibrator = self._learning_share(), ConformalCalibrator(self.alpha)
        wanted = number_to_hold_out(calibrator.number_needed) if share else None
        calibrator.check_number(len(self._split_.held_out), n_learned_from=share, n_wanted=wanted)

    def _learning_share(self) -> int:
        """Return how many of the held-out images are learned from, the first of them."""
        learns = getattr(self._component("fusion"), "learns_from_scores", True)
        if not learns and not self._part_scorers().learn_from_held_out:
            return 0
        return learning_share(len(self._split_.held_out), ConformalCalibrator(self.alpha).number_needed)

    def _part_scorers(self) -> PartScorers:
        return make_parts(self._component("scorer"), self._component("background_scorer"), self.foreground_network)

    # ---------------------------------------------------------------- refit

    def refit_scorer(
        self,
        scorer: ForegroundScorer | None = None,
        X: Any = None,
        y: Any = None,
        *,
        background_scorer: BackgroundScorers | None = None,
        fusion: Fusion | None = None,
        foreground_network: str | None = None,
        foreground_pooling: str | None = None,
        alpha: float | None = None,
    ) -> Self:
        """Return a detector with the same networks and other scorers; nothing is trained.

        Parameters
        ----------
        scorer, background_scorer, fusion, foreground_network, foreground_pooling, alpha
            What to change; None keeps what this detector has.
        X : images, default=None
            Those of ``fit``, in the same order. They are needed where what the networks said of them was not kept:
            after unpickling, where another network or pooling is asked for, and where the scorer, the old one or the
            new, asks for perturbed images or activations.
        y : array-like of shape (n,), default=None
            Those of ``fit``, too; they are known, so that with X they are only compared.

        Returns
        -------
        detector : DFBDetector
            A new one, which shares the networks with this one. This one stays as it is.

        Raises
        ------
        ValueError
            If X is needed, or X and y are not those of ``fit``, as far as the number of images and the labels tell.
        """
        check_is_fitted(self)
        changes = {
            "scorer": scorer,
            "background_scorer": background_scorer,
            "fusion": fusion,
            "foreground_network": foreground_network,
            "foreground_pooling": foreground_pooling,
            "alpha": alpha,
        }
        other = shallow_copy(self, fitted_state=True)
        for name, value in changes.items():
            if value is not None:
                setattr(other, name, value)
        other._validate_params()
        check_components(other)
        with deterministic_algorithms(self.deterministic):
            other._refit(X, y)
        return other

    def _refit(self, X: Any, y: Any) -> None:
        self._warn_if_too_few()
        if X is not None:
            images = check_images(self, X, reset=False)
            self._check_same(images, X, y)
            self._fit_scores(images)
        elif (kept := self._kept_for_parts()) is not None:
            self._fit_scores_on(kept)
        else:
            raise ValueError(
                "X is None, but what the networks said of the training images was not kept (it is not pickled, nor "
                "kept where a scorer asks for perturbed images or activations), or is not what the new scorer, network "
                "or pooling asks for; pass the X and y of fit."
            )

    def _kept_for_parts(self) -> _Seen | None:
        """Return what was kept of the images of ``fit``, if it has all that the scorers are to be fitted on."""
        kept, scorers = self._kept_, self._part_scorers()
        if kept is None or needs_images(scorers.foreground) or kept.pooling != self.foreground_pooling:
            return None
        return kept if set(scorers.views) <= set(kept.train.views) else None

    def _check_same(self, images: Images, X: Any, y: Any) -> None:
        """Refuse images and labels that are not those of ``fit``, as far as their number and the labels tell."""
        wanted = self._split_.labels
        if len(images) != len(wanted):
            raise ValueError(f"X has {len(images)} images; the {len(wanted)} of fit are wanted.")
        if y is None:
            return
        classes, labels = check_labels(y, images, X)
        if not np.array_equal(classes, self.classes_) or not np.array_equal(labels, wanted):
            raise ValueError("y differs from the labels of fit; the same X and y in the same order are wanted.")

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the representations kept for refitting: they are large, and scoring does not need them."""
        state: dict[str, Any] = super().__getstate__()
        return state | {"_kept_": None} if "_kept_" in state else state
