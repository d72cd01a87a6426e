"""What an augmentation gets and gives, and what a trainer asks of one."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

__all__ = ["IGNORED", "Augmentation", "Batch"]

IGNORED = -1  # the mask value of pixels that show nothing of the image, which the loss leaves out


@dataclass(frozen=True)
class Batch:
    """Training images on their device, and what belongs to each.

    Parameters
    ----------
    images : Tensor of shape (n, 3, H, W)
        Normalised: 0 is the mean pixel.
    targets : Tensor of shape (n, K)
        Class probabilities.
    masks : Tensor of int of shape (n, S, T), default=None
        Class indices a pixel, K for background, -1 for pixels that no loss is to see; in the dense stage. They cover
        the whole image, in a size of their own.
    attention_maps : Tensor of shape (n, h, w), default=None
        In [0, 1], high where the class is seen; for an augmentation that keeps an
        :class:`~skdfb.augmentation.AttentionBank`.

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

    def __getitem__(self, rows: slice) -> "Batch":
        """Return some of the images with what belongs to them."""
        return Batch(
            self.images[rows],
            self.targets[rows],
            None if self.masks is None else self.masks[rows],
            None if self.attention_maps is None else self.attention_maps[rows],
        )


@runtime_checkable
class Augmentation(Protocol):
    """What :class:`~skdfb.training.Trainer` asks of its ``augmentation``: one method.

    What ``augment`` returns must depend on the batch and the generator alone: checkpoints keep nothing else of it.

    An augmentation may also have ``attention_bank(n_images)``, which returns an
    :class:`~skdfb.augmentation.AttentionBank`. The classifier stage then keeps it up to date and hands over
    ``batch.attention_maps``, at the price of one more forward pass a batch.

    Examples
    --------
    Half of another image, and half of its class:

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
        """Return a new batch of as many images, with masks if there were any.

        All random numbers come from the generator, which is on the CPU.
        """
