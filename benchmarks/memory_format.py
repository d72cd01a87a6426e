"""Measure whether a network is faster with channels last, compiled, in TF32 and in 16 bits, and what these round.

    OMP_NUM_THREADS=1 python benchmarks/memory_format.py
    OMP_NUM_THREADS=1 python benchmarks/memory_format.py --networks convnext_tiny --image-size 224
    OMP_NUM_THREADS=1 python benchmarks/memory_format.py --compile
    python benchmarks/memory_format.py --device cuda --image-size 224 --batch-size 64

Cells are times over those of the usual memory format in 32 bits: medians of rounds in which all ways take turns. On a
CPU, times are those of the processor. Weights are random. "TF32" rounds the inputs of convolutions to 10 bits, which
PyTorch does by default; a CPU does not. "bf16" is autocast, as ``Trainer(precision="bf16-mixed")`` uses it. "error" is
the distance of the features from those of the first way, over their length.
"""

from __future__ import annotations

import argparse
import statistics
from contextlib import nullcontext
from typing import Any

import timm
import torch
from overhead import synchronised
from torch import Tensor, nn

NETWORKS = ("tf_efficientnet_lite0", "mobilenetv3_small_100", "resnet18")
COMPILED = "last, compiled"
WAYS = {
    "channels first": (torch.contiguous_format, False, False),
    "channels last": (torch.channels_last, False, False),
    "last, TF32": (torch.channels_last, True, False),
    "last, bf16": (torch.channels_last, True, True),
    COMPILED: (torch.channels_last, False, False),
}


def once(network: nn.Module, images: Tensor, way: str, training: bool) -> tuple[float, Tensor]:
    """Return the seconds of one pass, and the features."""
    memory_format, tf32, bf16 = WAYS[way]
    images = images.contiguous(memory_format=memory_format)
    rounding = torch.backends.cudnn.flags(enabled=True, allow_tf32=tf32)
    autocast = torch.autocast(images.device.type, torch.bfloat16) if bf16 else nullcontext()
    features: list[Tensor] = []

    def one_pass() -> None:
        with rounding, torch.set_grad_enabled(training), autocast:
            forward: Any = network.compiled if way == COMPILED else network.forward_features
            features.append(forward(images).float())
            if training:
                features[0].square().mean().backward()

    seconds = synchronised(one_pass, images.device)
    network.zero_grad()
    return seconds, features[0].detach()


def ratios(
    name: str, images: Tensor, repeats: int, training: bool, ways: list[str]
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the time of each way over that of the first, and how far its features are from those of the first."""
    options = {"img_size": images.shape[-1]} if name.startswith("vit") else {}
    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False, num_classes=0, **options).to(images.device).train(training)
    if COMPILED in ways:
        network.compiled = torch.compile(network.forward_features)  # type: ignore[assignment,arg-type]
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    features = {}
    for _ in range(repeats + 1):  # the first round warms up
        for way, found in seconds.items():
            passed, features[way] = once(network, images, way, training)
            found.append(passed)
    medians = {way: statistics.median(found[1:]) for way, found in seconds.items()}
    expected = features["channels first"]
    errors = {way: float((each - expected).norm() / expected.norm()) for way, each in features.items()}
    return {way: median / medians["channels first"] for way, median in medians.items()}, errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1")
    parser.add_argument("--compile", action="store_true", help="also through torch.compile; on a CPU instead of bf16")
    arguments = parser.parse_args()
    shape = (arguments.batch_size, 3, arguments.image_size, arguments.image_size)
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(arguments.device)
    ways = [way for way in WAYS if arguments.compile or way != COMPILED]
    if images.device.type == "cpu":
        ways = [way for way in ways if "TF32" not in way and not (arguments.compile and "bf16" in way)]
    print(f"{'':26}{'':16}{'forward':>10}{'training':>10}{'error':>12}")
    for name in arguments.networks:
        forward, errors = ratios(name, images, arguments.repeats, False, ways)
        training, _ = ratios(name, images, arguments.repeats, True, ways)
        for way in list(forward)[1:]:
            print(f"{name:26}{way:16}{forward[way]:>10.2f}{training[way]:>10.2f}{errors[way]:>12.1e}", flush=True)


if __name__ == "__main__":
    main()
