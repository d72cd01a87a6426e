"""Measure the masks of each mask generator: IoU with true masks, and the share of foreground.

    python benchmarks/masks.py --seeds 10 11 12
    python benchmarks/masks.py --seeds 10 --json masks.json

The images are digits on photographs, whose true masks are known. All generators of a seed share one classifier. The
masks are those of training images for their true classes, at the size of the images. Compare "foreground" with that of
the true masks. Each digit has one colour that differs from its surroundings, which suits refinement by colour: on other
images it may gain less.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from skdfb import Trainer
from skdfb.datasets import load_digits_on_photos
from skdfb.masks import AffinityMaskGenerator, CAMMaskGenerator, DenseMaskGenerator
from skdfb.metrics import foreground_fraction, mask_iou
from skdfb.networks import create_backbone

IMAGE_SIZE = 64


def make_trainer(learning_rate: float, max_steps: int) -> Trainer:
    """Return a trainer with settings for tiny networks from random weights."""
    return Trainer(
        learning_rate=learning_rate,
        max_steps=max_steps,
        batch_size=32,
        weight_decay=5e-4,
        schedule="cosine",
        flip=False,
        mixup=None,
    )


def train_cam(data: Any, seed: int, arguments: argparse.Namespace) -> CAMMaskGenerator:
    """Return a fitted generator of CAM masks."""
    backbone = create_backbone("test_resnet", pretrained=False, output_stride=8, random_state=seed)
    trainer = make_trainer(0.3, arguments.max_steps)
    generator = CAMMaskGenerator(
        backbone, trainer=trainer, image_size=IMAGE_SIZE, device=arguments.device, random_state=seed
    )
    return generator.fit(data.images, data.target)


class Fitted:
    """A fitted generator that is not trained again inside another generator."""

    def __init__(self, generator: Any) -> None:
        self.generator = generator

    def fit(self, X: Any, y: Any) -> Fitted:
        """Leave the generator as it is."""
        return self

    def fit_transform(self, X: Any, y: Any) -> np.ndarray:
        """Return the generator's masks."""
        return self.generator.transform(X, y)

    def transform(self, X: Any, y: Any) -> np.ndarray:
        """Return the generator's masks."""
        return self.generator.transform(X, y)

    def attention_maps(self, X: Any, y: Any) -> np.ndarray:
        """Return the generator's attention maps."""
        return self.generator.attention_maps(X, y)

    def classify(self, X: Any) -> np.ndarray:
        """Return the generator's predictions."""
        return self.generator.classify(X)


def fitted_generators(data: Any, seed: int, arguments: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """Yield the name of each row and its generator, fitted one after the other."""
    X, y = data.images, data.target
    cam = train_cam(data, seed, arguments)

    def dense(first: Any) -> DenseMaskGenerator:
        trainer = make_trainer(0.1, arguments.max_steps)
        return DenseMaskGenerator(
            cam.network_, generator=Fitted(first), dense_trainer=trainer, device=arguments.device, random_state=seed
        ).fit(X, y)

    yield "CAM", cam
    affinity = AffinityMaskGenerator(Fitted(cam)).fit(X, y)
    yield "CAM, affinity", affinity
    yield "CAM, affinity, dense", dense(affinity)
    cam_dense = dense(cam)
    yield "CAM, dense", cam_dense
    yield "CAM, dense, affinity", AffinityMaskGenerator(Fitted(cam_dense)).fit(X, y)


def measure(data: Any, seed: int, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield a row for the true masks and a row for each generator."""
    part = slice(arguments.measured)
    true_masks = data.masks[part]
    yield row_of("true masks", seed, true_masks, true_masks, data.n_classes)
    for name, generator in fitted_generators(data, seed, arguments):
        masks = generator.transform(data.images[part], data.target[part])
        yield row_of(name, seed, masks, true_masks, data.n_classes)


def row_of(name: str, seed: int, masks: np.ndarray, true_masks: np.ndarray, background: int) -> dict[str, Any]:
    """Return the figures of one set of masks."""
    return {
        "masks": name,
        "seed": seed,
        "iou": mask_iou(masks, true_masks, background=background),
        "foreground": foreground_fraction(masks, background=background),
    }


def print_row(row: dict[str, Any]) -> None:
    """Print one line."""
    print(f"{row['masks']:24}{row['seed']:>8}{row['iou']:>8.3f}{row['foreground']:>12.3f}", flush=True)


def print_means(rows: list[dict[str, Any]]) -> None:
    """Print the means over the seeds."""
    for name in dict.fromkeys(row["masks"] for row in rows):
        iou, foreground = (
            np.mean([row[figure] for row in rows if row["masks"] == name]) for figure in ("iou", "foreground")
        )
        print(f"{name:24}{'mean':>8}{iou:>8.3f}{foreground:>12.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--images", type=int, default=2000, help="number of training images")
    parser.add_argument("--measured", type=int, default=500, help="number of images whose masks are measured")
    parser.add_argument("--max-steps", type=int, default=700, help="steps of each training")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    parser.add_argument("--json", metavar="PATH", help="also write the figures to a file")
    arguments = parser.parse_args()
    print(f"{'masks':24}{'seed':>8}{'IoU':>8}{'foreground':>12}")
    rows = []
    for seed in arguments.seeds:
        data = load_digits_on_photos(n_train=arguments.images, random_state=seed)
        for row in measure(data, seed, arguments):
            print_row(row)
            rows.append(row)
    if len(arguments.seeds) > 1:
        print_means(rows)
    if arguments.json is not None:
        with open(arguments.json, "w", encoding="utf-8") as file:
            settings = {name: getattr(arguments, name) for name in ("images", "measured", "max_steps")}
            settings["torch"] = torch.__version__
            json.dump(settings | {"figures": rows}, file, indent=2)
            file.write("\n")


if __name__ == "__main__":
    main()
