"""Pseudo masks from class activation maps (Eq. 1, 2)."""

import os
import warnings
from collections.abc import Iterator, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context, clone
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skdfb.networks import DenseClassifier, attention_maps
from skdfb.networks._inputs import network_inputs
from skdfb.training import Trainer
from skdfb.training._stages import build_classifier, take_over
from skdfb.utils import (
    Images,
    check_images,
    check_labels,
    check_readable,
    evaluation_mode,
    resolve_device,
    shallow_copy,
    spawn_seeds,
)

__all__ = ["CAMMaskGenerator"]

_REFERENCE_SIDE = 128  # the image side in pixels at which the paper gives its sigma


class CAMMaskGenerator(TransformerMixin, BaseEstimator):
    r"""Masks of foreground classes and background from class activation maps.

    The attention map of an image is its class activation map, summed over scales and flips, smoothed, and brought to
    [0, 1]:

    .. math::

        M_y = \mathrm{minmax}\bigl(G_\sigma * \textstyle\sum_{\text{scales, flips}}
              \mathrm{up}(\mathrm{ReLU}(W_y \cdot F(x)))\bigr)
        \qquad
        \text{mask} = \begin{cases} y & M_y \ge \theta \\ K & \text{elsewhere} \end{cases}

    with feature map F, the classifier's weights W, class y, a Gaussian :math:`G_\sigma`, threshold
    :math:`\theta`, and K the index of the background.

    Parameters
    ----------
    backbone : str, torch.nn.Module or DenseClassifier, default="resnetv2_50x1_bit.goog_in21k"
        What ``fit`` trains: a timm model name or a module that maps images to feature maps. A
        :class:`~skdfb.networks.DenseClassifier` counts as trained and is taken as it is.
    pretrained, checkpoint_path
        Where the weights of a named backbone come from; see :func:`skdfb.networks.create_backbone`.
    scales : sequence of float, default=(1.0, 0.5, 1.5, 2.0)
        Factors on the side of the network's input; one forward pass each. Networks that take one size only are given
        that one, with a warning.
    flip : bool, default=True
        Whether each scale is passed mirrored, too.
    sigma : float, default=4.0
        Of the Gaussian, in pixels of an image of 128 pixels; it grows and shrinks with the image.
    threshold : float, default=0.5
        The threshold :math:`\theta`.
    trainer : Trainer, default=None
        How the classifier is trained; None is ``Trainer()``.
    image_size : int, default=None
        Side of the network's input in pixels; None takes the backbone's own.
    image_shape : tuple of int, default=None
        (H, W, C) of the images in the rows of a 2-d ``X``.
    mask_size : int, default=None
        Side of the masks in pixels. None gives masks of the images' own size, or of the network's input size where the
        images' sizes differ.
    batch_size : int, default=128
        Images a forward pass.
    device : str, default="auto"
        "auto" is the GPU where there is one.
    n_jobs : int, default=None
        Threads that read images.
    random_state : int, RandomState or None, default=None
        Fixes the training.
    verbose : int, default=0
        1 shows a progress bar of the training.

    Attributes
    ----------
    network_ : DenseClassifier
        The trained classifier.
    classes_ : ndarray of shape (K,)
        Labels; the masks hold indices into them.
    n_features_in_ : int
        Number of features of a 2-d ``X``.

    See Also
    --------
    skdfb.DFBDetector : Trains its dense network on such masks.

    References
    ----------
    Ding and Pang, ACM MM 2024, :arxiv:`2303.08727`, Eq. 1 and 2. Zhou et al., "Learning Deep Features for
    Discriminative Localization", CVPR 2016, :arxiv:`1512.04150`.

    Examples
    --------
    >>> from skdfb.datasets import load_digits_on_photos
    >>> from skdfb.masks import CAMMaskGenerator
    >>> from skdfb.networks import create_backbone
    >>> from skdfb.training import Trainer
    >>> data = load_digits_on_photos(n_train=60, n_test=6, n_ood=6, random_state=0)
    >>> backbone = create_backbone("test_resnet", pretrained=False, output_stride=8)
    >>> generator = CAMMaskGenerator(backbone, image_size=32, trainer=Trainer(max_steps=2), random_state=0)
    >>> masks = generator.fit_transform(data.images, data.target)
    >>> masks.shape, masks.dtype
    ((60, 32, 32), dtype('uint8'))
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "backbone": [str, nn.Module],
        "pretrained": ["boolean"],
        "checkpoint_path": [str, os.PathLike, None],
        "scales": ["array-like"],
        "flip": ["boolean"],
        "sigma": [Interval(Real, 0, None, closed="left")],
        "threshold": [Interval(Real, 0, 1, closed="both")],
        "trainer": [Trainer, None],
        "image_size": [Interval(Integral, 1, None, closed="left"), None],
        "image_shape": ["array-like", None],
        "mask_size": [Interval(Integral, 1, None, closed="left"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "device": [str, torch.device],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        backbone: str | nn.Module = "resnetv2_50x1_bit.goog_in21k",
        *,
        pretrained: bool = True,
        checkpoint_path: str | os.PathLike[str] | None = None,
        scales: Sequence[float] = (1.0, 0.5, 1.5, 2.0),
        flip: bool = True,
        sigma: float = 4.0,
        threshold: float = 0.5,
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
        self.pretrained = pretrained
        self.checkpoint_path = checkpoint_path
        self.scales = scales
        self.flip = flip
        self.sigma = sigma
        self.threshold = threshold
        self.trainer = trainer
        self.image_size = image_size
        self.image_shape = image_shape
        self.mask_size = mask_size
        self.batch_size = batch_size
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Train the classifier, or take over a trained one.

        Parameters
        ----------
        X : images
            n images in any of the accepted forms.
        y : array-like of shape (n,)
            Class labels. A torch dataset of (image, label) items brings its own.

        Returns
        -------
        self : CAMMaskGenerator

        Raises
        ------
        ValueError, TypeError
            If images, labels or parameters are not as wanted; before any training.
        """
        self._fit(X, y)
        return self

    def _fit(self, X: Any, y: Any) -> tuple[Images, npt.NDArray[np.intp]]:
        """Fit a copy and take its state over at the end: a failed fit leaves the generator as it was."""
        fitted = shallow_copy(self, fitted_state=False)
        with torch.inference_mode(False):  # gradients, also where the caller has switched them off
            images, labels = fitted._train(X, y)
        self.__dict__ = fitted.__dict__
        return images, labels

    def _train(self, X: Any, y: Any) -> tuple[Images, npt.NDArray[np.intp]]:
        device = resolve_device(self.device)
        trainer = Trainer() if self.trainer is None else clone(self.trainer)
        trainer.validate("trainer")
        images = check_images(self, X, reset=True)
        if not isinstance(X, Images):  # those have been checked by who made them
            check_readable(images, self.batch_size, self.n_jobs)
        classes, labels = check_labels(y, images, X)
        build_seed, train_seed = spawn_seeds(self.random_state, 2)
        if isinstance(self.backbone, DenseClassifier):
            network = take_over(self, classes).to(device).eval()
        else:
            network = build_classifier(
                self.backbone,
                len(classes),
                images,
                pretrained=self.pretrained,
                checkpoint_path=self.checkpoint_path,
                image_size=self.image_size,
                seed=build_seed,
            )
            trainer.train(
                network,
                images,
                labels,
                device=device,
                random_state=train_seed,
                n_jobs=self.n_jobs,
                verbose=self.verbose,
            )
        self.network_, self.classes_ = network, classes
        return images, labels

    @_fit_context(prefer_skip_nested_validation=True)
    def fit_transform(self, X: Any, y: Any = None) -> npt.NDArray[np.unsignedinteger]:
        """Fit, and return the masks of the images' true classes.

        Parameters
        ----------
        X, y
            As in :meth:`fit`.

        Returns
        -------
        masks : ndarray of shape (n, H, W)
            Class indices 0..K-1 on the foreground, K on the background, as the smallest unsigned integers.
        """
        images, labels = self._fit(X, y)
        return self._masks(images, labels)

    def transform(self, X: Any) -> npt.NDArray[np.unsignedinteger]:
        """Return the masks of the predicted classes.

        Parameters
        ----------
        X : images
            n images.

        Returns
        -------
        masks : ndarray of shape (n, H, W)
            As from :meth:`fit_transform`.
        """
        check_is_fitted(self, "network_")
        return self._masks(check_images(self, X, reset=False), None)

    def attention_maps(self, X: Any, y: Any = None) -> npt.NDArray[np.float32]:
        """Return the attention maps before the threshold.

        Parameters
        ----------
        X : images
            n images.
        y : array-like of shape (n,), default=None
            Labels of the classes meant; None takes the predicted ones.

        Returns
        -------
        maps : ndarray of shape (n, H, W)
            In [0, 1]; higher is more likely foreground.
        """
        check_is_fitted(self, "network_")
        images = check_images(self, X, reset=False)
        labels = None if y is None else self._encode(y, len(images))
        maps = np.empty((len(images), *self._output_size(images)), dtype=np.float32)
        for indices, batch, _ in self._stream(images, labels):
            maps[indices] = batch.float().cpu().numpy()
        return maps

    def _encode(self, y: Any, n_images: int) -> npt.NDArray[np.intp]:
        y = np.asarray(y)
        unknown = ~np.isin(y, self.classes_)
        if y.shape != (n_images,) or unknown.any():
            raise ValueError(
                f"y has shape {y.shape} for {n_images} images and {int(unknown.sum())} labels that fit did not see; "
                "one label of classes_ for each image is wanted."
            )
        indices: npt.NDArray[np.intp] = np.searchsorted(self.classes_, y).astype(np.intp)
        return indices

    def _masks(self, images: Images, labels: npt.NDArray[np.intp] | None) -> npt.NDArray[np.unsignedinteger]:
        background = len(self.classes_)
        masks = np.empty((len(images), *self._output_size(images)), dtype=np.min_scalar_type(background))
        for indices, maps, targets in self._stream(images, labels):
            values = torch.where(maps >= self.threshold, targets[:, None, None], background)
            masks[indices] = values.cpu().numpy()
        return masks

    def _stream(
        self, images: Images, labels: npt.NDArray[np.intp] | None
    ) -> Iterator[tuple[npt.NDArray[np.intp], torch.Tensor, torch.Tensor]]:
        """Yield indices, attention maps and classes, a batch at a time."""
        network = self.network_
        output_size = self._output_size(images)
        input_sizes = self._input_sizes()
        with evaluation_mode(network):
            for indices, batch in network_inputs(network, images, self.batch_size, self.n_jobs):
                targets = None if labels is None else torch.from_numpy(labels[indices]).to(network.device)
                maps, targets = attention_maps(
                    network,
                    batch,
                    targets,
                    input_sizes=input_sizes,
                    flip=self.flip,
                    sigma=self.sigma * min(output_size) / _REFERENCE_SIDE,
                    output_size=output_size,
                )
                yield indices, maps, targets

    def _output_size(self, images: Images) -> tuple[int, int]:
        if self.mask_size is not None:
            return self.mask_size, self.mask_size
        side = self.network_.preprocessor.image_size
        return images.size if images.size is not None else (side, side)

    def _validate_params(self) -> None:
        super()._validate_params()
        self._checked_scales()

    def _checked_scales(self) -> list[float]:
        scales = np.asarray(self.scales)
        if scales.ndim != 1 or scales.dtype.kind not in "iuf" or not len(scales) or not (scales > 0).all():
            raise ValueError(f"scales={self.scales!r}; a sequence of at least one factor above 0 is wanted.")
        if not np.isfinite(scales).all():
            raise ValueError(f"scales={self.scales!r}; finite factors are wanted.")
        return [float(scale) for scale in scales]

    def _input_sizes(self) -> list[int]:
        """Return the input sides of all scales that the network takes."""
        own = self.network_.preprocessor.image_size
        scales = self._checked_scales()
        sizes = [own if scale == 1 else self._accepted_size(scale) for scale in scales]
        refused = [scale for scale, size in zip(scales, sizes, strict=True) if size is None]
        if refused:
            warnings.warn(
                f"the network takes no inputs at the scales {refused}, which are left out; "
                "set scales=(1.0,) to use its own size only.",
                UserWarning,
                stacklevel=2,
            )
        return [size for size in sizes if size is not None] or [own]

    def _accepted_size(self, scale: float) -> int | None:
        """Return the input side nearest to ``scale``: as it is, or else a whole number of the map's places."""
        own = self.network_.preprocessor.image_size
        stride = max(1, own // self.network_.map_size[0])
        for size in (round(own * scale), max(1, round(own * scale / stride)) * stride):
            if self.network_.accepts_size(max(1, size)):
                return max(1, size)
        return None

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.transformer_tags.preserves_dtype = []  # masks are small integers
        tags.input_tags.three_d_array = True
        return tags
