"""Measure what it saves to fold batch norms into convolutions.

    OMP_NUM_THREADS=1 python benchmarks/folding.py               # about twelve minutes on a CPU core
    OMP_NUM_THREADS=1 python benchmarks/folding.py --device cuda

"features" is the time of a pass over 257 images, in batches of 128, over that without folding, on networks with random
weights. "training" is that of two steps of 128 images; the stages are frozen that would be frozen of a pre-trained
network. Batches are those of the library's defaults: with smaller ones, whose maps the allocator can use again, less is
saved. "error" is the largest difference of the features, over the largest feature. Both ways take turns. On a CPU,
times are those of the processor.
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial

import numpy as np
import torch
from overhead import N_CLASSES, make_images, synchronised

from skdfb.images import BatchSize, as_images
from skdfb.networks import DenseClassifier, _folding, _inputs, create_backbone
from skdfb.networks._inputs import run_over
from skdfb.networks._stages import n_trunk_stages
from skdfb.training import Trainer, _run

NETWORKS = {"tf_efficientnet_lite0": 128, "mobilenetv3_large_100": 128, "resnet18": 128, "resnet50": 224}
N_IMAGES, BATCH, N_STEPS = 257, 128, 2


def features(network: DenseClassifier, images: np.ndarray, *, folded: bool) -> torch.Tensor:
    """Return the features of images, in batches."""
    _inputs.folded_norms = _folding.folded_norms if folded else lambda *_: None
    with torch.no_grad():
        batches = run_over(
            network,
            as_images(images, n_channels=3),
            BatchSize(BATCH),
            None,
            lambda _, inputs: network.feature_map(inputs).mean((2, 3)),
        )
        return torch.cat(list(batches))


def train(network: DenseClassifier, images: np.ndarray, labels: np.ndarray, *, folded: bool) -> None:
    """Train the stages behind the trunk for some steps."""
    _run.folded_trunk = _folding.folded_trunk if folded else lambda _: None
    trainer = Trainer(max_steps=N_STEPS, batch_size=BATCH, frozen_stages=n_trunk_stages(network.feature_map.backbone))
    trainer.train(network, images, labels, device=network.device, random_state=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, cuda")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    _folding.SLOWER_ON.clear()
    print(f"{'':24}{'features':>10}{'training':>10}{'error':>10}")
    for name, side in NETWORKS.items():
        torch.manual_seed(0)
        network = DenseClassifier(create_backbone(name, pretrained=False), N_CLASSES, image_size=side).to(device).eval()
        images, labels = make_images(N_IMAGES, side)
        ratios: dict[str, list[float]] = {"features": [], "training": []}
        plain, found = (features(network, images, folded=folded) for folded in (False, True))
        for _ in range(arguments.repeats):
            calls = {
                "features": partial(features, network, images),
                "training": partial(train, network, images, labels),
            }
            for what, call in calls.items():
                folded, as_before = (synchronised(partial(call, folded=folded), device) for folded in (True, False))
                ratios[what].append(folded / as_before)
        medians = [statistics.median(values) for values in ratios.values()]
        error = float((found - plain).abs().max() / plain.abs().max())
        print(f"{name:24}{medians[0]:>10.2f}{medians[1]:>10.2f}{error:>10.1e}", flush=True)


if __name__ == "__main__":
    main()
