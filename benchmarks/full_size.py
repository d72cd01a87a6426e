"""Time a fit of ImageNet's shape, at a part of its size, stage by stage.

    python benchmarks/full_size.py --device cuda                # a fortieth: four to five GB of memory

Images of 1,000 classes and labels are random, and so are the weights of the network, all of which are trained. Masks
are made at one scale, and the number of steps is a part of the 20,000 that are the default for ImageNet. A fit of all
images takes "part" times as long, but for what each stage costs once, and for reading the images: 1,024 of them are in
memory, again and again, of which a warning tells.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from typing import Any

import numpy as np
import torch

from skdfb import CAMMaskGenerator, DFBDetector, Trainer
from skdfb.networks import create_backbone

N_IMAGES, N_CLASSES, N_STEPS = 1_281_167, 1_000, 20_000
SECONDS: Counter[str] = Counter()


def timed(owner: type, method: str, name_of: Any) -> None:
    """Let a method note its seconds, under a name that is made from its arguments."""
    as_it_is = getattr(owner, method)

    def wrapped(self: Any, *arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        result = as_it_is(self, *arguments, **options)
        SECONDS[name_of(*arguments)] += time.perf_counter() - start
        return result

    setattr(owner, method, wrapped)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--part", type=int, default=40, help="at most 640, since each class needs two images")
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--precision", default="32-true", help="of the trainings: 32-true or bf16-mixed")
    parser.add_argument("--compile", action="store_true", help="train through torch.compile")
    arguments = parser.parse_args()
    n, side = N_IMAGES // arguments.part, arguments.image_size
    images = np.random.default_rng(0).integers(0, 256, (min(n, 1024), side, side, 3), dtype=np.uint8)
    images = np.resize(images, (n, side, side, 3))  # again and again
    # Mixup as by default for all images; a small part of them would not be mixed.
    trainer = Trainer(
        max_steps=N_STEPS // arguments.part, precision=arguments.precision, compile=arguments.compile, mixup=0.1
    )
    detector = DFBDetector(
        create_backbone(arguments.backbone, pretrained=False, output_stride=16),
        classifier_trainer=trainer,
        dense_trainer=trainer,
        mask_generator=CAMMaskGenerator(scales=(1.0,)),  # the default for pre-trained weights
        image_size=side,
        device=arguments.device,
        random_state=0,
    )
    timed(Trainer, "train", lambda network, images, labels, masks=None: "classifier" if masks is None else "dense")
    timed(CAMMaskGenerator, "fit_transform", lambda *_: "masks")
    start = time.perf_counter()
    detector.fit(images, np.arange(n) % N_CLASSES)
    total = time.perf_counter() - start
    seconds = dict(SECONDS) | {"features and scorers": total - sum(SECONDS.values())}
    passed = dict.fromkeys(["classifier", "dense"], trainer.max_steps * trainer.batch_size)
    is_cuda = detector.dense_network_.device.type == "cuda"
    device = torch.cuda.get_device_name() if is_cuda else "CPU"
    print(f"{arguments.backbone} at {side} pixels, {n:,} images, {trainer.max_steps} steps a stage, on {device}")
    for stage, taken in seconds.items():
        print(f"{stage:24}{taken:>9.1f} s{1000 * taken / passed.get(stage, n):>9.2f} ms per image")
    print(f"{'all':24}{total:>9.1f} s")


if __name__ == "__main__":
    main()
