"""What all fusions check of the parts they are given."""

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from skdfb.utils import check_scores

__all__ = ["check_parts"]


def check_parts(parts: Mapping[str, npt.ArrayLike], part_names: Iterable[str]) -> list[npt.NDArray[np.float64]]:
    """Return the scores of each part, in the order of the names.

    Raises
    ------
    ValueError
        If parts has other names, or its scores are no finite 1-d arrays of one length.
    """
    part_names = list(part_names)
    if set(parts) != set(part_names):
        raise ValueError(f"parts has the names {list(parts)}: those given to fit are wanted, {part_names}.")
    arrays = [check_scores(parts[name], f"parts[{name!r}]") for name in part_names]
    sizes = [array.size for array in arrays]
    if len(set(sizes)) > 1:
        raise ValueError(f"parts {part_names} hold {sizes} scores: all parts must be of the same images.")
    return arrays
