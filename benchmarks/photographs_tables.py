"""The tables of ``benchmarks/photographs.py``, from its rows of figures."""

import pandas as pd
from real_images_tables import simple_table

OPPONENTS = ["plain", "control", "frozen"]
# The set that the defaults were chosen on is grey, and below the reported ones.
BARS = {"flowers": "tab:orange", "cifar": "tab:blue", "scenes": "0.7"}
UNKNOWN = "unknown classes"
FAR = "all OOD sets"


def pairs(table, by):
    """Return "AUROC / FPR95" by the keys ``by``, as means over seeds."""
    means = table.groupby(by, sort=False)[["auroc", "fpr95"]].mean()
    return means["auroc"].map("{:.1f}".format) + " / " + means["fpr95"].map("{:.1f}".format)


def with_means(table):
    """Return the rows with a further one for the mean of all OOD sets of each set, seed, method and scorer."""
    keys = ["set", "seed", "method", "scorer"]
    means = table.groupby(keys, sort=False)[["auroc", "fpr95"]].mean().reset_index()
    return pd.concat([table, means.assign(ood=FAR)], ignore_index=True)


def best(table, methods):
    """Return the rows of the best scorer of each set and method, by the mean AUROC of all OOD sets and seeds."""
    table = table[table["method"].isin(methods)]
    means = table[table["ood"] == FAR].groupby(["set", "method", "scorer"], sort=False)["auroc"].mean()
    chosen = means.groupby(["set", "method"], sort=False).idxmax().tolist()
    keys = pd.MultiIndex.from_frame(table[["set", "method", "scorer"]])
    return table[keys.isin(chosen)]


def report(table, notes):
    """Print all tables, in percent."""
    table = with_means(table)
    methods = list(table["method"].unique())
    for title, frame in tables_of(table, notes, methods):
        print(f"\n{title}\n\n{simple_table(frame.astype(object).fillna(''))}")


def tables_of(table, notes, methods):
    """Yield the title and the data frame of each table."""
    yield "Accuracy [%] and seconds of the stages, means over seeds", accuracy_table(notes)
    for name, part in table.groupby("set", sort=False):
        columns = list(part["ood"].unique())
        of_best = pairs(best(part, methods), ["method", "scorer", "ood"]).unstack("ood").reindex(columns=columns)
        yield f"{name}: the best scorer of each method, AUROC / FPR95 [%]", of_best.reset_index()
        everywhere = part[part["ood"].isin([UNKNOWN, FAR])]
        for ood in (FAR, UNKNOWN):
            each = pairs(everywhere[everywhere["ood"] == ood], ["scorer", "method"]).unstack("method")
            yield f"{name}, {ood}: every scorer, AUROC / FPR95 [%]", each.reindex(columns=methods).reset_index()
        open_set = best(part, methods)
        open_set = open_set[open_set["ood"] == UNKNOWN].groupby(["method", "scorer"], sort=False)[["oscr", "f1"]]
        open_set = open_set.mean().round(1).astype(str).rename(columns={"oscr": "OSCR", "f1": "F1"})
        yield f"{name}, unknown classes: OSCR and open-set F1 [%]", open_set.reset_index()
    yield "The default against the best of plain, control and frozen", margins(table)


def accuracy_table(notes):
    """Return accuracy and seconds of each set and method, as means over seeds."""
    figures = [column for column in notes if column not in ("set", "seed", "method")]
    means = notes.groupby(["set", "method"], sort=False)[figures].mean().round(1)
    return means.astype(str).replace("nan", "").reset_index()


def margins(table):
    """Return how far the best scorer of each DFB method is ahead of the best opponent, and of plain on average."""
    rows = []
    for name, part in table.groupby("set", sort=False):
        means = part.groupby(["method", "scorer", "ood"], sort=False)[["auroc", "fpr95"]].mean().reset_index()
        for method in (method for method in means["method"].unique() if method not in OPPONENTS):
            row = {"set": name, "method": method}
            for ood in (FAR, UNKNOWN):
                of_ood = means[means["ood"] == ood]
                own, others = of_ood[of_ood["method"] == method], of_ood[of_ood["method"].isin(OPPONENTS)]
                row[f"{ood}: AUROC"] = f"{own['auroc'].max() - others['auroc'].max():+.1f}"
                row[f"{ood}: FPR95"] = f"{own['fpr95'].min() - others['fpr95'].min():+.1f}"
            over_all = means[means["ood"] == FAR].pivot(index="scorer", columns="method", values=["auroc", "fpr95"])
            gain = {figure: over_all[figure][method] - over_all[figure]["plain"] for figure in ("auroc", "fpr95")}
            row["gain over plain, all scorers"] = f"{gain['auroc'].mean():+.1f} / {gain['fpr95'].mean():+.1f}"
            row["worst scorer's gain"] = f"{gain['auroc'].min():+.1f}"
            rows.append(row)
    return pd.DataFrame(rows)


def draw_chart(table, path):
    """Save bars of the mean AUROC of each method's best scorer, near the known classes and far from them."""
    import matplotlib.pyplot as plt

    table = best(with_means(table), list(table["method"].unique()))
    table = table[(table["ood"] != FAR) & (table["method"] != "classifier of DFB")]
    groups = {"unknown classes of the same set": table["ood"] == UNKNOWN, "all other OOD sets": table["ood"] != UNKNOWN}
    figure, axes = plt.subplots(2, 1, figsize=(6, 8), sharex=True, layout="constrained")  # for phones
    for axis, (title, rows) in zip(axes, groups.items(), strict=True):
        means = table[rows].groupby(["method", "set"], sort=False)["auroc"].mean().unstack("set")
        # The opponents first, from the top.
        means = means.reindex(OPPONENTS + [method for method in means.index if method not in OPPONENTS])[::-1]
        names = [name for name in BARS if name in means.columns]
        means[names[::-1]].plot.barh(ax=axis, width=0.75, legend=False, color=BARS)
        axis.set(title=title, ylabel="", xlim=(50, 100))
        axis.grid(axis="x", alpha=0.4)
        axis.set_axisbelow(True)
    axes[-1].set_xlabel("AUROC [%]")
    # Outside of the axes, where it hides no bar.
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
