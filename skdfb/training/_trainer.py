"""The training loop, its parameters in one object."""

import math
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions

from skdfb.augmentation import Augmentation, BackMix
from skdfb.images import Images, as_images, check_readable
from skdfb.networks import DenseClassifier
from skdfb.training._checkpoints import StageCheckpoints
from skdfb.training._run import CLASSIFIER_SCALES, DENSE_SCALES, TrainingRun
from skdfb.training._schedule import SCHEDULES, bit_steps
from skdfb.utils import isolated_rng, resolve_device, spawn_seeds

__all__ = ["Trainer"]


class Trainer(BaseEstimator):
    """How a network is trained: optimiser, schedule, augmentation, precision.

    One trainer serves both stages of :class:`~skdfb.DFBDetector`: ``"auto"`` stands for what the stage wants.

    Parameters
    ----------
    max_steps : int, default=None
        Number of steps. None follows the size of the data by BiT's rule: 500 steps below 20,000 images, 10,000 below
        500,000, else 20,000.
    max_epochs : int, default=None
        Number of passes over the images, instead of ``max_steps``.
    batch_size : int, default=128
        Images a step; at most all there are.
    learning_rate : float, default=0.003
        At its highest, after the warm-up.
    optimizer : {"sgd", "adamw"}, default="sgd"
        Which optimiser.
    momentum : float, default=0.9
        Of SGD.
    weight_decay : float, default=0.0
        Of either optimiser.
    schedule : {"step", "cosine", "constant"}, default="step"
        Course of the learning rate; ``"step"`` is the paper's: a tenth after 30 %, 60 % and 90 % of the steps.
    warmup_steps : int, default=None
        Steps over which the learning rate rises linearly. None is 500, but at most a fifth of all steps.
    scale_range : tuple of (float, float), "auto" or None, default="auto"
        Each image is scaled by a random factor of this range, then cut or padded to size. "auto" is 1.25 for the
        classifier (the paper's resize to 160 and crop of 128) and 0.5 to 2 for the dense network; None leaves it out.
    flip : bool, default=True
        Whether half of the images are mirrored left to right. Switch it off where a mirror changes the class.
    mixup : float, "auto" or None, default="auto"
        The alpha of mixup for the classifier, "auto" is 0.1. The dense stage never mixes.
    augmentation : Augmentation, default=None
        What else is done to each batch, before it is scaled, mirrored and mixed, such as
        :class:`~skdfb.augmentation.BackMix`.
    classification_weight : float, default=1.0
        Weight of the classification loss beside the pixel loss of the dense stage; the paper has none (0).
    precision : {"32-true", "bf16-mixed", "16-mixed"}, default="32-true"
        Of the computation; the weights stay in their own dtype. Networks whose weights are not float32 compute in the
        precision of their weights.
    clip_grad_norm : float, default=None
        Largest norm of the gradient.

    See Also
    --------
    skdfb.DFBDetector : Takes trainers as ``classifier_trainer`` and ``dense_trainer``.

    Notes
    -----
    Under ``torchrun`` or ``fabric run`` the launched processes train one network together: each takes its share of
    every batch, and all end with the same weights.

    References
    ----------
    Recipe: Ding and Pang, ACM MM 2024, :arxiv:`2303.08727`. Number of steps: Kolesnikov et al., ECCV 2020,
    :arxiv:`1912.11370`.

    Examples
    --------
    >>> from skdfb.training import Trainer
    >>> Trainer(max_epochs=10, learning_rate=0.01)
    Trainer(learning_rate=0.01, max_epochs=10)
    >>> Trainer.paper_dense().max_steps
    20000
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "max_steps": [Interval(Integral, 1, None, closed="left"), None],
        "max_epochs": [Interval(Integral, 1, None, closed="left"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "optimizer": [StrOptions({"sgd", "adamw"})],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "schedule": [StrOptions(set(SCHEDULES))],
        "warmup_steps": [Interval(Integral, 0, None, closed="left"), None],
        "scale_range": [tuple, list, StrOptions({"auto"}), None],
        "flip": ["boolean"],
        "mixup": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"}), None],
        "augmentation": [HasMethods("augment"), None],
        "classification_weight": [Interval(Real, 0, None, closed="left")],
        "precision": [StrOptions({"32-true", "bf16-mixed", "16-mixed"})],
        "clip_grad_norm": [Interval(Real, 0, None, closed="neither"), None],
    }

    def __init__(
        self,
        *,
        max_steps: int | None = None,
        max_epochs: int | None = None,
        batch_size: int = 128,
        learning_rate: float = 0.003,
        optimizer: Literal["sgd", "adamw"] = "sgd",
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        schedule: Literal["step", "cosine", "constant"] = "step",
        warmup_steps: int | None = None,
        scale_range: tuple[float, float] | Literal["auto"] | None = "auto",
        flip: bool = True,
        mixup: float | Literal["auto"] | None = "auto",
        augmentation: Augmentation | None = None,
        classification_weight: float = 1.0,
        precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true",
        clip_grad_norm: float | None = None,
    ) -> None:
        self.max_steps = max_steps
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.optimizer = optimizer
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.warmup_steps = warmup_steps
        self.scale_range = scale_range
        self.flip = flip
        self.mixup = mixup
        self.augmentation = augmentation
        self.classification_weight = classification_weight
        self.precision = precision
        self.clip_grad_norm = clip_grad_norm

    @classmethod
    def paper_classifier(cls, **changes: Any) -> Self:
        """Return the DFB paper's recipe of the first stage: 20,000 steps with 500 of warm-up; ``changes`` override."""
        recipe: dict[str, Any] = {"scale_range": CLASSIFIER_SCALES, "mixup": 0.1}
        return cls(**{"max_steps": 20_000, "warmup_steps": 500} | recipe | changes)

    @classmethod
    def paper_dense(cls, **changes: Any) -> Self:
        """Return the DFB paper's recipe of the dense stage, which has no classification loss; ``changes`` override."""
        recipe: dict[str, Any] = {"scale_range": DENSE_SCALES, "mixup": None, "classification_weight": 0.0}
        return cls(**{"max_steps": 20_000, "warmup_steps": 500} | recipe | changes)

    def validate(self, name: str = "trainer") -> None:
        """Check the parameters; ``name`` is how the error calls this trainer.

        Raises
        ------
        ValueError
            Naming the parameter, what was given and what is wanted.
        """
        try:
            self._validate_params()
            if self.max_steps is not None and self.max_epochs is not None:
                raise ValueError(
                    f"max_steps={self.max_steps} and max_epochs={self.max_epochs} are both given; give one of them."
                )
            self._check_scale_range()
            self._check_augmentation()
        except ValueError as error:
            raise type(error)(f"{name}: {error}") from None

    def _check_augmentation(self) -> None:
        if isinstance(self.augmentation, type):
            name = self.augmentation.__name__
            raise ValueError(f"augmentation is the class {name}; an instance is wanted, like {name}().")
        if isinstance(self.augmentation, BackMix):
            self.augmentation.validate()

    def _check_scale_range(self) -> None:
        if self.scale_range is None or isinstance(self.scale_range, str):
            return
        scales = tuple(self.scale_range)
        if len(scales) != 2 or not all(isinstance(scale, Real) and math.isfinite(scale) for scale in scales):
            raise ValueError(f"scale_range={self.scale_range!r}; two numbers (low, high), 'auto' or None are wanted.")
        if not 0 < scales[0] <= scales[1]:
            raise ValueError(f"scale_range={self.scale_range!r}; (low, high) with 0 < low <= high is wanted.")

    def train(
        self,
        network: DenseClassifier,
        X: Any,
        y: npt.ArrayLike,
        masks: npt.ArrayLike | None = None,
        *,
        device: str | torch.device = "auto",
        random_state: int | np.random.RandomState | None = None,
        n_jobs: int | None = None,
        verbose: int = 0,
        checkpoints: StageCheckpoints | None = None,
    ) -> dict[str, list[float]]:
        """Train a network in place.

        Parameters
        ----------
        network : DenseClassifier
            With K outputs, or with K + 1 where masks are given. It ends in evaluation mode on ``device``, also where
            training fails.
        X : images
            In any of the accepted forms, n of them.
        y : array-like of int of shape (n,)
            Class indices 0..K-1.
        masks : array-like of int of shape (n, H, W), default=None
            Class indices a pixel, K for background; of any size, they cover the whole image. With masks this is the
            dense stage.
        device, random_state, n_jobs, verbose
            As in :class:`~skdfb.DFBDetector`.
        checkpoints : object, default=None
            Where a detector keeps the states of this stage, from the newest of which the training goes on.

        Returns
        -------
        history : dict
            ``"loss"`` and ``"learning_rate"`` of every step.

        Raises
        ------
        ValueError
            If a parameter, ``y`` or ``masks`` is not as wanted; before any training.
        skdfb.exceptions.TrainingDivergedError
            If a loss is NaN or infinite.
        """
        self.validate()
        images, labels = as_images(X), np.asarray(y)
        if not isinstance(X, Images):  # those have been checked by who made them
            check_readable(images, self.batch_size, n_jobs)
        pixel_labels = None if masks is None else np.asarray(masks)
        _check_targets(network, len(images), labels, pixel_labels)
        (seed,) = spawn_seeds(random_state, 1)
        # Gradients, also where the caller has switched them off.
        with torch.inference_mode(False):
            run = TrainingRun(self, network, images, labels, pixel_labels, resolve_device(device), seed, n_jobs)
            with isolated_rng(seed, run.fabric.device):
                return run.train(verbose, checkpoints)

    def n_steps(self, n_images: int) -> int:
        """Return the number of steps for a training set of ``n_images``."""
        if self.max_steps is not None:
            return self.max_steps
        if self.max_epochs is not None:
            return self.max_epochs * (n_images // min(self.batch_size, n_images))
        return bit_steps(n_images)


def _check_targets(
    network: DenseClassifier, n_images: int, labels: npt.NDArray[Any], masks: npt.NDArray[Any] | None
) -> None:
    """Refuse targets that the network has no output for."""
    n_classes = network.num_classes - (masks is not None)
    if labels.shape != (n_images,):
        raise ValueError(f"y has shape {labels.shape} for {n_images} images; one class index for each is wanted.")
    _check_indices(labels, n_classes - 1, "y")
    if masks is None:
        return
    if masks.ndim != 3 or len(masks) != n_images or 0 in masks.shape:
        raise ValueError(f"masks has shape {masks.shape} for {n_images} images; (n, H, W) is wanted.")
    _check_indices(masks, n_classes, "masks")


def _check_indices(values: npt.NDArray[Any], highest: int, name: str) -> None:
    if values.dtype.kind not in "iu":
        raise ValueError(f"{name} has dtype {values.dtype}; class indices, which are integers, are wanted.")
    if values.min() < 0 or values.max() > highest:
        raise ValueError(
            f"{name} has values in {values.min()}..{values.max()}; 0..{highest} is wanted, by the network's outputs."
        )
