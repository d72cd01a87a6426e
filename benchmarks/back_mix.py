"""Compare trainings with BackMix with the same trainings without it, on the experiments of ``real_images.py``.

BackMix has its default parameters, which are its authors'. The classifier trains with it, and the dense network after
it trains with or without it. All else is the same, also the steps and the seeds. The tables have the plain classifier
of the first stage and the whole detector, for every scorer::

    python benchmarks/back_mix.py --networks kept --json back_mix.json

The options are those of ``real_images.py``; networks of that benchmark in the folder ``--networks`` are read instead of
trained. ``--report FILES`` prints the tables of several parts together.
"""

import pandas as pd
from real_images import (
    CLASSIFIER,
    DEFAULT_NETWORK,
    FUSIONS,
    SCORERS,
    MapsMadeOnce,
    NoMasks,
    ScoredSets,
    accuracies,
    joint_scores,
    load,
    make_detector,
    make_trainer,
    measure,
    measured_before,
    parse,
    rows_of,
)
from real_images_tables import FIGURES, TITLES, accuracy_table, simple_table, with_spread

from skdfb.augmentation import BackMix
from skdfb.scorers import scorer_output

WITHOUT, BOTH, CLASSIFIER_ALONE = "without", "both stages", "classifier alone"
# The augmentations of classifier and dense network, and the marks in the names of their files.
VARIANTS = {
    WITHOUT: ((None, ""), (None, "")),
    BOTH: ((BackMix(), "-BackMix"), (BackMix(), "-BackMix")),
    CLASSIFIER_ALONE: ((BackMix(), "-BackMix"), (None, "-after-BackMix")),
}
SYSTEMS = {"plain": (None, [CLASSIFIER]), "DFB": FUSIONS["default"]}


def fit(experiment, seed, variant, data, arguments):
    """Return the fitted detector of a variant."""
    names = "classifier", DEFAULT_NETWORK.replace(" ", "-")
    classifier, dense = (
        make_trainer(
            experiment, arguments, f"{experiment}-{seed}{mark}-{name}", dense=name != "classifier", augmentation=mixer
        )
        for name, (mixer, mark) in zip(names, VARIANTS[variant], strict=True)
    )
    is_kept = dense.file is not None and dense.file.is_file()
    detector = make_detector(experiment, seed, arguments)
    detector.set_params(
        classifier_trainer=classifier, dense_trainer=dense, mask_generator=NoMasks() if is_kept else MapsMadeOnce()
    )
    return detector.fit(data.X, data.y)


def run(experiment, seed, arguments):
    """Return the rows of all scorers and the accuracies, for all variants."""
    data, rows, notes = load(experiment, seed, arguments), [], []
    for variant in VARIANTS:
        detector = fit(experiment, seed, variant, data, arguments)
        labels = {"experiment": experiment, "seed": seed, "variant": variant}
        notes.append(labels | {f"accuracy_{name}": 100 * value for name, value in accuracies(detector, data).items()})
        print(notes[-1], flush=True)
        sets = ScoredSets(detector, data)
        for scorer in SCORERS:
            parts, learning = sets.part_scores(scorer)
            for system, (fusion, names) in SYSTEMS.items():
                if (system, variant) == ("plain", CLASSIFIER_ALONE):  # the same classifier as in "both stages"
                    continue
                scores = joint_scores(parts, learning, fusion, names, scorer_output(scorer))
                rows += rows_of(scores, system=system, scorer=type(scorer).__name__, **labels)
    return rows, notes


def gain_table(table, by):
    """Return the figures without BackMix, and the gain of BackMix with its spread over seeds, for each of ``by``."""
    keys = ["system", *by]
    figures = table.groupby([*keys, "seed", "variant"], sort=False)[FIGURES].mean().unstack("variant")
    columns = {}
    for figure in FIGURES:
        without = figures[figure][WITHOUT]
        columns[f"{TITLES[figure]} {WITHOUT}"] = without.groupby(keys, sort=False).mean().map("{:.1f}".format)
        for variant in (BOTH, CLASSIFIER_ALONE):
            gain = (figures[figure][variant] - without).groupby(keys, sort=False)
            columns[f"{TITLES[figure]} {variant}"] = with_spread(gain.mean(), gain.std(), "+")
    return pd.DataFrame(columns).reset_index()


def report(table, notes):
    """Print all tables, in percent."""
    titled = {
        "Accuracy": accuracy_table(notes, "variant"),
        "Mean of all scorers": gain_table(table, ["experiment", "ood"]),
        "Every scorer, mean of all OOD sets": gain_table(table, ["experiment", "scorer"]),
    }
    for title, frame in titled.items():
        print(f"\n{title} [%]\n\n{simple_table(frame)}")


def main(argv=None):
    """Run the experiments, print their tables, and write the JSON file."""
    arguments = parse(argv, __doc__)
    rows, notes = measured_before(arguments.report) if arguments.report is not None else measure(arguments, run)
    if rows:
        report(pd.DataFrame(rows), pd.DataFrame(notes))


if __name__ == "__main__":
    main()
