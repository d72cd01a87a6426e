"""BackMix against the same trainings without it, on the experiments of ``real_images.py``.

With BackMix, the classifier trains with it, and the dense network that follows does or does not; at its default
parameters, which are its authors'. All else is equal, the steps and the seeds too. Reported are the plain classifier of
the first stage and the whole detector, for every scorer::

    python benchmarks/back_mix.py --networks kept --json back_mix.json

Takes the options of ``real_images.py``, whose networks it reads, where ``--networks`` has them. Parts may be run apart
and reported together, by ``--report FILES``.
"""

import pandas as pd
from real_images import (
    DEFAULT_NETWORK,
    FUSIONS,
    SCORERS,
    MapsMadeOnce,
    NoMasks,
    Shown,
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

WITHOUT, BOTH, CLASSIFIER = "without", "both stages", "classifier alone"
# The augmentations of classifier and dense network, and what tells the files of their networks apart.
VARIANTS = {
    WITHOUT: ((None, ""), (None, "")),
    BOTH: ((BackMix(), "-BackMix"), (BackMix(), "-BackMix")),
    CLASSIFIER: ((BackMix(), "-BackMix"), (None, "-after-BackMix")),
}
SYSTEMS = {"plain": (None, ["foreground_plain"]), "DFB": FUSIONS["default"]}


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
    """Return figures of all scorers, and accuracies, of all variants."""
    data, rows, notes = load(experiment, seed, arguments), [], []
    for variant in VARIANTS:
        detector = fit(experiment, seed, variant, data, arguments)
        labels = {"experiment": experiment, "seed": seed, "variant": variant}
        notes.append(labels | {f"accuracy_{name}": 100 * value for name, value in accuracies(detector, data).items()})
        print(notes[-1], flush=True)
        shown = Shown(detector, data)
        for scorer in SCORERS:
            parts, learning = shown.part_scores(scorer)
            for system, (fusion, names) in SYSTEMS.items():
                if (system, variant) == ("plain", CLASSIFIER):  # which is that of both stages
                    continue
                scores = joint_scores(parts, learning, fusion, names, scorer_output(scorer))
                rows += rows_of(scores, system=system, scorer=type(scorer).__name__, **labels)
    return rows, notes


def gain_table(table, by):
    """Return figures without BackMix, and what it gains with its spread over seeds, for each of ``by``."""
    keys = ["system", *by]
    figures = table.groupby([*keys, "seed", "variant"], sort=False)[FIGURES].mean().unstack("variant")
    columns = {}
    for figure in FIGURES:
        without = figures[figure][WITHOUT]
        columns[f"{TITLES[figure]} {WITHOUT}"] = without.groupby(keys, sort=False).mean().map("{:.1f}".format)
        for variant in (BOTH, CLASSIFIER):
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
