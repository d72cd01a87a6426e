"""Attention maps of the network during its training, for augmentations that use them."""

import inspect
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
    """Return the attention bank of an augmentation on a device; None if the augmentation uses no attention maps."""
    # An augmentation may be any object with a method `augment`; this second method is optional.
    make = getattr(augmentation, "attention_bank", None)
    if make is None:
        return None
    bank = make(len(images))
    if not isinstance(bank, AttentionBank) or len(bank.maps) != len(images):
        raise ValueError(
            f"augmentation.attention_bank({len(images)}) returned {bank!r}: expected an AttentionBank of {len(images)} "
            "images; return AttentionBank(n_images)."
        )
    bank.maps = bank.maps.to(device)
    return bank


@dataclass(frozen=True)
class AttentionKeeper:
    """Updates a bank with the maps of the network in training, for at most ``at_once`` images at a time."""

    bank: AttentionBank
    network: DenseClassifier
    fabric: Fabric
    at_once: BatchSize

    def update(self, batch: Batch, all_rows: Indices | Tensor) -> None:
        """Move the averages of a batch towards its present maps.

        ``batch`` is the share of this process, ``all_rows`` are those of the whole batch: each process has a bank of
        all images, and all banks stay equal.
        """
        n, labels = len(batch.images), batch.targets.argmax(1)

        def maps_of(rows: slice) -> Tensor:
            return self._maps(batch.images[rows], labels[rows])

        # In evaluation mode the maps do not change the batch statistics, and dropout does not change the maps.
        with evaluation_mode(self.network):
            if self.fabric.world_size == 1:
                maps = torch.cat(list(self.at_once.pieces(n, maps_of)))
            else:
                # Not in pieces: processes wait for each other, so all must run the same number of forward passes.
                maps = self._gathered(maps_of(slice(n)), len(all_rows))
        self.bank.update(all_rows, maps)

    def _maps(self, images: Tensor, labels: Tensor) -> Tensor:
        # One pass without mirroring and smoothing: the maps are computed in every step and must be cheap.
        height, width = self.bank.maps.shape[1:]
        # Without the decorator of the public function, which would compute in full precision.
        with torch.no_grad(), self.fabric.autocast():
            maps: Tensor = inspect.unwrap(attention_maps)(
                self.network,
                images.to(self.network.dtype),
                labels,
                input_sizes=[self.network.preprocessor.image_size],
                flip=False,
                sigma=0.0,
                output_size=(height, width),
            )[0]  # (b, H, W)
            return maps

    def _gathered(self, maps: Tensor, n_together: int) -> Tensor:
        """Return the maps of all processes, in the order of the whole batch."""
        # Shares may differ by one image, and a gather needs equal shapes. So each process fills its rows of a tensor
        # of zeros (n, H, W), and the sum has all rows.
        together = maps.new_zeros(n_together, *maps.shape[1:])
        together[self.fabric.global_rank :: self.fabric.world_size] = maps
        summed: Any = self.fabric.all_reduce(together, reduce_op="sum")
        return summed  # type: ignore[no-any-return]
