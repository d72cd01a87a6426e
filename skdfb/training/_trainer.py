"""The trainer: the parameters of a training, and a method that runs it."""

from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from skdfb._progress import progress
from skdfb.images import Images, as_images, survey
from skdfb.networks import DenseClassifier
from skdfb.networks._stages import freeze_stages, has_trained_weights, n_trunk_stages
from skdfb.training._checkpoints import StageCheckpoints
from skdfb.training._run import TrainingRun
from skdfb.training._settings import CLASSIFIER_SCALES, DENSE_SCALES, TrainingSettings
from skdfb.utils import PackedMasks, own_torch_modes, resolve_device, spawn_seeds

__all__ = ["Trainer"]

# What both stages share in the recipe of the paper.
_PAPER: dict[str, Any] = {
    "max_steps": 20_000,
    "warmup_steps": 500,
    "learning_rate": 0.003,
    "schedule": "step",
    "frozen_stages": 0,
}


class Trainer(TrainingSettings):
    """Parameters of a training: optimiser, schedule, augmentation and precision.

    One trainer can be used for both stages of :class:`~skdfb.DFBDetector`, the classifier and the dense network. The
    defaults ``"auto"`` depend on the stage.

    Parameters
    ----------
    max_steps : int, default=None
        Number of training steps. If ``max_epochs`` is None as well, the number depends on the size of the training set
        by BiT's rule: 500 steps below 20,000 images, 10,000 steps below 500,000 images, otherwise 20,000 steps.
    max_epochs : int, default=None
        Number of passes over the training set. Give at most one of ``max_epochs`` and ``max_steps``.
    batch_size : int, default=128
        Number of images per step. A smaller training set is one batch.
    learning_rate : float, default=0.03
        Highest learning rate, which is reached at the end of the warm-up.
    optimizer : {"sgd", "adamw"}, default="sgd"
        Optimiser.
    momentum : float, default=0.9
        Momentum of SGD. AdamW ignores it.
    weight_decay : float, default=0.0
        Weight decay of the optimiser.
    schedule : {"step", "cosine", "constant"}, default="cosine"
        Schedule of the learning rate after the warm-up. ``"cosine"`` decreases it to 0, ``"constant"`` does not change
        it. ``"step"`` is the schedule of the paper: the rate is divided by ten after 30 %, 60 % and 90 % of all steps.
    warmup_steps : int, default=None
        Number of steps in which the learning rate increases linearly. None means 500, but at most a fifth of all steps.
    scale_range : tuple of (float, float), "auto" or None, default="auto"
        Range of the random factor by which each image is scaled, before it is cropped or padded to the input size.
        "auto" is a factor of 1.25 for the classifier (in the paper: resize to 160 and crop of 128) and 0.5 to 2 for the
        dense network. None does not scale.
    flip : bool, default=True
        Whether images are mirrored left to right with probability 1/2. Set it to False if mirroring changes the class.
    mixup : float, "auto" or None, default="auto"
        Parameter alpha of mixup for the classifier; 0 or None does not mix. "auto" is 0 below 20,000 images, by BiT's
        rule, and beside a :class:`~skdfb.augmentation.BackMix`, as its authors do; else 0.1. The dense stage never
        mixes images.
    augmentation : Augmentation, default=None
        An additional augmentation, such as :class:`~skdfb.augmentation.BackMix`. It is applied before the batch is
        scaled, mirrored and mixed.
    classification_weight : float, default=1.0
        Weight of the classification loss that is added to the pixel loss in the dense stage. The paper does not use
        this loss (0).
    precision : {"32-true", "bf16-mixed", "16-mixed"}, default="32-true"
        Precision of the computation. The weights keep their dtype. Networks whose weights are not float32 compute in
        the precision of their weights.
    compile : bool, default=False
        Whether ``torch.compile`` translates the network before the first step. That takes a minute or more, and pays
        in long trainings. Numbers are rounded in another way. If the network cannot be compiled, or there is no
        compiler, a :class:`~skdfb.exceptions.CompileWarning` says so, and the training goes on without it.
    clip_grad_norm : float, default=None
        Largest norm of the gradient: larger gradients are scaled down to it. None does not limit the norm.
    dense_start : {"classifier", "pretrained"}, default="classifier"
        Initial weights of the dense network: those of the trained classifier, or those of the backbone before any
        training. The training of the classifier ignores this parameter. See Notes.
    frozen_stages : int or "auto", default="auto"
        Number of first stages of the backbone, the stem included, that keep their weights and batch statistics: the
        *trunk*. 0 trains all of them. "auto" is 0 for random weights. For pre-trained weights it is the largest number
        of stages that hold at most 70 % of the weight tensors. See Notes.
    checkpoint_every : int, default=500
        Number of steps between two checkpoints. It has an effect only if checkpoints are written, see
        ``checkpoint_dir`` of :class:`~skdfb.DFBDetector`. The newest two checkpoints are kept.

    See Also
    --------
    skdfb.DFBDetector : Takes trainers as ``classifier_trainer`` and ``dense_trainer``.

    Notes
    -----
    Processes that were launched by ``torchrun`` or ``fabric run`` train one network together. Each process computes a
    share of every batch, and all processes end with the same weights.

    The paper gives two different starts of the dense network: the trained classifier in section 3.1, and the
    pre-trained checkpoint in the implementation details.

    *The trunk.* Stages are those of timm; for any other module they are its children. Weights count as pre-trained if
    the normalisation layers have biases or running means other than 0. The dense network has the trunk of the
    classifier, or a larger one. Weights that were frozen before stay frozen, too (``requires_grad_(False)``): layers
    without a weight to train keep their batch statistics, and drop nothing.

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

    @classmethod
    def paper_classifier(cls, **changes: Any) -> Self:
        """Return a trainer with the recipe of the DFB paper for the classifier.

        SGD with momentum 0.9, learning rate 0.003 with three drops, 20,000 steps of 128 images, resize to 160 and crop
        of 128, mixup with alpha 0.1, no mirroring. The warm-up of 500 steps is from BiT: the paper does not mention
        one.

        Parameters
        ----------
        **changes : dict
            Parameters that differ from the recipe.

        Returns
        -------
        trainer : Trainer
            With the recipe's parameters.
        """
        recipe: dict[str, Any] = {"scale_range": CLASSIFIER_SCALES, "mixup": 0.1, "flip": False}
        return cls(**_PAPER | recipe | changes)

    @classmethod
    def paper_dense(cls, **changes: Any) -> Self:
        """Return a trainer with the recipe of the DFB paper for the dense network.

        SGD as for the classifier, 20,000 steps of 128 images, scales of 0.5 to 2, random mirroring, and the pixel loss
        alone. The warm-up of 500 steps is from BiT: the paper does not mention one. The network starts from the
        classifier, as in section 3.1. Pass ``dense_start="pretrained"`` for the start in the implementation details.

        Parameters
        ----------
        **changes : dict
            Parameters that differ from the recipe.

        Returns
        -------
        trainer : Trainer
            With the recipe's parameters.
        """
        recipe: dict[str, Any] = {"scale_range": DENSE_SCALES, "mixup": None, "classification_weight": 0.0}
        return cls(**_PAPER | recipe | changes)

    def train(
        self,
        network: DenseClassifier,
        X: Any,
        y: npt.ArrayLike,
        masks: npt.ArrayLike | PackedMasks | None = None,
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
            The network, with K outputs, or with K + 1 outputs if there are masks. Afterwards it is in evaluation mode
            on ``device``, also if the training fails.
        X : images
            The n training images, in any form that :class:`~skdfb.DFBDetector` accepts.
        y : array-like of int of shape (n,)
            Class indices 0..K-1.
        masks : array-like of int of shape (n, H, W) or PackedMasks, default=None
            Class index of each pixel, K for background. A mask may have any size: it covers the whole image. With masks
            this is the training of the dense stage.
        device : str, default="auto"
            As in :class:`~skdfb.DFBDetector`.
        random_state : int, RandomState or None, default=None
            As in :class:`~skdfb.DFBDetector`.
        n_jobs : int, default=None
            As in :class:`~skdfb.DFBDetector`.
        verbose : int, default=0
            1 shows a progress bar with loss and learning rate, what is about to be done, and how long it takes.
        checkpoints : StageCheckpoints, default=None
            Checkpoints of this stage, which the detector passes. The training continues from the newest one.

        Returns
        -------
        history : dict
            Lists with the loss and the learning rate of every step, as ``"loss"`` and ``"learning_rate"``.

        Raises
        ------
        ValueError
            If a parameter, ``y`` or ``masks`` is invalid. This is checked before the training starts.
        skdfb.exceptions.TrainingDivergedError
            If a loss is NaN or infinite.
        """
        self.validate()
        images, labels = as_images(X, n_channels=network.preprocessor.n_channels), np.asarray(y)
        # An unreadable file is reported now, not in the middle of the training. `Images` were checked when they were
        # made.
        if not isinstance(X, Images):
            with progress(verbose):
                survey(images, n_jobs, compare=False)
        pixel_labels = masks if masks is None or isinstance(masks, PackedMasks) else np.asarray(masks)
        _check_targets(network, len(images), labels, pixel_labels)
        self.freeze_trunk(network, dense=masks is not None)
        (seed,) = spawn_seeds(random_state, 1)
        # Gradients and full precision, whatever modes the caller is in.
        with own_torch_modes(gradients=True), progress(verbose):
            run = TrainingRun(self, network, images, labels, pixel_labels, resolve_device(device), seed, n_jobs)
            return run.train(checkpoints)

    def freeze_trunk(self, network: DenseClassifier, *, dense: bool = False) -> None:
        """Freeze the first stages of a network, as :meth:`train` does.

        Parameters
        ----------
        network : DenseClassifier
            The network. Weights that are frozen already stay so.
        dense : bool, default=False
            Whether for the dense stage, where "auto" freezes nothing more: the dense network keeps the trunk of the
            classifier.

        Raises
        ------
        ValueError
            If the backbone has fewer stages than ``frozen_stages``.
        """
        backbone, n_stages = network.feature_map.backbone, self.frozen_stages
        if n_stages == "auto":
            # The weights of a trained classifier would always count as pre-trained.
            n_stages = n_trunk_stages(backbone) if not dense and has_trained_weights(backbone) else 0
        freeze_stages(backbone, n_stages)


def _check_targets(
    network: DenseClassifier, n_images: int, labels: npt.NDArray[Any], masks: npt.NDArray[Any] | PackedMasks | None
) -> None:
    """Check the shapes of the targets, and that the network has an output for each of their values."""
    # With masks the last output is the background, which is not a class of y.
    n_classes = network.num_classes - (masks is not None)
    if labels.shape != (n_images,):
        raise ValueError(f"y has shape {labels.shape} for {n_images} images: expected shape ({n_images},).")
    _check_indices(labels, n_classes - 1, "y")
    if masks is None:
        return
    # The library makes packed masks itself, from checked class indices.
    if isinstance(masks, PackedMasks):
        if len(masks) != n_images:
            raise ValueError(f"masks holds {len(masks)} masks for {n_images} images: expected one per image.")
        return
    if masks.ndim != 3 or len(masks) != n_images or 0 in masks.shape:
        raise ValueError(f"masks has shape {masks.shape} for {n_images} images: expected (n, H, W).")
    _check_indices(masks, n_classes, "masks")


def _check_indices(values: npt.NDArray[Any], highest: int, name: str) -> None:
    if values.dtype.kind not in "iu":
        raise ValueError(f"{name} has dtype {values.dtype}: expected class indices, which are integers.")
    if values.min() < 0 or values.max() > highest:
        raise ValueError(
            f"{name} has values in {values.min()}..{values.max()}: expected 0..{highest}, the outputs of the network."
        )
