"""Attention maps refined by the colours of their images."""

from collections.abc import Iterator, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from joblib import Parallel, delayed

from skdfb._constraints import Interval
from skdfb._progress import progress_bar
from skdfb._transfers import upload
from skdfb.images import N_JOBS, Images, Indices, batch_size_of
from skdfb.masks._base import BaseMaskGenerator
from skdfb.masks._cam import CAMMaskGenerator
from skdfb.masks._inner import check_generator, hand_over
from skdfb.networks import refine_by_affinity
from skdfb.networks._attention_maps import min_max
from skdfb.utils import resolve_device

__all__ = ["AffinityMaskGenerator"]


class AffinityMaskGenerator(BaseMaskGenerator):
    r"""Masks from attention maps that are refined by the colours of the image.

    Attention maps are coarse, because they are enlarged from a small feature map. Here each map is averaged repeatedly
    over neighbouring pixels of similar colour. This moves the edges of the map to the edges in the image:

    .. math::

        M_y = \mathrm{minmax}\bigl(A^t(x) \, M'_y\bigr)
        \qquad
        \text{mask} = \begin{cases} y & M_y \ge \theta \\ K & \text{elsewhere} \end{cases}

    with the other generator's attention map :math:`M'_y`, the matrix A(x) of affinities between the pixels of the
    image, given in :func:`skdfb.networks.refine_by_affinity`, the number of iterations t, the threshold
    :math:`\theta`, and K the index of the background.

    Parameters
    ----------
    generator : mask generator, default=None
        Makes the attention maps; None is ``CAMMaskGenerator()``. ``fit`` fits a clone. A user-defined object needs
        ``fit(X, y)``, ``attention_maps(X, y)``, which returns floats of shape (n, H, W), and ``classify(X)``, which
        returns labels. Its ``y`` are class indices; its ``X`` has ``len(X)`` and ``X.read(indices)``.
    dilations : sequence of int, default=(1, 2, 4, 8, 12, 24)
        Distances of the neighbours that a pixel is compared with, in pixels of the mask; eight neighbours each.
    n_iterations : int, default=20
        Number of times that a map is averaged.
    bandwidth : float, default=0.1
        Difference of colour, in local standard deviations, that counts as an edge. With a smaller bandwidth, fainter
        edges stop the map.
    threshold : float, default=0.5
        The threshold :math:`\theta`.
    image_shape : tuple of int, default=None
        (H, W, C) of the images in the rows of a 2-d ``X``.
    batch_size : int, default=128
        Number of images that are refined at a time.
    device : str, default="auto"
        A torch device; "auto" is the GPU where there is one. If the device of ``generator`` is "auto", it gets this
        one.
    n_jobs : int, default=None
        Number of threads that read images, as in joblib; None is 1. If ``n_jobs`` of ``generator`` is None, it gets
        this number.
    verbose : int, default=0
        1 shows a progress bar where the images take more than a few batches.

    Attributes
    ----------
    generator_ : mask generator
        The fitted generator.
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
    skdfb.networks.refine_by_affinity : The refinement alone, of tensors.
    DenseMaskGenerator : Improves masks by training a network; either generator can be inside the other.
    skdfb.metrics.mask_iou : Measures masks against true ones.

    Notes
    -----
    Masks have the size of the generator's attention maps. Images of another size are resized to it.

    References
    ----------
    Araslanov and Roth, "Single-Stage Semantic Segmentation from Image Labels", CVPR 2020, :arxiv:`2005.08104`.

    Examples
    --------
    >>> from skdfb.datasets import load_digits_on_photos
    >>> from skdfb.masks import AffinityMaskGenerator, CAMMaskGenerator
    >>> from skdfb.networks import create_backbone
    >>> from skdfb.training import Trainer
    >>> data = load_digits_on_photos(n_train=60, n_test=6, n_ood=6, random_state=0)
    >>> backbone = create_backbone("test_resnet", pretrained=False, output_stride=8, random_state=0)
    >>> cam = CAMMaskGenerator(backbone, image_size=32, trainer=Trainer(max_steps=2), random_state=0)
    >>> masks = AffinityMaskGenerator(cam).fit_transform(data.images, data.target)
    >>> masks.shape, masks.dtype
    ((60, 32, 32), dtype('uint8'))

    A detector passes its trained classifier to the generator inside:

    >>> from skdfb import DFBDetector
    >>> detector = DFBDetector(backbone, mask_generator=AffinityMaskGenerator())
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "generator": "no_validation",  # a protocol; check_generator checks it
        "dilations": ["array-like"],
        "n_iterations": [Interval(Integral, 0, None, closed="left")],
        "bandwidth": [Interval(Real, 0, None, closed="neither")],
        "threshold": [Interval(Real, 0, 1, closed="both")],
        "image_shape": ["array-like", None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "device": [str, torch.device],
        "n_jobs": N_JOBS,
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        generator: Any = None,
        *,
        dilations: Sequence[int] = (1, 2, 4, 8, 12, 24),
        n_iterations: int = 20,
        bandwidth: float = 0.1,
        threshold: float = 0.5,
        image_shape: tuple[int, ...] | None = None,
        batch_size: int = 128,
        device: str | torch.device = "auto",
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.generator = generator
        self.dilations = dilations
        self.n_iterations = n_iterations
        self.bandwidth = bandwidth
        self.threshold = threshold
        self.image_shape = image_shape
        self.batch_size = batch_size
        self.device = device
        self.n_jobs = n_jobs
        self.verbose = verbose

    def _validate_params(self) -> None:
        super()._validate_params()
        # scikit-learn's constraints do not check the items of a sequence.
        dilations = np.asarray(self.dilations)
        if dilations.ndim != 1 or dilations.dtype.kind not in "iu" or not len(dilations) or dilations.min() < 1:
            raise ValueError(f"dilations={self.dilations!r}: expected a sequence of at least one integer above 0.")
        if self.generator is not None:
            check_generator(self.generator, ("fit", "attention_maps", "classify"))

    def _train(self, images: Images, labels: npt.NDArray[np.intp]) -> None:
        generator = CAMMaskGenerator() if self.generator is None else self.generator
        self.generator_ = hand_over(generator, {"device": self.device, "n_jobs": self.n_jobs}).fit(images, labels)

    def _classify(self, images: Images) -> npt.NDArray[np.intp]:
        return np.asarray(self.generator_.classify(images)).astype(np.intp)

    def _stream(
        self, images: Images, labels: npt.NDArray[np.intp] | None
    ) -> Iterator[tuple[Indices, torch.Tensor, torch.Tensor]]:
        device = resolve_device(self.device)
        with (
            batch_size_of(self) as batch_size,
            progress_bar(len(images), is_long=len(images) > 3 * self.batch_size) as bar,
        ):
            for indices in batch_size.batches(len(images)):
                # The other generator makes the maps of a batch in batches of its own; they are refined in pieces
                # that fit into the device's memory.
                batch = images.subset(indices)
                targets = self._classify(batch) if labels is None else labels[indices]
                maps = torch.from_numpy(np.asarray(self.generator_.attention_maps(batch, targets)))  # (b, H, W)

                def refined(rows: slice, images: Images = batch, maps: torch.Tensor = maps) -> torch.Tensor:
                    return self._refined(images.subset(np.arange(rows.start, rows.stop)), upload(maps[rows], device))

                found = torch.cat(list(batch_size.pieces(len(indices), refined)))
                yield indices, found, upload(torch.from_numpy(targets), device)
                bar.update(len(indices))
            batch_size.warn_if_halved("refining by colour")

    def _refined(self, images: Images, maps: torch.Tensor) -> torch.Tensor:
        """Return the maps (b, H, W) of images, refined and scaled to [0, 1]."""
        indices, size = np.arange(len(images)), (maps.shape[1], maps.shape[2])
        refined = refine_by_affinity(
            maps,
            _pixels(images, indices, size, maps.device, self.n_jobs),
            dilations=self.dilations,
            n_iterations=self.n_iterations,
            bandwidth=self.bandwidth,
        )
        # Averaging narrows the range of a map, but the threshold is for a range of [0, 1].
        return min_max(refined)


def _pixels(
    images: Images, indices: Indices, size: tuple[int, int], device: torch.device, n_jobs: int | None
) -> torch.Tensor:
    """Return images as floats (b, 3, *size) in 0..1."""
    if images.size is not None:
        return _resized(upload(torch.as_tensor(images.read(indices)), device), size)

    # Images of several sizes are resized one by one, where they are read: a batch of photographs is large.
    def read(index: int) -> torch.Tensor:
        (pixels,) = images.read(np.array([index]))
        return _resized(pixels[None], size)

    return upload(torch.cat(Parallel(n_jobs=n_jobs, prefer="threads")(map(delayed(read), indices))), device)


def _resized(pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    pixels = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()
    if pixels.shape[-2:] == size:
        return pixels
    return F.interpolate(pixels, size, mode="bilinear", antialias=True)
