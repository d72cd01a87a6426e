"""The check of parts that all fusions share."""

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
        If parts has other names, or its scores are not finite 1-d arrays of one length.
    """
    part_names = list(part_names)
    # The order of a mapping has no meaning: parts are found by name, never by position.
    if set(parts) != set(part_names):
        raise ValueError(f"Expected parts with the names given to fit, {part_names}, got {list(parts)}.")
    arrays = [check_scores(parts[name], f"parts[{name!r}]") for name in part_names]
    sizes = [array.size for array in arrays]
    if len(set(sizes)) > 1:
        raise ValueError(f"Expected one score per image in each part, got {sizes} scores in the parts {part_names}.")
    return arrays
