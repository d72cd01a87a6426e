"""Compare mask generators on photographs, by what their dense networks detect.

All dense networks of a trial start from the same classifier, that of ``photographs_choice.py`` or, for ``reported-0``
and ``reported-2``, of the flowers of ``photographs.py``. The masks are all that differs. The control is a disc in the
middle of each image. Masks that are better make the background scores better::

    python benchmarks/photographs_masks.py --data DATA --weights tf_efficientnet_lite0.safetensors --networks kept \
        --json masks.json --figures figures

``--views`` compares CAM at one scale and at four, each with and without mirrored images, instead of the generators.
``--report FILES`` prints the tables. All other options are those of ``photographs.py``. The pictures show the masks of
the first training images.
"""

import argparse

import numpy as np
import pandas as pd
import photographs
import photographs_choice
from photographs import BACKGROUND, S_B, Views, fit, make_trainer, parse, rows_of, rows_of_trials
from photographs_tables import FAR, UNKNOWN, pairs, with_means
from real_images_tables import simple_table

from skdfb import Trainer
from skdfb.displays import MaskDisplay
from skdfb.masks import AffinityMaskGenerator, CAMMaskGenerator, DenseMaskGenerator, NormalizedCutMaskGenerator
from skdfb.scorers import ViM

TRIALS = ("scenes-0", "flowers-0", "flowers-1", "reported-0", "reported-2")
N_DRAWN = 10
FOREGROUND = [("foreground", "dense", ViM())]
SCORES = {
    "S_b": [S_B],
    "background's Mahalanobis": BACKGROUND[1:],
    "ViM": FOREGROUND,
    "ViM, S_b, background's Mahalanobis": [*FOREGROUND, *BACKGROUND],
}


class Disc:
    """Masks whose foreground is a disc in the middle, over half of the image."""

    def fit_transform(self, X, y):
        """Return masks of 64 x 64 pixels."""
        rows, columns = np.mgrid[:64, :64] - 31.5
        inside = rows**2 + columns**2 <= 64**2 / (2 * np.pi)
        return np.where(inside, np.asarray(y)[:, None, None], np.max(y) + 1).astype(np.uint8)


def generators(arguments):
    """Return the generators by name."""
    cam = CAMMaskGenerator(scales=(1.0,))
    if arguments.views:
        return {
            "one scale": CAMMaskGenerator(scales=(1.0,), flip=False),
            "one scale, mirrored": cam,
            "four scales": CAMMaskGenerator(flip=False),
            "four scales, mirrored": CAMMaskGenerator(),
        }
    second = Trainer(max_steps=arguments.steps, batch_size=arguments.batch_size)
    return {
        "CAM": cam,
        "CAM, four scales": CAMMaskGenerator(),
        "CAM, affinity": AffinityMaskGenerator(cam),
        "dense round two": DenseMaskGenerator(generator=cam, scales=(1.0,), dense_trainer=second),
        "normalised cut": NormalizedCutMaskGenerator(),
        "disc": Disc(),
    }


class Kept:
    """Keeps the masks of a generator in a file, and has its parameters."""

    def __init__(self, generator, file):
        self.generator, self.file = generator, file
        if hasattr(generator, "get_params"):
            self.get_params, self.set_params = generator.get_params, generator.set_params

    def fit_transform(self, X, y):
        """Return the masks."""
        masks = self.generator.fit_transform(X, y)
        np.savez_compressed(self.file, masks=masks)
        return masks

    @property
    def masks(self):
        """The masks in the file."""
        with np.load(self.file) as kept:
            return kept["masks"]


def run(trial, arguments):
    """Return the rows of a trial, and draw its masks."""
    name, _, seed = trial.partition("-")
    reported = name == "reported"
    if reported:
        data, file = photographs.load("flowers", int(seed), arguments), f"flowers-{seed}"
    else:
        data, file = photographs_choice.load(trial, arguments.data), f"choice-{trial}"
    rows, foregrounds = [], {}
    for title, generator in generators(arguments).items():
        mark = f"masks-{file}-{title.replace(', ', '-').replace(' ', '-')}"
        trainers = make_trainer(arguments, f"{file}-classifier"), make_trainer(arguments, mark)
        generator = Kept(generator, arguments.networks / f"{mark}.npz")
        detector, seconds = fit(
            data, int(seed), arguments, *trainers, generator, scorer=FOREGROUND, background_scorer=[]
        )
        foregrounds[title] = generator.masks < len(detector.classes_)
        views = Views(detector, data, ["dense", "background"])
        predicted = views.predicted("dense")
        notes = {
            "trial": trial,
            "accuracy": 100 * float(np.mean(detector.classes_[predicted[""]] == data.y_test)),
            "foreground": 100 * float(foregrounds[title].mean()),
            "seconds": seconds["seconds_masks"],
        }
        print(title, notes, flush=True)
        for score, parts in SCORES.items():
            rows += rows_of(views.scores(parts), predicted, data, method=score, scorer=title, **notes)
    if arguments.figures is not None:
        first = {title: masks[:N_DRAWN] for title, masks in foregrounds.items()}
        draw(data.X[detector._split_.train[:N_DRAWN]], first, arguments.figures / f"masks-{trial}.png")
    return rows


def draw(images, foregrounds, path):
    """Save a picture of images and the foreground of each generator, resized to the images."""
    from PIL import Image

    side = images.shape[1]
    foregrounds = {
        name: np.stack([np.asarray(Image.fromarray(mask).resize((side, side), Image.NEAREST)) for mask in masks])
        for name, masks in foregrounds.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    MaskDisplay.from_predictions(images, foregrounds).figure_.savefig(path, dpi=90)


def report(rows):
    """Print the tables."""
    table = pd.DataFrame(rows)
    table = table.assign(set=["reported" if "reported" in trial else "choice" for trial in table["trial"]])
    table = with_means(table.assign(seed=table["trial"]))
    for name, part in table.groupby("set", sort=False):
        for ood in (UNKNOWN, FAR):
            print(f"\n{name}, {ood}: AUROC / FPR95 [%]\n")
            cells = pairs(part[part["ood"] == ood], ["scorer", "method"]).unstack("method")
            print(simple_table(cells.reindex(columns=list(SCORES)).reset_index(names="masks")))
    notes = table.dropna(subset=["accuracy"]).groupby("scorer", sort=False)[["accuracy", "foreground", "seconds"]]
    print("\nAccuracy, share of foreground [%], and seconds of the masks\n")
    print(simple_table(notes.mean().round(1).reset_index(names="masks")))


def main(argv=None):
    """Run the trials, write the JSON file and print the tables."""
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--views", action="store_true")
    views, others = own.parse_known_args(argv)
    arguments = parse(others, __doc__, TRIALS)
    arguments.views = views.views
    if arguments.networks is None and arguments.report is None:
        raise SystemExit("expected a folder --networks for networks and masks")
    report(rows_of_trials(arguments, run))


if __name__ == "__main__":
    main()
