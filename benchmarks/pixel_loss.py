"""Measure the loss of the dense stage and its gradient, over those of all pixels at once.

    OMP_NUM_THREADS=1 python benchmarks/pixel_loss.py    # two to three minutes on a CPU core
    python benchmarks/pixel_loss.py --device cuda        # with 128 images of 224 pixels

"ratio" is the time of the library over that of plain PyTorch: the logits of all pixels, interpolated, and their
cross-entropy. "ms" is that of the library per image, and "GB" what it allocates on a GPU. Where plain PyTorch fails,
there is no ratio. Times are the best of five; on a CPU, those of the processor.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from overhead import synchronised
from torch import Tensor

from skdfb.training._pixel_loss import pixel_cross_entropy

PROBLEMS = {"cpu": ((64, 64), (16, 128), (4, 224)), "cuda": ((128, 224),)}  # numbers of images, and their sides


def plain(logit_map: Tensor, masks: Tensor) -> Tensor:
    """Return the loss of all pixels at once."""
    pixels = F.interpolate(logit_map, masks.shape[-2:], mode="bilinear")
    return F.cross_entropy(pixels, masks, reduction="none").sum()


def seconds(loss: Callable[[Tensor, Tensor], Tensor], logit_map: Tensor, masks: Tensor) -> float:
    """Return the least seconds of loss and gradient."""
    return min(
        synchronised(lambda: torch.autograd.grad(loss(logit_map, masks), logit_map), masks.device) for _ in range(5)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, cuda")
    device = torch.device(parser.parse_args().device)
    print(f"{'classes':>8}{'pixels':>8}{'images':>8}{'ratio':>8}{'ms':>8}{'GB':>8}")
    for n_classes in (10, 100, 1000):
        for n_images, side in PROBLEMS[device.type]:
            generator = torch.Generator().manual_seed(0)
            shape = (n_images, n_classes + 1, side // 16, side // 16)
            logit_map = torch.randn(shape, generator=generator).to(device).to(memory_format=torch.channels_last)
            masks = torch.randint(n_classes + 1, (n_images, side, side), generator=generator).to(device)
            logit_map.requires_grad_()
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            own = seconds(pixel_cross_entropy, logit_map, masks)
            memory = f"{torch.cuda.max_memory_allocated() / 2**30:.1f}" if device.type == "cuda" else ""
            try:
                ratio = f"{own / seconds(plain, logit_map, masks):.2f}"
            except RuntimeError:  # too many logits for PyTorch, or for the memory
                ratio = ""
            print(f"{n_classes:>8}{side:>8}{n_images:>8}{ratio:>8}{1000 * own / n_images:>8.2f}{memory:>8}", flush=True)


if __name__ == "__main__":
    main()
