"""The tables that the functions of this package return, and the metrics in them."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils import Bunch

from skdfb.evaluation._detectors import listed
from skdfb.metrics import aupr_score, auroc_score, fpr_at_tpr

__all__ = ["METRICS", "Table", "check_ood", "metric_values"]

METRICS = ("auroc", "aupr_in", "aupr_out", "fpr95")


class Table(Bunch):
    """Columns of equal length by name: a dict of arrays, which are attributes as well.

    Parameters
    ----------
    **columns : array-like of shape (n_rows,)
        The columns by name.

    Raises
    ------
    ValueError
        If the columns are not 1-d arrays of one length.

    Examples
    --------
    >>> from skdfb.evaluation import Table
    >>> table = Table(ood=["noise", "textures"], auroc=[0.99, 0.914])
    >>> table.auroc.max()
    np.float64(0.99)
    >>> table
    ood       auroc
    noise     0.99
    textures  0.914
    """

    def __init__(self, **columns: Any) -> None:
        arrays = {name: _as_array(values) for name, values in columns.items()}
        shapes = {name: array.shape for name, array in arrays.items()}
        if any(len(shape) != 1 for shape in shapes.values()) or len(set(shapes.values())) > 1:
            raise ValueError(f"Expected 1-d columns of one length, got the shapes {shapes}.")
        super().__init__(**arrays)

    @classmethod
    def from_rows(cls, rows: Sequence[Mapping[str, Any]]) -> "Table":
        """Return the table of rows that all have the same columns.

        Parameters
        ----------
        rows : sequence of mappings
            Values by the name of the column.

        Returns
        -------
        table : Table
            Its columns are in the order of the first row.

        Raises
        ------
        ValueError
            If there are no rows, or a row has other columns than the first one.
        """
        if not len(rows):
            raise ValueError("Expected at least one row, got none.")
        other = next((row for row in rows if set(row) != set(rows[0])), None)
        if other is not None:
            raise ValueError(f"Expected the columns {list(rows[0])} in each row, got {list(other)}.")
        return cls(**{column: [row[column] for row in rows] for column in rows[0]})

    def to_frame(self) -> Any:
        """Return the table as a data frame.

        Returns
        -------
        frame : pandas.DataFrame
            With the same columns.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("to_frame() needs pandas: run pip install pandas.") from error
        return pd.DataFrame(dict(self))

    def __dir__(self) -> list[str]:
        # A Bunch lists its items alone, so tab completion would not find to_frame.
        return sorted({*self, *object.__dir__(self)})

    def __repr__(self) -> str:
        # A column that was assigned after the table was made may be a list.
        cells = [[name, *map(_as_text, _as_array(values).tolist())] for name, values in self.items()]
        widths = [max(map(len, column)) for column in cells]
        lines = zip(*cells, strict=True)
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _as_array(values: Any) -> npt.NDArray[Any]:
    array = np.asarray(values)
    # Texts are stored as objects, so that an item is a Python string and not an np.str_.
    return np.asarray(values, dtype=object) if array.dtype.kind in "US" else array


def _as_text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def metric_values(id_scores: npt.ArrayLike, ood_scores: npt.ArrayLike) -> dict[str, float]:
    """Return the metrics by the name of their column; in-distribution is the positive class except in ``aupr_out``."""
    return {
        "auroc": auroc_score(id_scores, ood_scores),
        "aupr_in": aupr_score(id_scores, ood_scores, positive="id"),
        "aupr_out": aupr_score(id_scores, ood_scores, positive="ood"),
        "fpr95": fpr_at_tpr(id_scores, ood_scores, tpr=0.95),
    }


def check_ood(ood: Any) -> dict[str, Any]:
    """Return OOD images by name, those of folders as lists of paths; refuse images without names."""
    if not isinstance(ood, Mapping) or not ood:
        given, example = f"a {type(ood).__name__}", "X_noise"
        if isinstance(ood, str | os.PathLike):
            given, example = f"the path {str(ood)!r}", repr(str(ood))
        given = "empty" if isinstance(ood, Mapping) else given
        raise TypeError(f"ood is {given}: expected OOD images by name, like {{'noise': {example}}}.")
    return {name: listed(X, f"ood[{name!r}]") for name, X in ood.items()}
