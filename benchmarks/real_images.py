"""Compare the plain classifier with DFB on real images: every scorer, several seeds, with an ablation.

There are three experiments, each with the seeds 0 to 2:

- ``embedded``: digits on photographs, which come with the package, and their four OOD sets.
- ``textures``: all ten classes of CIFAR-10 are known. OOD are textures and synthetic noise. Both are resized to the
  size of the CIFAR images and compressed in the same way: otherwise the traces of JPEG alone would separate them.
- ``open-set``: six classes are known, drawn by the seed. OOD are the test images of the other four classes.

The defaults of the library were chosen on two more experiments. They share no image with the OOD sets above:

- ``choice-embedded``: as ``embedded``, but drawn with the seeds 10 to 12.
- ``choice-cifar``: only training images of CIFAR-10. The classes bird and horse, which are known in all three open
  sets, are left out and are OOD. The other known classes of the seed's open set are known. Crops of photographs are
  OOD, too.

The packs ``cifar10_train.npz``, ``cifar10_test.npz`` and ``textures.npz`` are in the folder ``--data``, by default the
one that the environment variable ``SKDFB_DATA`` names. Each pack has the arrays ``jpeg`` (uint8, all JPEG files one
after the other), ``offsets`` (n + 1, where each file starts), ``labels`` (n) and ``classes`` (their names).

Run all of it on idle CPU cores. ``--networks`` keeps the trained networks, so that an interrupted run continues::

    python benchmarks/real_images.py --networks kept --json results.json

``--only`` and ``--seeds`` run a part of it; ``--report FILES`` prints the tables of several parts together.

At full size, on a GPU::

    python benchmarks/real_images.py --device cuda --backbone resnet18 --epochs 30

The figures of an experiment are means over its OOD sets, then over seeds. The spread is the standard deviation over
seeds.
"""

import argparse
import importlib.metadata
import io
import itertools
import json
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image, JpegImagePlugin
from real_images_tables import report
from sklearn.base import clone

from skdfb import CAMMaskGenerator, DFBDetector, Trainer
from skdfb.datasets import load_digits_on_photos
from skdfb.evaluation import class_accuracy
from skdfb.fusion import TailProbabilityFusion, TemperatureFusion
from skdfb.masks import AffinityMaskGenerator
from skdfb.metrics import auroc_score, fpr_at_tpr
from skdfb.networks import create_backbone
from skdfb.scorers import KNN, MSP, ODIN, BackgroundLogit, Energy, Mahalanobis, MaxLogit, ReAct, ViM, scorer_output
from skdfb.scoring import JointScore

N_KNOWN, N_NOISE = 6, 1000
SCORERS = [MSP(), MaxLogit(), ODIN(), Energy(), ReAct(), KNN(), Mahalanobis(), ViM()]
BACKGROUND = [BackgroundLogit(), Mahalanobis(shrinkage="auto"), KNN()]
EXPERIMENTS = ("embedded", "textures", "open-set")
CHOICES = ("choice-embedded", "choice-cifar")
LEFT_OUT, N_VALIDATION = ("bird", "horse"), 300  # of choice-cifar; validation images per class
# Changes of the dense stage, whose default is CAM masks and both losses.
NETWORKS = {
    "pixel loss only": {"classification_weight": 0.0},
    "pixel + classification loss": {},
    "refined masks": {},
}
DEFAULT_NETWORK = "pixel + classification loss"
# The parts, by name. The controls have no background: they measure what a second score of the same features is worth.
DENSE, CLASSIFIER = FOREGROUND_PARTS = ("foreground_dense", "foreground_classifier")
DENSE_CONTROL, CLASSIFIER_CONTROL = CONTROLS = ("dense_mahalanobis", "classifier_mahalanobis")
S_B, MAHALANOBIS, NEIGHBOURS = "background_logit", "background_mahalanobis", "background_knn"
# The joint scores of the ablation: a fusion and the parts that it joins. The keys are the names in the stored results.
FUSIONS = {
    "foreground alone": (None, [DENSE]),
    "+ S_b, Eq. 7": (TemperatureFusion(), [DENSE, S_B]),
    "+ S_b, tail": (TailProbabilityFusion(), [DENSE, S_B]),
    "+ Mahalanobis, tail": (TailProbabilityFusion(), [DENSE, MAHALANOBIS]),
    "+ KNN, tail": (TailProbabilityFusion(), [DENSE, NEIGHBOURS]),
    "default": (TailProbabilityFusion(), [DENSE, S_B, MAHALANOBIS]),
    "default, Fisher's rule": (TailProbabilityFusion("fisher"), [DENSE, S_B, MAHALANOBIS]),
    "default and KNN": (TailProbabilityFusion(), [DENSE, S_B, MAHALANOBIS, NEIGHBOURS]),
    "plain + background": (TailProbabilityFusion(), [CLASSIFIER, S_B, MAHALANOBIS]),
    "both networks": (TailProbabilityFusion(), [DENSE, CLASSIFIER, S_B, MAHALANOBIS]),
    "S_b alone": (None, [S_B]),
    "Mahalanobis alone": (None, [MAHALANOBIS]),
    "KNN alone": (None, [NEIGHBOURS]),
    "plain + its Mahalanobis": (TailProbabilityFusion(), [CLASSIFIER, CLASSIFIER_CONTROL]),
    "dense + its Mahalanobis": (TailProbabilityFusion(), [DENSE, DENSE_CONTROL]),
    "dense + S_b + its Mahalanobis": (TailProbabilityFusion(), [DENSE, S_B, DENSE_CONTROL]),
    "S_b and Mahalanobis": (TailProbabilityFusion(), [S_B, MAHALANOBIS]),
}


@dataclass
class Data:
    """Training and test images with their labels, and OOD images by name."""

    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    ood: dict


def read_pack(path, size):
    """Return images (n, size, size, 3) uint8, labels and class names of a pack of JPEG files."""
    with np.load(path) as pack:
        jpeg, offsets, labels, classes = (pack[name] for name in ("jpeg", "offsets", "labels", "classes"))
    images = np.empty((len(labels), size, size, 3), dtype=np.uint8)
    for index, (start, stop) in enumerate(itertools.pairwise(offsets)):
        image = Image.open(io.BytesIO(jpeg[start:stop].tobytes())).convert("RGB")
        images[index] = np.asarray(image if image.size == (size, size) else image.resize((size, size), Image.BICUBIC))
    return images, labels, list(classes)


def compressed_like(path, images):
    """Return images (n, H, W, 3) after JPEG compression with the quantisation tables of a pack's first image."""
    with np.load(path) as pack:
        first = Image.open(io.BytesIO(pack["jpeg"][: pack["offsets"][1]].tobytes()))
    options = {"qtables": first.quantization, "subsampling": JpegImagePlugin.get_sampling(first)}
    compressed = np.empty_like(images)
    for index, image in enumerate(images):
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "JPEG", **options)
        compressed[index] = np.asarray(Image.open(stream))
    return compressed


def synthetic_noise(n, size, seed=0):
    """Return images (n, size, size, 3) of uniform noise with grains of 1, 2, 4 or 8 pixels, a quarter of each."""
    rng = np.random.default_rng(seed)
    noise = np.empty((n, size, size, 3), dtype=np.uint8)
    for index, grain in zip(range(n), itertools.cycle((1, 2, 4, 8))):
        grains = rng.integers(0, 256, (-(-size // grain), -(-size // grain), 3), dtype=np.uint8)
        noise[index] = grains.repeat(grain, 0).repeat(grain, 1)[:size, :size]
    return noise


def load(experiment, seed, arguments):
    """Return the images of an experiment."""
    if experiment.endswith("embedded"):
        digits = load_digits_on_photos(random_state=seed + (10 if experiment in CHOICES else 0))
        return Data(digits.images, digits.target, digits.images_test, digits.target_test, dict(digits.ood_images))
    size, folder = arguments.pixels, arguments.data
    (X, y, classes), (X_test, y_test, _) = (
        read_pack(folder / f"cifar10_{part}.npz", size) for part in ("train", "test")
    )
    names = np.asarray(classes)
    if experiment == "textures":
        ood = {"textures": read_pack(folder / "textures.npz", size)[0], "noise": synthetic_noise(N_NOISE, size)}
        ood = {name: compressed_like(folder / "cifar10_train.npz", images) for name, images in ood.items()}
        return Data(X, names[y], X_test, names[y_test], ood)
    known = np.sort(np.random.default_rng(seed).permutation(len(classes))[:N_KNOWN])
    if experiment == "choice-cifar":
        return left_out(X, names[y], names[known], seed, folder)
    train, test = np.isin(y, known), np.isin(y_test, known)
    return Data(X[train], names[y[train]], X_test[test], names[y_test[test]], {"unknown classes": X_test[~test]})


def left_out(X, y, known, seed, folder):
    """Return the experiment on training images alone.

    Some images of each known class are the test images. Images of two classes and crops of photographs are OOD.
    """
    known = np.setdiff1d(known, LEFT_OUT)
    order = np.random.default_rng(100 + seed).permutation(len(X))
    X, y = X[order], y[order]
    validation = np.zeros(len(X), dtype=bool)
    for label in known:
        validation[np.flatnonzero(y == label)[:N_VALIDATION]] = True
    train = np.isin(y, known) & ~validation
    digits = load_digits_on_photos(n_train=6, n_test=6, n_ood=300, image_size=X.shape[1], random_state=seed)
    photos = np.concatenate([digits.ood_images[name] for name in ("background_only", "unseen_photo")])
    photos = compressed_like(folder / "cifar10_train.npz", photos)
    ood = {"left-out classes": X[np.isin(y, LEFT_OUT)][: 4 * N_VALIDATION], "photographs": photos}
    return Data(X[train], y[train], X[validation], y[validation], ood)


# ------------------------------------------------------------------- training


class KeptTrainer(Trainer):
    """A trainer that keeps the trained network in a file, and reads it the next time instead of training."""

    file = None

    def train(self, network, *images_and_labels, device, **options):
        """Train the network, or read its weights if the file is there."""
        if self.file is not None and self.file.is_file():
            network.load_state_dict(torch.load(self.file, weights_only=True, map_location="cpu"))
            network.to(device).eval()
            return {"loss": [], "learning_rate": []}
        history = super().train(network, *images_and_labels, device=device, **options)
        if self.file is not None:
            unfinished = self.file.with_suffix(".unfinished")
            torch.save(network.state_dict(), unfinished)
            unfinished.replace(self.file)
        return history


class MapsMadeOnce:
    """A generator of CAM masks that keeps its attention maps, which all networks of a run share."""

    def __init__(self):
        self.generator, self.maps, self.unread = CAMMaskGenerator(), None, iter(())

    def __sklearn_clone__(self):
        # Each fit of a detector clones its mask generator; all of them must share the maps.
        return self

    def get_params(self, deep=False):
        """Return the parameters of the generator."""
        return self.generator.get_params(deep=False)

    def set_params(self, **parameters):
        """Set parameters of the generator."""
        self.generator.set_params(**parameters)
        return self

    def fit(self, X, y):
        """Compute the maps of the training images, at the first call."""
        if self.maps is None:
            self.maps = self.generator.fit(X, y).attention_maps(X, y)
        self.unread = iter(self.maps)
        return self

    def attention_maps(self, X, y):
        """Return the maps of the next training images: refinement reads all of them in order."""
        return np.stack(list(itertools.islice(self.unread, len(X))))

    def fit_transform(self, X, y):
        """Return the masks."""
        self.fit(X, y)
        return np.where(self.maps >= self.generator.threshold, y[:, None, None], y.max() + 1)

    def classify(self, X):
        """Return the predicted classes."""
        return self.generator.classify(X)


def make_trainer(experiment, arguments, file, *, dense=False, stages=1, **changes):
    """Return the trainer of a stage; ``stages=2`` trains for as long as both stages together."""
    rate = arguments.learning_rate / 3 if dense else arguments.learning_rate
    recipe = {"learning_rate": rate, "weight_decay": 5e-4, "schedule": "cosine", "mixup": None}
    if experiment.endswith("embedded"):  # digits change their meaning in a mirror
        recipe |= {"max_steps": stages * arguments.steps, "batch_size": 32, "flip": False}
    else:
        recipe |= {"max_epochs": stages * arguments.epochs, "batch_size": arguments.batch_size}
    return kept(KeptTrainer(**recipe | changes), arguments, file)


def kept(trainer, arguments, file):
    """Return the trainer with the file of its network, if networks are kept."""
    trainer.file = None if arguments.networks is None else arguments.networks / f"{file}.pt"
    return trainer


def foreground(scorer, arguments):
    """Return the foreground parts: a scorer on the dense network and on the classifier."""
    views = "foreground" if arguments.foreground_pooling == "foreground" else "dense", "classifier"
    return [(name, view, scorer) for name, view in zip(FOREGROUND_PARTS, views, strict=True)]


def make_detector(experiment, seed, arguments):
    """Return the unfitted detector; the dense trainer and the mask generator are set for each network."""
    return DFBDetector(
        create_backbone(arguments.backbone, pretrained=False, output_stride=arguments.output_stride, random_state=seed),
        scorer=foreground(Energy(), arguments),
        background_scorer=BACKGROUND,
        classifier_trainer=make_trainer(experiment, arguments, f"{experiment}-{seed}-classifier"),
        image_size=arguments.image_size,
        device=arguments.device,
        random_state=seed,
        verbose=arguments.verbose,
    )


def fitted_detectors(experiment, seed, data, arguments):
    """Yield name, detector and seconds of each requested dense network; all share classifier, split and CAM masks."""
    detector, cam = make_detector(experiment, seed, arguments), MapsMadeOnce()
    for name in arguments.ablation:
        file = f"{experiment}-{seed}-{name.replace(' ', '-')}"
        trainer = make_trainer(experiment, arguments, file, dense=True, **NETWORKS[name])
        masks = AffinityMaskGenerator(cam) if name == "refined masks" else cam
        if trainer.file is not None and trainer.file.is_file():
            masks = NoMasks()
        detector.set_params(dense_trainer=trainer, mask_generator=masks)
        start = time.perf_counter()
        yield name, detector.fit(data.X, data.y), time.perf_counter() - start
        # The next detector takes over the classifier as trained, and trains only its dense network.
        detector = make_detector(experiment, seed, arguments).set_params(backbone=detector.classifier_)


class NoMasks:
    """Empty masks, for a dense network that is read from a file."""

    def fit_transform(self, X, y):
        """Return a mask of one pixel for each image."""
        return np.zeros((len(X), 1, 1), dtype=np.uint8)


# -------------------------------------------------------------------- figures


class ScoredSets:
    """Scores of the parts on the image sets of a run; the key ``""`` stands for the test images.

    The views that most scorers need are computed once, from one pass over each set.
    """

    def __init__(self, detector, data):
        self.detector, self.data = detector, data
        self.sets = {"": data.X_test, **data.ood}
        self.shared = self._views(detector.joint_score_)
        train, held_out, _ = self.shared
        views = [view for _, view, _ in detector.scorer]
        class_free = Mahalanobis("auto", use_classes=False)
        parts = [(name, view, class_free) for name, view in zip(CONTROLS, views, strict=True)]
        self.controls = JointScore(parts, alpha=None).fit(*train, held_out=held_out)

    def part_scores(self, scorer):
        """Return the scores of all parts on each set, and on the held-out images that fusions learn from."""
        joint_score = self.detector.joint_score_.with_foreground(scorer)
        # A scorer that needs perturbed images or activations needs views of its own.
        needs_more = any(joint_score.view_needs().values())
        train, (held_out, y_held_out), sets = self._views(joint_score) if needs_more else self.shared
        joint_score.fit(*train, held_out=(held_out, y_held_out))
        n_learned = len(y_held_out) - len(joint_score.calibrator_.scores_)  # the others set the threshold

        def scores_of(views, shared):
            return joint_score.score_parts(views) | self.controls.score_parts(shared)

        _, (shared_held_out, _), shared_sets = self.shared
        learned, shared_learned = (
            {view: part[:n_learned] for view, part in views.items()} for views in (held_out, shared_held_out)
        )
        parts = {name: scores_of(views, shared_sets[name]) for name, views in sets.items()}
        return parts, scores_of(learned, shared_learned)

    def _views(self, joint_score):
        """Return training views, held-out views and the views of each set, as a joint score needs them."""
        train, held_out = self.detector.represent_training_images(self.data.X, self.data.y, joint_score)
        needs = joint_score.view_needs()
        return train, held_out, {name: self.detector.represent(X, needs) for name, X in self.sets.items()}


def joint_scores(parts, learning, fusion, names, output):
    """Return the joint scores of each image set from the named parts."""
    if fusion is None:
        return {key: scores[names[0]] for key, scores in parts.items()}
    fusion = clone(fusion)
    # Eq. 7 has another formula if the foreground score is a probability.
    outputs = {"outputs": {names[0]: output}} if isinstance(fusion, TemperatureFusion) else {}
    fusion.fit({name: learning[name] for name in names}, **outputs)
    return {key: fusion.combine({name: scores[name] for name in names}) for key, scores in parts.items()}


def rows_of(scores, **labels):
    """Yield a row of figures for each OOD set."""
    for ood in filter(None, scores):
        yield labels | {
            "ood": ood,
            "auroc": 100 * auroc_score(scores[""], scores[ood]),
            "fpr95": 100 * fpr_at_tpr(scores[""], scores[ood]),
        }


def run(experiment, seed, arguments):
    """Fit the detectors of one experiment and seed; return the rows of all scorers, and notes on the networks."""
    data, rows, notes = load(experiment, seed, arguments), [], []
    for network, detector, seconds in fitted_detectors(experiment, seed, data, arguments):
        notes.append(
            {"experiment": experiment, "seed": seed, "network": network, "fit_seconds": round(seconds, 1)}
            | {f"accuracy_{name}": 100 * value for name, value in accuracies(detector, data).items()}
            | {"rejected": 100 * float(np.mean(default_parts(detector).predict(data.X_test) == -1))}
        )
        print(notes[-1], flush=True)
        sets = ScoredSets(detector, data)
        for scorer in SCORERS:
            labels = {"experiment": experiment, "seed": seed, "scorer": type(scorer).__name__}
            parts, learning = sets.part_scores(scorer)
            if network == arguments.ablation[0]:
                plain = joint_scores(parts, learning, None, [CLASSIFIER], "")
                rows += rows_of(plain, network="", fusion="plain", **labels)
            for fusion_name, (fusion, names) in FUSIONS.items():
                joint = joint_scores(parts, learning, fusion, names, scorer_output(scorer))
                rows += rows_of(joint, network=network, fusion=fusion_name, **labels)
        if network == DEFAULT_NETWORK and arguments.figures is not None:
            draw_errors(detector, data, arguments.figures / f"{experiment}-{seed}.png")
    if arguments.control:
        more_rows, note = control(experiment, seed, data, arguments)
        rows, notes = rows + more_rows, [*notes, note]
    return rows, notes


def default_parts(detector):
    """Return the detector with the parts that it has by default, and its scorer."""
    (_, view, scorer), *_ = detector.scorer
    return detector.refit_scorer([("foreground", view, scorer)], background_scorer=BACKGROUND[:2])


def accuracies(detector, data):
    return class_accuracy(detector, data.X_test, data.y_test)


def control(experiment, seed, data, arguments):
    """Return the figures of a plain classifier that trains as long as both stages, with the dense stage's scales."""
    detector = make_detector(experiment, seed, arguments)
    file = f"{experiment}-{seed}-control"
    detector.set_params(
        classifier_trainer=make_trainer(experiment, arguments, file, stages=2, scale_range=(0.5, 2.0)),
        # Only the classifier is measured, so one step of the dense stage is enough.
        dense_trainer=kept(KeptTrainer(max_steps=1), arguments, f"{file}-dense"),
        mask_generator=NoMasks(),
    )
    detector.fit(data.X, data.y)
    rows, sets = [], ScoredSets(detector, data)
    for scorer in SCORERS:
        labels = {"experiment": experiment, "seed": seed, "scorer": type(scorer).__name__}
        parts, learning = sets.part_scores(scorer)
        scores = joint_scores(parts, learning, None, [CLASSIFIER], "")
        rows += rows_of(scores, network="", fusion="control", **labels)
    note = {"experiment": experiment, "seed": seed, "network": "control"}
    return rows, note | {"accuracy_plain": 100 * accuracies(detector, data)["plain"]}


def draw_errors(detector, data, path, n=12):
    """Save a picture of the OOD images that score highest, and of the test images that score lowest."""
    detector = default_parts(detector).refit_scorer([("foreground", detector.scorer[0][1], ViM())])
    sets = {f"{name}: taken for known": X for name, X in data.ood.items()} | {"known: rejected first": data.X_test}
    draw_extremes(detector, sets, path, n)


def draw_extremes(detector, sets, path, n=12):
    """Save a picture with a row for each set: its highest scores, or its lowest if the title starts with "known:"."""
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(n, 1.3 * len(sets)), layout="constrained")
    for row, (title, X) in zip(figure.subfigures(len(sets), 1, squeeze=False)[:, 0], sets.items(), strict=True):
        order = np.argsort(detector.score_samples(X))
        row.suptitle(title, x=0.005, ha="left", fontsize=9)
        axes, drawn = row.subplots(1, n), order[:n] if title.startswith("known:") else order[::-1][:n]
        for axis, index in zip(axes, drawn, strict=True):
            axis.imshow(X[index])
            axis.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


# ----------------------------------------------------------------------- main


def parse(argv=None, description=__doc__):
    """Return the settings."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=EXPERIMENTS + CHOICES, default=list(EXPERIMENTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--ablation", nargs="+", choices=list(NETWORKS), default=list(NETWORKS), help="dense networks")
    parser.add_argument(
        "--control",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also train a plain classifier for the epochs of both stages",
    )
    parser.add_argument(
        "--foreground-pooling",
        choices=("image", "foreground"),
        default="image",
        help="the part of the image that features of the dense network are averaged over",
    )
    parser.add_argument("--backbone", default="test_resnet", help="timm model, with random weights")
    parser.add_argument("--output-stride", type=int, default=8)
    parser.add_argument("--image-size", type=int, default=64, help="side of the network's input in pixels")
    parser.add_argument("--pixels", type=int, default=32, help="side that the images of all packs are resized to")
    parser.add_argument("--epochs", type=int, default=6, help="of each of the two stages, on CIFAR-10")
    parser.add_argument("--steps", type=int, default=700, help="of each of the two stages, on the embedded images")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=0.3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--data", type=Path, default=os.environ.get("SKDFB_DATA"), help="folder of the packs")
    parser.add_argument("--networks", type=Path, help="folder of trained networks, to keep and to read")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--report", type=Path, nargs="+", help="print the tables of these JSON files; run nothing")
    parser.add_argument("--figures", type=Path, help="folder for pictures of the remaining errors")
    parser.add_argument("--verbose", type=int, default=0)
    return parser.parse_args(argv)


def main(argv=None):
    """Run the experiments, print their tables, and write the JSON file."""
    arguments = parse(argv)
    rows, notes = measured_before(arguments.report) if arguments.report is not None else measure(arguments, run)
    if rows:
        report(pd.DataFrame(rows), pd.DataFrame(notes), DEFAULT_NETWORK)


def measured_before(files):
    """Return the rows and notes of JSON files."""
    documents = [json.loads(file.read_text()) for file in files]
    return tuple([row for part in documents for row in part[key]] for key in ("rows", "notes"))


def measure(arguments, run):
    """Return the rows and notes of all requested experiments and seeds; write them after each."""
    arguments.data = None if arguments.data is None else Path(arguments.data)
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(arguments).items()}
    if arguments.networks is not None:
        keep_settings(arguments.networks, settings)
    rows, notes = [], []
    for experiment, seed in itertools.product(arguments.only, arguments.seeds):
        has_packs = arguments.data is not None and (arguments.data / "cifar10_train.npz").is_file()
        if not (has_packs or experiment.endswith("embedded")):
            given = f"no image packs in {arguments.data}"
            print(f"{experiment} skipped: {given}; pass their folder as --data or SKDFB_DATA")
            continue
        more_rows, more_notes = run(experiment, seed, arguments)
        rows, notes = rows + more_rows, notes + more_notes
        if arguments.json:
            arguments.json.write_text(json.dumps(document(settings, rows, notes), separators=(",", ":")) + "\n")
    return rows, notes


def keep_settings(folder, settings):
    """Refuse a folder of networks that were trained with other settings."""
    trained_by = ("backbone", "output_stride", "image_size", "pixels", "epochs", "steps", "batch_size", "learning_rate")
    expected, file = {key: settings[key] for key in trained_by}, folder / "settings.json"
    folder.mkdir(parents=True, exist_ok=True)
    if file.is_file() and json.loads(file.read_text()) != expected:
        raise SystemExit(
            f"The networks in {folder} were trained with {file.read_text()}: expected {json.dumps(expected)}. Pass "
            "another folder as --networks."
        )
    file.write_text(json.dumps(expected))


def document(settings, rows, notes):
    """Return the content of the JSON file."""
    return {
        "settings": settings,
        "versions": {name: importlib.metadata.version(name) for name in ("skdfb", "torch", "timm", "scikit-learn")},
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "python": platform.python_version(),
        },
        "rows": rows,
        "notes": notes,
    }


if __name__ == "__main__":
    main()
