"""Masks of the training images, from any mask generator."""

from typing import Any

import numpy as np
import numpy.typing as npt

from skdfb._progress import LaterWork, progress
from skdfb.images import Images
from skdfb.masks import CAMMaskGenerator
from skdfb.masks._inner import fit_pack, hand_over
from skdfb.masks._network import MultiScaleMaskGenerator
from skdfb.networks import DenseClassifier
from skdfb.networks._stages import trunk_stages
from skdfb.training import Trainer
from skdfb.utils import PackedMasks

__all__ = ["make_masks", "mask_generator_of", "work_after_classifier"]


def make_masks(
    generator: Any,
    classifier: DenseClassifier,
    images: Images,
    labels: npt.NDArray[np.intp],
    *,
    random_state: int,
    n_jobs: int | None,
) -> PackedMasks:
    """Return the masks that a clone of a mask generator makes with the trained classifier, at the network's input size.

    The classifier is passed as ``backbone``. Other settings that the user left open (None or "auto") are filled in as
    well, also in generators inside the generator.
    """
    # A mask at the network's input size needs no resizing in the training.
    settings = {
        "backbone": classifier,
        "mask_size": classifier.preprocessor.image_size,
        "device": classifier.device,
        "random_state": random_state,
        "n_jobs": n_jobs,
    }
    with progress(label="making the masks"):
        return fit_pack(hand_over(generator, settings), images, labels, classifier.num_classes, "mask_generator")


def mask_generator_of(detector: Any, network: DenseClassifier) -> Any:
    """Return the mask generator of a detector with this classifier: the given one, or the default.

    Where the trunk is frozen, as of a pre-trained backbone, the default looks at one scale: on photographs the masks of
    four scales, which take seven times as long, gave no better detectors.
    """
    if detector.mask_generator is not None:
        return detector.mask_generator
    # A generator that is given keeps its own batch size.
    default = CAMMaskGenerator(batch_size=detector.batch_size)
    return default.set_params(scales=(1.0,)) if trunk_stages(network.feature_map.backbone) else default


def work_after_classifier(detector: Any, n_images: int, network: DenseClassifier) -> LaterWork:
    """Return what ``fit`` of a detector does after the training of the classifier, to estimate how long it takes."""
    trainer = Trainer() if detector.dense_trainer is None else detector.dense_trainer
    generator = mask_generator_of(detector, network)
    n_passed = 0.0
    # A pass at twice the side takes four times as long. Of other generators nothing is known.
    if isinstance(generator, MultiScaleMaskGenerator):
        n_passed = float(n_images * (1 + generator.flip) * np.square(generator.scales).sum())
    return LaterWork(float(trainer.n_steps(n_images) * min(trainer.batch_size, n_images)), n_passed)
