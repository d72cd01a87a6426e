"""Plain classifier against DFB on real images: every scorer, with the accuracy beside it.

Two experiments on packs of CIFAR-10 and of textures:

- ``textures``: all ten classes known; OOD are the textures.
- ``open-set``: six classes known, drawn by the seed; OOD are the test images of the other four.

The packs ``cifar10_train.npz``, ``cifar10_test.npz`` and ``textures.npz`` lie in the folder ``--data``, or else that
which the environment variable ``SKDFB_DATA`` names. Each holds the arrays ``jpeg`` (uint8: all JPEG files, end to end),
``offsets`` (n + 1: where each begins), ``labels`` (n) and ``classes`` (their names).

On two CPU cores, under 30 minutes::

    python benchmarks/real_images.py --json results.json

At full size, on a GPU::

    python benchmarks/real_images.py --device cuda --backbone resnet18 --epochs 30
"""

import argparse
import importlib.metadata
import io
import itertools
import json
import os
import platform
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from skdfb import CAMMaskGenerator, DFBDetector, Trainer
from skdfb.evaluation import class_accuracy, compare_scorers, format_comparison
from skdfb.networks import create_backbone
from skdfb.scorers import ViM

N_KNOWN = 6


def read_pack(path, size):
    """Return images (n, size, size, 3) uint8, labels and class names of a pack of JPEG files."""
    with np.load(path) as pack:
        jpeg, offsets, labels, classes = (pack[name] for name in ("jpeg", "offsets", "labels", "classes"))
    images = np.empty((len(labels), size, size, 3), dtype=np.uint8)
    for index, (start, stop) in enumerate(itertools.pairwise(offsets)):
        image = Image.open(io.BytesIO(jpeg[start:stop].tobytes())).convert("RGB")
        images[index] = np.asarray(image if image.size == (size, size) else image.resize((size, size), Image.BICUBIC))
    return images, labels, list(classes)


def experiments(folder, seed, size):
    """Yield name, training images and labels, test images and labels, and the OOD sets."""
    (X, y, classes), (X_test, y_test, _) = (
        read_pack(folder / f"cifar10_{part}.npz", size) for part in ("train", "test")
    )
    names = np.asarray(classes)
    yield "textures", X, names[y], X_test, names[y_test], {"textures": read_pack(folder / "textures.npz", size)[0]}
    known = np.sort(np.random.default_rng(seed).permutation(len(classes))[:N_KNOWN])
    train, test = np.isin(y, known), np.isin(y_test, known)
    unknown = {"unknown classes": X_test[~test]}
    yield "open-set", X[train], names[y[train]], X_test[test], names[y_test[test]], unknown


def make_detector(arguments):
    """Return the detector of the settings, and for the control one whose classifier has the steps of both stages."""
    torch.manual_seed(arguments.seed)  # the random weights
    backbone = create_backbone(arguments.backbone, pretrained=False, output_stride=arguments.output_stride)
    recipe = {"batch_size": arguments.batch_size, "weight_decay": 5e-4, "schedule": "cosine", "mixup": None}
    recipes = [{"max_epochs": arguments.epochs}, {"max_epochs": arguments.epochs}]
    if arguments.control:
        recipes = [{"max_epochs": 2 * arguments.epochs}, {"max_steps": 1}]  # of which only the classifier is looked at
    rates = arguments.learning_rate, arguments.learning_rate / 3
    trainers = [Trainer(learning_rate=rate, **recipe, **steps) for rate, steps in zip(rates, recipes, strict=True)]
    return DFBDetector(
        backbone,
        scorer=ViM(),
        mask_generator=CAMMaskGenerator(scales=(1.0,), flip=False) if arguments.control else None,
        classifier_trainer=trainers[0],
        dense_trainer=trainers[1],
        image_size=arguments.image_size,
        device=arguments.device,
        random_state=arguments.seed,
        verbose=arguments.verbose,
    )


def run(name, X, y, X_test, y_test, ood, arguments):
    """Fit one detector and return its figures."""
    detector = make_detector(arguments)
    start = time.perf_counter()
    detector.fit(X, y)
    fitted = time.perf_counter()
    accuracy = class_accuracy(detector, X_test, y_test)
    table = compare_scorers(detector, X_test, ood, X=X, y=y)
    done = time.perf_counter()
    rejected = float(np.mean(detector.predict(X_test) == -1))
    print(f"\n{name}: classes {', '.join(detector.classes_)}; map {detector.network_.map_size}; ", end="")
    print(f"accuracy plain {accuracy['plain']:.1%}, DFB {accuracy['dfb']:.1%}; ", end="")
    print(f"rejected test images {rejected:.1%} (alpha {detector.alpha:.0%}); ", end="")
    print(f"fit {fitted - start:.0f} s, comparison {done - fitted:.0f} s")
    print(format_comparison(table), flush=True)
    return {
        "experiment": name,
        "classes": detector.classes_.tolist(),
        "n_train": len(X),
        "n_test": len(X_test),
        "accuracy": accuracy,
        "rejected_test_images": rejected,
        "fit_seconds": round(fitted - start, 1),
        "comparison_seconds": round(done - fitted, 1),
        "table": {column: list(table[column]) for column in table},
    }


def main():
    """Run both experiments, print their tables, and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="test_resnet", help="timm model, random weights")
    parser.add_argument("--output-stride", type=int, default=8)
    parser.add_argument("--image-size", type=int, default=64, help="side of the network's input; the images have 32 px")
    parser.add_argument("--pixels", type=int, default=32, help="side the images of all packs are brought to first")
    parser.add_argument("--epochs", type=int, default=10, help="of each of the two stages")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=0.3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--data", type=Path, default=os.environ.get("SKDFB_DATA"), help="folder of the packs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=["textures", "open-set"])
    parser.add_argument(
        "--control",
        action="store_true",
        help="train the plain classifier for the epochs of both stages; read its figures left of the arrows",
    )
    parser.add_argument("--json", type=Path, help="where to write all figures")
    parser.add_argument("--verbose", type=int, default=0)
    arguments = parser.parse_args()
    folder = arguments.data
    if folder is None or not (folder / "cifar10_train.npz").is_file():
        print(f"skipped: there are no image packs in {folder}; name their folder by --data or SKDFB_DATA")
        return
    results = [
        run(*experiment, arguments)
        for experiment in experiments(folder, arguments.seed, arguments.pixels)
        if arguments.only in (None, experiment[0])
    ]
    if arguments.json:
        report = {
            "settings": {
                key: str(value) if isinstance(value, Path) else value for key, value in vars(arguments).items()
            },
            "versions": {name: importlib.metadata.version(name) for name in ("skdfb", "torch", "timm", "scikit-learn")},
            "machine": {
                "processor": platform.processor() or platform.machine(),
                "cores": os.cpu_count(),
                "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
                "python": platform.python_version(),
            },
            "results": results,
        }
        arguments.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
