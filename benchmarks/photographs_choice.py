"""Choose the parts of the default joint score on photographs, without the images of ``photographs.py``.

Known and unknown classes of eight trials:

- ``scenes``: three times four known classes of six; each class is unknown once.
- ``grey``: grey scenes, 40 training images per class.
- ``cifar``: training images of CIFAR-10, four known classes of a reported split; unknown are two classes that are known
  in all reported splits.
- ``flowers``: two known classes of a reported split; unknown is dandelion, which is known in all reported splits.

The far OOD sets are textures, scenes and photographs of ImageNet, as in ``photographs.py``, but other images: no OOD
image there is one here. Each candidate joins the foreground score, for each scorer, with other parts. The table has its
gain over the best scorer of frozen features::

    python benchmarks/photographs_choice.py --data DATA --weights tf_efficientnet_lite0.safetensors --networks kept \
        --json choice.json

``--report FILES`` prints the table. The options are those of ``photographs.py``.
"""

import numpy as np
import pandas as pd
from photographs import (
    CIFAR_SPLITS,
    N_CIFAR,
    OWN_SUBJECTS,
    S_B,
    SCORERS,
    Data,
    Views,
    as_cifar,
    fit,
    load_photographs,
    make_trainer,
    parse,
    rows_of,
    rows_of_trials,
)
from photographs_tables import FAR, UNKNOWN, with_means
from real_images import read_pack
from real_images_tables import simple_table

from skdfb.evaluation import open_set_protocol
from skdfb.fusion import TailProbabilityFusion
from skdfb.networks._stages import trunk_stages
from skdfb.scorers import KNN, Energy, Mahalanobis, RelativeMahalanobis

N_TEST = 300  # known test images, and images of each OOD set, at most
SCENES = (("buildings", "forest"), ("glacier", "sea"), ("mountain", "street"))
N_GREY = 40
# Known in all reported splits: automobile, horse, truck.
LEFT_OUT = {0: (0, (1, 7)), 1: (1, (7, 9))}
TRIALS = ("scenes-0", "scenes-1", "scenes-2", "grey-0", "cifar-0", "cifar-1", "flowers-0", "flowers-1")


def load(trial, folder):
    """Return the images of a trial."""
    name, _, seed = trial.partition("-")
    seed = int(seed)
    rng = np.random.default_rng(100 + seed)
    data = {"scenes": scenes, "grey": grey, "cifar": cifar, "flowers": flowers}[name](seed, folder, rng)
    own = "scenes" if name == "grey" else name
    # Of each pack photographs.py reports on the other half, which begins with the first image.
    sets = {key: read_pack(folder / f"{key}160.npz", 160)[0][1::2] for key in ("textures", "scenes") if key != own}
    if own != "cifar":
        sets["ImageNet"] = imagenet(own, folder)
    for key, X in sets.items():
        X = X[rng.permutation(len(X))[:N_TEST]]
        data.ood[key] = as_cifar(X, folder) if own == "cifar" else X
    if name == "grey":
        data.ood = {key: as_grey(X) for key, X in data.ood.items()}
    return data


def imagenet(own, folder):
    """Return photographs of ImageNet without the subjects of a set, of the half that is not OOD for flowers."""
    X, y, classes = read_pack(folder / "imagenet160.npz", 160)
    subjects = np.array([text.partition("_")[2] for text in classes])[y]
    of_flowers, of_set = (np.isin(subjects, OWN_SUBJECTS[name].split(", ")) for name in ("flowers", own))
    half = np.flatnonzero(~of_flowers)[1::2]
    return X[half[~of_set[half]]]


def as_grey(X):
    """Return grey images, still of three channels."""
    return np.repeat(X.mean(axis=3, keepdims=True), 3, axis=3).round().astype(np.uint8)


def divided(X, labels, unknown, rng, n_train, known=None):
    """Return known and unknown classes of labelled images, at most ``n_train`` training images per class."""
    known = [name for name in np.unique(labels) if name not in unknown] if known is None else known
    rows = {name: rng.permutation(np.flatnonzero(labels == name)) for name in [*known, *unknown]}
    n_train = min(n_train, min(3 * len(rows[name]) // 4 for name in known))
    train = np.concatenate([rows[name][:n_train] for name in known])
    test = rng.permutation(np.concatenate([rows[name][n_train:] for name in known]))[:N_TEST]
    out = np.concatenate([rows[name] for name in unknown])
    out = rng.permutation(out[out % 2 == 1])[:N_TEST]  # scenes of the other rows are OOD in photographs.py
    return Data(X[train], labels[train], X[test], labels[test], {"unknown classes": X[out]})


def scenes(seed, folder, rng):
    """Return four known scenes of six."""
    X, y, classes = read_pack(folder / "scenes160.npz", 160)
    return divided(X, np.asarray(classes)[y], SCENES[seed], rng, 225)


def grey(seed, folder, rng):
    """Return a few grey scenes of each class."""
    X, y, classes = read_pack(folder / "scenes160.npz", 160)
    data = divided(X, np.asarray(classes)[y], SCENES[seed], rng, N_GREY)
    data.X, data.X_test = as_grey(data.X), as_grey(data.X_test)
    return data


def cifar(seed, folder, rng):
    """Return classes of a reported split of CIFAR-10 without two of them, and these as unknown ones."""
    X, y, classes = read_pack(folder / "cifar10_train.npz", 32)
    split, unknown = LEFT_OUT[seed]
    known = [k for k in open_set_protocol("cifar10-6/4")[CIFAR_SPLITS[split]][0] if k not in unknown]
    names = np.asarray(classes)
    return divided(X, names[y], names[list(unknown)], rng, N_CIFAR, names[known])


def flowers(seed, folder, rng):
    """Return the training images of a reported split without dandelions, and these as unknown ones."""
    data = load_photographs("flowers", 2 * seed, folder)
    return divided(data.X, data.y, ["dandelion"], rng, 225)


# The parts: a view and a scorer; None is the scorer that the candidate is tried with.
NEAR, RELATIVE = Mahalanobis(shrinkage="auto", normalize=True), RelativeMahalanobis("auto", normalize=True)
DENSE, CLASSIFIER, FROZEN = ("dense", None), ("classifier", None), ("pretrained", None)
PRE, PRE_RELATIVE, PRE_KNN = ("pretrained", NEAR), ("pretrained", RELATIVE), ("pretrained", KNN())
LAST, LAST_RELATIVE = ("dense.last", NEAR), ("dense.last", RELATIVE)
TRUNK, TRUNK_2, TRUNK_RELATIVE = ("dense.trunk", NEAR), ("dense.trunk_2", NEAR), ("dense.trunk", RELATIVE)
BACKGROUND = [("background", S_B[2]), ("background", Mahalanobis(shrinkage="auto"))]
CANDIDATES = {
    "foreground": [DENSE],
    "foreground, background": [DENSE, *BACKGROUND],
    "default before": [DENSE, LAST, PRE, TRUNK, TRUNK_2],
    "default before, relative": [DENSE, LAST_RELATIVE, PRE_RELATIVE, TRUNK_RELATIVE],
    "default before, background": [DENSE, LAST, PRE, TRUNK, TRUNK_2, *BACKGROUND],
    "pre-trained": [DENSE, PRE],
    "pre-trained relative": [DENSE, PRE_RELATIVE],
    "pre-trained both": [DENSE, PRE_RELATIVE, PRE],
    "pre-trained both, trunk": [DENSE, PRE_RELATIVE, PRE, TRUNK],
    "classifier, pre-trained both": [DENSE, CLASSIFIER, PRE_RELATIVE, PRE],
    "default": [DENSE, CLASSIFIER, PRE_RELATIVE, PRE, TRUNK],
    "default, relative trunk": [DENSE, CLASSIFIER, PRE_RELATIVE, PRE, TRUNK_RELATIVE],
    "default, two of trunk": [DENSE, CLASSIFIER, PRE_RELATIVE, PRE, TRUNK, TRUNK_2],
    "default, last level": [DENSE, CLASSIFIER, LAST, PRE_RELATIVE, PRE, TRUNK],
    "default, neighbours": [DENSE, CLASSIFIER, PRE_RELATIVE, PRE, PRE_KNN, TRUNK],
    "default, frozen": [DENSE, CLASSIFIER, FROZEN, PRE_RELATIVE, PRE, TRUNK],
    "default, background": [DENSE, CLASSIFIER, PRE_RELATIVE, PRE, TRUNK, *BACKGROUND],
    "no network before training": [DENSE, TRUNK],
    "the same, two of trunk, last level": [DENSE, LAST, TRUNK, TRUNK_2],
    "the same, classifier": [DENSE, CLASSIFIER, LAST, TRUNK, TRUNK_2],
}
OPPONENT = "frozen"
FUSIONS = {"": TailProbabilityFusion(), ", Fisher": TailProbabilityFusion("fisher")}


def views_of(trial, data, arguments):
    """Return the views of the default's networks on the data, and the layers by their names in the candidates."""
    trainers = [make_trainer(arguments, f"choice-{trial}-{stage}") for stage in ("classifier", "dense")]
    detector, _ = fit(data, int(trial[-1]), arguments, *trainers, scorer=Energy())
    backbone = detector.dense_network_.feature_map.backbone
    *_, second, last = trunk_stages(backbone)
    layers = {"dense.trunk": f"dense.{last}", "dense.trunk_2": f"dense.{second}"}
    layers["dense.last"] = f"dense.{backbone.feature_info[-1]['module']}"
    return Views(detector, data, ["classifier", "dense", "background", "pretrained", *layers.values()]), layers


def run(trial, arguments):
    """Return the rows of a trial."""
    data = load(trial, arguments.data)
    views, layers = views_of(trial, data, arguments)
    known = {}

    def scores(view, scorer):
        """Return the scores of a part on the held-out images and on each set; each is computed once."""
        key = view, repr(scorer)
        if key not in known:
            known[key] = views.part_scores(layers.get(view, view), scorer)
        return known[key]

    rows = []
    for title, scorer in SCORERS.items():
        frozen = scores("pretrained", scorer)[1]
        rows += rows_of(frozen, views.predicted("pretrained"), data, trial=trial, method=OPPONENT, scorer=title)
        for name, parts in CANDIDATES.items():
            held_out, new = zip(*(scores(view, scorer if own is None else own) for view, own in parts), strict=True)
            for mark, fusion in FUSIONS.items():
                joint = joined(fusion, held_out, new)
                rows += rows_of(joint, views.predicted("dense"), data, trial=trial, method=name + mark, scorer=title)
    return rows


def joined(fusion, held_out, new):
    """Return the joint scores of each set. The first half of the held-out images fits the fusion, as in a detector."""
    if len(held_out) == 1:
        return new[0]
    half = len(held_out[0]) // 2
    fusion.fit({str(index): part[:half] for index, part in enumerate(held_out)})
    return {key: fusion.combine({str(index): part[key] for index, part in enumerate(new)}) for key in new[0]}


def report(rows):
    """Print how far the best scorer of each candidate is ahead of frozen features, by kind of trial."""
    table = pd.DataFrame(rows)
    kinds = {"grey": "scenes"}
    table = table.assign(set=[kinds.get(name := text[:-2], name) for text in table["trial"]], seed=table["trial"])
    table = with_means(table)
    means = table[table["ood"].isin([FAR, UNKNOWN])].groupby(["set", "ood", "method", "scorer"], sort=False)
    means = means[["auroc", "fpr95"]].mean().groupby(["set", "ood", "method"], sort=False)
    best = pd.DataFrame({"auroc": means["auroc"].max(), "fpr95": means["fpr95"].min()})
    gain = best - best.xs(OPPONENT, level="method").reindex(best.index.droplevel("method")).to_numpy()
    gain = gain.drop(index=OPPONENT, level="method")
    over_sets = pd.concat({"mean": gain.groupby(["ood", "method"], sort=False).mean()}, names=["set"])
    gain = pd.concat([gain, over_sets])
    cells = gain["auroc"].map("{:+.1f}".format) + " / " + gain["fpr95"].map("{:+.1f}".format)
    for ood in (FAR, UNKNOWN):
        print(f"\n{ood}: gain over the best scorer of frozen features, AUROC / FPR95 [%]\n")
        frame = cells.xs(ood, level="ood").unstack("set")
        order = [name for name in table["method"].unique() if name != OPPONENT]
        print(simple_table(frame[[*dict.fromkeys(table["set"]), "mean"]].reindex(order).reset_index()))


def main(argv=None):
    """Run the trials, write the JSON file and print the table."""
    arguments = parse(argv, __doc__, TRIALS)
    report(rows_of_trials(arguments, run))


if __name__ == "__main__":
    main()
