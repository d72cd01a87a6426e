"""Draw ``docs/_static/scorers.png``: how much the choice of a scorer matters, from the results of photographs.py.

Run it in the root of the repository: ``python docs/figures/make_scorers.py``.
"""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

ROOT = Path(__file__).parents[2]
SETS = ("flowers", "cifar")  # scenes.json is the set that the defaults were chosen on
# A ring around a square: both are visible where they have the same figure.
METHODS = {
    "DFB": {"label": "DFB, default parts", "color": "tab:blue", "marker": "s", "markersize": 6},
    "frozen": {
        "label": "frozen features",
        "color": "tab:orange",
        "marker": "o",
        "markersize": 11,
        "fillstyle": "none",
        "markeredgewidth": 2.5,
    },
}
UNKNOWN = "unknown classes"


def read_results() -> pd.DataFrame:
    """Return the rows of the two reported sets, of all seeds."""
    files = [path for name in SETS for path in sorted(ROOT.glob(f"benchmarks/results/photographs-{name}-*.json"))]
    return pd.concat([pd.DataFrame(json.loads(path.read_text())["rows"]) for path in files], ignore_index=True)


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the mean AUROC of each scorer and method: over OOD sets, then seeds, then the two sets."""
    for keys in (["set", "seed", "method", "scorer"], ["set", "method", "scorer"], ["method", "scorer"]):
        rows = rows.groupby(keys, sort=False)["auroc"].mean().reset_index()
    return rows.pivot(index="scorer", columns="method", values="auroc")


def draw(path: Path) -> None:
    """Save one panel for unknown classes and one for all other OOD sets."""
    rows = read_results()
    panels = {"unknown classes": rows["ood"] == UNKNOWN, "all other OOD sets": rows["ood"] != UNKNOWN}
    order = means(rows)["frozen"].sort_values().index
    figure, axes = plt.subplots(2, 1, figsize=(6, 8), sharex=True, layout="constrained")  # for phones
    for axis, (title, chosen) in zip(axes, panels.items(), strict=True):
        table = means(rows[chosen]).reindex(order)
        for method, style in METHODS.items():
            axis.plot(table[method], range(len(table)), linestyle="none", **style)
        axis.set(title=title, xlim=(55, 101))
        axis.grid(alpha=0.4)
        axis.set_axisbelow(True)
        axis.set_yticks(range(len(order)), order)
    axes[-1].set_xlabel("AUROC [%]")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    plt.rcParams.update({"font.size": 13})
    draw(ROOT / "docs" / "_static" / "scorers.png")
