"""The tables of ``benchmarks/real_images.py``, as they are in the documentation, from its rows of figures."""

import numpy as np
import pandas as pd

FIGURES = ["auroc", "fpr95"]
TITLES = {"auroc": "AUROC", "fpr95": "FPR95"}
REAL = ("textures", "open-set")  # the experiments on CIFAR-10, which have a mean of their own
DEFAULT = "default"
ACCURACIES = {"accuracy_plain": "plain", "accuracy_dfb": "DFB", "rejected": "rejected"}


def gains(table, baseline="plain"):
    """Return every figure minus that of the baseline with the same scorer, OOD set and seed."""
    keys = ["experiment", "seed", "scorer", "ood"]
    base = table[table["fusion"] == baseline].set_index(keys)[FIGURES]
    gain = table[table["fusion"] != baseline].set_index(keys)
    gain[FIGURES] = gain[FIGURES] - base.reindex(gain.index)
    return gain.reset_index()


def mean_and_spread(table, by, sign="+"):
    """Return the mean over OOD sets, then mean and standard deviation over seeds, as text "mean ± spread"."""
    groups = table.groupby([*by, "seed"], sort=False)[FIGURES].mean().groupby(by, sort=False)
    return pd.DataFrame(
        {figure: with_spread(groups[figure].mean(), groups[figure].std(), sign) for figure in FIGURES},
        index=groups.size().index,
    )


def with_spread(means, spreads, sign=""):
    """Return texts "mean ± spread"; the mean alone for a single seed (spread NaN), and "" if the mean is NaN."""
    return [
        "" if np.isnan(mean) else f"{mean:{sign}.1f}" + ("" if np.isnan(spread) else f" ± {spread:.1f}")
        for mean, spread in zip(means, spreads, strict=True)
    ]


def tables_of(table, notes, default_network):
    """Yield the title and the data frame of each table; all cells are text."""
    # Parts that were run separately may both hold the plain classifier of a seed.
    table = table.drop_duplicates(["experiment", "seed", "network", "fusion", "scorer", "ood"])
    chosen = (table["network"] == default_network) & (table["fusion"] == DEFAULT)
    compared = table[chosen | table["fusion"].isin(["plain", "control"])]
    yield "Accuracy, and share of rejected test images", accuracy_table(notes)
    for baseline in ("plain", "control"):
        if not (table["fusion"] == baseline).any():
            continue
        real = compared[compared["experiment"].isin(REAL)]
        if set(real["experiment"]) == set(REAL):
            yield (
                f"CIFAR-10, mean over textures, noise and unknown classes: DFB against {baseline}",
                compare(real, baseline),
            )
        for experiment, part in compared.groupby("experiment", sort=False):
            if (part["fusion"] == baseline).any():
                yield f"{experiment}, mean over its OOD sets: DFB against {baseline}", compare(part, baseline)
    for figure in FIGURES:
        yield f"{TITLES[figure]}, plain → DFB", by_set(compared, figure)
    yield "Best of all scorers", best_of_all(compared)
    yield "Ablation: less plain, mean of all scorers", ablation(gains(table))


def accuracy_table(notes, by="network"):
    """Return mean and spread of accuracies and rejections, one row per experiment and network (or ``by``)."""
    notes = notes.drop_duplicates(["experiment", "seed", by])
    groups = notes.groupby(["experiment", by], sort=False)
    columns = {
        title: with_spread(groups[name].mean(), groups[name].std())
        for name, title in ACCURACIES.items()
        if name in notes
    }
    return pd.DataFrame(columns, index=groups.size().index).reset_index()


def compare(table, baseline):
    """Return the figures of the baseline and of DFB and the gain of DFB, one row per scorer and one for the mean.

    Runs without the baseline are left out.
    """
    runs = ["experiment", "seed"]
    has_both = table[table["fusion"] == baseline][runs].drop_duplicates()
    table = table[table["fusion"].isin([baseline, DEFAULT])].merge(has_both, on=runs)
    gain = gains(table, baseline)
    columns = {}
    for figure in FIGURES:
        for fusion, title in ((baseline, baseline), (DEFAULT, "DFB")):
            part = table[table["fusion"] == fusion]
            columns[f"{TITLES[figure]} {title}"] = values = part.groupby("scorer", sort=False)[figure].mean()
            values["mean"] = values.mean()
        by_scorer, mean = mean_and_spread(gain, ["scorer"]), mean_and_spread(gain.assign(scorer="mean"), ["scorer"])
        columns[f"{TITLES[figure]} gain"] = pd.concat([by_scorer, mean])[figure]
    return pd.DataFrame(columns).rename_axis("scorer").reset_index().map(one_digit)


def by_set(table, figure):
    """Return one row per scorer and one column per OOD set."""
    means = table.groupby(["scorer", "ood", "fusion"], sort=False)[figure].mean().unstack("fusion")
    cells = means.map(lambda value: f"{value:.1f}")
    return (cells["plain"] + " → " + cells[DEFAULT]).unstack("ood").reset_index().rename_axis(None, axis=1)


def best_of_all(table):
    """Return the best scorer of the plain classifier and of DFB on each OOD set."""
    means = table.groupby(["ood", "fusion", "scorer"], sort=False)[FIGURES].mean()
    rows = []
    for ood in table["ood"].unique():
        row = {"OOD set": ood}
        for figure, best in (("auroc", "idxmax"), ("fpr95", "idxmin")):
            for fusion, title in (("plain", "plain"), (DEFAULT, "DFB")):
                values = means.xs((ood, fusion), level=("ood", "fusion"))[figure]
                scorer = getattr(values, best)()
                row[f"{TITLES[figure]} {title}"] = f"{values[scorer]:.1f} {scorer}"
        rows.append(row)
    return pd.DataFrame(rows)


def ablation(gain):
    """Return the mean gain of each network and fusion, and that of the worst scorer, one column per experiment."""
    by = ["experiment", "network", "fusion"]
    means = gain.groupby(by, sort=False)[FIGURES].mean()
    scorers = gain.groupby([*by, "scorer"], sort=False)[FIGURES].mean()
    worst = scorers.groupby(by, sort=False).agg({"auroc": "min", "fpr95": "max"})
    cells = pd.DataFrame(
        {
            f"{TITLES[figure]} (worst)": [
                f"{mean:+.1f} ({low:+.1f})" for mean, low in zip(means[figure], worst[figure], strict=True)
            ]
            for figure in FIGURES
        },
        index=means.index,
    )
    cells = cells.unstack("experiment", fill_value="").swaplevel(axis=1)
    experiments = list(dict.fromkeys(gain["experiment"]))
    cells = cells[
        [
            (experiment, column)
            for experiment in experiments
            for column in dict.fromkeys(cells.columns.get_level_values(1))
        ]
    ]
    cells.columns = [f"{experiment} {column}" for experiment, column in cells.columns]
    return cells.reset_index()


def one_digit(value):
    return f"{value:.1f}" if isinstance(value, float | np.floating) else value


def simple_table(frame):
    """Return a data frame as a simple table of reStructuredText."""
    rows = [list(map(str, frame.columns)), *frame.astype(str).to_numpy().tolist()]
    rows = [[cell if cell else ".." if place == 0 else "" for place, cell in enumerate(row)] for row in rows]
    # "+ " at the start of a cell would be an item of a list.
    rows = [["\\" + cell if cell.startswith("+ ") else cell for cell in row] for row in rows]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    rule = " ".join("=" * width for width in widths)
    lines = [" ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])


def report(table, notes, default_network):
    """Print all tables, in percent."""
    for title, frame in tables_of(table, notes, default_network):
        print(f"\n{title} [%]\n\n{simple_table(frame)}")
