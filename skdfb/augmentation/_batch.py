"""The input and output of augmentations, and their protocol."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

__all__ = ["IGNORED", "Augmentation", "Batch"]

IGNORED = -1  # mask value of pixels outside the image or blank, which the loss ignores


@dataclass(frozen=True)
class Batch:
    """Training images on their device, with targets, masks and attention maps.

    Parameters
    ----------
    images : Tensor of shape (n, 3, H, W)
        Normalised images: 0 is the mean pixel.
    targets : Tensor of shape (n, K)
        Class probabilities.
    masks : Tensor of int of shape (n, S, T), default=None
        Class index per pixel, K for the background, -1 for pixels that the loss ignores. Only the dense stage has
        masks. They cover the whole image, and may have another size than the images.
    attention_maps : Tensor of shape (n, h, w), default=None
        Numbers in [0, 1], high where the class is. Only for an augmentation that has an
        :class:`~skdfb.augmentation.AttentionBank`.
    donors : Batch, default=None
        As many images of the training set, each drawn at random, in the same form. Only for an augmentation with
        ``needs_donors``.

    Examples
    --------
    >>> import torch
    >>> from skdfb.augmentation import Batch
    >>> batch = Batch(torch.rand(8, 3, 32, 32), torch.eye(8))
    >>> batch[2:5].images.shape
    torch.Size([3, 3, 32, 32])
    """

    images: Tensor
    targets: Tensor
    masks: Tensor | None = None
    attention_maps: Tensor | None = None
    donors: "Batch | None" = None

    def __getitem__(self, rows: slice) -> "Batch":
        """Return the batch of some of the images."""
        # The trainer splits a batch in this way if it does not fit into the device's memory.
        return Batch(
            self.images[rows],
            self.targets[rows],
            None if self.masks is None else self.masks[rows],
            None if self.attention_maps is None else self.attention_maps[rows],
            None if self.donors is None else self.donors[rows],
        )


@runtime_checkable
class Augmentation(Protocol):
    """Protocol of the ``augmentation`` of a :class:`~skdfb.training.Trainer`: one method.

    The result of ``augment`` must depend only on the batch and the generator, because checkpoints store no state of an
    augmentation.

    An augmentation may also have a method ``attention_bank(n_images)`` that returns an
    :class:`~skdfb.augmentation.AttentionBank`. Then the classifier stage updates the bank and sets
    ``batch.attention_maps``, which takes one more forward pass per batch.

    It may also have an attribute ``needs_donors``. If it is true, the trainer reads as many other images, each drawn at
    random from the whole training set, and sets ``batch.donors``.

    Examples
    --------
    Mix halves of two images, and their classes:

    >>> from dataclasses import replace
    >>> import torch
    >>> from skdfb import Trainer
    >>> class HalfOfAnother:
    ...     def augment(self, batch, generator):
    ...         other = torch.randperm(len(batch.images), generator=generator)
    ...         images, middle = batch.images.clone(), batch.images.shape[-1] // 2
    ...         images[..., middle:] = batch.images[other][..., middle:]
    ...         return replace(batch, images=images, targets=(batch.targets + batch.targets[other]) / 2)
    >>> trainer = Trainer(augmentation=HalfOfAnother())
    """

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Augment a batch.

        Parameters
        ----------
        batch : Batch
            The batch, which must not be changed.
        generator : torch.Generator
            Source of all random numbers, on the CPU.

        Returns
        -------
        augmented : Batch
            A new batch of the same number of images, with masks if the batch has masks.
        """
