"""Steps of ``fit`` that all detectors of images have: labels, held-out images, clusters, an untrained network."""

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from skdfb.detector._calibration import Calibration, known_labels
from skdfb.detector._label_conflicts import warn_of_conflicts, warn_of_no_class_folders
from skdfb.detector._network_detector import NetworkDetector, requests_for
from skdfb.detector._pseudo_labels import check_unlabelled, pseudo_labels
from skdfb.detector._thresholded import warn_of_unknown_class
from skdfb.images import Images, batch_size_of, check_labels
from skdfb.networks import DenseClassifier
from skdfb.scoring import HeldOutSplit, JointScore
from skdfb.training._stages import build_classifier
from skdfb.utils import agreed

__all__ = ["HeldOutViews", "ImageFit"]

# Views of held-out images, their class indices or None if some are unknown, and the group of each, if there are groups.
HeldOutViews = tuple[Any, ...]


class ImageFit(NetworkDetector):
    """Sets ``classes_`` and which images train; see the steps of ``fit`` in the detectors."""

    backbone: str | nn.Module
    image_size: int | None
    calibration_fraction: float | str

    calibration_fraction_: float
    _split_: HeldOutSplit
    _labels_: npt.NDArray[np.intp]

    def _checked_labels(self, X: Any, images: Images, y: Any) -> npt.NDArray[np.intp] | None:
        """Set ``classes_``, and return class indices; None without labels."""
        # A trained classifier has its own classes: clusters would be others.
        if y is None and not isinstance(self.backbone, DenseClassifier):
            check_unlabelled(len(images))
            warn_of_no_class_folders(X)
            return None
        self.classes_, labels = check_labels(y, images)
        warn_of_unknown_class(self.classes_)
        warn_of_conflicts(images, self.classes_[labels])
        return labels

    def _hold_out(
        self,
        images: Images,
        labels: npt.NDArray[np.intp] | None,
        calibration: Calibration,
        joint_score: JointScore,
        choice_seed: int,
        order_seed: int,
    ) -> None:
        """Set which images train, which set the threshold, and the groups of the latter."""
        unlabelled = np.zeros(len(images), dtype=np.intp)
        stratified_by: npt.NDArray[Any] = unlabelled if labels is None else self.classes_[labels]
        # Two seeds: which images are held out does not depend on how their order is drawn.
        split = calibration.split(stratified_by, self.calibration_fraction, joint_score, choice_seed, order_seed)
        self._split_, self._groups_, self._n_own_ = split, calibration.groups_of(split), calibration.n_own
        self.calibration_fraction_ = split.fraction

    def _held_out_views(self, images: Images, joint_score: JointScore) -> HeldOutViews:
        """Compute what :meth:`JointScore.fit` takes as ``held_out``; the images are all of ``fit``."""
        rows = self._split_.held_out
        views = self._collect(images.subset(rows), requests_for(joint_score.view_needs()))
        # The groups come third, if there are any. Older saved models have none.
        groups = getattr(self, "_groups_", None)
        return views, known_labels(self._labels_[rows]), *(() if groups is None else (groups,))

    def _clustered(self, network: DenseClassifier, images: Images, seed: int) -> npt.NDArray[np.intp]:
        """Set ``classes_`` to clusters of the training images, and return the cluster of each image."""
        with batch_size_of(self) as batch_size:
            labels = agreed(pseudo_labels(network, images, self._split_.train, seed, batch_size, self.n_jobs))
        self.classes_ = np.unique(labels)
        return labels

    def _build(self, n_classes: int, images: Images, seed: int) -> DenseClassifier:
        """Return an untrained network around the backbone."""
        return build_classifier(self.backbone, n_classes, images, image_size=self.image_size, seed=seed)
