"""Masks from a dense network that was trained on a first set of masks."""

from collections.abc import Iterator, Sequence
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from skdfb._constraints import Interval
from skdfb.images import Images, Indices
from skdfb.masks._cam import CAMMaskGenerator
from skdfb.masks._inner import check_generator, fit_pack, hand_over, shared_masks
from skdfb.masks._network import MultiScaleMaskGenerator
from skdfb.networks._foreground_maps import foreground_maps
from skdfb.training import Trainer
from skdfb.training._stages import build_classifier, check_dense_start, start_dense_network
from skdfb.utils import resolve_device, spawn_seeds

__all__ = ["DenseMaskGenerator"]


class DenseMaskGenerator(MultiScaleMaskGenerator):
    r"""Masks of foreground and background read from a dense network.

    A dense network of K + 1 classes is trained on the masks of another generator. Then it makes masks of the same
    images itself. These can be better than the first masks: errors that differ from image to image average out in the
    training.

    .. math::

        M_y = \mathrm{mean}_{\text{scales, flips}} \; \frac{e^{l_y}}{e^{l_y} + e^{l_K}}
        \qquad
        \text{mask} = \begin{cases} y & M_y \ge \theta \\ K & \text{elsewhere} \end{cases}

    with the logit :math:`l_k` of class k at a pixel, the class y of the image, the threshold :math:`\theta`, and K the
    index of the background.

    Parameters
    ----------
    backbone : str, torch.nn.Module or DenseClassifier, default="resnetv2_50x1_bit.goog_in21k"
        What ``fit`` trains to be the classifier, from which the dense network starts: a timm model name, which stands
        for timm's pre-trained weights, or a module that maps images to feature maps, such as one from
        :func:`~skdfb.networks.create_backbone`. A :class:`~skdfb.networks.DenseClassifier` of K classes counts as
        trained and is used as it is.
    generator : mask generator, default=None
        Makes the first masks; None is ``CAMMaskGenerator()``. ``fit`` fits a clone. The clone gets the classifier as
        ``backbone`` and, where it has None or "auto", this object's ``mask_size``, ``device``, ``random_state`` and
        ``n_jobs``; so does a generator inside it. A user-defined object needs ``fit_transform(X, y)`` and, for masks of
        given classes, ``transform(X, y)``. Its ``y`` are class indices; its ``X`` has ``len(X)`` and
        ``X.read(indices)``.
    n_rounds : int, default=1
        Number of dense networks that are trained, each on the masks of the one before, and each from the classifier's
        weights. The last one is kept.
    scales : sequence of float, default=(1.0, 1.5, 2.0)
        Factors on the side of the network's input: one forward pass each. Where the network does not take the size of
        a scale, the scale is left out, with a warning.
    flip : bool, default=False
        Whether the mirrored images are added at each scale. Leave it off if ``dense_trainer`` does not mirror: the
        network was not trained on such images.
    threshold : float, default=0.5
        The threshold :math:`\theta`.
    trainer, dense_trainer : Trainer, default=None
        How the classifier and the dense network are trained; None is ``Trainer()``.
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
        1 shows progress bars of the trainings and of the masks; see :meth:`skdfb.Trainer.train`.

    Attributes
    ----------
    network_ : DenseClassifier
        The dense network of the last round, of K + 1 classes.
    generator_ : mask generator
        The fitted generator of the first masks.
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
    CAMMaskGenerator : Makes the first masks by default.
    AffinityMaskGenerator : Refines masks by colour; either generator can be inside the other.
    skdfb.metrics.mask_iou : Measures masks against true ones.

    Notes
    -----
    *Other classes.* The class of the image is known, so each pixel is either of this class or background. The logits of
    all other classes are ignored.

    *Edges.* The maps are as coarse as the network's logit map, so that thin objects get lost. Sharper first masks, like
    those of :class:`AffinityMaskGenerator`, get worse: refine after this generator, not before it.

    *Failures.* If all pixels of an image are foreground, or none is, the image keeps its first mask. Its attention map
    is then 1 on the foreground of that mask and 0 elsewhere.

    References
    ----------
    The dense network is that of Ding and Pang, ACM MM 2024, :arxiv:`2303.08727`, Eq. 3. Masks re-estimated by a network
    trained on weaker ones: Papandreou et al., "Weakly- and Semi-Supervised Learning of a Deep Convolutional Network for
    Semantic Image Segmentation", ICCV 2015, :arxiv:`1502.02734`.

    Examples
    --------
    >>> from skdfb.datasets import load_digits_on_photos
    >>> from skdfb.masks import DenseMaskGenerator
    >>> from skdfb.networks import create_backbone
    >>> from skdfb.training import Trainer
    >>> data = load_digits_on_photos(n_train=60, n_test=6, n_ood=6, random_state=0)
    >>> backbone = create_backbone("test_resnet", pretrained=False, output_stride=8, random_state=0)
    >>> trainer = Trainer(max_steps=2)
    >>> generator = DenseMaskGenerator(
    ...     backbone, trainer=trainer, dense_trainer=trainer, image_size=32, random_state=0
    ... )
    >>> masks = generator.fit_transform(data.images, data.target)
    >>> masks.shape, masks.dtype
    ((60, 32, 32), dtype('uint8'))
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = MultiScaleMaskGenerator._parameter_constraints | {
        "generator": "no_validation",  # a protocol; check_generator checks it
        "n_rounds": [Interval(Integral, 1, None, closed="left")],
        "threshold": [Interval(Real, 0, 1, closed="neither")],
        "dense_trainer": [Trainer, None],
    }

    def __init__(
        self,
        backbone: str | nn.Module = "resnetv2_50x1_bit.goog_in21k",
        *,
        generator: Any = None,
        n_rounds: int = 1,
        scales: Sequence[float] = (1.0, 1.5, 2.0),
        flip: bool = False,
        threshold: float = 0.5,
        trainer: Trainer | None = None,
        dense_trainer: Trainer | None = None,
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
        self.generator = generator
        self.n_rounds = n_rounds
        self.scales = scales
        self.flip = flip
        self.threshold = threshold
        self.trainer = trainer
        self.dense_trainer = dense_trainer
        self.image_size = image_size
        self.image_shape = image_shape
        self.mask_size = mask_size
        self.batch_size = batch_size
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def _validate_params(self) -> None:
        super()._validate_params()
        if self.dense_trainer is not None:
            self.dense_trainer.validate("dense_trainer")
        check_dense_start(self.backbone, self.dense_trainer)
        if self.generator is not None:
            check_generator(self.generator, ("fit_transform", "transform"))

    def _train(self, images: Images, labels: npt.NDArray[np.intp]) -> None:
        build_seed, train_seed, mask_seed, *round_seeds = spawn_seeds(self.random_state, 3 + self.n_rounds)
        # 1. The classifier: the first masks come from it, and by default each dense network starts from it.
        classifier = self._trained_classifier(images, labels, build_seed, train_seed)

        # 2. The first masks.
        settings = {
            "backbone": classifier,
            "mask_size": self.mask_size,
            "device": self.device,
            "random_state": mask_seed,
            "n_jobs": self.n_jobs,
        }
        first = CAMMaskGenerator(batch_size=self.batch_size) if self.generator is None else self.generator
        self.generator_ = hand_over(first, settings)
        masks = fit_pack(self.generator_, images, labels, len(self.classes_), "generator")

        # 3. The dense networks, one per round.
        trainer = Trainer() if self.dense_trainer is None else self.dense_trainer
        untrained = partial(
            build_classifier,
            self.backbone,
            len(self.classes_),
            images,
            image_size=self.image_size,
            seed=build_seed,
        )
        for round_number, seed in enumerate(round_seeds):
            if round_number > 0:  # the masks of the round before, which self.network_ still makes
                masks = shared_masks(self, images, labels, len(self.classes_))
            self.network_ = start_dense_network(classifier, trainer, untrained)
            trainer.train(
                self.network_,
                images,
                labels,
                masks,
                device=resolve_device(self.device),
                random_state=seed,
                n_jobs=self.n_jobs,
                verbose=self.verbose,
            )

    def _network_maps(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor | None,
        *,
        input_sizes: Sequence[int],
        output_size: tuple[int, int],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return foreground_maps(
            self.network_, inputs, targets, input_sizes=input_sizes, flip=self.flip, output_size=output_size
        )

    def _stream(
        self, images: Images, labels: npt.NDArray[np.intp] | None
    ) -> Iterator[tuple[Indices, torch.Tensor, torch.Tensor]]:
        for indices, maps, targets in super()._stream(images, labels):
            # A mask of one value only says that the dense network failed on the image.
            foreground = (maps >= self.threshold).flatten(1)  # (b, H * W)
            failed = (foreground.all(1) | ~foreground.any(1)).nonzero()[:, 0]
            if len(failed):
                rows = failed.cpu().numpy()
                maps[failed] = self._first_foreground(images.subset(indices[rows]), targets[failed], maps)
            yield indices, maps, targets

    def _first_foreground(self, images: Images, targets: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Return the foreground of the first masks as 0 and 1, in size and type of the maps ``like``."""
        # The first generator was fitted to class indices, not to labels; its masks may have any size.
        masks = np.asarray(self.generator_.transform(images, targets.cpu().numpy()))
        foreground = torch.from_numpy(masks != len(self.classes_)).to(like)
        return F.interpolate(foreground[:, None], like.shape[1:], mode="nearest-exact")[:, 0]
