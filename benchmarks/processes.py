"""Measure how long ``fit`` takes in one process and in two, each on one core.

    python benchmarks/processes.py                 # about three minutes on two cores
    python benchmarks/processes.py --repeats 1

timm's ResNet-18 with random weights at 64 pixels gets random images. "frozen" is a :class:`~skdfb.FrozenDetector`, so
features alone; "masks" a :class:`~skdfb.DFBDetector` with hardly any training, so masks and features; "training" one
with more steps than that. Times are those of ``fit`` by the clock. A ratio of 0.5 to one process would be the best.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

from overhead import SMALL, make_images

from skdfb import DFBDetector, FrozenDetector, Trainer
from skdfb.masks import CAMMaskGenerator
from skdfb.networks import create_backbone
from skdfb.scorers import KNN

SETTINGS = {"image_size": SMALL.side, "calibration_fraction": 0.1, "device": "cpu", "random_state": 0, "batch_size": 64}
# Number of images, and of training steps of 32 images.
CASES = {"frozen": (4000, 0), "masks": (400, 2), "training": (400, 30)}


def fit_once(case: str) -> float:
    """Return the seconds of a fit."""
    n_images, n_steps = CASES[case]
    images, labels = make_images(n_images, SMALL.side)
    backbone = create_backbone(SMALL.backbone, pretrained=False, output_stride=16)
    trainer = Trainer(max_steps=n_steps or 1, batch_size=32)
    if case == "frozen":
        detector = FrozenDetector(backbone, scorer=KNN(), **SETTINGS)
    else:
        generator = CAMMaskGenerator(scales=(1.0, 0.5, 1.5, 2.0) if case == "masks" else (0.5,), batch_size=64)
        stages = {"classifier_trainer": trainer, "mask_generator": generator, "dense_trainer": trainer}
        detector = DFBDetector(backbone, scorer=KNN(), **stages, **SETTINGS)
    start = time.perf_counter()
    detector.fit(images, labels)
    return time.perf_counter() - start


def measure(case: str, n_processes: int) -> float:
    """Return the seconds of a fit in so many launched processes, as the first of them says."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={n_processes}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [*launcher, __file__, "--fit", case]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="rounds of one process and two")
    parser.add_argument("--fit", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fit:
        seconds = fit_once(arguments.fit)
        if os.environ["RANK"] == "0":
            print(seconds)
        return
    print(f"{'':12}{'1 process':>12}{'2 processes':>14}{'ratio':>8}{'spread':>8}")
    for case in CASES:
        pairs = [(measure(case, 1), measure(case, 2)) for _ in range(arguments.repeats)]
        ratios = [two / one for one, two in pairs]
        one, two = (statistics.median(seconds) for seconds in zip(*pairs, strict=True))
        spread = max(ratios) - min(ratios)
        print(f"{case:12}{one:>10.1f} s{two:>12.1f} s{statistics.median(ratios):>8.2f}{spread:>8.2f}", flush=True)


if __name__ == "__main__":
    main()
