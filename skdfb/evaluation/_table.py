"""The table that the functions of this package return."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils import Bunch

from skdfb.metrics import aupr_score, auroc_score, fpr_at_tpr

__all__ = ["METRICS", "Table", "check_ood", "metric_values"]

METRICS = ("auroc", "aupr_in", "aupr_out", "fpr95")


class Table(Bunch):
    """A table of results: a dict of columns, which are arrays of equal length and attributes as well.

    It needs no pandas. :meth:`to_frame` returns the table as a data frame.

    Parameters
    ----------
    **columns : array-like of shape (n_rows,)
        Columns by name.

    Raises
    ------
    ValueError
        If columns differ in length, or are not 1-d.

    See Also
    --------
    evaluate : Returns a table of metrics.

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
        if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
            raise ValueError(f"columns have the shapes {shapes}: expected 1-d columns of equal length.")
        super().__init__(**arrays)

    @classmethod
    def from_rows(cls, rows: Sequence[Mapping[str, Any]]) -> "Table":
        """Return the table of rows that all have the same columns.

        Parameters
        ----------
        rows : sequence of mapping of str to object
            At least one row: values by the name of the column.

        Returns
        -------
        table : Table
            Table with the columns of the first row, in that order.
        """
        return cls(**{column: [row[column] for row in rows] for column in rows[0]})

    def to_frame(self) -> Any:
        """Return the table as a data frame.

        Returns
        -------
        frame : pandas.DataFrame
            Data frame with the same columns, in the same order.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("to_frame() needs pandas, which is not installed: run pip install pandas.") from error
        return pd.DataFrame(dict(self))

    def __dir__(self) -> list[str]:
        # A Bunch lists only its items, so that tab completion would not find to_frame.
        return sorted({*self, *object.__dir__(self)})

    def __repr__(self) -> str:
        # A column of texts, with the name of the column first.
        cells = [[name, *(_as_text(value) for value in values.tolist())] for name, values in self.items()]
        widths = [max(map(len, column)) for column in cells]
        lines = zip(*cells, strict=True)
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _as_array(values: Any) -> npt.NDArray[Any]:
    """Return a column as an array; texts as an object array, so that its items are Python's own strings."""
    # NumPy's own texts have a fixed width, and their items would be np.str_.
    array = np.asarray(values)
    return np.asarray(values, dtype=object) if array.dtype.kind in "US" else array


def _as_text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def metric_values(id_scores: npt.ArrayLike, ood_scores: npt.ArrayLike) -> dict[str, float]:
    """Return the metrics by the name of their column; in-distribution is positive except for ``aupr_out``."""
    return {
        "auroc": auroc_score(id_scores, ood_scores),
        "aupr_in": aupr_score(id_scores, ood_scores, positive="id"),
        "aupr_out": aupr_score(id_scores, ood_scores, positive="ood"),
        "fpr95": fpr_at_tpr(id_scores, ood_scores, tpr=0.95),
    }


def check_ood(ood: Any) -> None:
    """Refuse OOD images without names."""
    if not isinstance(ood, Mapping) or not ood:
        given = "empty" if isinstance(ood, Mapping) else f"a {type(ood).__name__}"
        raise TypeError(f"ood is {given}: expected a mapping from names to OOD images, like {{'noise': X_noise}}.")
