"""What a fitted detector with a dense network computes beyond any other: foreground, background and maps."""

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from skdfb._progress import progress
from skdfb.detector._network_detector import NetworkDetector
from skdfb.detector._outputs import class_probability_maps
from skdfb.detector._thresholded import Scores
from skdfb.images import batch_size_of
from skdfb.networks import DenseClassifier
from skdfb.scoring._parts import CLASSIFIER, DENSE, PRETRAINED
from skdfb.utils import own_torch_modes

__all__ = ["DenseDetector"]


class DenseDetector(NetworkDetector):
    """A detector whose dense network has the background as one more class."""

    _whole_view: ClassVar[str] = DENSE

    dense_network_: DenseClassifier

    def score_foreground(self, X: Any) -> Scores:
        """Return the score of the foreground parts.

        Parameters
        ----------
        X : images
            The n images.

        Returns
        -------
        scores : ndarray of shape (n,)
            The parts on other views than the background; several are joined by the fusion, fitted on them alone. Higher
            is more in-distribution.
        """
        parts = self.score_parts(X)
        return self.joint_score_.combine_group("foreground", parts)

    def score_background(self, X: Any) -> Scores:
        """Return the score of the background parts.

        Parameters
        ----------
        X : images
            The n images.

        Returns
        -------
        scores : ndarray of shape (n,)
            The parts on the background view; several are joined by the fusion, fitted on them alone. Higher is more
            in-distribution.
        """
        parts = self.score_parts(X)
        return self.joint_score_.combine_group("background", parts)

    @own_torch_modes()
    def segment(self, X: Any) -> npt.NDArray[np.float32]:
        """Return class probabilities per pixel.

        Parameters
        ----------
        X : images
            The n images.

        Returns
        -------
        probabilities : ndarray of shape (n, H, W, K + 1)
            In the order of ``classes_``, the background last. H, W are the images' own size if they come as an array,
            else the network's input size.
        """
        images = self._checked_images(X)
        with batch_size_of(self) as batch_size, progress(self.verbose, "segmenting the images"):
            return class_probability_maps(self._views(batch_size), images)

    # -------------------------------------------------------------- private

    @property
    def _networks(self) -> dict[str, DenseClassifier]:
        """The networks by the names of their views."""
        # Models that were saved by older versions have no such network, and no heads.
        pretrained = getattr(self, "pretrained_network_", None)
        networks = {CLASSIFIER: self.classifier_, DENSE: self.dense_network_, PRETRAINED: pretrained}
        return {view: network for view, network in networks.items() if network is not None}
