"""The trainer: the parameters of a training, and the method that runs it."""

from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from skdfb.images import Images, as_images, check_readable
from skdfb.networks import DenseClassifier
from skdfb.training._checkpoints import StageCheckpoints
from skdfb.training._run import TrainingRun
from skdfb.training._settings import CLASSIFIER_SCALES, DENSE_SCALES, TrainingSettings
from skdfb.utils import PackedMasks, isolated_rng, resolve_device, spawn_seeds

__all__ = ["Trainer"]


class Trainer(TrainingSettings):
    """Trains the networks: number of steps, optimiser, learning rates, augmentation, precision.

    The same trainer can train the classifier and the dense network of a :class:`~skdfb.DFBDetector`: the meaning of
    ``"auto"`` depends on the stage.

    Parameters
    ----------
    max_steps : int, default=None
        Number of steps. If both this and ``max_epochs`` are None, the number of images decides, by BiT's rule: 500
        steps below 20,000 images, 10,000 below 500,000, else 20,000.
    max_epochs : int, default=None
        Number of passes over the images. Only one of ``max_steps`` and ``max_epochs`` can be given.
    batch_size : int, default=128
        Images per step; at most the number of training images.
    learning_rate : float, default=0.003
        Highest learning rate, which the warm-up ends with.
    optimizer : {"sgd", "adamw"}, default="sgd"
        The optimiser.
    momentum : float, default=0.9
        Momentum of SGD, in [0, 1). AdamW ignores it.
    weight_decay : float, default=0.0
        Weight decay of the optimiser.
    schedule : {"step", "cosine", "constant"}, default="step"
        How the learning rate falls after the warm-up. ``"step"`` is the paper's: it is divided by ten at 30 %, 60 % and
        90 % of all steps. ``"cosine"`` falls to 0 along half a cosine, ``"constant"`` does not fall.
    warmup_steps : int, default=None
        Number of steps in which the learning rate rises linearly. None is 500, but at most a fifth of all steps.
    scale_range : tuple of (float, float), "auto" or None, default="auto"
        Lowest and highest factor. Each image is scaled by a random factor of this range, then cropped or padded to the
        network's input size. ``"auto"`` is (1.25, 1.25) for the classifier (the paper resizes to 160 and crops 128)
        and (0.5, 2.0) for the dense network. None does not scale.
    flip : bool, default=True
        Whether to mirror half of the images, chosen at random, left to right. Pass False if a mirrored image may belong
        to another class.
    mixup : float, "auto" or None, default="auto"
        Parameter alpha of mixup for the classifier. ``"auto"`` is 0.1; 0 and None do not mix. Images of the dense stage
        are never mixed.
    augmentation : Augmentation, default=None
        Another augmentation, such as :class:`~skdfb.augmentation.BackMix`. It changes each batch before the batch is
        scaled, mirrored and mixed.
    classification_weight : float, default=1.0
        Weight of the classification loss that is added to the pixel loss of the dense stage. The paper has no such loss
        (0).
    precision : {"32-true", "bf16-mixed", "16-mixed"}, default="32-true"
        Precision of the computation for float32 weights, which stay float32. A network with weights of another dtype
        computes in that dtype.
    clip_grad_norm : float, default=None
        Largest norm of the gradient; a larger gradient is scaled down to it. None does not limit the norm.
    dense_start : {"classifier", "pretrained"}, default="classifier"
        Weights that the dense network starts from: those of the trained classifier, or those of the backbone before any
        training. The training of the classifier ignores it. See Notes.
    checkpoint_every : int, default=500
        Number of steps between two checkpoints, if there is a folder for them. The newest two are kept.

    See Also
    --------
    skdfb.DFBDetector : Takes trainers as ``classifier_trainer`` and ``dense_trainer``, and the folder for checkpoints.
    skdfb.masks.DenseMaskGenerator : Trains the two networks for masks alone.

    Notes
    -----
    The paper gives two starts for the dense network. Section 3.1 starts from the trained classifier, the implementation
    details from the pre-trained checkpoint. Both can be chosen by ``dense_start``.

    Processes that are launched by ``torchrun`` or ``fabric run`` train one network together. Each takes its share of
    every batch, and all end with the same weights.

    If a batch does not fit into the device's memory, it is split into pieces, whose gradients add up to that of the
    batch, and there is a :class:`~skdfb.exceptions.BatchSizeWarning`.

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
        """Return the recipe of the DFB paper for the classifier.

        SGD with momentum 0.9, learning rate 0.003 with three drops, 20,000 steps of 128 images, resize to 160 and crop
        of 128, mixup with alpha 0.1. No image is mirrored, because the paper names mirroring for the dense stage only.
        The warm-up of 500 steps is not in the paper's text; it is BiT's.

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
        return cls(**{"max_steps": 20_000, "warmup_steps": 500} | recipe | changes)

    @classmethod
    def paper_dense(cls, **changes: Any) -> Self:
        """Return the recipe of the DFB paper for the dense network.

        SGD and learning rates as for the classifier, 20,000 steps of 128 images, scales of 0.5 to 2, random mirroring,
        and the pixel loss alone. The warm-up of 500 steps is not in the paper's text; it is BiT's. The network starts
        from the classifier, as in section 3.1 of the paper. Pass ``dense_start="pretrained"`` for the start of its
        implementation details.

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
        return cls(**{"max_steps": 20_000, "warmup_steps": 500} | recipe | changes)

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
            Network with K outputs, or with K + 1 outputs if there are masks. Afterwards it is in evaluation mode on
            ``device``, also if the training fails.
        X : images
            The n training images, in any form that :meth:`skdfb.DFBDetector.fit` takes.
        y : array-like of int of shape (n,)
            Class indices 0..K-1.
        masks : array-like of int of shape (n, H, W) or PackedMasks, default=None
            Class index of each pixel, K for the background. A mask covers its whole image and may have another size.
            With masks this is the dense stage, without masks the training of a classifier.
        device : str, default="auto"
            Device of the training; "auto" is the GPU if there is one.
        random_state : int, RandomState or None, default=None
            Fixes the order of the images, augmentation and dropout.
        n_jobs : int, default=None
            Number of threads that read images; None is 1.
        verbose : int, default=0
            1 shows a progress bar.
        checkpoints : StageCheckpoints, default=None
            Checkpoints of this stage. The training goes on from the newest of them.

        Returns
        -------
        history : dict of str to list of float
            ``"loss"`` and ``"learning_rate"`` of every step.

        Raises
        ------
        ValueError
            If a parameter, ``y`` or ``masks`` is wrong; before any training.
        skdfb.exceptions.TrainingDivergedError
            If a loss is NaN or infinite.
        """
        # 1. Check everything before any training.
        self.validate()
        images, labels = as_images(X), np.asarray(y)
        # Images were checked when they were created.
        if not isinstance(X, Images):
            check_readable(images, self.batch_size, n_jobs)
        pixel_labels = masks if masks is None or isinstance(masks, PackedMasks) else np.asarray(masks)
        _check_targets(network, len(images), labels, pixel_labels)
        (seed,) = spawn_seeds(random_state, 1)

        # 2. Train. The training needs gradients, even if the caller has switched them off.
        with torch.inference_mode(False):
            run = TrainingRun(self, network, images, labels, pixel_labels, resolve_device(device), seed, n_jobs)
            with isolated_rng(seed, run.fabric.device):
                return run.train(verbose, checkpoints)


def _check_targets(
    network: DenseClassifier, n_images: int, labels: npt.NDArray[Any], masks: npt.NDArray[Any] | PackedMasks | None
) -> None:
    """Refuse labels and masks of a wrong shape, and classes that the network has no output for."""
    n_classes = network.num_classes - (masks is not None)
    if labels.shape != (n_images,):
        raise ValueError(
            f"y has shape {labels.shape} for {n_images} images: expected ({n_images},), one class index per image."
        )
    _check_indices(labels, n_classes - 1, "y")
    if masks is None:
        return
    # Packed masks hold class indices by construction.
    if isinstance(masks, PackedMasks):
        if len(masks) != n_images:
            raise ValueError(f"masks holds {len(masks)} masks for {n_images} images: expected one mask per image.")
        return
    if masks.ndim != 3 or len(masks) != n_images or 0 in masks.shape:
        raise ValueError(
            f"masks has shape {masks.shape} for {n_images} images: expected ({n_images}, H, W) with H and W of at "
            "least 1."
        )
    _check_indices(masks, n_classes, "masks")


def _check_indices(values: npt.NDArray[Any], highest: int, name: str) -> None:
    if values.dtype.kind not in "iu":
        raise ValueError(f"{name} has dtype {values.dtype}: expected class indices of an integer dtype.")
    if values.min() < 0 or values.max() > highest:
        raise ValueError(
            f"{name} has values in {values.min()}..{values.max()}: expected 0..{highest}, the classes that the network "
            "has outputs for."
        )
