"""Masks by a normalised cut of the feature maps of a pre-trained network."""

from functools import partial
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from sklearn.utils._param_validation import StrOptions
from torch import nn

from skdfb._constraints import Interval
from skdfb.images import Images, Indices, batch_size_of
from skdfb.masks._network import REFERENCE_SIDE, MapFunction, NetworkMaskGenerator
from skdfb.networks import DenseClassifier
from skdfb.networks._inputs import run_over
from skdfb.networks._layer_maps import choose_layer
from skdfb.networks._normalized_cut import normalized_cut_maps
from skdfb.training._class_order import check_order
from skdfb.training._stages import build_classifier, take_over
from skdfb.utils import resolve_device

__all__ = ["NormalizedCutMaskGenerator"]


class NormalizedCutMaskGenerator(NetworkMaskGenerator):
    r"""Masks of foreground and background by a normalised cut between the places of a feature map.

    Places of similar features belong together. The places of an image are divided into two sides, such that the
    affinities within the sides are large and those between them are small. One side is the object. Neither a training
    nor class activation maps are needed, and the foreground does not depend on the class.

    .. math::

        (D - W) \, y = \lambda D y
        \qquad
        W_{ij} = \max \Bigl( \frac{\cos(f_i, f_j) - \tau}{1 - \tau}, \; \epsilon \Bigr)
        \qquad
        D_{ii} = \textstyle\sum_j W_{ij}

    with the feature :math:`f_i` of place i in the feature map of a layer, the threshold :math:`\tau`, and
    :math:`\epsilon = 10^{-5}`. The eigenvector y of the second smallest eigenvalue divides the places at its mean. It
    is scaled so that the mean is 1/2 and the object is above it, resized to the mask, smoothed by a Gaussian, and
    scaled to [0, 1]:

    .. math::

        M = \mathrm{minmax}\bigl(G_\sigma * \mathrm{up}(\mathrm{scaled}(y))\bigr)
        \qquad
        \text{mask} = \begin{cases} k & M \ge \theta \\ K & \text{elsewhere} \end{cases}

    with the class k of the image, the threshold :math:`\theta`, and K the index of the background.

    Parameters
    ----------
    backbone : str, torch.nn.Module or DenseClassifier, default="resnetv2_50x1_bit.goog_in21k"
        The network whose feature maps are cut: a timm model name, which stands for timm's pre-trained weights, or a
        module that maps images to feature maps, such as one from :func:`~skdfb.networks.create_backbone`. Its weights
        are not trained. A :class:`~skdfb.networks.DenseClassifier` of K classes also tells the predicted classes.
    layer : str, default="auto"
        Name of the layer whose feature maps are cut. The layers are timm's levels of features (``feature_info``), such
        as ``"blocks.4"`` or ``"stages.2"``, or the children of any other module; ``"feature_map"`` is the map that the
        head takes. ``"auto"`` is the deepest layer with at least 8 x 8 places, or the deepest of those with the most
        places if there is no such layer. Where a map has more than 16 x 16 places, neighbouring places are averaged.
    affinity : {"linear", "binary"}, default="linear"
        How affinities follow from cosines: "linear" as above; "binary" is 1 where the cosine is at least :math:`\tau`
        and :math:`\epsilon` elsewhere, as in the paper of Wang et al. With "linear", rounding changes a map little.
    tau : float, default=0.2
        Cosine :math:`\tau` up to which places are not similar, in [-1, 1).
    sigma : float, default=4.0
        Standard deviation of the Gaussian, in pixels of an image of 128 pixels. It scales with the size of the mask.
    threshold : float, default=0.5
        The threshold :math:`\theta`.
    image_size : int, default=None
        Side of the network's input in pixels; None takes the backbone's own.
    image_shape : tuple of int, default=None
        (H, W, C) of the images in the rows of a 2-d ``X``.
    mask_size : int, default=None
        Side of the masks in pixels. None gives masks of the images' own size, or of the network's input size where the
        images have several sizes.
    batch_size : int, default=128
        Number of images in a forward pass.
    device : str, default="auto"
        A torch device; "auto" is the GPU where there is one.
    n_jobs : int, default=None
        Number of threads that read images, as in joblib; None is 1.
    verbose : int, default=0
        1 shows a progress bar where the images take more than a few batches.

    Attributes
    ----------
    network_ : DenseClassifier
        The network. If ``backbone`` was no DenseClassifier, its head predicts the class of the nearest mean of
        features.
    layer_ : str
        Name of the layer whose feature maps are cut.
    classes_ : ndarray of shape (K,)
        Labels; the masks hold indices into them.
    batch_size_ : int
        Number of images in a forward pass that fits into the device's memory.
    n_features_in_ : int
        Number of features of a 2-d ``X``.
    pixel_format_ : tuple of (str, int) or None
        The pixels of the arrays given to ``fit``: ``"integer"`` in 0..255 or ``"float"`` in 0..1, and the number of
        channels. Arrays of another kind are refused. None if ``fit`` was not given arrays.

    See Also
    --------
    CAMMaskGenerator : Masks of what the class is recognised by, from a trained classifier.
    AffinityMaskGenerator : Refines the maps of any generator to the edges of the image.
    skdfb.metrics.mask_iou : Measures masks against true ones.

    Notes
    -----
    *Which side is the object.* It is the side that has the smaller share of its places on the border of the feature
    map. If the shares are equal, it is the side of the largest :math:`|y_i|`, which is the rule of Wang et al. for the
    features of a vision transformer.

    *Other differences.* Wang et al. take the keys of the last attention layer, and keep only the part of the object
    around the largest :math:`|y_i|`. Here all of its parts are kept.

    *No cut.* If all places of an image are alike, the map is 0: all is background.

    *In a detector,* the network is the trained classifier. If its first layers are frozen, ``layer`` can name one that
    is exactly as it was pre-trained.

    References
    ----------
    Wang et al., "Self-Supervised Transformers for Unsupervised Object Discovery using Normalized Cut", CVPR 2022,
    :arxiv:`2202.11539`. Shi and Malik, "Normalized Cuts and Image Segmentation", IEEE Transactions on Pattern Analysis
    and Machine Intelligence 22(8), 2000.

    Examples
    --------
    >>> from skdfb.datasets import load_digits_on_photos
    >>> from skdfb.masks import NormalizedCutMaskGenerator
    >>> from skdfb.networks import create_backbone
    >>> data = load_digits_on_photos(n_train=60, n_test=6, n_ood=6, random_state=0)
    >>> backbone = create_backbone("test_resnet", pretrained=False, random_state=0)
    >>> generator = NormalizedCutMaskGenerator(backbone, image_size=128)
    >>> masks = generator.fit_transform(data.images, data.target)
    >>> masks.shape, masks.dtype
    ((60, 32, 32), dtype('uint8'))
    >>> generator.layer_
    'layer3'

    A detector passes its trained classifier to it:

    >>> from skdfb import DFBDetector
    >>> detector = DFBDetector(backbone, mask_generator=NormalizedCutMaskGenerator())
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = NetworkMaskGenerator._parameter_constraints | {
        "layer": [str],
        "affinity": [StrOptions({"linear", "binary"})],
        "tau": [Interval(Real, -1, 1, closed="left")],
        "sigma": [Interval(Real, 0, None, closed="left")],
        "threshold": [Interval(Real, 0, 1, closed="both")],
    }

    layer_: str

    def __init__(
        self,
        backbone: str | nn.Module = "resnetv2_50x1_bit.goog_in21k",
        *,
        layer: str = "auto",
        affinity: str = "linear",
        tau: float = 0.2,
        sigma: float = 4.0,
        threshold: float = 0.5,
        image_size: int | None = None,
        image_shape: tuple[int, ...] | None = None,
        mask_size: int | None = None,
        batch_size: int = 128,
        device: str | torch.device = "auto",
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.backbone = backbone
        self.layer = layer
        self.affinity = affinity
        self.tau = tau
        self.sigma = sigma
        self.threshold = threshold
        self.image_size = image_size
        self.image_shape = image_shape
        self.mask_size = mask_size
        self.batch_size = batch_size
        self.device = device
        self.n_jobs = n_jobs
        self.verbose = verbose

    def _train(self, images: Images, labels: npt.NDArray[np.intp]) -> None:
        is_trained = isinstance(self.backbone, DenseClassifier)
        if is_trained:
            network = take_over(self, self.classes_)
        else:
            # The weights are the backbone's own, and the head is set below: the seed changes nothing.
            network = build_classifier(self.backbone, len(self.classes_), images, image_size=self.image_size, seed=0)
        self.network_ = network.to(resolve_device(self.device)).eval()
        self.layer_ = choose_layer(self.network_, self.layer)
        if is_trained:
            check_order(self, self.network_, images, labels)
        else:
            self._set_head(images, labels)

    @torch.no_grad()
    def _set_head(self, images: Images, labels: npt.NDArray[np.intp]) -> None:
        """Let the head predict the class of the nearest mean of features."""
        network = self.network_

        def features_of(indices: Indices, inputs: torch.Tensor) -> tuple[Indices, torch.Tensor]:
            return indices, network.features(inputs).cpu().double()

        sums = torch.zeros(len(self.classes_), network.num_features, dtype=torch.float64)  # (K, C)
        with batch_size_of(self) as batch_size:
            for indices, features in run_over(network, images, batch_size, self.n_jobs, features_of):
                sums.index_add_(0, torch.from_numpy(labels[indices]), features)
        means = sums / torch.from_numpy(np.bincount(labels))[:, None]
        # The nearest mean has the largest f . m_k - |m_k|^2 / 2. About the mean of means, float32 keeps more digits.
        centre = means.mean(0)
        weight = means - centre
        network.head.weight.copy_(weight)
        network.head.bias.copy_(-(weight * (means + centre)).sum(1) / 2)

    def _map_function(self, output_size: tuple[int, int]) -> MapFunction:
        # sigma is a length on the image, so in pixels it is proportional to the size of the mask.
        return partial(
            normalized_cut_maps,
            self.network_,
            layer=self.layer_,
            affinity=self.affinity,
            tau=self.tau,
            sigma=self.sigma * min(output_size) / REFERENCE_SIDE,
            output_size=output_size,
        )
