"""Attention maps of the network that is being trained, for augmentations that use them."""

from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from skdfb.augmentation import AttentionBank, Batch
from skdfb.images import BatchSize, Images, Indices
from skdfb.networks import DenseClassifier, attention_maps
from skdfb.utils import evaluation_mode

__all__ = ["AttentionKeeper", "attention_bank"]


def attention_bank(augmentation: Any, images: Images, device: torch.device) -> AttentionBank | None:
    """Return the attention bank of an augmentation on a device; None if the augmentation uses none.

    Raises
    ------
    ValueError
        If a third-party augmentation returns something else than a bank of all images.
    """
    make = getattr(augmentation, "attention_bank", None)
    if make is None:
        return None
    bank = make(len(images))
    if not isinstance(bank, AttentionBank) or len(bank.maps) != len(images):
        raise ValueError(
            f"augmentation.attention_bank({len(images)}) returned {bank!r}: expected an AttentionBank of {len(images)} "
            "images."
        )
    bank.maps = bank.maps.to(device)
    return bank


@dataclass(frozen=True)
class AttentionKeeper:
    """Updates a bank with the attention maps of the network that is being trained, ``at_once`` images at a time."""

    bank: AttentionBank
    network: DenseClassifier
    fabric: Fabric
    at_once: BatchSize

    def update(self, batch: Batch, all_indices: Indices) -> None:
        """Move the averages in the bank towards the present maps of a batch.

        ``batch`` is the share of this process, ``all_indices`` are the images of the batch in all processes. Every
        process updates its bank with the maps of all.
        """
        n, labels = len(batch.images), batch.targets.argmax(1)

        def maps_of(rows: slice) -> Tensor:
            return self._maps(batch.images[rows], labels[rows])

        # In evaluation mode this forward pass draws no random numbers and changes no batch statistics.
        with evaluation_mode(self.network):
            if self.fabric.world_size == 1:
                maps = torch.cat(list(self.at_once.pieces(n, maps_of)))
            else:
                # Not in pieces: if only this process halved ``at_once``, it would run more backward passes per step
                # than the others, and all would wait for each other forever.
                maps = self._gathered(maps_of(slice(n)), len(all_indices))
        self.bank.update(all_indices, maps)

    def _maps(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return attention maps (b, height, width) of the bank's size, from one pass at the network's input size."""
        height, width = self.bank.maps.shape[1:]
        # The maps of an average over training need neither several scales nor smoothing.
        with self.fabric.autocast():
            return attention_maps(
                self.network,
                images.to(self.network.dtype),
                labels,
                input_sizes=[self.network.preprocessor.image_size],
                flip=False,
                sigma=0.0,
                output_size=(height, width),
            )[0]

    def _gathered(self, maps: Tensor, n_together: int) -> Tensor:
        """Return the maps of all processes, whose shares may differ by one image."""
        # A sum of arrays that are 0 elsewhere, since all_gather needs shares of equal size.
        together = maps.new_zeros(n_together, *maps.shape[1:])
        together[self.fabric.global_rank :: self.fabric.world_size] = maps
        summed: Any = self.fabric.all_reduce(together, reduce_op="sum")
        return summed  # type: ignore[no-any-return]
