"""Pseudo masks from class activation maps (Eq. 1, 2)."""

from collections.abc import Sequence
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from skdfb._constraints import Interval
from skdfb.images import Images
from skdfb.masks._network import REFERENCE_SIDE, MultiScaleMaskGenerator
from skdfb.networks import attention_maps
from skdfb.training import Trainer
from skdfb.utils import spawn_seeds

__all__ = ["CAMMaskGenerator"]


class CAMMaskGenerator(MultiScaleMaskGenerator):
    r"""Masks of foreground classes and background from class activation maps.

    The attention map of an image is its class activation map, summed over scales and flips, smoothed, and scaled to
    [0, 1]:

    .. math::

        M_y = \mathrm{minmax}\bigl(G_\sigma * \textstyle\sum_{\text{scales, flips}}
              \mathrm{up}(\mathrm{ReLU}(W_y \cdot F(x)))\bigr)
        \qquad
        \text{mask} = \begin{cases} y & M_y \ge \theta \\ K & \text{elsewhere} \end{cases}

    with the feature map F, the classifier's weights W, the class y, a Gaussian :math:`G_\sigma`, the threshold
    :math:`\theta`, and K the index of the background.

    Parameters
    ----------
    backbone : str, torch.nn.Module or DenseClassifier, default="resnetv2_50x1_bit.goog_in21k"
        What ``fit`` trains: a timm model name, which stands for timm's pre-trained weights, or a module that maps
        images to feature maps, such as one from :func:`~skdfb.networks.create_backbone`. A
        :class:`~skdfb.networks.DenseClassifier` counts as trained and is used as it is.
    scales : sequence of float, default=(1.0, 0.5, 1.5, 2.0)
        Factors on the side of the network's input: one forward pass each. Where the network does not take the size of
        a scale, the scale is left out, with a warning.
    flip : bool, default=True
        Whether the mirrored images are added at each scale.
    sigma : float, default=4.0
        Standard deviation of the Gaussian, in pixels of an image of 128 pixels. It scales with the size of the mask.
    threshold : float, default=0.5
        The threshold :math:`\theta`.
    use_bias : bool, default=False
        Whether the head's bias of class y is added before the ReLU; see Notes.
    true_class : bool, default=True
        Whether ``fit_transform`` makes masks of the true classes; with False, of the predicted classes. See Notes.
        ``transform`` does not depend on it, nor does a generator around this one that asks for maps of given classes.
    trainer : Trainer, default=None
        How the classifier is trained; None is ``Trainer()``.
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
    random_state : int, RandomState or None, default=None
        Seed of the training.
    verbose : int, default=0
        1 shows progress bars of the training and of the masks; see :meth:`skdfb.Trainer.train`.

    Attributes
    ----------
    network_ : DenseClassifier
        The trained classifier, of K classes.
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
    AffinityMaskGenerator : Draws the maps to the edges of the images.
    DenseMaskGenerator : Reads masks from a dense network that was trained on such masks.
    NormalizedCutMaskGenerator : Masks of the whole object, without a training.
    skdfb.DFBDetector : Trains its dense network on such masks.

    Notes
    -----
    Eq. 1 of the paper is :math:`W_y \cdot F(x)` with the true class y, which is the class activation map of Zhou et al.
    The paper's text has neither the ReLU nor the bias. The ReLU is in Grad-CAM, and in the authors' public code. That
    code also adds the bias before the ReLU (``use_bias=True``) and, by default, takes the predicted class
    (``true_class=False``).

    References
    ----------
    Ding and Pang, ACM MM 2024, :arxiv:`2303.08727`, Eq. 1 and 2. Zhou et al., "Learning Deep Features for
    Discriminative Localization", CVPR 2016, :arxiv:`1512.04150`. Selvaraju et al., "Grad-CAM: Visual Explanations from
    Deep Networks via Gradient-based Localization", ICCV 2017, :arxiv:`1610.02391`.

    Examples
    --------
    >>> from skdfb.datasets import load_digits_on_photos
    >>> from skdfb.masks import CAMMaskGenerator
    >>> from skdfb.networks import create_backbone
    >>> from skdfb.training import Trainer
    >>> data = load_digits_on_photos(n_train=60, n_test=6, n_ood=6, random_state=0)
    >>> backbone = create_backbone("test_resnet", pretrained=False, output_stride=8, random_state=0)
    >>> generator = CAMMaskGenerator(backbone, image_size=32, trainer=Trainer(max_steps=2), random_state=0)
    >>> masks = generator.fit_transform(data.images, data.target)
    >>> masks.shape, masks.dtype
    ((60, 32, 32), dtype('uint8'))
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = MultiScaleMaskGenerator._parameter_constraints | {
        "sigma": [Interval(Real, 0, None, closed="left")],
        "threshold": [Interval(Real, 0, 1, closed="both")],
        "use_bias": ["boolean"],
        "true_class": ["boolean"],
    }

    def __init__(
        self,
        backbone: str | nn.Module = "resnetv2_50x1_bit.goog_in21k",
        *,
        scales: Sequence[float] = (1.0, 0.5, 1.5, 2.0),
        flip: bool = True,
        sigma: float = 4.0,
        threshold: float = 0.5,
        use_bias: bool = False,
        true_class: bool = True,
        trainer: Trainer | None = None,
        image_size: int | None = None,
        image_shape: tuple[int, ...] | None = None,
        mask_size: int | None = None,
        batch_size: int = 128,
        device: str | torch.device = "auto",
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.backbone = backbone
        self.scales = scales
        self.flip = flip
        self.sigma = sigma
        self.threshold = threshold
        self.use_bias = use_bias
        self.true_class = true_class
        self.trainer = trainer
        self.image_size = image_size
        self.image_shape = image_shape
        self.mask_size = mask_size
        self.batch_size = batch_size
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def _train(self, images: Images, labels: npt.NDArray[np.intp]) -> None:
        # Seeds of the random weights and of the training.
        self.network_ = self._trained_classifier(images, labels, *spawn_seeds(self.random_state, 2))

    def _mask_classes(self, labels: npt.NDArray[np.intp]) -> npt.NDArray[np.intp] | None:
        return labels if self.true_class else None

    def _network_maps(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor | None,
        *,
        input_sizes: Sequence[int],
        output_size: tuple[int, int],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        # sigma is a length on the image, so in pixels it is proportional to the size of the mask.
        return attention_maps(
            self.network_,
            inputs,
            targets,
            input_sizes=input_sizes,
            flip=self.flip,
            sigma=self.sigma * min(output_size) / REFERENCE_SIDE,
            output_size=output_size,
            use_bias=self.use_bias,
        )
