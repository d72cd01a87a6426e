"""Measure the cost of the library on top of bare PyTorch: time ratios, and the memory of ``fit``.

    python benchmarks/overhead.py                      # time ratios, 2 to 3 minutes on 2 cores
    python benchmarks/overhead.py --device cuda        # and a ResNet-50 with images of 224 pixels
    python benchmarks/overhead.py --memory             # peak memory of fit at 2,000 and 20,000 images
    python benchmarks/overhead.py --json overhead.json

Each ratio is the time of the library divided by the time of bare PyTorch code with the same network passes. The bare
code of scoring is one pass of the dense network, for any parts of the score. The network is timm's ResNet-18 (output
stride 16, so that 64 pixels give a map of 4 x 4) with random weights. It gets batches of 64 images from memory, at 64
pixels. Such a network is far too small for a GPU: there most of the time is that of Python, which starts the kernels.
So a GPU has ResNet-50 with 224 pixels as well, with batches of 64 images and of 128. Library and bare code take turns.
"ratio" is the median over the rounds of library to bare code, and "spread" the distance of its quartiles. On a CPU,
times are those of the processor, which other work on the computer disturbs less than those of the clock; run it on one
thread (OMP_NUM_THREADS=1).
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from peak_memory import peak_megabytes
from torch import Tensor

from skdfb import DFBDetector
from skdfb.augmentation import BackMix
from skdfb.fusion import TemperatureFusion
from skdfb.masks import CAMMaskGenerator
from skdfb.networks import DenseClassifier, create_backbone
from skdfb.scorers import KNN, BackgroundLogit, ViM
from skdfb.training import Trainer

N_CLASSES = 10
MEMORY_SIZES = (2_000, 20_000)
# Parts of a score: the largest acceptable ratio to a forward pass of the dense network, and the detector's parameters.
PARTS: dict[str, tuple[float, dict[str, Any]]] = {
    "the default parts": (1.03, {}),
    "the paper's parts": (1.03, {"background_scorer": BackgroundLogit(), "fusion": TemperatureFusion()}),
    "KNN on the background": (1.10, {"background_scorer": [BackgroundLogit(), KNN()]}),
    "both networks": (
        2.10,
        {"scorer": [("foreground_dense", "dense", ViM()), ("foreground_classifier", "classifier", ViM())]},
    ),
}


# Backbones of a detector with the parts of pre-trained weights, on three networks: the largest acceptable ratio to a
# forward pass of one. The first stages, which are the same in all three, run once.
PRETRAINED_PARTS = {"tf_efficientnet_lite0": 1.55, "resnet18": 2.40}


class Size(NamedTuple):
    """A network, the side of its images, the numbers of images and of training steps, and the images of a batch."""

    backbone: str
    side: int
    n_images: int
    n_steps: int
    batch: int

    def __str__(self) -> str:
        is_small = (self.backbone, self.side, self.batch) == (SMALL.backbone, SMALL.side, SMALL.batch)
        return "" if is_small else f", {self.backbone}, {self.batch} of {self.side} px"


SMALL = Size("resnet18", 64, 256, 4, 64)
# A step on a GPU is so short that the start of a training, or the first and the last batch of a call, would dominate.
SIZES_OF_A_GPU = (
    Size("resnet50", 224, 2048, 100, 128),  # the default batch of a training
    Size("resnet50", 224, 2048, 200, 64),
    Size("resnet18", 64, 2048, 200, 64),
)


class Comparison(NamedTuple):
    """A piece of the library, the bare code for the same work, and the largest acceptable ratio."""

    name: str
    target: float
    library: Callable[[], Any]
    bare: Callable[[], Any]


class Result(NamedTuple):
    """Medians in seconds, the median ratio of a round, and the distance of the quartiles of the ratios."""

    name: str
    target: float
    library: float
    bare: float
    ratio: float
    spread: float


def make_images(n_images: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return random uint8 images, and labels 0, 1, ..., K - 1, 0, 1, ..."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n_images, side, side, 3), dtype=np.uint8)
    return images, np.arange(n_images) % N_CLASSES


def make_network(num_classes: int, device: torch.device, size: Size) -> DenseClassifier:
    """Return a network with random weights, head included."""
    torch.manual_seed(0)  # the random weights, those of the head included
    backbone = create_backbone(size.backbone, pretrained=False, output_stride=16)
    network = DenseClassifier(backbone, num_classes, image_size=size.side)
    torch.nn.init.normal_(network.head.weight, std=0.01)
    return network.to(device).eval()


def ready_batches(images: np.ndarray, network: DenseClassifier, batch: int) -> list[Tensor]:
    """Return the network's inputs, on its device."""
    pixels = torch.from_numpy(images).movedim(-1, 1)
    return [network.preprocessor(part).to(network.device) for part in pixels.split(batch)]


def synchronised(function: Callable[[], Any], device: torch.device) -> float:
    """Return the seconds that ``function`` takes."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    start = clock()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - start


def compare(comparison: Comparison, repeats: int, device: torch.device) -> Result:
    """Time library and bare code in turns, after one round of warm-up."""
    synchronised(comparison.library, device), synchronised(comparison.bare, device)
    library, bare = [], []
    for _ in range(repeats):
        library.append(synchronised(comparison.library, device))
        bare.append(synchronised(comparison.bare, device))
    ratios = [ours / theirs for ours, theirs in zip(library, bare, strict=True)]
    lower, middle, upper = statistics.quantiles(ratios, n=4, method="inclusive")
    medians = statistics.median(library), statistics.median(bare)
    return Result(comparison.name, comparison.target, *medians, middle, upper - lower)


def training_step(dense: bool, size: Size, device: torch.device, augmentation: BackMix | None = None) -> Comparison:
    """Compare some steps of :class:`Trainer`, with the default augmentation, with a bare loop on ready batches.

    BackMix needs an attention map of each batch: one forward pass, where a training step costs about three.
    """
    images, labels = make_images(size.n_images, size.side)
    masks = np.random.default_rng(0).integers(0, N_CLASSES + 1, images.shape[:3]).astype(np.uint8)
    network = make_network(N_CLASSES + dense, device, size)
    # In the second round the weights are no longer new: by default, the first stages would be frozen.
    trainer = Trainer(max_steps=size.n_steps, batch_size=size.batch, augmentation=augmentation, frozen_stages=0)
    inputs = ready_batches(images, network, size.batch)
    targets = F.one_hot(torch.from_numpy(labels)).float().to(device).split(size.batch)
    pixel_targets = torch.from_numpy(masks.astype(np.int64)).to(device).split(size.batch)

    def library() -> None:
        trainer.train(network, images, labels, masks if dense else None, device=device, random_state=0)

    def bare() -> None:
        network.train()
        optimizer = torch.optim.SGD(network.parameters(), lr=0.003, momentum=0.9)
        for step in range(size.n_steps):
            part = step % len(inputs)
            logit_map = network.logit_map(inputs[part])
            loss = F.cross_entropy(logit_map.mean((2, 3))[:, :N_CLASSES], targets[part])
            if dense:
                pixels = F.interpolate(logit_map, (size.side, size.side), mode="bilinear")
                loss = loss + F.cross_entropy(pixels, pixel_targets[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    name = f"training, {'dense' if dense else 'classifier'} stage"
    if augmentation is None:
        return Comparison(f"{name}{size}", 1.05, library, bare)
    return Comparison(f"{name}, BackMix{size}", 1.10 if dense else 1.45, library, bare)


def mask_generation(size: Size, device: torch.device) -> Comparison:
    """Compare mask generation with the bare feature maps: four scales, each also mirrored.

    ``fit`` of the generator, which looks once at the order of a given network's outputs, is not timed.
    """
    images, labels = make_images(min(size.n_images, 1024), size.side)
    network = make_network(N_CLASSES, device, size)
    generator = CAMMaskGenerator(network, batch_size=size.batch, device=device)
    scales = generator.scales
    inputs = [
        [F.interpolate(batch, scale_factor=scale) for scale in scales for _ in range(2)]
        for batch in ready_batches(images, network, size.batch)
    ]

    def bare() -> None:
        with torch.no_grad():
            for views in inputs:
                for view in views:
                    network.feature_map(view)

    generator.fit(images, labels)
    return Comparison(f"mask generation{size}", 1.05, lambda: generator.transform(images, labels), bare)


def fitted_detector(size: Size, device: torch.device) -> tuple[DFBDetector, np.ndarray, np.ndarray]:
    """Return a detector with the default parts after one step of training, and its images and labels."""
    images, labels = make_images(size.n_images, size.side)
    trainer = Trainer(max_steps=1, batch_size=size.batch)
    detector = DFBDetector(
        make_network(N_CLASSES, device, size),
        scorer=ViM(),
        mask_generator=CAMMaskGenerator(scales=(1.0,), flip=False),
        dense_trainer=trainer,
        alpha=0.1,  # needs fewer held-out images
        batch_size=size.batch,
        device=device,
        random_state=0,
    )
    return detector.fit(images, labels), images, labels


def bare_passes(images: np.ndarray, network: DenseClassifier, batch: int) -> Callable[[], None]:
    """Return a function that passes the images through the network once."""
    inputs = ready_batches(images, network, batch)

    def bare() -> None:
        with torch.no_grad():
            for each in inputs:
                network(each)

    return bare


def scoring(parts: str, size: Size, device: torch.device) -> Comparison:
    """Compare ``score_samples`` of a detector with a forward pass of its dense network."""
    detector, images, labels = fitted_detector(size, device)
    target, changes = PARTS[parts]
    detector = detector.refit_scorer(X=images, y=labels, **changes)
    network = detector.dense_network_
    bare = bare_passes(images, network, size.batch)
    return Comparison(f"score_samples, {parts}{size}", target, lambda: detector.score_samples(images), bare)


def scoring_of_three_networks(name: str, device: torch.device) -> Comparison:
    """Compare ``score_samples`` with the parts of a pre-trained backbone, at 128 pixels, with a pass of one network."""
    images, labels = make_images(SMALL.n_images, 128)
    backbone = create_backbone(name, pretrained=False, random_state=0)
    # Random weights count as pre-trained ones if their batch statistics are not those of a new network.
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.01)  # type: ignore[arg-type]
    trainer = Trainer(max_steps=1, batch_size=SMALL.batch)
    detector = DFBDetector(
        backbone,
        scorer=KNN(),
        mask_generator=CAMMaskGenerator(scales=(1.0,), flip=False),
        classifier_trainer=trainer,
        dense_trainer=trainer,
        image_size=128,
        alpha=0.1,
        batch_size=SMALL.batch,
        device=str(device),
        random_state=0,
    ).fit(images, labels)
    network = detector.dense_network_
    bare = bare_passes(images, network, SMALL.batch)
    title = f"score_samples, three networks, {name.removeprefix('tf_')}"
    return Comparison(title, PRETRAINED_PARTS[name], lambda: detector.score_samples(images), bare)


def comparisons(size: Size, device: torch.device) -> list[Callable[[], Comparison]]:
    """Return what makes each comparison of a size."""
    return [
        *(partial(training_step, dense, size, device) for dense in (False, True)),
        *(partial(training_step, dense, size, device, BackMix()) for dense in (False, True)),
        partial(mask_generation, size, device),
        *(partial(scoring, parts, size, device) for parts in PARTS),
    ]


def chosen(makers: list[Any], only: Sequence[str]) -> list[Any]:
    """Return those whose function and arguments have all these words."""
    return [make for make in makers if all(word in f"{make.func.__name__} {make.args}" for word in only)]


def measure_times(repeats: int, device: torch.device, only: Sequence[str] = ()) -> Iterator[Result]:
    """Yield the time ratios of the comparisons, and print them."""
    makers = [
        make for size in ([SMALL] if device.type == "cpu" else SIZES_OF_A_GPU) for make in comparisons(size, device)
    ]
    makers += [partial(scoring_of_three_networks, name, device) for name in PRETRAINED_PARTS]
    print(HEADER)
    for make in chosen(makers, only):
        result = compare(make(), repeats, device)
        print(row_of(result), flush=True)
        yield result


HEADER = f"{'':60}{'library':>10}{'bare':>10}{'ratio':>8}{'spread':>8}{'target':>8}"


def row_of(result: Result) -> str:
    """Return a line with the figures of a comparison."""
    times = f"{result.library:>9.3f}s{result.bare:>9.3f}s"
    return f"{result.name:60}{times}{result.ratio:>8.3f}{result.spread:>8.3f}{result.target:>8.2f}"


def fit_once(n_images: int, device: torch.device) -> dict[str, float]:
    """Fit a detector with a small backbone on ``n_images`` of 32 pixels and return peaks of memory in MB."""
    images, labels = make_images(n_images, 32)
    trainer = Trainer(max_steps=3, batch_size=128)
    backbone = create_backbone("test_resnet", pretrained=False, output_stride=8)
    detector = DFBDetector(
        backbone, classifier_trainer=trainer, dense_trainer=trainer, image_size=32, device=device, random_state=0
    )
    before = peak_megabytes()
    detector.fit(images, labels)
    return {"n_images": n_images, "images_mb": images.nbytes / 2**20, "before_mb": before, "peak_mb": peak_megabytes()}


def machine(device: torch.device) -> dict[str, Any]:
    """Return what the figures depend on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    return {"device": str(device), "machine": name, "threads": torch.get_num_threads(), "versions": versions}


def measure_memory(device: torch.device) -> list[dict[str, float]]:
    """Fit in a new process for each number of images, since the peak of a process never falls."""
    results = []
    for n_images in MEMORY_SIZES:
        command = [sys.executable, __file__, "--device", str(device), "--fit-once", str(n_images)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        results.append(json.loads(output.splitlines()[-1]))
    return results


def print_memory(results: list[dict[str, float]]) -> None:
    """Print one row per number of images."""
    print(f"{'images':>10}{'as uint8':>12}{'before fit':>12}{'peak':>12}")
    for row in results:
        sizes = "".join(f"{row[name]:>9.0f} MB" for name in ("images_mb", "before_mb", "peak_mb"))
        print(f"{row['n_images']:>10,.0f}{sizes}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    parser.add_argument("--repeats", type=int, default=7, help="timed rounds of library and bare code")
    parser.add_argument("--memory", action="store_true", help="measure memory instead of time")
    parser.add_argument("--json", metavar="PATH", help="also write the figures to a file")
    parser.add_argument("--fit-once", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    name = arguments.device
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    if arguments.fit_once is not None:
        print(json.dumps(fit_once(arguments.fit_once, device)))
        return
    figures: Any
    if arguments.memory:
        figures = measure_memory(device)
        print_memory(figures)
    else:
        results = list(measure_times(arguments.repeats, device))
        figures = [result._asdict() for result in results]
    if arguments.json is not None:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(machine(device) | {"figures": figures}, file, indent=2)
            file.write("\n")


if __name__ == "__main__":
    main()
