"""BackMix: patches from the backgrounds of other images."""

from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval
from torch import Generator, Tensor

from skdfb.augmentation._attention_bank import AttentionBank
from skdfb.augmentation._batch import IGNORED, Batch

__all__ = ["BackMix"]

Window = tuple[Tensor, Tensor]  # rows (m, h, 1) and columns (m, 1, w) of pixels


class BackMix(BaseEstimator):
    r"""Paste a patch of another image's background into each image, without changing its class.

    .. math::

        \tilde x_i[P] = (1 - f_j)[Q] \odot x_j[Q], \qquad \tilde y_i = y_i

    :math:`x_j` is another image of the batch, :math:`f_j` is 1 on its foreground and 0 elsewhere, and P and Q are
    windows of the same size at random places. Foreground pixels in the patch become blank, which is the mean pixel. So
    a classifier relies less on the usual background of a class.

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

    See Also
    --------
    skdfb.training.Trainer : Takes a BackMix as ``augmentation``.

    Notes
    -----
    The two stages find the foreground in different ways:

    - The classifier stage takes class activation maps of the network in training, averaged over the epochs. They take
      one more forward pass per step.
    - The dense stage takes the masks, at no cost. The patch becomes background in the mask as well, and the loss
      ignores its blank pixels.

    The authors' code draws the other image from the whole training set. Here it comes from the same batch, which is
    itself drawn from the whole set, so that no image is read twice.

    References
    ----------
    Wang et al., "BackMix: Regularizing Open Set Recognition by Removing Underlying Fore-Background Priors", TPAMI 2025,
    :arxiv:`2503.17717`, and the authors' code, which has the defaults.

    Examples
    --------
    >>> from skdfb import DFBDetector, Trainer
    >>> from skdfb.augmentation import BackMix
    >>> detector = DFBDetector(classifier_trainer=Trainer(augmentation=BackMix()))

    Without a trainer, here with masks:

    >>> import torch
    >>> from skdfb.augmentation import Batch
    >>> images, masks = torch.rand(8, 3, 32, 32), torch.randint(0, 3, (8, 32, 32))
    >>> batch = Batch(images, torch.eye(2)[torch.arange(8) % 2], masks)
    >>> mixed = BackMix().augment(batch, torch.Generator().manual_seed(0))
    >>> (mixed.images != images).any(1).sum((1, 2)).max()
    tensor(64)
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "patch_size": [Interval(Real, 0, 1, closed="right")],
        "foreground_fraction": [Interval(Real, 0, 1, closed="both")],
        "probability": [Interval(Real, 0, 1, closed="both")],
        "momentum": [Interval(Real, 0, 1, closed="right")],
        "map_size": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        *,
        patch_size: float = 0.25,
        foreground_fraction: float = 0.25,
        probability: float = 1.0,
        momentum: float = 0.1,
        map_size: int = 8,
    ) -> None:
        self.patch_size = patch_size
        self.foreground_fraction = foreground_fraction
        self.probability = probability
        self.momentum = momentum
        self.map_size = map_size

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
            A batch with masks or attention maps. It is not changed.
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
            If a parameter is invalid, or if the batch has neither masks nor attention maps.
        """
        self.validate()
        size = batch.images.shape[-2:]
        # The patch is drawn in pixels of the images, so the masks need the same pixels.
        if batch.masks is not None:
            batch = replace(batch, masks=_nearest(batch.masks.long(), size))  # int64, because uint8 cannot hold -1
        foregrounds = self._foregrounds(batch)  # (n, H, W)
        # Random numbers are drawn on the CPU, so that they are the same on every device.
        receivers, givers = self._pairs(len(batch.images), generator)
        shape = [max(1, round(self.patch_size * side)) for side in size]
        source, target = (
            (numbers[:, None, None], *_random_windows(len(numbers), size, shape, generator))
            for numbers in (givers, receivers)
        )
        device = batch.images.device
        return _paste(
            batch, foregrounds, [index.to(device) for index in source], [index.to(device) for index in target]
        )

    def _foregrounds(self, batch: Batch) -> Tensor:
        """Return whether each pixel is foreground, as bool of shape (n, H, W)."""
        if batch.masks is not None:
            return batch.masks != batch.targets.shape[1]
        if batch.attention_maps is None:
            raise ValueError(
                "BackMix: the batch has neither masks nor attention_maps: expected one of them, to find the foreground."
            )
        # The places are found on the small map, then enlarged: the foreground is a set of whole places.
        highest = _highest(batch.attention_maps, self.foreground_fraction)
        return _nearest(highest.to(torch.uint8), batch.images.shape[-2:]) > 0

    def _pairs(self, n_images: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Draw the images that get a patch, and the image that each patch comes from."""
        order = torch.randperm(n_images, generator=generator)
        partners = torch.empty_like(order)
        # In a random circle each image gets from the one before it, so never from itself.
        partners[order] = order.roll(1)
        chosen = torch.rand(n_images, generator=generator, dtype=torch.float64) < self.probability
        return chosen.nonzero()[:, 0], partners[chosen]


def _highest(maps: Tensor, fraction: float) -> Tensor:
    """Return whether each place is among the highest of its map, up to a share of the places."""
    flat = maps.flatten(1)
    order = flat.argsort(stable=True, dim=1, descending=True)
    highest = torch.zeros_like(flat, dtype=torch.bool)
    highest.scatter_(1, order[:, : round(fraction * flat.shape[1])], True)
    # A constant map has no highest places: it is the map of an image without an update, or without any activation.
    return (highest & (flat.amax(1, keepdim=True) > flat.amin(1, keepdim=True))).view_as(maps)


def _nearest(masks: Tensor, size: torch.Size) -> Tensor:
    """Resize masks (n, h, w) of integers, by the nearest pixel."""
    if masks.shape[-2:] == size:
        return masks
    return F.interpolate(masks[:, None].float(), size, mode="nearest-exact")[:, 0].to(masks.dtype)


def _random_windows(n: int, size: torch.Size, shape: list[int], generator: Generator) -> Window:
    """Draw n windows of one shape inside an image, all places equally likely; return their rows and columns."""
    rows, columns = (
        torch.randint(side - length + 1, (n, 1), generator=generator) + torch.arange(length)
        for side, length in zip(size, shape, strict=True)
    )
    return rows[:, :, None], columns[:, None, :]


def _paste(batch: Batch, foregrounds: Tensor, source: list[Tensor], target: list[Tensor]) -> Batch:
    """Copy pixels from ``source`` to ``target``, both indices of image, row and column; foreground becomes blank."""
    holes = foregrounds[tuple(source)]  # (m, h, w)
    number, rows, columns = source
    pixels = batch.images[number, :, rows, columns].masked_fill(holes[..., None], 0)  # (m, h, w, 3)
    # Patches are read from the unchanged batch: no image gets a patch of a patch.
    images = batch.images.clone()
    images[target[0], :, target[1], target[2]] = pixels
    if batch.masks is None:
        return replace(batch, images=images)
    masks = batch.masks.clone()
    masks[tuple(target)] = torch.where(holes, IGNORED, batch.targets.shape[1])
    return replace(batch, images=images, masks=masks)
