"""Measure BackMix where the background gives the class away in training, and not in the test.

Digits 0-5 lie on six pictures. In training, a share of the images of each class lies on the picture of the class, the
others on any picture. In the test every digit lies on any picture. A small network starts from random weights::

    python benchmarks/back_mix_digits.py --json back_mix_digits.json

The variants differ in the augmentation alone. "attention" is BackMix as in every training of a classifier, with the
attention maps of the network. "true masks" is BackMix that is given the digits' own masks. "random pictures" has no
BackMix: its training digits lie on any picture, which is the limit of what BackMix could reach. Unknown images are
digits 6-9 on any picture; their score is the highest logit. ``--report FILE`` prints the tables of a file again.
"""

import argparse
import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from real_images_tables import simple_table, with_spread
from sklearn.datasets import load_sample_image

from skdfb import Trainer
from skdfb.augmentation import AttentionBank, BackMix
from skdfb.datasets._digits_on_photos import _contrasting_colours, _crop, _digit_pools, _mattes
from skdfb.metrics import auroc_score, fpr_at_tpr
from skdfb.networks import DenseClassifier, attention_maps, create_backbone

N_CLASSES = 6  # digits 0-5, each with a picture of its own
PLAIN, ATTENTION, TRUE_MASKS, RANDOM = "plain", "attention", "true masks", "random pictures"
TITLES = {
    "accuracy": "accuracy",
    "by_picture": "predicted by picture",
    "auroc": "AUROC",
    "fpr95": "FPR95",
    "digit_attended": "digit attended",
}


def pictures():
    """Return the pictures of training and test: two photographs, each with three orders of its colour channels.

    Training has the left halves, the test has the right ones: they have no pixel in common.
    """
    halves = {"train": [], "test": []}
    for name, shift in itertools.product(("china.jpg", "flower.jpg"), range(3)):
        picture = np.roll(load_sample_image(name), shift, axis=-1)
        middle = picture.shape[1] // 2
        halves["train"].append(picture[:, :middle])
        halves["test"].append(picture[:, middle:])
    return halves


def digits_on_pictures(photos, digits, n, share, size, rng):
    """Return images, digits, foreground masks and the number of each picture.

    A ``share`` of the images of digit k lies on picture k, the others on any picture.
    """
    target = rng.permutation(np.resize(np.array(list(digits)), n))
    own = rng.random(n) < share
    picture = np.where(own, target, rng.integers(len(photos), size=n))
    crops = np.empty((n, size, size, 3))
    for number, photo in enumerate(photos):
        rows = np.flatnonzero(picture == number)
        crops[rows] = _crop(photo, len(rows), size, rng)
    mattes = _mattes([digits[digit] for digit in target.tolist()], size, rng)[..., np.newaxis]
    covered = (mattes * crops).sum(axis=(1, 2)) / mattes.sum(axis=(1, 2))
    colours = _contrasting_colours(covered, rng)[:, np.newaxis, np.newaxis]
    images = np.rint(mattes * colours + (1 - mattes) * crops).astype(np.uint8)
    return images, target, mattes[..., 0] > 0.5, picture


class KnownMasks(AttentionBank):
    """A bank of true masks, which no training changes."""

    def __init__(self, masks):
        super().__init__(len(masks), masks.shape[1])
        self.maps[:] = torch.from_numpy(masks)

    def update(self, indices, maps):
        """Keep the masks."""


class BackMixWithMasks:
    """BackMix in the training of a classifier, with true masks instead of attention maps."""

    def __init__(self, back_mix, masks):
        self.back_mix, self.masks, self.needs_donors = back_mix, masks, back_mix.needs_donors

    def attention_bank(self, n_images):
        """Return the bank of the masks."""
        return KnownMasks(self.masks)

    def augment(self, batch, generator):
        """Mix a batch whose attention maps are masks."""
        donors = None if batch.donors is None else with_masks(batch.donors)
        mixed = self.back_mix.augment(replace(with_masks(batch), donors=donors), generator)
        return replace(mixed, masks=None)


def with_masks(batch):
    """Return a batch with its attention maps as masks: class 0 on the foreground."""
    return replace(batch, masks=torch.where(batch.attention_maps > 0.5, 0, batch.targets.shape[1]))


def back_mixes(arguments):
    """Return BackMix of each name: the authors' parameters, and larger patches."""
    return {"": BackMix(donors=arguments.donors)} | {
        f", patch {size:g}": BackMix(donors=arguments.donors, patch_size=size) for size in arguments.patches
    }


def variants(arguments, masks):
    """Return the augmentation of each variant."""
    mixes = back_mixes(arguments)
    return (
        {PLAIN: None}
        | {ATTENTION + name: back_mix for name, back_mix in mixes.items()}
        | {TRUE_MASKS + name: BackMixWithMasks(back_mix, masks) for name, back_mix in mixes.items()}
        | {RANDOM: None}
    )


def logits_of(network, images):
    """Return the logits of images (n, K)."""
    pixels = torch.from_numpy(images).movedim(-1, 1)
    with torch.inference_mode():
        return torch.cat([network(network.preprocessor(part)) for part in pixels.split(100)]).numpy()


def digit_attended(network, images, target, masks):
    """Return the share of the digits' pixels in the quarter of highest attention: a quarter if it is blind."""
    inputs = network.preprocessor(torch.from_numpy(images).movedim(-1, 1))
    with torch.inference_mode():
        maps = attention_maps(
            network,
            inputs,
            torch.from_numpy(target),
            input_sizes=[network.preprocessor.image_size],
            flip=False,
            sigma=0.0,
            output_size=(8, 8),
        )[0].flatten(1)
    side = masks.shape[1] // 8
    digit = masks.reshape(len(masks), 8, side, 8, side).sum(axis=(2, 4)).reshape(len(masks), 64)
    highest = maps.argsort(dim=1, descending=True, stable=True)[:, :16].numpy()
    return np.take_along_axis(digit, highest, 1).sum() / digit.sum()


def run(seed, share, arguments):
    """Yield a row of figures, in percent, for each variant."""
    photos, pools, size = pictures(), _digit_pools(), arguments.image_size
    parts = [("train", "train", share), ("train", "train", 0.0), ("test", "test", 0.0), ("test", "unseen", 0.0)]
    known, random, test, unknown = (
        digits_on_pictures(
            photos[half],
            pools[pool],
            arguments.images if half == "train" else arguments.test_images,
            probability,
            size,
            np.random.default_rng([seed, number]),
        )
        for number, (half, pool, probability) in enumerate(parts)
    )
    for name, augmentation in variants(arguments, known[2]).items():
        images, target, masks, _ = random if name == RANDOM else known
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            backbone = create_backbone("test_resnet", pretrained=False, output_stride=8, random_state=seed)
            network = DenseClassifier(backbone, N_CLASSES, image_size=size)
        trainer = Trainer(
            max_steps=arguments.steps,
            batch_size=32,
            learning_rate=0.3,
            weight_decay=5e-4,
            schedule="cosine",
            flip=False,
            mixup=None,
            augmentation=augmentation,
        )
        trainer.train(network, images, target, device="cpu", random_state=seed)
        logits, unknown_logits = logits_of(network, test[0]), logits_of(network, unknown[0])
        predicted, other = logits.argmax(1), test[1] != test[3]
        scores = logits.max(1), unknown_logits.max(1)
        first = slice(0, 500)
        figures = {
            "accuracy": (predicted == test[1]).mean(),
            # Among the test digits that lie on the picture of another class.
            "by_picture": (predicted == test[3])[other].mean(),
            "auroc": auroc_score(*scores),
            "fpr95": fpr_at_tpr(*scores),
            "digit_attended": digit_attended(network, images[first], target[first], masks[first]),
        }
        yield {"share": share, "variant": name, "seed": seed} | {key: 100 * float(v) for key, v in figures.items()}


def report(rows):
    """Print the mean and the spread over seeds of each variant, and the gain of BackMix over "plain"."""
    table = pd.DataFrame(rows)
    keys = ["share", "variant"]
    groups = table.groupby(keys, sort=False)[list(TITLES)]
    means, spreads = groups.mean(), groups.std()
    figures = {title: with_spread(means[key], spreads[key]) for key, title in TITLES.items()}
    frame = pd.DataFrame(figures, index=means.index).reset_index()
    print(f"\nFigures [%]\n\n{simple_table(frame)}")
    plain = table[table["variant"] == PLAIN].set_index(["share", "seed"])[list(TITLES)]
    others = table[table["variant"] != PLAIN].set_index(["share", "seed"])
    gains = others[list(TITLES)] - plain.reindex(others.index)
    groups = gains.assign(variant=others["variant"]).reset_index().groupby(keys, sort=False)
    figures = {
        TITLES[key]: with_spread(groups[key].mean(), groups[key].std(), "+") for key in ("accuracy", "auroc", "fpr95")
    }
    frame = pd.DataFrame(figures, index=groups.size().index).reset_index()
    print(f"\nChange against plain [%]\n\n{simple_table(frame)}")


def main(argv=None):
    """Run all seeds and shares, print the tables, and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.5], help="of images on the picture of the class")
    parser.add_argument("--patches", type=float, nargs="*", default=[], help="further patch sizes beside 0.25")
    parser.add_argument("--donors", choices=["batch", "training set"], default="batch")
    parser.add_argument("--images", type=int, default=2000, help="number of training images")
    parser.add_argument("--test-images", type=int, default=1000, help="number of known and of unknown test images")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=500, help="training steps of 32 images")
    parser.add_argument(
        "--json", type=Path, metavar="PATH", help="also write the figures to a file, after each training"
    )
    parser.add_argument("--report", type=Path, nargs="+", metavar="FILE", help="print the tables of these files")
    arguments = parser.parse_args(argv)
    if arguments.report is not None:
        report([row for file in arguments.report for row in json.loads(file.read_text())["rows"]])
        return
    rows = []
    settings = {key: value for key, value in vars(arguments).items() if key not in ("json", "report")}
    for seed, share in itertools.product(arguments.seeds, arguments.shares):
        for row in run(seed, share, arguments):
            print(
                {key: round(value, 2) if isinstance(value, float) else value for key, value in row.items()}, flush=True
            )
            rows.append(row)
            if arguments.json is not None:
                document = {"settings": settings | {"torch": torch.__version__}, "rows": rows}
                arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    report(rows)


if __name__ == "__main__":
    main()
