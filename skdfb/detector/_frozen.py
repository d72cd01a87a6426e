"""The detector of images that trains no network: a linear head and scorers on frozen features."""

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import _fit_context
from sklearn.utils._param_validation import StrOptions
from torch import nn

from skdfb._constraints import RANDOM_STATE, Interval
from skdfb._progress import progress
from skdfb.detector._calibration import checked_calibration, joined, warn_of_duplicates
from skdfb.detector._image_fit import ImageFit
from skdfb.detector._input import named_parts
from skdfb.detector._launched import joined_processes
from skdfb.detector._linear_head import fitted_head
from skdfb.detector._network_detector import requests_for
from skdfb.detector._parts_parameters import PartsParameters
from skdfb.detector._pretrained import fitted_heads, view_widths, with_head
from skdfb.fusion import Fusion
from skdfb.images import N_JOBS, Images, check_images, labels_given
from skdfb.networks import DenseClassifier
from skdfb.networks._channels import input_channels
from skdfb.networks._timm import check_weights
from skdfb.scorers import ForegroundScorer, RelativeMahalanobis, Representation
from skdfb.scoring import JointScore
from skdfb.scoring._parts import CLASSIFIER, Part, split_view
from skdfb.training._class_order import check_order
from skdfb.training._stages import take_over
from skdfb.utils import agreed, own_torch_modes, resolve_device, shallow_copy, shared_work, spawn_seeds, take_weights

__all__ = ["FrozenDetector"]

# One scorer, or several parts (name, view, scorer).
Scorers = ForegroundScorer | Sequence[tuple[str, str, ForegroundScorer]]


class FrozenDetector(PartsParameters, ImageFit):
    """Out-of-distribution (OOD) image detector on the features of a pre-trained network, which is not trained.

    ``fit`` runs the network once over the images, fits a linear classifier and a scorer on its features, and sets the
    threshold by split conformal prediction on held-out images. This takes minutes on a laptop. **Every score is higher
    for in-distribution images.**

    Use it for a first answer, and as the opponent that a trained detector has to beat. Its features know what
    pre-training knew, so it finds images far from the classes well. :class:`DFBDetector` learns the classes as well. On
    the photographs that were measured it is more accurate, and finds more images of unknown classes of the same kind
    (:ref:`photographs`).

    Parameters
    ----------
    backbone : str, torch.nn.Module or DenseClassifier, default="resnetv2_50x1_bit.goog_in21k"
        As for :class:`DFBDetector`. A :class:`~skdfb.networks.DenseClassifier` is a trained classifier, whose head is
        used as it is. With random weights the scores have no meaning.
    scorer : ForegroundScorer, or list of (str, str, ForegroundScorer) tuples, default=None
        Scores the features. None is ``RelativeMahalanobis(shrinkage="auto", normalize=True)``. A single scorer is the
        part ``"classifier"``. A list has the name, the view and the scorer of several parts; views are
        ``"classifier"``, the features of the network, and its layers, such as ``"classifier.layer3"``.
    fusion : Fusion, default=None
        Joins several parts. None is :class:`~skdfb.fusion.TailProbabilityFusion`; a single part then stays as it is.
    image_size : int, default=None
        Side of the network's input in pixels; None is the size of the backbone.
    image_shape : tuple of int, default=None
        (H, W, C) of the images in the rows of a 2-d ``X``.
    alpha : float or None, default=0.05
        Largest probability of rejecting an in-distribution image, over the images of ``fit`` and the new one. None sets
        no threshold. A change by ``set_params`` acts at the next ``fit``; :meth:`with_alpha` sets another threshold at
        once.
    calibration_fraction : float or "auto", default="auto"
        Share of the images that is held out to set the threshold, in (0, 0.5]. "auto" is a tenth, or as many more as
        ``alpha`` needs, up to half.
    batch_size : int, default=128
        Images per forward pass; halved if a batch does not fit into the device's memory.
    device : str, default="auto"
        Where ``fit`` runs, and all later calls. "auto" is the GPU if there is one.
    n_jobs : int, default=None
        Threads that read images; None is 1.
    on_error : {"raise", "nan"}, default="raise"
        As for :class:`DFBDetector`.
    random_state : int, RandomState or None, default=None
        Fixes which images are held out.
    verbose : int, default=0
        1 shows a progress bar for each step that takes more than a few batches of images.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
        Class labels.
    classifier_ : DenseClassifier
        The network with the fitted head.
    heads_ : dict of str to tuple of ndarray
        Weight (K, C) and bias (K,) by the name of the view, for layers.
    joint_score_ : JointScore
        The fitted scorers, fusion and threshold.
    calibration_fraction_ : float
        The share of the images that was held out.
    reference_ : ReferenceImages
        Features, class indices and names of some training images, for :meth:`explain`; see :class:`DFBDetector`.
    n_features_in_ : int
        Number of features of a 2-d ``X``.
    batch_size_ : int
        Images per forward pass, as found to fit.
    image_shape_ : tuple of int or None
        The ``image_shape`` of ``fit``.
    image_range_ : tuple of (float, float)
        The integers that are black and white.
    pixel_format_ : tuple of (str, int) or None
        As for :class:`DFBDetector`.

    Raises
    ------
    ValueError, TypeError
        From ``fit``, before the network runs, if images, labels, parameters or weights are wrong, or if the held-out
        images are too few for ``alpha``.

    See Also
    --------
    DFBDetector : Trains a classifier and a dense network.
    FeatureDetector : The same on features that are computed already.

    Notes
    -----
    The head is a logistic regression on centred features, as in :class:`FeatureDetector`. Only the training images,
    without the held-out ones, fit head and scorer.

    Processes that were launched by ``torchrun`` or ``fabric run`` share the work of ``fit``. All of them must call it,
    with the same images and labels.

    References
    ----------
    The default scorer: Ren et al., "A Simple Fix to Mahalanobis Distance for Improving Near-OOD Detection", 2021,
    :arxiv:`2106.09022`. Normalised features: Mueller and Hein, "Mahalanobis++: Improving OOD Detection via Feature
    Normalization", ICML 2025, :arxiv:`2505.18032`.

    Examples
    --------
    >>> from skdfb import FrozenDetector
    >>> from skdfb.datasets import load_digits_on_photos
    >>> from skdfb.networks import create_backbone
    >>> data = load_digits_on_photos(n_train=400, n_test=20, n_ood=20, random_state=0)
    >>> backbone = create_backbone("test_resnet", pretrained=False)  # random weights, only to keep the example short
    >>> detector = FrozenDetector(backbone, image_size=128, random_state=0).fit(data.images, data.target)
    >>> detector.predict(data.images_test).shape  # +1 in-distribution, -1 OOD
    (20,)
    """

    _whole_view: ClassVar[str] = CLASSIFIER

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "backbone": [str, nn.Module],
        "scorer": "no_validation",  # scorers and fusion follow protocols: checked by JointScore
        "fusion": "no_validation",
        "image_size": [Interval(Integral, 1, None, closed="left"), None],
        "image_shape": ["array-like", None],
        "alpha": [Interval(Real, 0, 1, closed="neither"), None],
        "calibration_fraction": [Interval(Real, 0, 0.5, closed="right"), StrOptions({"auto"})],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "device": [str, torch.device],
        "n_jobs": N_JOBS,
        "on_error": [StrOptions({"raise", "nan"})],
        "random_state": RANDOM_STATE,
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        backbone: str | nn.Module = "resnetv2_50x1_bit.goog_in21k",
        *,
        scorer: Scorers | None = None,
        fusion: Fusion | None = None,
        image_size: int | None = None,
        image_shape: tuple[int, ...] | None = None,
        alpha: float | None = 0.05,
        calibration_fraction: float | str = "auto",
        batch_size: int = 128,
        device: str | torch.device = "auto",
        n_jobs: int | None = None,
        on_error: str = "raise",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.backbone = backbone
        self.scorer = scorer
        self.fusion = fusion
        self.image_size = image_size
        self.image_shape = image_shape
        self.alpha = alpha
        self.calibration_fraction = calibration_fraction
        self.batch_size = batch_size
        self.device = device
        self.n_jobs = n_jobs
        self.on_error = on_error
        self.random_state = random_state
        self.verbose = verbose

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
        """Fit head, scorers and threshold.

        Parameters
        ----------
        X : images
            The n images, in any form that :meth:`DFBDetector.fit` takes.
        y : array-like of shape (n,), default=None
            Class labels of any kind; without them the images are clustered, as by :class:`DFBDetector`.
        groups : array-like of shape (n,), default=None
            The group of each image, such as the video of a frame; see :meth:`DFBDetector.fit`.
        X_calibration : images, default=None
            Images of the known classes that set the threshold instead of held-out ones.
        y_calibration : array-like of shape (n_calibration,), default=None
            Their labels, for scorers that learn from held-out images.
        groups_calibration : array-like of shape (n_calibration,), default=None
            The group of each of them.
        image_range : tuple of (float, float), default=None
            The numbers that are black and white; see :meth:`DFBDetector.fit`.

        Returns
        -------
        self : FrozenDetector
            Either fully fitted, or, after an error or an interrupt, as it was before.
        """
        fitted = shallow_copy(self, fitted_state=False)
        with own_torch_modes(), progress(self.verbose), shared_work():
            fitted._fit(X, y, image_range, groups, X_calibration, y_calibration, groups_calibration)
        self.__dict__ = fitted.__dict__  # all at once
        return self

    def _fit(self, X: Any, y: Any, image_range: tuple[float, float] | None, groups: Any, *calibration_set: Any) -> None:
        # 1. Check all that can be checked before the network runs.
        device, joint_score = resolve_device(self.device), self._joint_score()
        check_weights(self.backbone)  # before the images are read, which takes minutes for many files
        images = check_images(self, X, reset=True, n_channels=input_channels(self.backbone), image_range=image_range)
        y = labels_given(images, y)
        own, calibration = checked_calibration(self, images, y, groups, *calibration_set)
        device = joined_processes(device, images, y, own, calibration)
        build_seed, *split_seeds = agreed(spawn_seeds(self.random_state, 3))

        # 2. Get the network. Before classes are known, it has two.
        labels = self._checked_labels(X, images, y)
        network = self._network(images, build_seed, n_classes=2 if labels is None else len(self.classes_)).to(device)
        widths = view_widths({CLASSIFIER: network}, list(joint_score.view_needs()))

        # 3. Hold out images for the threshold, unless the caller gave some.
        self._hold_out(images, labels, calibration, joint_score, *split_seeds)
        # Clustered after the split, since the held-out images must not influence the clusters.
        if labels is None:
            labels = self._clustered(network, images, build_seed)
            network = self._network(images, build_seed, n_classes=len(self.classes_)).to(device)
        self._labels_ = np.concatenate([labels, calibration.class_indices(self.classes_)])
        joint_score.check(widths, len(self.classes_), *map(len, self._split_))
        images = joined(images, own)
        warn_of_duplicates(images, self._split_)

        # 4. Fit the head, the scorers and the fusion, and set the threshold.
        self.classifier_ = network.eval()
        labels = self._labels_[self._split_.train]
        views = self._fit_head(joint_score, images, labels)
        self.joint_score_ = joint_score.fit(views, labels, held_out=self._held_out_views(images, joint_score))

    def _fit_head(
        self, joint_score: JointScore, images: Images, labels: npt.NDArray[np.intp]
    ) -> dict[str, Representation]:
        """Fit the head of the network and of layers, and return the views of the training images.

        The labels (n_train,) are those of the training images, the images are all of ``fit``.
        """
        needs, places = joint_score.view_needs(training=True), self._split_.train
        # A layer is scored without the features of the whole network, but these are needed for the head.
        requests = requests_for(list(dict.fromkeys([CLASSIFIER, *needs])))
        views = self._collect_training(images, places, labels, requests)
        head = self.classifier_.head
        if isinstance(self.backbone, DenseClassifier):
            check_order(self, self.classifier_, images.subset(places), labels)
        else:
            weight, bias = agreed(fitted_head(None, views[CLASSIFIER].features.numpy(), labels))
            with torch.no_grad():
                head.weight.copy_(torch.from_numpy(weight))
                head.bias.copy_(torch.from_numpy(bias))
        # Perturbed inputs and activations depend on the head, which the first pass did not have.
        if any(needs.values()):
            views = self._collect(images.subset(places), requests_for(needs))
        else:
            weight, bias = (array.detach().cpu().numpy() for array in (head.weight, head.bias))
            views[CLASSIFIER] = with_head(views[CLASSIFIER], (weight, bias))
        self.heads_ = fitted_heads(views, labels)
        return {view: with_head(part, self.heads_.get(view)) for view, part in views.items()}

    def _network(self, images: Images, seed: int, *, n_classes: int) -> DenseClassifier:
        """Return the network with a head of zeros; or a copy of the trained classifier that was given."""
        given = isinstance(self.backbone, DenseClassifier)
        network = take_over(self, self.classes_) if given else self._build(n_classes, images, seed)
        take_weights(network)
        return network

    def _joint_score(self) -> JointScore:
        """Return the unfitted joint score that the parameters describe."""
        scorer = RelativeMahalanobis("auto", normalize=True) if self.scorer is None else self.scorer
        parts = named_parts(scorer, []) if isinstance(scorer, list | tuple) else [Part(CLASSIFIER, CLASSIFIER, scorer)]
        # Names of parts are names of nested parameters, and must not be those of other parameters.
        self._validate_names([name for name, _ in self._listed_scorers])
        joint_score = JointScore([tuple(part) for part in parts], fusion=self.fusion, alpha=self.alpha)
        joint_score.check_parameters()
        for name, view, _ in parts:
            if split_view(view)[0] != CLASSIFIER:
                raise ValueError(
                    f"part {name!r} is on the view {view!r}, but a FrozenDetector trains no dense network: expected "
                    "'classifier', or a layer of it, like 'classifier.layer3'."
                )
        return joint_score

    @property
    def _networks(self) -> dict[str, DenseClassifier]:
        return {CLASSIFIER: self.classifier_}
