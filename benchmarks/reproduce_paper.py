"""Run the experiments of the DFB paper: Tables 1 to 4 of Ding and Pang, ACM MM 2024, arXiv 2303.08727.

BiT-M R50x1 is fine-tuned at 128 pixels on CIFAR-10 or CIFAR-100. OOD are the test images of the other CIFAR set and of
SVHN, Places365 and Textures (DTD). The output has AUROC, FPR95 and AUPR of MSP, ODIN, Energy and ViM, plain -> DFB
(Tables 1 to 3; in-distribution images are the positive class of AUPR), and the accuracy of both (Table 4). This needs a
GPU, and downloads 1.6 GB::

    pip install ".[benchmarks]"
    python benchmarks/reproduce_paper.py --id cifar10 --data data --download --json cifar10.json
    python benchmarks/reproduce_paper.py --id cifar100 --data data --download --json cifar100.json

These commands use the paper's recipe. ``--recipe default`` takes the defaults of the library, but the paper's 128
pixels. Nothing is downloaded without ``--download``: image files must be in the folder ``--data``, and weights in
timm's cache or in the file ``--weights``. Missing OOD sets are left out, and the output names them.

``--differences`` prints all that a run with the given options does otherwise than the paper's text, with the source of
each choice, and runs nothing.
"""

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np
import paper_data
import paper_differences
import torch
from huggingface_hub import constants

from skdfb import DFBDetector, Trainer
from skdfb.evaluation import class_accuracy, compare_scorers, format_comparison, temperature_sweep
from skdfb.networks import create_backbone
from skdfb.scorers import MSP, ODIN, Energy, ViM

OOD_SETS = {
    "cifar10": ("cifar100", "svhn", "places365", "textures"),
    "cifar100": ("cifar10", "svhn", "places365", "textures"),
}
SCORERS = (MSP(), ODIN(temperature=2.0, input_perturbation=0.0), Energy(), ViM())
TEMPERATURES = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)


def positive(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return number


def parse(argv):
    """Return the settings, after checks of all that would fail in a later step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--id", choices=list(OOD_SETS), default="cifar10", help="the in-distribution set")
    parser.add_argument("--recipe", choices=["paper", "default"], default="paper")
    parser.add_argument(
        "--dense-start",
        choices=["classifier", "pretrained"],
        default="classifier",
        help="where the dense network starts: section 3.1 has the trained classifier, the implementation details have "
        "the pre-trained checkpoint",
    )
    parser.add_argument("--differences", action="store_true", help="print the differences from the paper; run nothing")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the image files")
    parser.add_argument("--download", action="store_true", help="download missing files and weights")
    parser.add_argument("--backbone", default="resnetv2_50x1_bit.goog_in21k", help="timm model")
    parser.add_argument("--weights", type=Path, help="local file of weights, instead of those of timm's hub")
    parser.add_argument("--image-size", type=positive, default=128, help="side of the network's input in pixels")
    parser.add_argument("--steps", type=positive, help="steps of each stage, instead of the recipe's")
    parser.add_argument("--batch-size", type=positive, default=128)
    parser.add_argument("--precision", choices=["32-true", "bf16-mixed", "16-mixed"], default="32-true")
    parser.add_argument(
        "--calibration-fraction",
        type=float,
        help="share of held-out images; the default is 0.01, or that of the library with --recipe default",
    )
    parser.add_argument("--n-train", type=positive, help="largest number of training images, drawn by the seed")
    parser.add_argument("--n-test", type=positive, help="largest number of in-distribution test images")
    parser.add_argument("--n-ood", type=positive, help="largest number of images of each OOD set")
    parser.add_argument(
        "--temperature-sweep",
        type=float,
        nargs="*",
        metavar="T",
        help="also run Eq. 7 at several temperatures; without numbers at "
        + ", ".join(f"{temperature:g}" for temperature in TEMPERATURES),
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--n-jobs", type=int, default=-1, help="threads that read images; -1 is one per core")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--verbose", type=int, default=0, help="1 shows the training's progress")
    arguments = parser.parse_args(argv)
    if arguments.weights is not None and not arguments.weights.is_file():
        parser.error(f"--weights: there is no file {arguments.weights}")
    if arguments.json is not None and not arguments.json.resolve().parent.is_dir():
        parser.error(f"--json: there is no folder {arguments.json.resolve().parent}")
    if arguments.calibration_fraction is None:
        arguments.calibration_fraction = 0.01 if arguments.recipe == "paper" else "auto"
    if arguments.temperature_sweep is not None:
        if arguments.recipe != "paper":
            parser.error("--temperature-sweep needs --recipe paper: the default recipe does not have Eq. 7")
        if min(arguments.temperature_sweep, default=1.0) <= 0:
            parser.error("--temperature-sweep: expected temperatures greater than 0")
        arguments.temperature_sweep = arguments.temperature_sweep or list(TEMPERATURES)
    return arguments


@contextlib.contextmanager
def hub_access(allowed):
    """Let timm's hub use the network only if allowed; weights in its cache are found either way."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not allowed
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def make_backbone(arguments):
    """Return the pre-trained network. This comes before any download of images, since it may fail."""
    try:
        with hub_access(arguments.download):
            return create_backbone(
                arguments.backbone, checkpoint_path=arguments.weights, image_size=arguments.image_size
            )
    except ValueError as error:
        raise ValueError(f"{error} (Here: pass --weights FILE, or --download for those of timm's hub.)") from error


def make_detector(backbone, arguments):
    """Return the detector of a recipe, with the batch size, precision and steps of the options."""
    changes = {"batch_size": arguments.batch_size, "precision": arguments.precision}
    if arguments.steps is not None:
        changes |= {"max_steps": arguments.steps, "warmup_steps": None}  # 500, but at most a fifth of the steps
    options = {
        "image_size": arguments.image_size,
        "calibration_fraction": arguments.calibration_fraction,
        "device": arguments.device,
        "n_jobs": arguments.n_jobs,
        "random_state": arguments.seed,
        "verbose": arguments.verbose,
    }
    dense_changes = changes | {"dense_start": arguments.dense_start}
    if arguments.recipe == "paper":
        return DFBDetector.paper(
            backbone,
            classifier_trainer=Trainer.paper_classifier(**changes),
            dense_trainer=Trainer.paper_dense(**dense_changes),
            **options,
        )
    return DFBDetector(
        backbone, classifier_trainer=Trainer(**changes), dense_trainer=Trainer(**dense_changes), **options
    )


def some(images, n, seed):
    """Return the sorted indices of ``n`` images drawn by the seed; all indices if n is None or too large."""
    if n is None or n >= len(images):
        return np.arange(len(images))
    return np.sort(np.random.default_rng(seed).permutation(len(images))[:n])


def read_data(ood_names, arguments):
    """Return training images and labels, test images and labels, and the OOD images by name."""
    folder, download, seed = arguments.data, arguments.download, arguments.seed
    X, y = paper_data.read_cifar(arguments.id, "train", folder, download)
    X_test, y_test = paper_data.read_cifar(arguments.id, "test", folder, download)
    train, test = some(X, arguments.n_train, seed), some(X_test, arguments.n_test, seed)
    ood = {}
    for name in ood_names:
        images = paper_data.read_ood(name, folder, download)
        rows = some(images, arguments.n_ood, seed)
        ood[name] = [images[row] for row in rows] if isinstance(images, list) else images[rows]
    return X[train], y[train], X_test[test], y_test[test], ood


def mean_change(table, metric):
    """Return the mean gain of DFB in a metric, over scorers and OOD sets."""
    values = {method: [] for method in table["method"]}
    for method, value in zip(table["method"], table[metric], strict=True):
        values[method].append(value)
    return float(np.mean(values["dfb"]) - np.mean(values["plain"]))


def sweep_of_scorers(detector, X_test, ood, temperatures):
    """Return the means of AUROC and FPR95 over the OOD sets by scorer and temperature; nothing is trained."""
    rows = []
    for scorer in SCORERS:
        table = temperature_sweep(detector.refit_scorer(scorer), X_test, ood, temperatures)
        for temperature in temperatures:
            chosen = [place for place, value in enumerate(table["temperature"]) if value == temperature]
            means = {name: float(np.mean([table[name][place] for place in chosen])) for name in ("auroc", "fpr95")}
            rows.append({"scorer": type(scorer).__name__, "temperature": temperature, **means})
    return rows


def format_sweep(rows):
    """Return the sweep as a text with one row per scorer and one column per temperature."""
    temperatures = list(dict.fromkeys(row["temperature"] for row in rows))
    lines = []
    for metric in ("auroc", "fpr95"):
        lines.append(f"{metric.upper() + ' [%]':<10}" + "".join(f"{f'T={value:g}':>8}" for value in temperatures))
        for name in dict.fromkeys(row["scorer"] for row in rows):
            values = [row[metric] for row in rows if row["scorer"] == name]
            lines.append(f"{name:<10}" + "".join(f"{100 * value:>8.1f}" for value in values))
    return "\n".join(lines)


def run(backbone, X, y, X_test, y_test, ood, arguments):
    """Fit the detector, print the tables, and return all figures."""
    detector = make_detector(backbone, arguments)
    start = time.perf_counter()
    detector.fit(X, y)
    fitted = time.perf_counter()
    accuracy = class_accuracy(detector, X_test, y_test)
    table = compare_scorers(detector, X_test, ood, X=X, y=y, scorers=list(SCORERS))
    compared = time.perf_counter()
    changes = {metric: mean_change(table, metric) for metric in ("auroc", "fpr95", "aupr_in")}
    print(f"Fit {fitted - start:.0f} s, comparison {compared - fitted:.0f} s\n\nTables 1 to 3, plain -> DFB")
    print(format_comparison(table, metrics=("auroc", "fpr95", "aupr_in")))
    print("Mean change: " + ", ".join(f"{name.upper()} {100 * value:+.1f}" for name, value in changes.items()))
    print(f"\nTable 4, accuracy\nplain {accuracy['plain']:.2%}, DFB {accuracy['dfb']:.2%}", flush=True)
    sweep = []
    if arguments.temperature_sweep:
        sweep = sweep_of_scorers(detector, X_test, ood, arguments.temperature_sweep)
        print(f"\nEq. 7 at several temperatures, means over the OOD sets\n{format_sweep(sweep)}")
    return {
        "n_steps": {stage: len(history["loss"]) for stage, history in detector.training_history_.items()},
        "n_images": {"train": len(X), "test": len(X_test)} | {name: len(images) for name, images in ood.items()},
        "accuracy": accuracy,
        "table": {column: values.tolist() for column, values in table.items()},
        "mean_change": changes,
        "temperature_sweep": sweep,
        "fit_seconds": round(fitted - start, 1),
        "comparison_seconds": round(compared - fitted, 1),
    }


def report(results, missing, arguments):
    """Return the content of the JSON file."""
    return {
        "differences": paper_differences.as_rows(arguments),
        "settings": {key: str(value) if isinstance(value, Path) else value for key, value in vars(arguments).items()},
        "missing_ood_sets": missing,
        "versions": {name: importlib.metadata.version(name) for name in ("skdfb", "torch", "timm", "scikit-learn")},
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "python": platform.python_version(),
        },
        **results,
    }


def main(argv=None):
    """Run one experiment; the exit status is 1 if images or weights are missing."""
    arguments = parse(argv)
    if arguments.differences:
        print(paper_differences.format_differences(arguments))
        return 0
    names = OOD_SETS[arguments.id]
    missing = [name for name in (arguments.id, *names) if not paper_data.is_there(name, arguments.data)]
    if arguments.download:
        missing = []
    if missing:
        print(paper_data.how_to_get(missing, arguments.data), file=sys.stderr)
    ood_names = [name for name in names if name not in missing]
    if arguments.id in missing or not ood_names:
        print("Nothing to run: the in-distribution set and at least one OOD set are needed.", file=sys.stderr)
        return 1
    try:
        backbone = make_backbone(arguments)
        data = read_data(ood_names, arguments)
    except (ValueError, OSError, ImportError) as error:
        print(f"{error}", file=sys.stderr)
        return 1
    print(f"{arguments.id}, {arguments.backbone}, recipe {arguments.recipe!r}; OOD: {', '.join(ood_names)}", end="")
    print(f"; left out: {', '.join(missing)}" if missing else "", flush=True)
    results = run(backbone, *data, arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(report(results, missing, arguments), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
