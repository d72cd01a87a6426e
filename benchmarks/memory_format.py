"""Measure whether a network is faster with channels last, and in 16 bits, on a CPU.

    OMP_NUM_THREADS=1 python benchmarks/memory_format.py
    OMP_NUM_THREADS=1 python benchmarks/memory_format.py --networks convnext_tiny --image-size 224

Cells are times of the processor over those of the usual memory format in 32 bits: medians of rounds in which all ways
take turns. Weights are random. "bf16" is autocast, as ``Trainer(precision="bf16-mixed")`` uses it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import nullcontext

import timm
import torch
from torch import nn

NETWORKS = ("tf_efficientnet_lite0", "mobilenetv3_small_100", "resnet18")
WAYS = {
    "channels first": (torch.contiguous_format, False),
    "channels last": (torch.channels_last, False),
    "last, bf16": (torch.channels_last, True),
}


def once(network: nn.Module, images: torch.Tensor, way: str, training: bool) -> float:
    """Return the seconds of one pass."""
    memory_format, bf16 = WAYS[way]
    images = images.contiguous(memory_format=memory_format)
    start = time.process_time()
    with torch.set_grad_enabled(training), torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
        out = network.forward_features(images).float().square().mean()  # type: ignore[operator]
    if training:
        out.backward()
        network.zero_grad()
    return time.process_time() - start


def ratios(name: str, size: int, n_images: int, repeats: int, training: bool) -> dict[str, float]:
    """Return the time of each way over that of the first."""
    options = {"img_size": size} if name.startswith("vit") else {}
    network = timm.create_model(name, pretrained=False, num_classes=0, **options).train(training)
    images = torch.rand(n_images, 3, size, size, generator=torch.Generator().manual_seed(0))
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(repeats + 1):  # the first round warms up
        for way, found in seconds.items():
            found.append(once(network, images, way, training))
    medians = {way: statistics.median(found[1:]) for way, found in seconds.items()}
    return {way: median / medians["channels first"] for way, median in medians.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    print(f"{'':26}{'forward':^30}{'training':^30}")
    print(f"{'':26}" + 2 * "".join(f"{way:>15}" for way in list(WAYS)[1:]))
    for name in arguments.networks:
        cells = ""
        for training in (False, True):
            found = ratios(name, arguments.image_size, arguments.batch_size, arguments.repeats, training)
            cells += "".join(f"{found[way]:>15.2f}" for way in list(WAYS)[1:])
        print(f"{name:26}{cells}", flush=True)


if __name__ == "__main__":
    main()
