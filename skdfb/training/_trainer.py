"""The trainer: parameters of a training, and one method that runs it."""

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
    """How a network is trained: optimiser, schedule, augmentation, precision.

    One trainer can serve both stages of :class:`~skdfb.DFBDetector`: the values ``"auto"`` depend on the stage.

    Parameters
    ----------
    max_steps : int, default=None
        Number of steps. None follows the size of the data by BiT's rule: 500 steps below 20,000 images, 10,000 below
        500,000, else 20,000.
    max_epochs : int, default=None
        Number of passes over the images, instead of ``max_steps``.
    batch_size : int, default=128
        Images per step; at most all images.
    learning_rate : float, default=0.003
        The highest one, after the warm-up.
    optimizer : {"sgd", "adamw"}, default="sgd"
        The optimiser.
    momentum : float, default=0.9
        Momentum of SGD.
    weight_decay : float, default=0.0
        Weight decay of either optimiser.
    schedule : {"step", "cosine", "constant"}, default="step"
        Course of the learning rate. ``"step"`` is the paper's: a tenth after 30 %, 60 % and 90 % of the steps.
    warmup_steps : int, default=None
        Steps over which the learning rate rises linearly. None is 500, but at most a fifth of all steps.
    scale_range : tuple of (float, float), "auto" or None, default="auto"
        Each image is scaled by a random factor of this range, then cropped or padded. "auto" is 1.25 for the classifier
        (the paper's resize to 160 and crop of 128) and 0.5 to 2 for the dense network. None does not scale.
    flip : bool, default=True
        Whether half of the images are mirrored left to right. Switch it off where a mirror changes the class.
    mixup : float, "auto" or None, default="auto"
        The alpha of mixup for the classifier; "auto" is 0.1. The dense stage never mixes.
    augmentation : Augmentation, default=None
        A further augmentation, before each batch is scaled, mirrored and mixed, such as
        :class:`~skdfb.augmentation.BackMix`.
    classification_weight : float, default=1.0
        Weight of the classification loss beside the pixel loss of the dense stage; the paper has none (0).
    precision : {"32-true", "bf16-mixed", "16-mixed"}, default="32-true"
        Precision of the computation; the weights keep their dtype. Networks whose weights are not float32 compute in
        the precision of their weights.
    clip_grad_norm : float, default=None
        Largest norm of the gradient; None does not limit it.
    dense_start : {"classifier", "pretrained"}, default="classifier"
        The weights that the dense network starts from: the trained classifier's, or the backbone's before any training.
        The trainer of the classifier ignores it. See Notes.
    checkpoint_every : int, default=500
        Steps between two checkpoints of a training that keeps some; the newest two are kept.

    See Also
    --------
    skdfb.DFBDetector : Takes trainers as ``classifier_trainer`` and ``dense_trainer``.

    Notes
    -----
    Under ``torchrun`` or ``fabric run`` the launched processes train one network together: each takes its share of
    every batch, and all end with the same weights.

    The paper is of two minds where the dense network starts: section 3.1 says from the trained classifier, the
    implementation details say from the pre-trained checkpoint.

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
        of 128, mixup with alpha 0.1. Not in the paper's text: the warm-up of 500 steps, which is BiT's. The paper
        mirrors no images in this stage.

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

        SGD as for the classifier, 20,000 steps of 128 images, scales of 0.5 to 2, random mirroring, and the pixel loss
        alone. Not in the paper's text: the warm-up of 500 steps, which is BiT's. The network starts from the
        classifier, as in section 3.1; pass ``dense_start="pretrained"`` for the start of the implementation details.

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
            With K outputs, or with K + 1 if there are masks. It ends in evaluation mode on ``device``, also if the
            training fails.
        X : images
            The n images in any of the accepted forms.
        y : array-like of int of shape (n,)
            Class indices 0..K-1.
        masks : array-like of int of shape (n, H, W) or PackedMasks, default=None
            Class index of each pixel, K for background. Masks of any size cover the whole image. With masks this is the
            dense stage.
        device : str, default="auto"
            As in :class:`~skdfb.DFBDetector`.
        random_state : int, RandomState or None, default=None
            As in :class:`~skdfb.DFBDetector`.
        n_jobs : int, default=None
            As in :class:`~skdfb.DFBDetector`.
        verbose : int, default=0
            As in :class:`~skdfb.DFBDetector`.
        checkpoints : StageCheckpoints, default=None
            Where a detector keeps the states of this stage. The training goes on from the newest of them.

        Returns
        -------
        history : dict
            Loss of every step as ``"loss"``, and ``"learning_rate"``.

        Raises
        ------
        ValueError
            If a parameter, ``y`` or ``masks`` is wrong; before any training.
        skdfb.exceptions.TrainingDivergedError
            If a loss is NaN or infinite.
        """
        self.validate()
        images, labels = as_images(X), np.asarray(y)
        if not isinstance(X, Images):  # Images have been checked when they were made
            check_readable(images, self.batch_size, n_jobs)
        pixel_labels = masks if masks is None or isinstance(masks, PackedMasks) else np.asarray(masks)
        _check_targets(network, len(images), labels, pixel_labels)
        (seed,) = spawn_seeds(random_state, 1)
        # Gradients, also if the caller has switched them off.
        with torch.inference_mode(False):
            run = TrainingRun(self, network, images, labels, pixel_labels, resolve_device(device), seed, n_jobs)
            with isolated_rng(seed, run.fabric.device):
                return run.train(verbose, checkpoints)


def _check_targets(
    network: DenseClassifier, n_images: int, labels: npt.NDArray[Any], masks: npt.NDArray[Any] | PackedMasks | None
) -> None:
    """Refuse targets that the network has no output for."""
    n_classes = network.num_classes - (masks is not None)
    if labels.shape != (n_images,):
        raise ValueError(f"y has shape {labels.shape} for {n_images} images: expected one class index per image.")
    _check_indices(labels, n_classes - 1, "y")
    if masks is None:
        return
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
