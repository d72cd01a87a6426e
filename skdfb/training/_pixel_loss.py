"""The cross-entropy of all pixels of a batch, without the enlarged logits of all of them in memory."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from skdfb.augmentation._batch import IGNORED

__all__ = ["pixel_cross_entropy"]

# Enlarged logits at once: on a CPU they stay in its cache; a GPU needs much work at once, which takes up to 3 GB.
_AT_ONCE_ON_CPU, _AT_ONCE_ELSEWHERE = 2**20, 2**28
_MANY_CLASSES = 16


def pixel_cross_entropy(logit_map: Tensor, masks: Tensor) -> Tensor:
    """Return the sum of the cross-entropies of all pixels that are not ignored.

    Logits (b, C, h, w) are enlarged to the size of the masks (b, S, S), which hold classes. For 1,000 classes and
    images of 224 pixels these are 200 MB per image, so some rows of pixels are enlarged at once, and the gradient of
    their map is computed before the next ones.
    """
    # At least float32: the sum over a million pixels is more than the largest float16.
    logit_map = logit_map.to(torch.promote_types(logit_map.dtype, torch.float32))
    with torch.autocast(logit_map.device.type, enabled=False):
        if torch.compiler.is_compiling():  # where no gradient can be taken; all rows at once
            return _summed(logit_map, masks, *_interpolations(logit_map, masks))
        loss: Tensor = _PixelCrossEntropy.apply(logit_map, masks)
    return loss


class _PixelCrossEntropy(torch.autograd.Function):
    """Computes the gradient in the forward pass, so that no enlarged logits are kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, logit_map: Tensor, masks: Tensor) -> Tensor:
        down, across = _interpolations(logit_map, masks)
        loss, of_map = logit_map.new_zeros(()), torch.zeros_like(logit_map)
        for images, rows in _parts(logit_map, masks):
            with torch.set_grad_enabled(ctx.needs_input_grad[0]):
                logits = logit_map[images].detach().requires_grad_(ctx.needs_input_grad[0])
                of_part = _summed(logits, masks[images, rows], down[rows], across)
            loss += of_part.detach()
            if ctx.needs_input_grad[0]:
                of_map[images] += torch.autograd.grad(of_part, logits)[0]
        ctx.save_for_backward(of_map)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (of_map,) = ctx.saved_tensors
        return of_map * gradient, None


def _interpolations(logit_map: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weights of linear interpolation from top to bottom (S, h), and from left to right (S, w)."""
    one_hot = (torch.eye(side, dtype=logit_map.dtype, device=logit_map.device) for side in logit_map.shape[2:])
    down, across = (F.interpolate(each[None], masks.shape[-1], mode="linear")[0].T for each in one_hot)
    return down, across


def _parts(logit_map: Tensor, masks: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield images and rows of pixels, such that few logits are enlarged at once: whole images, or a part of one."""
    at_once = _AT_ONCE_ON_CPU if logit_map.device.type == "cpu" else _AT_ONCE_ELSEWHERE
    n_images, height, width = masks.shape
    n_rows = max(1, at_once // (logit_map.shape[1] * width))
    step = max(1, n_rows // height)
    for first in range(0, n_images, step):
        for row in range(0, height, n_rows):
            yield slice(first, first + step), slice(row, row + n_rows)


def _summed(logit_map: Tensor, masks: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Return the sum for some rows of pixels."""
    if logit_map.shape[1] < _MANY_CLASSES and logit_map.device.type != "cuda":
        logits, classes = down @ logit_map @ across.T, masks  # (b, C, rows, S), (b, rows, S)
    else:  # with the logits of a pixel side by side, a softmax is faster
        n_images, n_classes, _, width = logit_map.shape
        columns = down @ logit_map.movedim(1, -1).flatten(2)  # (b, rows, w C)
        logits = across @ columns.view(n_images, len(down), width, n_classes)  # (b, rows, S, C)
        logits, classes = logits.flatten(0, 2), masks.flatten()  # (b rows S, C), (b rows S,)
    # Summed separately: on a GPU, the built-in reduction of a loss of pixels gives other bits in each run.
    return F.cross_entropy(logits, classes, ignore_index=IGNORED, reduction="none").sum()
