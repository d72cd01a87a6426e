"""The parameters of a training, their checks, and the values that follow from them."""

import math
from numbers import Integral, Real
from typing import Any, ClassVar, Literal

from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions

from skdfb.augmentation import Augmentation, BackMix
from skdfb.training._schedule import SCHEDULES, bit_steps

__all__ = ["CLASSIFIER_SCALES", "DENSE_SCALES", "TrainingSettings"]

# Meaning of "auto" in the two stages; the values are the paper's.
CLASSIFIER_SCALES, DENSE_SCALES = (1.25, 1.25), (0.5, 2.0)
_CLASSIFIER_MIXUP = 0.1


class TrainingSettings(BaseEstimator):
    """The parameters of :class:`~skdfb.training.Trainer`, which describes them."""

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
        "dense_start": [StrOptions({"classifier", "pretrained"})],
        "checkpoint_every": [Interval(Integral, 1, None, closed="left")],
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
        dense_start: Literal["classifier", "pretrained"] = "classifier",
        checkpoint_every: int = 500,
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
        self.dense_start = dense_start
        self.checkpoint_every = checkpoint_every

    def validate(self, name: str = "trainer") -> None:
        """Check the parameters.

        Parameters
        ----------
        name : str, default="trainer"
            Name of this trainer in error messages.

        Raises
        ------
        ValueError
            If a parameter is wrong; the message names the parameter, its value and what is expected.
        """
        # The detector has two trainers, so each message starts with the name of the trainer.
        try:
            self._validate_params()
            if self.max_steps is not None and self.max_epochs is not None:
                raise ValueError(
                    f"max_steps={self.max_steps} and max_epochs={self.max_epochs} are both given: expected one of "
                    "them; leave the other one None."
                )
            self._check_scale_range()
            self._check_augmentation()
        except ValueError as error:
            raise type(error)(f"{name}: {error}") from None

    def _check_augmentation(self) -> None:
        if isinstance(self.augmentation, type):
            name = self.augmentation.__name__
            raise ValueError(f"augmentation is the class {name}: expected an instance, like {name}().")
        # Third-party augmentations check themselves when they are called.
        if isinstance(self.augmentation, BackMix):
            self.augmentation.validate()

    def _check_scale_range(self) -> None:
        if self.scale_range is None or isinstance(self.scale_range, str):
            return
        # Infinite scales would pass the comparison below.
        scales = tuple(self.scale_range)
        if len(scales) != 2 or not all(isinstance(scale, Real) and math.isfinite(scale) for scale in scales):
            raise ValueError(f"scale_range={self.scale_range!r}: expected two numbers (low, high), 'auto' or None.")
        if not 0 < scales[0] <= scales[1]:
            raise ValueError(f"scale_range={self.scale_range!r}: expected (low, high) with 0 < low <= high.")

    def n_steps(self, n_images: int) -> int:
        """Return the number of steps on a training set.

        Parameters
        ----------
        n_images : int
            Number of training images.

        Returns
        -------
        n_steps : int
            ``max_steps``; if that is None, the number of steps of ``max_epochs`` passes, or that of BiT's rule.
        """
        if self.max_steps is not None:
            return self.max_steps
        # An incomplete last batch of an epoch is left out.
        if self.max_epochs is not None:
            return self.max_epochs * (n_images // min(self.batch_size, n_images))
        return bit_steps(n_images)

    def resolved_scales(self, dense: bool) -> tuple[float, float] | None:
        """Return the range of the random scales in a stage.

        Parameters
        ----------
        dense : bool
            Whether it is the stage of the dense network.

        Returns
        -------
        scale_range : tuple of (float, float) or None
            Lowest and highest factor; None if images are not scaled.
        """
        if self.scale_range is None:
            return None
        if isinstance(self.scale_range, str):
            return DENSE_SCALES if dense else CLASSIFIER_SCALES
        low, high = self.scale_range
        return float(low), float(high)

    def resolved_mixup(self, dense: bool) -> float:
        """Return the alpha of mixup in a stage.

        Parameters
        ----------
        dense : bool
            Whether it is the stage of the dense network.

        Returns
        -------
        alpha : float
            0 if images are not mixed.
        """
        # Masks of two images cannot be mixed.
        if dense:
            return 0.0
        return _CLASSIFIER_MIXUP if self.mixup == "auto" else float(self.mixup or 0)
