"""Compare detectors on photographs, from pre-trained weights: plain classifiers, frozen features and DFB.

Three sets, each with the seeds 0 to 2, which draw the known and the unknown classes:

- ``scenes``: landscapes and streets, four known classes of six. The defaults of the library were chosen on
  such images, and on left-out classes; see ``photographs_choice.py``.
- ``flowers``: flowers, three known classes of five.
- ``cifar``: CIFAR-10 at its own size, six known classes of ten, 250 training images of each.

OOD are the unknown classes, textures, photographs of ImageNet without the subjects of the set, the photographs of the
other sets, and synthetic noise. For ``cifar`` all of them are reduced to 32 pixels and compressed in the same way, and
photographs of ImageNet are left out: most of them show animals and vehicles.

The packs ``flowers160.npz``, ``scenes160.npz``, ``textures160.npz``, ``imagenet160.npz``, ``cifar10_train.npz`` and
``cifar10_test.npz`` are in the folder ``--data``; ``real_images.py`` describes their form. ``--weights`` is a file of
the backbone's weights under timm's names; without it timm downloads them. Run it on idle CPU cores. ``--networks``
keeps the trained networks, so that an interrupted run continues, and other scorers need no training::

    python benchmarks/photographs.py --only flowers --networks kept --json flowers.json

``--report FILES`` prints the tables. At full size, on a GPU::

    python benchmarks/photographs.py --device cuda --backbone convnext_tiny.fb_in1k --image-size 224 --steps 500

Masks are made at one scale of the image instead of four, which takes a seventh of the time. The methods, for each
scorer:

- ``plain``: a classifier, all of it fine-tuned;
- ``control``: the same, trained for as many steps as both stages of DFB;
- ``frozen``: the features of the pre-trained network, and a linear discriminant on them; nothing is trained;
- ``BackMix``: as ``control``, trained with the augmentation BackMix;
- ``plain + pre-trained``: the plain classifier with the parts of DFB's default on the pre-trained network and trunk;
- ``DFB paper``: dense network and S_b of the paper, joined by Eq. 7, trained for these steps;
- ``DFB without trunk``: the parts of DFB's default for random weights, on DFB's networks;
- ``DFB``: the default, of three networks with one trunk;
- ``DFB, one pass``: its parts on the dense network alone.
"""

import argparse
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from photographs_tables import draw_chart, report
from PIL import Image
from real_images import KeptTrainer, NoMasks, compressed_like, draw_extremes, read_pack, synthetic_noise

from skdfb import CAMMaskGenerator, DFBDetector
from skdfb.augmentation import BackMix
from skdfb.evaluation import OpenSetSplit, open_set_protocol
from skdfb.fusion import TemperatureFusion
from skdfb.metrics import auroc_score, fpr_at_tpr, open_set_f1_score, oscr_score
from skdfb.networks import create_backbone
from skdfb.scorers import (
    GEN,
    KNN,
    MSP,
    RAS,
    BackgroundLogit,
    CADRef,
    Energy,
    KernelPCA,
    Mahalanobis,
    RelativeMahalanobis,
    ViM,
)
from skdfb.scoring import JointScore

SETS = ("scenes", "flowers", "cifar")
N_KNOWN = {"scenes": 4, "flowers": 3}
CIFAR_SPLITS = (0, 2, 3)  # the first two of the five usual splits have the same classes
N_CIFAR, N_OOD = 250, 300  # training images per class; images of each OOD set at most
SCORERS = {
    "MSP": MSP(),
    "Energy": Energy(),
    "GEN": GEN(),
    "ViM": ViM(),
    "KNN": KNN(),
    "Mahalanobis": Mahalanobis(shrinkage="auto"),
    "normalised Mahalanobis": Mahalanobis(shrinkage="auto", normalize=True),
    "relative Mahalanobis": RelativeMahalanobis(shrinkage="auto", normalize=True),
    "KernelPCA": KernelPCA("cosine-gaussian", n_random_features=512, random_state=0),
    "RAS": RAS(),
    "CADRef": CADRef(),
}
# Subjects of a set among the classes of ImageNet.
OWN_SUBJECTS = {
    "flowers": "daisy, yellow_lady's_slipper, rapeseed, cardoon, artichoke, bee, vase, pot, greenhouse",
    "scenes": "alp, cliff, coral_reef, geyser, lakeside, promontory, sandbar, seashore, valley, volcano, castle, "
    "church, "
    "monastery, mosque, palace, stupa, barn, boathouse, bell_cote, dome, megalith, planetarium, library, restaurant, "
    "bakery, cinema, prison, suspension_bridge, steel_arch_bridge, viaduct, pier, breakwater, dam, dock, beacon, "
    "water_tower, obelisk, triumphal_arch, street_sign, traffic_light, parking_meter, cab, trolleybus, streetcar, "
    "minibus, school_bus, cliff_dwelling, mobile_home, tile_roof, thatch, stone_wall, ski, snowmobile, catamaran, "
    "trimaran, yawl, schooner, speedboat, liner, container_ship, drilling_platform, wreck, lumbermill, patio, yurt, "
    "mountain_tent, mountain_bike, dogsled, snowplow, totem_pole, butcher_shop, bookshop, toyshop, tobacco_shop, "
    "shoe_shop, barbershop, grocery_store, fountain, flagpole, cannon, canoe, paddle, fireboat, lifeboat, submarine, "
    "aircraft_carrier, pirate, gondola",
}


@dataclass
class Data:
    """Training and test images of the known classes with their labels, and OOD images by name."""

    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    ood: dict


def load(name, seed, arguments):
    """Return the images of a set, whose known classes the seed draws."""
    rng = np.random.default_rng(seed)
    data = load_cifar(seed, arguments.data, rng) if name == "cifar" else load_photographs(name, seed, arguments.data)
    others = {other: read_pack(arguments.data / f"{other}160.npz", 160)[0] for other in ("scenes", "flowers")}
    others.pop(name, None)
    # Flowers are an OOD set of the choice of the defaults on left-out classes of CIFAR-10.
    if name == "cifar":
        del others["flowers"]
    sets = {"textures": read_pack(arguments.data / "textures160.npz", 160)[0], **others}
    if name != "cifar":
        X, y, classes = read_pack(arguments.data / "imagenet160.npz", 160)
        own = {subject.strip() for subject in OWN_SUBJECTS[name].split(",")}
        kept = [index for index, text in enumerate(classes) if text.partition("_")[2] not in own]
        sets["ImageNet"] = X[np.isin(y, kept)]
    sets["noise"] = synthetic_noise(2 * N_OOD, data.X.shape[1], seed)
    for key, X in sets.items():
        X = X[::2]  # the choice of the defaults uses the others
        X = X[rng.permutation(len(X))[:N_OOD]]
        data.ood[key] = as_cifar(X, arguments.data) if name == "cifar" else X
    return data


def load_photographs(name, seed, folder):
    """Return the known classes of a pack of photographs, a quarter of them for the test, and the unknown classes."""
    X, y, classes = read_pack(folder / f"{name}160.npz", 160)
    labels = np.asarray(classes)[y]
    splits = OpenSetSplit(N_KNOWN[name], n_splits=3, test_size=0.25, random_state=0)
    train, test = list(splits.split(X, labels))[seed]
    known = np.isin(labels[test], labels[train])
    unknown = np.random.default_rng(seed).permutation(test[~known])[:N_OOD]
    return Data(X[train], labels[train], X[test[known]], labels[test[known]], {"unknown classes": X[unknown]})


def load_cifar(seed, folder, rng):
    """Return the six known classes of CIFAR-10 in a usual split, and the test images of the other four."""
    (X, y, classes), (X_test, y_test, _) = (read_pack(folder / f"cifar10_{part}.npz", 32) for part in ("train", "test"))
    names, (known, _) = np.asarray(classes), open_set_protocol("cifar10-6/4")[CIFAR_SPLITS[seed]]
    rows = np.concatenate([rng.permutation(np.flatnonzero(y == k))[:N_CIFAR] for k in known])
    is_known = np.isin(y_test, known)
    tested = rng.permutation(np.flatnonzero(is_known))[: 2 * N_OOD]
    unknown = rng.permutation(np.flatnonzero(~is_known))[:N_OOD]
    return Data(X[rows], names[y[rows]], X_test[tested], names[y_test[tested]], {"unknown classes": X_test[unknown]})


def as_cifar(images, folder):
    """Return images as small, and compressed in the same way, as those of CIFAR-10."""
    small = np.stack([np.asarray(Image.fromarray(image).resize((32, 32), Image.BICUBIC)) for image in images])
    return compressed_like(folder / "cifar10_train.npz", small)


# ------------------------------------------------------------------- training


class Timed:
    """Notes the seconds of the method ``fit_transform`` of a mask generator."""

    def __init__(self, generator, file=None):
        self.generator, self.seconds = generator, 0.0
        self.notes = None if file is None else file.with_suffix(".mask-seconds")

    def __sklearn_clone__(self):
        # Each fit clones its mask generator; the seconds must not get lost.
        return self

    def get_params(self, deep=False):
        """Return the parameters of the generator."""
        return self.generator.get_params(deep=False) if hasattr(self.generator, "get_params") else {}

    def set_params(self, **parameters):
        """Set parameters of the generator."""
        if parameters:
            self.generator.set_params(**parameters)
        return self

    def fit_transform(self, X, y):
        """Return the masks."""
        start = time.perf_counter()
        masks = self.generator.fit_transform(X, y)
        self.seconds = time.perf_counter() - start
        if self.notes is not None:
            # For a network that is read from its file, no masks are made.
            if isinstance(self.generator, NoMasks):
                self.seconds = float(self.notes.read_text())
            else:
                self.notes.write_text(str(self.seconds))
        return masks


class TimedTrainer(KeptTrainer):
    """A trainer that keeps the seconds of a training beside the weights."""

    seconds = 0.0

    def train(self, network, *images_and_labels, **options):
        """Train the network, or read its weights if the file is there."""
        is_kept, start = self.file is not None and self.file.is_file(), time.perf_counter()
        self.freeze_trunk(network, dense=len(images_and_labels) > 2)
        history = super().train(network, *images_and_labels, **options)
        notes = None if self.file is None else self.file.with_suffix(".seconds")
        self.seconds = float(notes.read_text()) if is_kept else time.perf_counter() - start
        if notes is not None:
            notes.write_text(str(self.seconds))
        return history


def make_trainer(arguments, file, *, steps=1, **changes):
    """Return a trainer with the library's defaults, for ``steps`` times the steps of a stage."""
    changes |= {"batch_size": arguments.batch_size, "precision": arguments.precision}
    trainer = TimedTrainer(max_steps=steps * arguments.steps, **changes)
    trainer.file = None if arguments.networks is None else arguments.networks / f"{file}.pt"
    return trainer


def fit(data, seed, arguments, classifier, dense, generator=None, **parameters):
    """Return the fitted detector, and the seconds of its stages."""
    is_kept = dense.file is not None and dense.file.is_file()
    generator = CAMMaskGenerator(scales=(1.0,)) if generator is None else generator
    generator = Timed(NoMasks() if is_kept or dense.max_steps == 1 else generator, dense.file)
    detector = DFBDetector(
        make_backbone(arguments),
        classifier_trainer=classifier,
        dense_trainer=dense,
        mask_generator=generator,
        image_size=arguments.image_size,
        device=arguments.device,
        random_state=seed,
        verbose=arguments.verbose,
        **parameters,
    ).fit(data.X, data.y)
    stages = {"classifier": classifier, "masks": generator, "dense": dense}
    return detector, {f"seconds_{stage}": round(timed.seconds, 1) for stage, timed in stages.items()}


def make_backbone(arguments):
    """Return the pre-trained backbone."""
    return create_backbone(arguments.backbone, checkpoint_path=arguments.weights)


# -------------------------------------------------------------------- figures

S_B = ("background_logit", "background", BackgroundLogit())
BACKGROUND = [S_B, ("background_mahalanobis", "background", Mahalanobis(shrinkage="auto"))]


class Views:
    """The views of a fitted detector on all image sets, computed once."""

    def __init__(self, detector, data, views):
        parts = [(f"part_{index}", view, MSP()) for index, view in enumerate(views)]
        needs = JointScore(parts, alpha=None)
        self.train, self.held_out = detector.represent_training_images(data.X, data.y, needs)
        sets = {"": data.X_test, **data.ood}
        self.sets = {key: detector.represent(X, list(views)) for key, X in sets.items()}

    def scores(self, parts, fusion=None):
        """Return the joint score of each image set."""
        joint = JointScore(parts, fusion=fusion, alpha=None).fit(*self.train, held_out=self.held_out)
        return {key: joint.score_samples(views) for key, views in self.sets.items()}

    def part_scores(self, view, scorer):
        """Return the scores of one scorer on a view: of the held-out images, and of each image set."""
        joint = JointScore([("part", view, scorer)], alpha=None).fit(*self.train, held_out=self.held_out)
        held_out, _ = self.held_out
        return joint.score_samples(held_out), {key: joint.score_samples(views) for key, views in self.sets.items()}

    def predicted(self, view):
        """Return the class indices that a view predicts for the test images, and for each OOD set."""
        return {key: views[view].logits.numpy().argmax(1) for key, views in self.sets.items()}


def rows_of(scores, predicted, data, **labels):
    """Yield a row of figures for each OOD set; OSCR and F1 for the unknown classes."""
    classes, y_test = np.unique(data.y), data.y_test
    for ood in filter(None, scores):
        row = labels | {
            "ood": ood,
            "auroc": 100 * auroc_score(scores[""], scores[ood]),
            "fpr95": 100 * fpr_at_tpr(scores[""], scores[ood]),
        }
        if ood == "unknown classes":
            correct = classes[predicted[""]] == y_test
            row["oscr"] = 100 * oscr_score(scores[""], scores[ood], correct)
            # The threshold that keeps 95 % of the test images, as for the FPR.
            threshold = np.quantile(scores[""], 0.05)
            kept = [np.where(scores[key] >= threshold, classes[predicted[key]], "unknown") for key in ("", ood)]
            truth = np.concatenate([y_test, np.full(len(scores[ood]), "unknown")])
            row["f1"] = 100 * open_set_f1_score(truth, np.concatenate(kept), classes)
        yield row


def run(name, seed, arguments):
    """Return the rows of all methods and scorers of a set and seed, and notes on accuracy and seconds."""
    data, file, rows, notes = load(name, seed, arguments), f"{name}-{seed}", [], []
    classes = np.unique(data.y)

    def measure(method, views, view, seconds, parts, fusion=None):
        """Note a method, and add its rows: the foreground scorer on a view, joined to other parts."""
        predicted = views.predicted(view)
        accuracy = 100 * float(np.mean(classes[predicted[""]] == data.y_test))
        notes.append({"set": name, "seed": seed, "method": method, "accuracy": accuracy, **seconds})
        print(notes[-1], flush=True)
        for title, scorer in SCORERS.items():
            # Of the default's parts, the foreground of the classifier has this scorer as well.
            own = [(part, of, scorer if part == "foreground_classifier" else other) for part, of, other in parts]
            scores = views.scores([("foreground", view, scorer), *own], fusion)
            rows.extend(rows_of(scores, predicted, data, set=name, seed=seed, method=method, scorer=title))

    # 1. The default, with its own parts beside the foreground. The classifier has the foreground scorer, too.
    trainers = [make_trainer(arguments, f"{file}-{stage}") for stage in ("classifier", "dense")]
    detector, seconds = fit(data, seed, arguments, *trainers, scorer=Energy())
    _, second, *beside = detector.joint_score_.parts
    dfb = Views(detector, data, ["classifier", "dense", "background", *(view for _, view, _ in beside)])
    if arguments.figures is not None:
        sets = {f"{key}: accepted first": X for key, X in data.ood.items()} | {"known: rejected first": data.X_test}
        draw_extremes(detector, sets, arguments.figures / f"{file}.png")

    # 2. The plain classifier, the paper's dense network, and the network before training.
    plain = make_trainer(arguments, f"{file}-plain", frozen_stages=0)
    dense = make_trainer(arguments, f"{file}-paper", frozen_stages=0, classification_weight=0.0)
    parts = [("foreground", "dense", Energy()), ("pretrained", "pretrained", Energy())]
    detector, paper_seconds = fit(data, seed, arguments, plain, dense, scorer=parts)
    # Without a frozen trunk, its layers are those of the pre-trained network.
    same = [(part, view.replace("dense", "pretrained"), scorer) for part, view, scorer in beside]
    replaced = [view for _, view, _ in same]
    others = Views(detector, data, ["dense", "background", *dict.fromkeys(["classifier", "pretrained", *replaced])])
    plain_seconds = {"seconds_classifier": paper_seconds["seconds_classifier"]}
    measure("plain", others, "classifier", plain_seconds, [])
    measure("frozen", others, "pretrained", {}, [])
    measure("plain + pre-trained", others, "classifier", plain_seconds, same)
    measure("DFB paper", others, "dense", paper_seconds, [S_B], TemperatureFusion())
    measure("DFB", dfb, "dense", seconds, [second, *beside])
    measure("DFB, one pass", dfb, "dense", seconds, [part for part in beside if part[1].startswith("dense")])
    measure("DFB without trunk", dfb, "dense", seconds, BACKGROUND)
    measure("classifier of DFB", dfb, "classifier", {"seconds_classifier": seconds["seconds_classifier"]}, [])

    # 3. The plain classifier, trained for as long as both stages. Its dense network is not used.
    for method, mark, augmentation in (("control", "control", None), ("BackMix", "back-mix", BackMix())):
        trainer = make_trainer(arguments, f"{file}-{mark}", steps=2, frozen_stages=0, augmentation=augmentation)
        short = TimedTrainer(max_steps=1, batch_size=1, frozen_stages=0)
        detector, seconds = fit(data, seed, arguments, trainer, short, scorer=[("foreground", "classifier", Energy())])
        seconds = {"seconds_classifier": seconds["seconds_classifier"]}
        measure(method, Views(detector, data, ["classifier"]), "classifier", seconds, [])
    return rows, notes


# ----------------------------------------------------------------------- main


def parse(argv=None, description=__doc__, sets=SETS):
    """Return the settings."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sets, default=list(sets))
    parser.add_argument("--seeds", nargs="+", type=int, choices=(0, 1, 2), default=[0, 1, 2])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SKDFB_DATA", ".")))
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--weights", type=Path, default=None, help="file of weights; timm downloads them without it")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=100, help="training steps of each stage")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="32-true", help="of the trainings: 32-true or bf16-mixed")
    parser.add_argument("--networks", type=Path, help="folder that keeps the trained networks")
    parser.add_argument("--figures", type=Path, help="folder for pictures of errors")
    parser.add_argument("--json", type=Path, help="file for the rows")
    parser.add_argument("--report", type=Path, nargs="+", help="print the tables of these files")
    parser.add_argument("--chart", type=Path, help="file for a chart")
    parser.add_argument("--verbose", type=int, default=0)
    arguments = parser.parse_args(argv)
    if arguments.networks is not None:
        arguments.networks.mkdir(parents=True, exist_ok=True)
    return arguments


def rows_of_trials(arguments, run):
    """Return the rows of the files ``--report``, or run the trials and write the JSON file after each."""
    if arguments.report is not None:
        return [row for path in arguments.report for row in json.loads(path.read_text())["rows"]]
    rows = []
    for trial in arguments.only:
        rows += run(trial, arguments)
        print(trial, flush=True)
        if arguments.json is not None:
            settings = {key: str(value) for key, value in vars(arguments).items()}
            arguments.json.write_text(json.dumps({"settings": settings, "rows": rows}, indent=0))
    return rows


def main(argv=None):
    """Run the sets, write the JSON file and print the tables."""
    arguments = parse(argv)
    if arguments.report is not None:
        parts = [json.loads(path.read_text()) for path in arguments.report]
        rows, notes = ([row for part in parts for row in part[key]] for key in ("rows", "notes"))
    else:
        rows, notes = [], []
        for name in arguments.only:
            for seed in arguments.seeds:
                more_rows, more_notes = run(name, seed, arguments)
                rows, notes = rows + more_rows, notes + more_notes
                if arguments.json is not None:
                    settings = {key: str(value) for key, value in vars(arguments).items()}
                    content = {"settings": settings, "rows": rows, "notes": notes}
                    arguments.json.write_text(json.dumps(content, indent=0))
    report(pd.DataFrame(rows), pd.DataFrame(notes))
    if arguments.chart is not None:
        draw_chart(pd.DataFrame(rows), arguments.chart)


if __name__ == "__main__":
    main()
