"""The parameters of a training, their checks, and the values that follow from them alone."""

import math
from numbers import Integral, Real
from typing import Any, ClassVar, Literal

from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import HasMethods, StrOptions

from skdfb._constraints import Interval
from skdfb.augmentation import Augmentation, BackMix
from skdfb.training._schedule import SCHEDULES, SMALL_SET, bit_steps

__all__ = ["CLASSIFIER_SCALES", "DENSE_SCALES", "TrainingSettings", "resolved_mixup", "resolved_scales"]

# The paper resizes to 160 pixels and crops 128: a fixed factor of 1.25. The dense stage draws its factor.
CLASSIFIER_SCALES, DENSE_SCALES = (1.25, 1.25), (0.5, 2.0)
_CLASSIFIER_MIXUP = 0.1


class TrainingSettings(BaseEstimator):
    """The parameters of :class:`~skdfb.training.Trainer`, where they are described."""

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
        "compile": ["boolean"],
        "clip_grad_norm": [Interval(Real, 0, None, closed="neither"), None],
        "dense_start": [StrOptions({"classifier", "pretrained"})],
        "frozen_stages": [Interval(Integral, 0, None, closed="left"), StrOptions({"auto"})],
        "checkpoint_every": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        *,
        max_steps: int | None = None,
        max_epochs: int | None = None,
        batch_size: int = 128,
        learning_rate: float = 0.03,
        optimizer: Literal["sgd", "adamw"] = "sgd",
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        schedule: Literal["step", "cosine", "constant"] = "cosine",
        warmup_steps: int | None = None,
        scale_range: tuple[float, float] | Literal["auto"] | None = "auto",
        flip: bool = True,
        mixup: float | Literal["auto"] | None = "auto",
        augmentation: Augmentation | None = None,
        classification_weight: float = 1.0,
        precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true",
        compile: bool = False,
        clip_grad_norm: float | None = None,
        dense_start: Literal["classifier", "pretrained"] = "classifier",
        frozen_stages: int | Literal["auto"] = "auto",
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
        self.compile = compile
        self.clip_grad_norm = clip_grad_norm
        self.dense_start = dense_start
        self.frozen_stages = frozen_stages
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
            If a parameter is invalid. The message names the parameter, its value and the expected values.
        """
        # A detector has two trainers: each message begins with the name of its trainer.
        try:
            self._validate_params()
            if self.max_steps is not None and self.max_epochs is not None:
                raise ValueError(
                    f"max_steps={self.max_steps} and max_epochs={self.max_epochs} are both given: expected one of "
                    "them; set the other one to None."
                )
            self._check_scale_range()
            self._check_augmentation()
        except ValueError as error:
            raise type(error)(f"{name}: {error}") from None

    def _check_augmentation(self) -> None:
        # A class has the method `augment`, too, so the check of _parameter_constraints accepts it.
        if isinstance(self.augmentation, type):
            name = self.augmentation.__name__
            raise ValueError(f"augmentation is the class {name}: expected an instance; pass {name}().")
        if isinstance(self.augmentation, BackMix):
            self.augmentation.validate()

    def _check_scale_range(self) -> None:
        if self.scale_range is None or isinstance(self.scale_range, str):
            return
        # A list is accepted as well: grids and configuration files often give lists.
        scales = tuple(self.scale_range)
        if len(scales) != 2 or not all(map(_is_factor, scales)):
            raise ValueError(f"scale_range={self.scale_range!r}: expected two numbers (low, high), 'auto' or None.")
        if not 0 < scales[0] <= scales[1]:
            raise ValueError(f"scale_range={self.scale_range!r}: expected (low, high) with 0 < low <= high.")

    def n_steps(self, n_images: int) -> int:
        """Return the number of steps for a training set.

        Parameters
        ----------
        n_images : int
            Number of training images.

        Returns
        -------
        n_steps : int
            ``max_steps`` if it is given, else the number for ``max_epochs``, else the number by BiT's rule.
        """
        if self.max_steps is not None:
            return self.max_steps
        if self.max_epochs is not None:
            # As in shuffled_batches: an incomplete last batch is left out.
            return self.max_epochs * (n_images // min(self.batch_size, n_images))
        return bit_steps(n_images)


def _is_factor(scale: Any) -> bool:
    # True counts as 1 in Python.
    return isinstance(scale, Real) and not isinstance(scale, bool) and math.isfinite(scale)


def resolved_scales(settings: TrainingSettings, dense: bool) -> tuple[float, float] | None:
    """Return the range of the random scale in a stage; None if images are not scaled."""
    if settings.scale_range is None:
        return None
    if isinstance(settings.scale_range, str):  # "auto"
        return DENSE_SCALES if dense else CLASSIFIER_SCALES
    low, high = settings.scale_range
    return float(low), float(high)


def resolved_mixup(settings: TrainingSettings, dense: bool, n_images: int) -> float:
    """Return the alpha of mixup in a stage; 0 if images are not mixed."""
    # Mixed images would need mixed masks, but a mask has one class index per pixel.
    if dense:
        return 0.0
    if settings.mixup == "auto":
        # The authors of BackMix use no mixup beside it, those of BiT none on small sets.
        mixes = n_images >= SMALL_SET and not isinstance(settings.augmentation, BackMix)
        return _CLASSIFIER_MIXUP if mixes else 0.0
    return float(settings.mixup or 0)
