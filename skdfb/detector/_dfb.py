"""The detector: how it is fitted. What it computes once it is fitted is in ``_dense_detector.py``."""

import copy
import os
from collections.abc import Sequence
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import _fit_context
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skdfb._constraints import RANDOM_STATE, Interval
from skdfb._progress import progress
from skdfb.detector._calibration import (
    check_refit,
    checked_calibration,
    images_of_fit,
    joined,
    warn_of_duplicates,
)
from skdfb.detector._checkpoints import (
    detector_checkpoints,
    forget_masks,
    in_use,
    kept_masks,
    kept_seeds,
    stage_of,
    training_checkpoints,
)
from skdfb.detector._dense_detector import DenseDetector
from skdfb.detector._image_fit import HeldOutViews, ImageFit
from skdfb.detector._input import check_components, make_joint_score
from skdfb.detector._launched import joined_processes
from skdfb.detector._masks import make_masks, mask_generator_of, work_after_classifier
from skdfb.detector._network_detector import requests_for
from skdfb.detector._parts_parameters import PartsParameters
from skdfb.detector._pretrained import fitted_heads, pretrained_parts, view_widths, with_head
from skdfb.fusion import Fusion, TemperatureFusion
from skdfb.images import N_JOBS, Images, check_images, labels_given
from skdfb.masks import CAMMaskGenerator
from skdfb.networks import DenseClassifier
from skdfb.networks._channels import input_channels
from skdfb.scorers import BackgroundLogit, ForegroundScorer, Representation, ViM
from skdfb.scoring import JointScore
from skdfb.scoring._parts import NETWORKS, PRETRAINED, split_view
from skdfb.training import Trainer
from skdfb.training._checkpoints import Checkpoints
from skdfb.training._class_order import check_order
from skdfb.training._stages import start_dense_network, take_over
from skdfb.utils import agreed, own_torch_modes, resolve_device, shallow_copy, shared_work, spawn_seeds, take_weights

__all__ = ["DFBDetector"]

# One scorer, or several parts (name, view, scorer).
Scorers = ForegroundScorer | Sequence[tuple[str, str, ForegroundScorer]]
# One scorer, or several, with or without names.
BackgroundScorers = ForegroundScorer | Sequence[ForegroundScorer | tuple[str, ForegroundScorer]]

# Views of images and the class indices of these images: what scorers are fitted on.
LabelledViews = tuple[dict[str, Representation], npt.NDArray[np.intp]]

_DEFAULT_BACKBONE = "resnetv2_50x1_bit.goog_in21k"
_PAPER_IMAGE_SIZE = 128


class _Seeds(NamedTuple):
    build: int
    split: int
    classifier: int
    masks: int
    dense: int
    order: int


class DFBDetector(PartsParameters, ImageFit, DenseDetector):
    r"""Out-of-distribution (OOD) image detector by disentangled foreground and background features.

    ``fit`` trains a classifier of K classes, makes pseudo masks from its class activation maps, trains a dense network
    of K + 1 classes, the last of which is the background, and uses it, with the same weights, as a classifier. The
    score of an image joins any foreground score with background scores:

    .. math:: S(x) = \log P\Bigl(\textstyle\sum_j g(p_j(S_j(X))) \le \sum_j g(p_j(S_j(x)))\Bigr)

    Here :math:`S_j` are the scores of foreground and background, and :math:`p_j` their in-distribution tail
    probabilities; see :class:`~skdfb.fusion.TailProbabilityFusion`, and :class:`~skdfb.fusion.TemperatureFusion` for
    the paper's sum. **Every score is higher for in-distribution images.** The threshold is set by split conformal
    prediction on held-out training images: a new in-distribution image is rejected with probability at most ``alpha``.

    Parameters
    ----------
    backbone : str, torch.nn.Module or DenseClassifier, default="resnetv2_50x1_bit.goog_in21k"
        A timm model name, which stands for its pre-trained weights; a model from
        :func:`~skdfb.networks.create_backbone` or timm; or a module that maps images (n, 3, H, W) to feature maps
        (n, C, h, w). A :class:`~skdfb.networks.DenseClassifier` counts as a trained classifier with its outputs in the
        order of ``np.unique(y)``, and is not trained again. Modules are copied, never changed.
    scorer : ForegroundScorer, or list of (str, str, ForegroundScorer) tuples, default=None
        Scores the foreground, on the dense network. None is :class:`~skdfb.scorers.ViM`. If the backbone is
        pre-trained, scores of what pre-training knew are joined to it; see Notes. A list has the name, the view and the
        scorer of each part instead, and nothing is joined to it; see :class:`~skdfb.scoring.JointScore` for the views.
    background_scorer : ForegroundScorer, or list of them or of (str, ForegroundScorer) tuples, default=None
        Scores the background view: features pooled over the background probability of the places, and S_b as the only
        logit. Each of several is a part of its own; an empty list leaves the background out. None is
        ``[BackgroundLogit(), Mahalanobis(shrinkage="auto")]``; beside the parts of a pre-trained backbone it is an
        empty list.
    fusion : Fusion, default=None
        Joins the parts. None is :class:`~skdfb.fusion.TailProbabilityFusion`; a single part then stays as it is.
    mask_generator : transformer, default=None
        Makes the masks. None is :class:`~skdfb.masks.CAMMaskGenerator`, for a pre-trained backbone with a frozen trunk
        at one scale, which :ref:`was as good <photographs_masks>` and takes a seventh of the time. The trained
        classifier is passed as its ``backbone`` parameter. A third-party object needs ``fit_transform(X, y)``, which
        returns integer masks (n, H, W) as :class:`~skdfb.masks.CAMMaskGenerator` does. Its ``y`` are class indices,
        its ``X`` has ``len(X)`` and ``X.read(indices)``, which returns pixels (b, 3, H, W), or a list of (3, H, W) if
        sizes differ.
    classifier_trainer, dense_trainer : Trainer, default=None
        Train the two networks. None is ``Trainer()``, whose number of steps follows the number of images.
    image_size : int, default=None
        Side of the network's input in pixels; None is the size of the backbone. Images of any size are resized to it.
    image_shape : tuple of int, default=None
        (H, W, C) of the images in the rows of a 2-d ``X``. Without it a row is one line of pixels, scaled by the
        smallest and largest value of the training data.
    alpha : float or None, default=0.05
        Largest probability of rejecting an in-distribution image, over the images of ``fit`` and the new one. None sets
        no threshold: ``offset_`` is -inf and nothing is rejected. A change by ``set_params`` acts at the next ``fit``;
        :meth:`with_alpha` sets another threshold at once.
    calibration_fraction : float or "auto", default="auto"
        Share of the training images that is held out to set the threshold, in (0, 0.5]. "auto" is a tenth, or as many
        more as ``alpha`` needs, up to half.
    checkpoint_dir : path, default=None
        Folder for the state of each ``fit``, in a subfolder of its own. After a crash, the same call of ``fit`` goes on
        from there, to the same weights. Scorers, fusion and ``alpha`` may change; with other data, or parameters that
        the networks depend on, it is another fit, which starts anew, with a
        :class:`~skdfb.exceptions.CheckpointWarning` if a fit was left unfinished. Pass an int as ``random_state``.
    batch_size : int, default=128
        Images per forward pass, outside training. If a batch does not fit into the device's memory, it is halved, with
        a :class:`~skdfb.exceptions.BatchSizeWarning`.
    device : str, default="auto"
        Where ``fit`` runs, and all later calls. "auto" is the GPU if there is one.
    n_jobs : int, default=None
        Threads that read images; None is 1.
    on_error : {"raise", "nan"}, default="raise"
        How to handle a file, a PIL image or an item of a dataset that cannot be read, after ``fit``, which always
        raises. "raise" raises :class:`~skdfb.exceptions.UnreadableImageError`. "nan" gives the image NaN as score,
        p-value, probabilities and features, so that ``predict`` returns -1, and reports all such images in one
        :class:`~skdfb.exceptions.UnreadableImageWarning`; if none of several images can be read, it raises. Errors of
        the user's own code, such as the transforms of a dataset, always raise.
    random_state : int, RandomState or None, default=None
        Fixes the split, the augmentation and the order of the images.
    verbose : int, default=0
        1 shows a progress bar for each long step, and says before each training what it is about to do and, measured
        on its first steps, how long that takes. The logger ``skdfb`` gets the same at the level INFO.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
        Class labels.
    classifier_ : DenseClassifier
        The network of K classes.
    dense_network_ : DenseClassifier
        The network of K + 1 classes.
    pretrained_network_ : DenseClassifier or None
        The network before its training, if a part is on the view ``"pretrained"``.
    heads_ : dict of str to tuple of ndarray
        Weight (K, C) and bias (K,) by the name of the view, for views that have no head of their own.
    joint_score_ : JointScore
        The fitted scorers, fusion and threshold.
    calibration_fraction_ : float
        The share of the images that was held out.
    training_history_ : dict
        ``"classifier"`` and ``"dense"``: loss and learning rate of every step.
    reference_ : ReferenceImages or None
        Features, class indices and names of at most 50 training images of each class, 10,000 in all, for
        :meth:`explain`; None in models that were saved by older versions.
    n_features_in_ : int
        Number of features of a 2-d ``X``.
    batch_size_ : int
        Images per forward pass, as found to fit.
    image_shape_ : tuple of int or None
        The ``image_shape`` of ``fit``.
    image_range_ : tuple of (float, float)
        The integers that are black and white, as given or learned by ``fit``; (0, 255) for bytes.
    pixel_format_ : tuple of (str, int) or None
        Where ``fit`` was given arrays: ``"integer"`` or ``"float"`` in 0..1, and the number of channels. Arrays of
        another kind are refused.

    Raises
    ------
    ValueError, TypeError
        From ``fit``, before any training, if images, labels, parameters or weights are wrong, or if the held-out
        images are too few for ``alpha``.
    skdfb.exceptions.CheckpointError
        From ``fit``, before any training, if ``checkpoint_dir`` cannot be written to. If the disk becomes full later,
        there is a :class:`~skdfb.exceptions.CheckpointWarning` and the training goes on.

    See Also
    --------
    skdfb.masks.CAMMaskGenerator : The masks alone.
    skdfb.scoring.JointScore : Scorers, fusion and threshold alone.
    skdfb.scorers : Scorers for anyone with features and a linear head.

    Notes
    -----
    Without labels (``y=None``, and no folder or dataset that has them) the images that are not held out are clustered
    by k-means on the features of the untrained backbone, and the clusters are the classes: ``min(10, n // 20)`` of
    them for n images, at least 2.

    The default differs from the paper in four places: a classification loss beside the pixel loss (see
    :class:`~skdfb.Trainer`), a Mahalanobis score of the background features beside S_b, tail probabilities instead of
    the sum of Eq. 7, and what follows for pre-trained backbones. Half of the held-out images fit the tail
    probabilities, the other half sets the threshold. :meth:`paper` makes a detector with the recipe of the paper.

    *Pre-trained backbones.* Training makes a network forget what it does not need to tell the classes apart. But this
    is what separates images far from the classes. So the first stages of a pre-trained backbone, the trunk, are frozen
    (see ``frozen_stages`` of :class:`~skdfb.Trainer`), and the classifier, the dense network and the network before its
    training share them. Four parts are joined to the foreground score: the same scorer on the classifier; a normalised
    relative Mahalanobis score and a normalised Mahalanobis score of the network before its training; and a normalised
    Mahalanobis score of the last stage of the trunk. The trunk runs once for all three networks. The background scores
    made this joint score worse on the image sets that it was chosen on; see :ref:`photographs`. A fusion that takes two
    parts, such as :class:`~skdfb.fusion.TemperatureFusion`, leaves these parts out. To score with the dense network
    alone, refit with its parts::

        parts = [part for part in detector.joint_score_.parts if part[1].startswith("dense")]
        detector.refit_scorer(parts, background_scorer=[])

    ``set_params`` after ``fit`` changes no score before the next ``fit``. Only ``batch_size``, ``n_jobs``,
    ``on_error`` and ``verbose``, which say how images are read and scored, take effect at once. To change ``alpha`` see
    :meth:`with_alpha`, to change scorers or fusion see :meth:`refit_scorer`.

    Parameters of single parts can be set by the name of the part, if they are given as a list:
    ``set_params(background_mahalanobis__shrinkage=0.1)``.

    Processes that were launched by ``torchrun`` or ``fabric run`` share the work of ``fit``. All of them must call it,
    with the same images and labels.

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
    >>> trainer = Trainer(max_steps=3, batch_size=32)  # far too few, only to keep the example short
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
        "scorer": "no_validation",  # scorers and fusion follow protocols: checked by JointScore
        "background_scorer": "no_validation",
        "fusion": "no_validation",
        "mask_generator": "no_validation",  # checked by check_components
        "classifier_trainer": [Trainer, None],
        "dense_trainer": [Trainer, None],
        "image_size": [Interval(Integral, 1, None, closed="left"), None],
        "image_shape": ["array-like", None],
        "alpha": [Interval(Real, 0, 1, closed="neither"), None],
        "calibration_fraction": [Interval(Real, 0, 0.5, closed="right"), StrOptions({"auto"})],
        "checkpoint_dir": [str, os.PathLike, None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "device": [str, torch.device],
        "n_jobs": N_JOBS,
        "on_error": [StrOptions({"raise", "nan"})],
        "random_state": RANDOM_STATE,
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        backbone: str | nn.Module = _DEFAULT_BACKBONE,
        *,
        scorer: Scorers | None = None,
        background_scorer: BackgroundScorers | None = None,
        fusion: Fusion | None = None,
        mask_generator: Any = None,
        classifier_trainer: Trainer | None = None,
        dense_trainer: Trainer | None = None,
        image_size: int | None = None,
        image_shape: tuple[int, ...] | None = None,
        alpha: float | None = 0.05,
        calibration_fraction: float | str = "auto",
        checkpoint_dir: str | os.PathLike[str] | None = None,
        batch_size: int = 128,
        device: str | torch.device = "auto",
        n_jobs: int | None = None,
        on_error: str = "raise",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.backbone = backbone
        self.scorer = scorer
        self.background_scorer = background_scorer
        self.fusion = fusion
        self.mask_generator = mask_generator
        self.classifier_trainer = classifier_trainer
        self.dense_trainer = dense_trainer
        self.image_size = image_size
        self.image_shape = image_shape
        self.alpha = alpha
        self.calibration_fraction = calibration_fraction
        self.checkpoint_dir = checkpoint_dir
        self.batch_size = batch_size
        self.device = device
        self.n_jobs = n_jobs
        self.on_error = on_error
        self.random_state = random_state
        self.verbose = verbose

    @classmethod
    def paper(cls, backbone: str | nn.Module = _DEFAULT_BACKBONE, **changes: Any) -> Self:
        """Return a detector with the recipe of the paper.

        The background score is S_b alone (Eq. 6), joined to the foreground score by Eq. 7 with T = 2.5. Each stage
        trains for 20,000 steps at 128 pixels; see :meth:`skdfb.Trainer.paper_classifier` and
        :meth:`skdfb.Trainer.paper_dense` for what is not in the paper's text.

        Parameters
        ----------
        backbone : str, torch.nn.Module or DenseClassifier, default="resnetv2_50x1_bit.goog_in21k"
            As for the class.
        **changes : dict
            Parameters that differ from the recipe.

        Returns
        -------
        detector : DFBDetector
            Not fitted.

        Examples
        --------
        >>> from skdfb import DFBDetector
        >>> DFBDetector.paper(alpha=0.1).fusion
        TemperatureFusion()
        """
        recipe: dict[str, Any] = {
            "background_scorer": BackgroundLogit(),
            "fusion": TemperatureFusion(),
            "mask_generator": CAMMaskGenerator(),
            "classifier_trainer": Trainer.paper_classifier(),
            "dense_trainer": Trainer.paper_dense(),
        }
        # A trained network has its own size.
        if not isinstance(backbone, DenseClassifier):
            recipe["image_size"] = _PAPER_IMAGE_SIZE
        return cls(backbone, **recipe | changes)

    # ------------------------------------------------------------------ fit

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        groups: Any = None,
        X_calibration: Any = None,
        y_calibration: Any = None,
        groups_calibration: Any = None,
        image_range: tuple[float, float] | None = None,
    ) -> Self:
        """Train the networks, fit the scorers and set the threshold.

        Parameters
        ----------
        X : images
            The n images: the path of a folder with one sub-folder per class; an array (n, H, W, C) or (n, H, W),
            integers or floats in 0..1; a sequence of paths or PIL images; a dataset; or a 2-d array, see
            ``image_shape``. C is 3, 1, or what the backbone takes.
        y : array-like of shape (n,), default=None
            Class labels of any kind. None takes the names of the class folders, or the labels of a dataset; without
            any labels, see Notes. Beside class folders, y is used and their names are not; there is a warning if y
            divides a folder.
        groups : array-like of shape (n,), default=None
            The group of each image, any labels, such as the video of a frame or the patient of a slice. Images of one
            group are held out together, and the promise of ``alpha`` is then for an image of a new group: see Notes.
        X_calibration : images, default=None
            Images of the known classes that set the threshold instead of held-out ones: all of X then trains. Of the
            form of X, and not from X.
        y_calibration : array-like of shape (n_calibration,), default=None
            Their labels, for scorers that learn from held-out images. None takes those of a folder or a dataset.
        groups_calibration : array-like of shape (n_calibration,), default=None
            The group of each of them.
        image_range : tuple of (float, float), default=None
            The numbers that are black and white. None takes bytes to be in 0..255 and floats in 0..1, and learns the
            range of other integers from the images: that of the smallest usual bit depth, such as 0..4095, or the least
            and the largest value if there are negative ones or ones of more than 16 bits.

        Returns
        -------
        self : DFBDetector
            Either fully fitted, or, after an error or an interrupt, as it was before.

        Notes
        -----
        Images of one group, such as the frames of a video, are more like each other than like those of another group.
        If some of them train and others set the threshold, too many new images are rejected. So whole groups are held
        out, stratified by class as far as they allow, and each group counts as one image: ``calibration_fraction`` is a
        share of the groups, and ``alpha`` needs as many groups as it needs images otherwise. This is hierarchical
        conformal prediction; see :class:`~skdfb.calibration.ConformalCalibrator`.
        """
        fitted = shallow_copy(self, fitted_state=False)
        # Gradients, also if the caller has switched them off, and full precision, unless a trainer asks for less.
        later = partial(work_after_classifier, self)
        with own_torch_modes(gradients=True), progress(self.verbose, later=later), shared_work():
            fitted._fit(X, y, image_range, groups, X_calibration, y_calibration, groups_calibration)
        self.__dict__ = fitted.__dict__  # all at once
        return self

    def _fit(self, X: Any, y: Any, image_range: tuple[float, float] | None, groups: Any, *calibration_set: Any) -> None:
        # 1. Check all that can be checked before anything is computed.
        device = resolve_device(self.device)
        check_components(self)
        self._joint_score()
        images = check_images(self, X, reset=True, n_channels=input_channels(self.backbone), image_range=image_range)
        y = labels_given(images, y)
        own, calibration = checked_calibration(self, images, y, groups, *calibration_set)
        checkpoints = detector_checkpoints(self, images, y)
        device = joined_processes(device, images, y, own, calibration)
        seeds = _Seeds(*agreed(kept_seeds(checkpoints, lambda: spawn_seeds(self.random_state, len(_Seeds._fields)))))

        # 2. Get the classifier. Its frozen stages decide which parts there are.
        labels = self._checked_labels(X, images, y)
        classifier = self._classifier(images, seeds.build)
        joint_score = self._joint_score(classifier)
        widths = view_widths(dict.fromkeys(NETWORKS, classifier), list(joint_score.view_needs()))

        # 3. Hold out images for the threshold, unless the caller gave some; the others train.
        self._hold_out(images, labels, calibration, joint_score, seeds.split, seeds.order)
        checkpoints = training_checkpoints(checkpoints, self._split_.train, seeds)
        # Clustered after the split, since the held-out images must not influence the clusters.
        if labels is None:
            labels = self._clustered(classifier.to(device), images, seeds.build)
            classifier = self._classifier(images, seeds.build)
        self._labels_ = np.concatenate([labels, calibration.class_indices(self.classes_)])
        train, labels = images.subset(self._split_.train), self._labels_[self._split_.train]
        joint_score.check(widths, len(self.classes_), len(train), len(self._split_.held_out))
        warn_of_duplicates(joined(images, own), self._split_)

        # 4. Train the classifier, make the pseudo masks, and train the dense network on them.
        self.training_history_: dict[str, dict[str, list[float]]] = {}
        self.pretrained_network_ = self._pretrained_network(classifier, joint_score, device)
        options: dict[str, Any] = {"device": device, "n_jobs": self.n_jobs, "verbose": self.verbose}
        with in_use(checkpoints):
            self._train_classifier(classifier, train, labels, seeds, checkpoints, options)
            masks = kept_masks(checkpoints, len(train), lambda: self._make_masks(train, labels, seeds.masks))
            self._train_dense_network(images, train, labels, masks, seeds, checkpoints, options)

        # 5. Fit the scorers and the fusion, and set the threshold.
        self._fit_joint_score(joint_score, joined(images, own))

    def _train_classifier(
        self,
        classifier: DenseClassifier,
        train: Images,
        labels: npt.NDArray[np.intp],
        seeds: _Seeds,
        checkpoints: Checkpoints | None,
        options: dict[str, Any],
    ) -> None:
        # A network that was given as a classifier is trained already.
        if not isinstance(self.backbone, DenseClassifier):
            trainer, kept = self.classifier_trainer or Trainer(), stage_of(checkpoints, "classifier")
            self.training_history_["classifier"] = trainer.train(
                classifier, train, labels, random_state=seeds.classifier, checkpoints=kept, **options
            )
        else:
            check_order(self, classifier.to(options["device"]), train, labels)
        self.classifier_ = classifier.to(options["device"]).eval()

    def _train_dense_network(
        self,
        images: Images,
        train: Images,
        labels: npt.NDArray[np.intp],
        masks: Any,
        seeds: _Seeds,
        checkpoints: Checkpoints | None,
        options: dict[str, Any],
    ) -> None:
        trainer, kept = self.dense_trainer or Trainer(), stage_of(checkpoints, "dense")
        untrained = partial(self._build, len(self.classes_), images, seeds.build)
        self.dense_network_ = start_dense_network(self.classifier_, trainer, untrained)
        self.training_history_["dense"] = trainer.train(
            self.dense_network_, train, labels, masks, random_state=seeds.dense, checkpoints=kept, **options
        )
        forget_masks(checkpoints)

    def _classifier(self, images: Images, seed: int) -> DenseClassifier:
        """Return the classifier before its training, with its trunk frozen; or the trained one that was given.

        Before ``classes_`` are known, it has two classes.
        """
        if isinstance(self.backbone, DenseClassifier):
            network = take_over(self, self.classes_)
        else:
            network = self._build(len(getattr(self, "classes_", (0, 1))), images, seed)
            (self.classifier_trainer or Trainer()).freeze_trunk(network)
        take_weights(network)
        return network

    def _pretrained_network(
        self, classifier: DenseClassifier, joint_score: JointScore, device: torch.device
    ) -> DenseClassifier | None:
        """Return a copy of the network before its training, if a part is on it."""
        if not any(split_view(view)[0] == PRETRAINED for view in joint_score.view_needs()):
            return None
        if isinstance(self.backbone, DenseClassifier):
            raise ValueError(
                "a part is on the view 'pretrained', but backbone is a DenseClassifier, which counts as trained: "
                "expected the backbone from before the training; pass it, or leave the part out."
            )
        return copy.deepcopy(classifier).to(device).eval()

    def _make_masks(self, images: Images, labels: npt.NDArray[np.intp], seed: int) -> Any:
        generator = mask_generator_of(self, self.classifier_)
        return make_masks(generator, self.classifier_, images, labels, random_state=seed, n_jobs=self.n_jobs)

    def _joint_score(self, network: DenseClassifier | None = None) -> JointScore:
        """Return the unfitted joint score that the parameters describe, with the parts of the network's trunk."""
        # Names of parts are names of nested parameters, and must not be those of other parameters.
        self._validate_names([name for name, _ in self._listed_scorers])
        # A trained classifier no longer has the weights that its training started from.
        keeps_pretrained, scorer = not isinstance(self.backbone, DenseClassifier), self.scorer
        scorer = ViM() if scorer is None else scorer
        more = [] if network is None else pretrained_parts(network, scorer, keeps_pretrained=keeps_pretrained)
        return make_joint_score(scorer, self.background_scorer, self.fusion, self.alpha, more)

    def _fit_joint_score(self, joint_score: JointScore, images: Images) -> None:
        """Compute the views of the images of ``fit``, and fit the joint score on them."""
        train, held_out = self._views_of_fit(images, joint_score)
        self.joint_score_ = joint_score.fit(*train, held_out=held_out)
        # Kept for refit_scorer, if the scorers need nothing beyond features and logits.
        self._kept_ = None if any(joint_score.view_needs().values()) else (train, held_out)

    def _views_of_fit(self, images: Images, joint_score: JointScore) -> tuple[LabelledViews, HeldOutViews]:
        # Training images are computed without what only scorers that do not learn from images need.
        rows = self._split_.train
        labels = self._labels_[rows]
        train = self._collect_training(images, rows, labels, requests_for(joint_score.view_needs(training=True)))
        # Layers and the untrained network have no head of their own: the training images give them one. Heads of other
        # views are kept, since the parts of this detector may read their logits.
        self.heads_ = getattr(self, "heads_", {}) | fitted_heads(train, labels)
        train = {view: with_head(part, self.heads_.get(view)) for view, part in train.items()}
        return (train, labels), self._held_out_views(images, joint_score)

    # ---------------------------------------------------------------- refit

    @own_torch_modes()
    def refit_scorer(
        self,
        scorer: Scorers | None = None,
        X: Any = None,
        y: Any = None,
        *,
        background_scorer: BackgroundScorers | None = None,
        fusion: Fusion | None = None,
        alpha: float | None = None,
        X_calibration: Any = None,
    ) -> Self:
        """Return a detector with the same networks and other scorers; nothing is trained.

        Parameters
        ----------
        scorer : ForegroundScorer, or list of (str, str, ForegroundScorer) tuples, default=None
            As for the class; None keeps the scorer of this detector.
        X : images, default=None
            Those of ``fit``, in the same order. They are needed if their views were not kept: after loading or
            unpickling, if another view is needed, and if an old or a new scorer needs perturbed images or activations.
        y : array-like of shape (n,), default=None
            Those of ``fit``. They are known, so they are only compared.
        background_scorer : ForegroundScorer, or list of them or of (str, ForegroundScorer) tuples, default=None
            As for the class; None keeps those of this detector.
        fusion : Fusion, default=None
            As for the class; None keeps that of this detector.
        alpha : float, default=None
            As for the class; None keeps that of this detector. For no threshold call ``with_alpha(None)`` first.
        X_calibration : images, default=None
            Beside X, those of ``fit``, if it was given any.

        Returns
        -------
        detector : DFBDetector
            A new one, which shares the networks with this one. This one stays as it is.

        Raises
        ------
        ValueError
            If X is needed, or if X and y are not those of ``fit``, as far as the number of images and the labels show.
        """
        check_is_fitted(self)
        # 1. Check all that can be checked before views are computed.
        changes = {"scorer": scorer, "background_scorer": background_scorer, "fusion": fusion, "alpha": alpha}
        other = shallow_copy(self, fitted_state=True)
        for name, value in changes.items():
            if value is not None:
                setattr(other, name, value)
        other._validate_params()
        joint_score = other._joint_score(self.dense_network_)
        check_refit(joint_score, self._split_, self._labels_, getattr(self, "_groups_", None))
        widths = view_widths(self._networks, list(joint_score.view_needs()))
        joint_score.check(widths, len(self.classes_), *map(len, self._split_))

        # 2. Fit the scorers on views that are computed anew, or on those that were kept from fit.
        if X is not None:
            other._fit_joint_score(joint_score, images_of_fit(self, X, y, X_calibration))
        elif (kept := other._kept_for(joint_score)) is not None:
            train, held_out = kept
            other.joint_score_ = joint_score.fit(*train, held_out=held_out)
        else:
            raise ValueError(
                "X is None, but the views of the training images that the scorers need were not kept: expected the X "
                "and y of fit. (Views are not saved or pickled, nor kept if a scorer needs perturbed images or "
                "activations.)"
            )
        return other

    def _kept_for(self, joint_score: JointScore) -> tuple[LabelledViews, HeldOutViews] | None:
        """Return the views kept from ``fit``, if they are all that a joint score needs."""
        # Kept views are of inputs as they are, without activations.
        kept, needs = self._kept_, joint_score.view_needs()
        return None if kept is None or any(needs.values()) or not set(needs) <= set(kept[0][0]) else kept

    @own_torch_modes()
    def represent_training_images(
        self, X: Any, y: Any, joint_score: JointScore, *, X_calibration: Any = None
    ) -> tuple[LabelledViews, HeldOutViews]:
        """Return what :meth:`skdfb.scoring.JointScore.fit` takes, for another joint score on these networks.

        Parameters
        ----------
        X : images
            Those of ``fit``, in the same order.
        y : array-like of shape (n,)
            Those of ``fit``.
        joint_score : JointScore
            Its parts say which views are needed.
        X_calibration : images, default=None
            Those of ``fit``, if it was given any.

        Returns
        -------
        train : tuple of (dict of str to Representation, ndarray)
            Views and class indices of the images that trained the networks.
        held_out : tuple of (dict of str to Representation, ndarray)
            Those of the held-out images, in random order, and the group of each if ``fit`` was given groups. None
            instead of the indices if ``X_calibration`` had no labels.

        Raises
        ------
        ValueError
            If X and y are not those of ``fit``, as far as the number of images and the labels show.

        Examples
        --------
        >>> train, held_out = detector.represent_training_images(X, y, joint_score)  # doctest: +SKIP
        >>> joint_score.fit(*train, held_out=held_out)  # doctest: +SKIP
        """
        check_is_fitted(self)
        return self._views_of_fit(images_of_fit(self, X, y, X_calibration), joint_score)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the views kept for refitting: they are large, and scoring does not need them."""
        state: dict[str, Any] = super().__getstate__()
        return state | {"_kept_": None} if "_kept_" in state else state
