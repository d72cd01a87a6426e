"""``skdfb evaluate``: how well a model tells known images from others."""

from typing import Annotated

import typer

from skdfb.cli._detectors import load_detector
from skdfb.cli._options import Debug, Device, Json, Model, NJobs, Ood, Seed, ood_folders
from skdfb.cli._output import write, write_json, write_table

__all__ = ["KnownFolder", "evaluate"]

KnownFolder = Annotated[
    str,
    typer.Argument(
        metavar="ID_DIR",
        help="Images of the known classes that were not in fit, in class folders for the accuracy.",
        show_default=False,
    ),
]
_COLUMNS = {
    "ood": "images",
    "n_ood": "number",
    "auroc": "AUROC",
    "auroc_low": "from",
    "auroc_high": "to",
    "fpr95": "FPR95",
    "aupr_in": "AUPR-in",
    "aupr_out": "AUPR-out",
    "ood_rejected": "rejected",
}


def evaluate(
    model: Model,
    known: KnownFolder,
    ood: Ood,
    n_jobs: NJobs = None,
    device: Device = "auto",
    seed: Seed = 0,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure how well a model tells known images from others.

    'from' and 'to' are the 95 % confidence interval of the AUROC by bootstrap.
    """
    folders = ood_folders(ood)
    detector = load_detector(model, device, n_jobs)
    from skdfb.evaluation import evaluate as evaluate_detector

    table = evaluate_detector(detector, known, folders, random_state=seed)
    rows = [dict(zip(table, values, strict=True)) for values in zip(*(table[name] for name in table), strict=True)]
    if json:
        write_json(rows)
        return
    first = rows[0]
    # NaN, which is unequal to itself, without class folders.
    accuracy = "" if first["accuracy"] != first["accuracy"] else f", accuracy {first['accuracy']:.1%}"
    write(f"{first['n_id']} known images: {first['id_rejected']:.1%} rejected{accuracy}")
    write_table([[row[name] for name in _COLUMNS] for row in rows], tuple(_COLUMNS.values()))
