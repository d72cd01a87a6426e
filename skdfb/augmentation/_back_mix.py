"""BackMix: patches from the backgrounds of other images."""

from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import StrOptions
from torch import Generator, Tensor

from skdfb._constraints import RANDOM_STATE, Interval
from skdfb._transfers import upload
from skdfb.augmentation._attention_bank import AttentionBank
from skdfb.augmentation._batch import IGNORED, Batch
from skdfb.images import as_images
from skdfb.images._images import ArrayImages
from skdfb.utils import spawn_seeds

__all__ = ["BackMix"]

Window = tuple[Tensor, Tensor, Tensor]  # images (m, 1, 1), rows (m, h, 1) and columns (m, 1, w) of pixels


class BackMix(BaseEstimator):
    r"""Paste a patch of another image's background into each image, without changing its class.

    .. math::

        \tilde x_i[P] = (1 - f_j)[Q] \odot x_j[Q], \qquad \tilde y_i = y_i

    :math:`x_j` is another image, the donor, :math:`f_j` is 1 on its foreground and 0 elsewhere, and P and Q are windows
    of the same size at random places. Foreground pixels in the patch become blank, which is the mean pixel. So a
    classifier relies less on the usual background of a class.

    A :class:`~skdfb.training.Trainer` calls :meth:`augment` in each step. :meth:`transform` does the same to arrays of
    images, without a training.

    Parameters
    ----------
    patch_size : float, default=0.25
        Side of the patch as a share of the image's side.
    foreground_fraction : float, default=0.25
        Share of the image that counts as foreground: the places of highest attention. It has no effect if the batch
        has masks.
    probability : float, default=1.0
        Share of the images that get a patch.
    momentum : float, default=0.1
        Weight of the newest attention map in the averages of the :class:`AttentionBank`, as in batch normalisation.
    map_size : int, default=8
        Side of the attention maps in the bank.
    donors : {"batch", "training set"}, default="batch"
        Where the donor of each image comes from. "batch": another image of the same batch, and each image is the donor
        of exactly one other. "training set": any image of the training set, drawn anew in each step, as in the authors'
        code. Then a trainer reads two images where it reads one otherwise.
    random_state : int, RandomState or None, default=None
        Seed of :meth:`transform`. A trainer does not use it: there the random numbers follow from the trainer's seed.

    Attributes
    ----------
    needs_donors : bool
        Whether a trainer has to set ``batch.donors``.

    See Also
    --------
    skdfb.training.Trainer : Takes a BackMix as ``augmentation``. Its ``mixup="auto"`` is then off.

    Notes
    -----
    The two stages find the foreground in different ways:

    - The classifier stage takes class activation maps of the network in training, averaged over the epochs. They take
      one more forward pass per step.
    - The dense stage takes the masks, at no cost. The patch becomes background in the mask as well, and the loss
      ignores its blank pixels.

    With donors of the batch, no image is read twice, and each attention map has been updated in the same step. A donor
    of the training set has the map of its last step. Before its first step nothing of it counts as foreground.

    As in the authors' code, there is no mixup beside BackMix, unless it is switched on, and images are scaled, cropped
    and mirrored after the patches were pasted.

    References
    ----------
    Wang et al., "BackMix: Regularizing Open Set Recognition by Removing Underlying Fore-Background Priors", TPAMI 2025,
    :arxiv:`2503.17717`, and the authors' code, which has the defaults.

    Examples
    --------
    >>> from skdfb import DFBDetector, Trainer
    >>> from skdfb.augmentation import BackMix
    >>> detector = DFBDetector(classifier_trainer=Trainer(augmentation=BackMix()))

    Without a trainer, here with true masks:

    >>> from skdfb.datasets import load_digits_on_photos
    >>> data = load_digits_on_photos(n_train=100)
    >>> mixed = BackMix(random_state=0).transform(data.images, masks=data.masks != data.n_classes)
    >>> mixed.shape, mixed.dtype
    ((100, 32, 32, 3), dtype('uint8'))
    >>> print((mixed != data.images).any(-1).sum((1, 2)).max())  # pixels of a patch of 8 x 8
    64
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "patch_size": [Interval(Real, 0, 1, closed="right")],
        "foreground_fraction": [Interval(Real, 0, 1, closed="both")],
        "probability": [Interval(Real, 0, 1, closed="both")],
        "momentum": [Interval(Real, 0, 1, closed="right")],
        "map_size": [Interval(Integral, 1, None, closed="left")],
        "donors": [StrOptions({"batch", "training set"})],
        "random_state": RANDOM_STATE,
    }

    def __init__(
        self,
        *,
        patch_size: float = 0.25,
        foreground_fraction: float = 0.25,
        probability: float = 1.0,
        momentum: float = 0.1,
        map_size: int = 8,
        donors: Literal["batch", "training set"] = "batch",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.patch_size = patch_size
        self.foreground_fraction = foreground_fraction
        self.probability = probability
        self.momentum = momentum
        self.map_size = map_size
        self.donors = donors
        self.random_state = random_state

    @property
    def needs_donors(self) -> bool:
        """Whether a trainer has to set ``batch.donors``."""
        return self.donors == "training set"

    def validate(self) -> None:
        """Check the parameters.

        Raises
        ------
        ValueError
            If a parameter is invalid; the message names it, its value and what was expected.
        """
        self._validate_params()

    def attention_bank(self, n_images: int) -> AttentionBank:
        """Make an empty attention bank for a training set.

        Parameters
        ----------
        n_images : int
            Number of training images.

        Returns
        -------
        bank : AttentionBank
            The bank, with this object's ``map_size`` and ``momentum``.
        """
        return AttentionBank(n_images, self.map_size, self.momentum)

    def augment(self, batch: Batch, generator: Generator) -> Batch:
        """Paste the patches.

        Parameters
        ----------
        batch : Batch
            A batch with masks or attention maps, and with ``donors`` if ``donors="training set"``. It is not changed.
        generator : torch.Generator
            Source of all random numbers, on the CPU.

        Returns
        -------
        mixed : Batch
            The same images in the same order, with patches. Masks have the size of the images and are int64, with -1
            where a pixel is blank.

        Raises
        ------
        ValueError
            If a parameter is invalid, if the batch has neither masks nor attention maps, or if it has no donors of the
            shape of the images although ``donors="training set"``.
        """
        self.validate()
        # The patch is drawn in pixels of the images, so the masks need the same pixels.
        batch = _with_masks_of_image_size(batch)
        n = len(batch.images)
        # Random numbers are drawn on the CPU, so that they are the same on every device.
        if not self.needs_donors:
            return self._mix(batch, batch.images, self._foregrounds(batch), _circle(n, generator), generator)
        if batch.donors is None or batch.donors.images.shape != batch.images.shape:
            given = "no donors" if batch.donors is None else f"donors of shape {tuple(batch.donors.images.shape)}"
            raise ValueError(
                f"BackMix: the batch has {given}: expected donors of shape {tuple(batch.images.shape)}, since "
                "donors='training set'; pass Batch(..., donors=Batch(...)), or set donors='batch'."
            )
        foregrounds = self._foregrounds(_with_masks_of_image_size(batch.donors))
        return self._mix(batch, batch.donors.images, foregrounds, torch.arange(n), generator)

    def transform(
        self, X: npt.ArrayLike, *, masks: npt.ArrayLike | None = None, attention_maps: npt.ArrayLike | None = None
    ) -> npt.NDArray[Any]:
        """Paste patches into images of an array, without a training.

        There is no ``fit``: an augmentation learns nothing, and in a pipeline it would change test images as well. The
        donors are images of ``X``: another one for each image with ``donors="batch"``, or any one with
        ``donors="training set"``.

        Parameters
        ----------
        X : array-like of shape (n, H, W, C) or (n, H, W)
            Images with 1 or 3 channels, integers 0..255 or floats 0..1. They are not changed.
        masks : array-like of bool of shape (n, h, w), default=None
            True on the foreground. The masks cover the whole images, and may have another size.
        attention_maps : array-like of float of shape (n, h, w), default=None
            High on the foreground, such as those of :meth:`skdfb.masks.CAMMaskGenerator.attention_maps`. The places of
            highest attention count as foreground, see ``foreground_fraction``. Give masks or attention maps.

        Returns
        -------
        mixed : ndarray of the shape of X
            The same images in the same order, with patches: uint8 0..255 if X has integers, else floats of the dtype of
            X. Blank pixels are grey, 128 or 0.5.

        Raises
        ------
        ValueError
            If a parameter is invalid, if ``X``, ``masks`` or ``attention_maps`` have a wrong form, or if both or none
            of the last two are given.
        TypeError
            If ``X`` does not hold numbers.
        """
        self.validate()
        pixels = _checked_pixels(X)  # (n, H, W, C)
        foregrounds = self._given_foregrounds(masks, attention_maps, pixels.shape)
        generator = torch.Generator().manual_seed(spawn_seeds(self.random_state, 1)[0])
        n = len(pixels)
        partners = torch.randint(n, (n,), generator=generator) if self.needs_donors else _circle(n, generator)
        # The authors normalise by a mean of 0.5. In pixels, so that no pixel is rounded on the way.
        batch = Batch(torch.from_numpy(pixels).movedim(-1, 1), torch.empty(n, 0))
        mixed = self._mix(
            batch, batch.images, foregrounds, partners, generator, 128 if pixels.dtype == np.uint8 else 0.5
        )
        return mixed.images.movedim(1, -1).numpy().reshape(np.shape(X))

    def _mix(
        self,
        batch: Batch,
        sources: Tensor,
        foregrounds: Tensor,
        partners: Tensor,
        generator: Generator,
        blank: float = 0,
    ) -> Batch:
        """Paste a patch of the image ``sources[partners[i]]`` into image i of the batch."""
        size, device = batch.images.shape[-2:], batch.images.device
        receivers = self._receivers(len(batch.images), generator)
        shape = [max(1, round(self.patch_size * side)) for side in size]
        corners = [
            torch.stack([numbers, *_random_corners(len(numbers), size, shape, generator)])
            for numbers in (partners[receivers], receivers)
        ]
        # All numbers go to the device at once.
        source, target = (_windows(corner, shape) for corner in upload(torch.stack(corners), device))
        return _paste(batch, sources, foregrounds, source, target, blank)

    def _receivers(self, n_images: int, generator: Generator) -> Tensor:
        """Draw the images that get a patch."""
        chosen = torch.rand(n_images, generator=generator, dtype=torch.float64) < self.probability
        return chosen.nonzero()[:, 0]

    def _foregrounds(self, batch: Batch) -> Tensor:
        """Return whether each pixel is foreground, as bool of shape (n, H, W)."""
        if batch.masks is not None:
            return batch.masks != batch.targets.shape[1]
        if batch.attention_maps is None:
            raise ValueError(
                "BackMix: the batch has neither masks nor attention_maps: expected one of them, to find the foreground."
            )
        return self._attended(batch.attention_maps, batch.images.shape[-2:])

    def _attended(self, attention_maps: Tensor, size: torch.Size) -> Tensor:
        """Return whether each pixel is at a place of highest attention."""
        # The places are found on the small map, then enlarged: the foreground is a set of whole places.
        return _nearest(_highest(attention_maps, self.foreground_fraction), size)

    def _given_foregrounds(self, masks: Any, attention_maps: Any, shape: tuple[int, ...]) -> Tensor:
        """Check the masks or the attention maps of :meth:`transform`, and return the foreground of all images."""
        if (masks is None) == (attention_maps is None):
            given = "none of them is" if masks is None else "both are"
            raise ValueError(f"transform: expected masks or attention_maps, to find the foreground, but {given} given.")
        name, array = (
            ("masks", np.asarray(masks)) if masks is not None else ("attention_maps", np.asarray(attention_maps))
        )
        if array.ndim != 3 or len(array) != shape[0] or array.size == 0:
            raise ValueError(f"{name} has shape {array.shape} for {shape[0]} images: expected ({shape[0]}, h, w).")
        size = torch.Size(shape[1:3])
        if masks is not None:
            if array.dtype != bool:
                raise ValueError(
                    f"masks has dtype {array.dtype}: expected booleans, True on the foreground; for class indices pass "
                    "masks != background."
                )
            return _nearest(torch.from_numpy(array.copy()), size)
        if array.dtype.kind not in "uif" or not np.isfinite(array).all():
            raise ValueError(
                f"attention_maps of dtype {array.dtype} holds NaN, infinity or no numbers: expected finite numbers, "
                "high on the foreground."
            )
        return self._attended(torch.from_numpy(array.astype(np.float64)), size)


def _checked_pixels(X: Any) -> npt.NDArray[Any]:
    """Return a copy of images (n, H, W[, C]) as (n, H, W, C), uint8 or floats."""
    array = np.asarray(X)
    # Rows of numbers and paths are images elsewhere, but have no pixels that could be returned in the same form.
    if array.ndim not in (3, 4):
        raise ValueError(f"X has shape {array.shape}: expected an array of images, (n, H, W, C) or (n, H, W).")
    images = as_images(array)
    assert isinstance(images, ArrayImages), "an array of three or four dimensions is read as one"
    # torch has no tensors of other byte orders.
    return np.array(images.array, dtype=images.array.dtype.newbyteorder("="))


def _with_masks_of_image_size(batch: Batch) -> Batch:
    """Return the batch with its masks in the size of the images; int64, because uint8 cannot hold -1."""
    if batch.masks is None:
        return batch
    return replace(batch, masks=_nearest(batch.masks.long(), batch.images.shape[-2:]))


def _circle(n_images: int, generator: Generator) -> Tensor:
    """Draw the image that each patch comes from: never the image itself, and each image once."""
    order = torch.randperm(n_images, generator=generator)
    partners = torch.empty_like(order)
    # In a random circle each image gets from the one before it.
    partners[order] = order.roll(1)
    return partners


def _highest(maps: Tensor, fraction: float) -> Tensor:
    """Return whether each place is among the highest of its map, up to a share of the places."""
    flat = maps.flatten(1)
    order = flat.argsort(stable=True, dim=1, descending=True)
    highest = torch.zeros_like(flat, dtype=torch.bool)
    highest.scatter_(1, order[:, : round(fraction * flat.shape[1])], True)
    # A constant map has no highest places: it is the map of an image without an update, or without any activation.
    return (highest & (flat.amax(1, keepdim=True) > flat.amin(1, keepdim=True))).view_as(maps)


def _nearest(masks: Tensor, size: torch.Size) -> Tensor:
    """Resize masks (n, h, w) of integers or booleans, by the nearest pixel."""
    if masks.shape[-2:] == size:
        return masks
    return F.interpolate(masks[:, None].float(), size, mode="nearest-exact")[:, 0].to(masks.dtype)


def _random_corners(n: int, size: torch.Size, shape: list[int], generator: Generator) -> list[Tensor]:
    """Draw n windows of one shape inside an image, all places equally likely; return their first rows and columns."""
    return [
        torch.randint(side - length + 1, (n,), generator=generator) for side, length in zip(size, shape, strict=True)
    ]


def _windows(corners: Tensor, shape: list[int]) -> Window:
    """Return the indices of image, row and column of windows, whose image, first row and first column are given."""
    number, top, left = corners[:, :, None, None]  # (m, 1, 1) each
    height, width = (torch.arange(length, device=corners.device) for length in shape)
    return number, top + height[:, None], left + width


def _paste(batch: Batch, sources: Tensor, foregrounds: Tensor, source: Window, target: Window, blank: float) -> Batch:
    """Copy pixels of ``sources`` into a batch; foreground becomes blank.

    ``source`` and ``target`` are indices of image, row and column.
    """
    holes = foregrounds[source]  # (m, h, w)
    number, rows, columns = source
    pixels = sources[number, :, rows, columns].masked_fill(holes[..., None], blank)  # (m, h, w, C)
    # Patches are read from unchanged images: no image gets a patch of a patch.
    images = batch.images.clone()
    images[target[0], :, target[1], target[2]] = pixels
    if batch.masks is None:
        return replace(batch, images=images)
    masks = batch.masks.clone()
    masks[target] = torch.where(holes, IGNORED, batch.targets.shape[1])
    return replace(batch, images=images, masks=masks)
