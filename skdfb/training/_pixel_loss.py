"""The cross-entropy of all pixels of a batch, without the enlarged logits of all of them in memory."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from skdfb.augmentation._batch import IGNORED

__all__ = ["pixel_cross_entropy"]

# Enlarged logits at once: on a CPU they stay in its cache; a GPU needs much work at once, which takes up to 3 GB.
_AT_ONCE_ON_CPU, _AT_ONCE_ELSEWHERE = 2**20, 2**28
# From so many on, a softmax is faster on a CPU if the logits of a pixel are side by side; with fewer, it is slower.
_MANY_CLASSES = 16


def pixel_cross_entropy(logit_map: Tensor, masks: Tensor) -> Tensor:
    """Return the sum of the cross-entropies of all pixels that are not ignored.

    Logits (b, C, h, w) are enlarged to the size of the masks (b, H, W), which hold classes. For 1,000 classes and
    images of 224 pixels these are 200 MB per image, so some rows of pixels are enlarged at once, and the gradient of
    their map is computed before the next ones.
    """
    # At least float32: the sum over a million pixels is more than the largest float16.
    logit_map = logit_map.to(torch.promote_types(logit_map.dtype, torch.float32))
    with torch.autocast(logit_map.device.type, enabled=False):
        if torch.is_grad_enabled() and logit_map.requires_grad:
            loss: Tensor = _PixelCrossEntropy.apply(logit_map, masks)
            return loss
        losses = (loss_of(logit_map[images]) for images, loss_of in _parts(logit_map, masks))
        return sum(losses, logit_map.new_zeros(()))


class _PixelCrossEntropy(torch.autograd.Function):
    """Computes the gradient in the forward pass, so that no enlarged logits are kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, logit_map: Tensor, masks: Tensor) -> Tensor:
        loss, of_map = logit_map.new_zeros(()), torch.zeros_like(logit_map)
        for images, loss_of in _parts(logit_map, masks):
            with torch.enable_grad():
                logits = logit_map[images].detach().requires_grad_()
                of_part = loss_of(logits)
            loss += of_part.detach()
            of_map[images] += torch.autograd.grad(of_part, logits)[0]
        ctx.save_for_backward(of_map)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (of_map,) = ctx.saved_tensors
        return of_map * gradient, None


def _parts(logit_map: Tensor, masks: Tensor) -> Iterator[tuple[slice, Callable[[Tensor], Tensor]]]:
    """Yield the images of each part, and the function that makes its loss of their logits.

    A part is whole images, or some rows of pixels of one image, such that few logits are enlarged at once.
    """
    at_once = _AT_ONCE_ON_CPU if logit_map.device.type == "cpu" else _AT_ONCE_ELSEWHERE
    n_images, height, width = masks.shape
    n_rows = max(1, at_once // (logit_map.shape[1] * width))
    step = max(1, n_rows // height)
    down, across = (
        _interpolation(*sizes, logit_map) for sizes in zip(logit_map.shape[2:], (height, width), strict=True)
    )
    for first in range(0, n_images, step):
        for row in range(0, height, n_rows):
            images, rows = slice(first, first + step), slice(row, row + n_rows)
            yield images, partial(_summed, masks=masks[images, rows], down=down[rows], across=across)


def _interpolation(size: int, larger: int, like: Tensor) -> Tensor:
    """Return the weights (larger, size) of linear interpolation."""
    one_hot = torch.eye(size, dtype=like.dtype, device=like.device)
    return F.interpolate(one_hot[None], larger, mode="linear")[0].T


def _summed(logit_map: Tensor, masks: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Return the sum for some rows of pixels, whose masks (b, rows, W) and weights (rows, h) are given."""
    # By matrix products, which enlarge some rows alone. F.interpolate needs all rows, and is slower on a GPU.
    if logit_map.shape[1] < _MANY_CLASSES and logit_map.device.type != "cuda":
        logits, classes = down @ logit_map @ across.T, masks  # (b, C, rows, W), (b, rows, W)
    else:  # the logits of a pixel side by side
        n_images, n_classes, _, width = logit_map.shape
        columns = down @ logit_map.movedim(1, -1).flatten(2)  # (b, rows, w C)
        logits = across @ columns.view(n_images, len(down), width, n_classes)  # (b, rows, W, C)
        logits, classes = logits.flatten(0, 2), masks.flatten()  # (b rows W, C), (b rows W,)
    # Summed separately: on a GPU, the built-in reduction of a loss of pixels gives other bits in each run.
    return F.cross_entropy(logits, classes, ignore_index=IGNORED, reduction="none").sum()
