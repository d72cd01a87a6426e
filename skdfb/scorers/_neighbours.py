"""Exact search for the nearest features in a bank of training features, by matrix products in bounded memory."""

import math
from collections.abc import Iterator
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import RealNotInt
from torch import Tensor

from skdfb._constraints import RANDOM_STATE, Interval
from skdfb.scorers._base import as_double, may_be_any, product, wide
from skdfb.scorers._representation import Representation

BANK_CONSTRAINTS: dict[str, list[Any]] = {
    "n_neighbors": [Interval(Integral, 1, None, closed="left")],
    "bank_size": [Interval(Integral, 1, None, closed="left"), Interval(RealNotInt, 0, 1, closed="right"), None],
    "random_state": RANDOM_STATE,
}

# Rows of the bank in one product: large enough for full speed, few compared with the whole bank.
_BANK_ROWS = 8192
# Images scored at once: the whole bank is read once for each such batch.
QUERIES = 1024
# Images read at once while the bank is filled.
_ROWS = 512
# Additional candidates on either side of the requested ranks. Float64 decides the order among all candidates.
_SPARE = 8
# Numbers of the bank that are gathered at once: few enough for a processor's cache. Accelerators want large pieces.
_GATHERED, _GATHERED_ELSEWHERE = 2**18, 2**24


def unit_rows(features: Tensor) -> Tensor:
    """Return h / ||h|| of each row in float64; rows of zeros, which have no direction, stay zeros."""
    h = as_double(features)
    # After the division by the largest entry, no square can overflow or underflow.
    h = h / h.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(h.dtype).tiny)
    unit: Tensor = h / h.square().sum(dim=1, keepdim=True).sqrt().clamp(min=1.0)
    return unit


def narrow_unit_rows(features: Tensor) -> Tensor:
    """Return `unit_rows` in float32; float32 features of ordinary size are normalised in float32, which is faster."""
    if features.dtype != torch.float64:
        h = wide(features)
        # Between these bounds, float32 can hold the squares.
        norms: Tensor = torch.linalg.vector_norm(h, dim=1, keepdim=True)
        others = ~((norms > 1e-15) & (norms < 1e15))
        rows: Tensor = h / norms
        return torch.where(others, unit_rows(features).float(), rows) if may_be_any(others) else rows
    return unit_rows(features).float()


def count_images(n: int, bank_size: int | float | None) -> int:
    """Return the number of images of the bank, of n training images: all for None, a share for a float."""
    size = n if bank_size is None else bank_size
    if not isinstance(size, Integral):
        size = max(1, round(size * n))
    return int(min(size, n))


def draw_images(n: int, bank_size: int | float | None, random_state: Any) -> NDArray[np.int64]:
    """Return the sorted indices of the images of the bank, `count_images` of them."""
    size = count_images(n, bank_size)
    if size == n:
        return np.arange(n)
    chosen: NDArray[np.int64] = check_random_state(random_state).choice(n, size, replace=False)
    return np.sort(chosen)


def check_bank(n_neighbors: int, n: int, bank_size: int | float | None) -> None:
    """Raise ValueError if the bank drawn from n training images has fewer images than `n_neighbors`."""
    size = count_images(n, bank_size)
    if n_neighbors > size:
        raise ValueError(
            f"n_neighbors={n_neighbors} is more than the {size} image(s) of the bank: expected n_neighbors <= {size}; "
            "lower n_neighbors, raise bank_size, or give more training images."
        )


def parts(representation: Representation, images: NDArray[np.int64]) -> Iterator[tuple[slice, Representation]]:
    """Yield the chosen images in parts, each with its rows in the bank; no other image is read."""
    for start in range(0, len(images), _ROWS):
        place = slice(start, min(start + _ROWS, len(images)))
        yield place, representation[images[place]]


def unit_bank(
    representation: Representation, images: NDArray[np.int64], weights: NDArray[np.float64] | None = None
) -> NDArray[np.float32]:
    """Return the features of the chosen images in float32 as rows of length 1, or as long as their weights."""
    bank = torch.empty(len(images), representation.n_features)
    for place, part in parts(representation, images):
        rows = narrow_unit_rows(part.features)
        bank[place] = rows if weights is None else rows * torch.from_numpy(weights[place, None]).to(rows)
        # The sum is NaN or infinite if any number is, and needs no array of booleans.
        if not torch.isfinite(bank[place].sum()):
            raise ValueError(
                "representation.features or logits hold NaN or infinity: expected finite numbers; leave out such "
                "images, or compute them in a wider floating-point type."
            )
    array: NDArray[np.float32] = bank.numpy()
    return array


def candidates(
    queries: Tensor, bank: Tensor, first: int, last: int, *, by_distance: bool = False
) -> tuple[Tensor, int]:
    """Find the rows of the bank with the `first`-th to `last`-th largest product with each query, counted from 1.

    Queries and bank are float32, with rows of length 1 at most. With `by_distance`, all rows have length 1, and those
    with the smallest distance are found. Returns indices (m, s), in any order, which include these ranks, and the
    number of better rows that they leave out, the same for all queries.
    """
    start, stop = max(0, first - 1 - _SPARE), min(len(bank), last + _SPARE)
    if queries.device.type != "cpu":
        # Global settings of torch decide whether an accelerator rounds float32 factors; float64 is always exact.
        return _best_rows(queries.double(), bank, stop, by_distance)[1][:, start:stop], start
    ranked_by, rows = _best_rows(queries, bank, stop, by_distance)
    # Each product may be wrong by one error bound, so two products closer than twice the bound may be in wrong order.
    tolerance = 2 * math.sqrt(queries.shape[1] + 1) * torch.finfo(torch.float32).eps
    settled = torch.ones(len(queries), dtype=torch.bool)
    if start > 0:
        settled &= ranked_by[:, start - 1] > ranked_by[:, first - 1] + tolerance
    if stop < len(bank):
        settled &= ranked_by[:, stop - 1] < ranked_by[:, last - 1] - tolerance
    if not settled.all():
        # Float32 cannot tell for these queries which rows have the ranks: search again in float64.
        rows[~settled] = _best_rows(queries[~settled].double(), bank, stop, by_distance)[1]
    return rows[:, start:stop], start


def distances(queries: Tensor, bank: Tensor, rows: Tensor) -> Tensor:
    """Return the distance of each query to its rows of the bank, (m, s) in float64."""
    # From differences: |q|² - 2 q·b + |b|² would cancel for near-duplicates.
    return torch.cat([torch.linalg.vector_norm(b.sub_(q), dim=2) for q, b in _gathered(queries, bank, rows)])


def products(queries: Tensor, bank: Tensor, rows: Tensor) -> Tensor:
    """Return the product of each query with its rows of the bank, (m, s) in float64."""
    return torch.cat([b.mul_(q).sum(dim=2) for q, b in _gathered(queries, bank, rows)])


def _gathered(queries: Tensor, bank: Tensor, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield copies in float64 of a few queries (b, 1, C) and their rows (b, s, C) at a time; at least one pair."""
    at_once = _GATHERED if rows.device.type == "cpu" else _GATHERED_ELSEWHERE
    step = max(1, at_once // (rows.shape[1] * bank.shape[1]))
    # Without queries, one empty pair gives the callers a tensor of the right shape.
    for start in range(0, max(len(rows), 1), step):
        some = slice(start, start + step)
        yield queries[some, None].double(), bank[rows[some]].double()


def _best_rows(queries: Tensor, bank: Tensor, k: int, by_distance: bool) -> tuple[Tensor, Tensor]:
    """Return the ranking values and indices of the k best rows of the bank, best first, both (m, k).

    The products are computed in the type and on the device of `queries`.
    """
    best = queries.new_empty(len(queries), 0)
    rows = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(bank), _BANK_ROWS):
        block = bank[start : start + _BANK_ROWS].to(queries.dtype)
        ranked_by = product(queries, block.T)  # (m, rows of the block)
        if by_distance:
            # |b|² is 1 up to rounding. Among near-duplicates this rounding changes the order, so it is corrected.
            ranked_by -= block.square().sum(dim=1) / 2
        # Only the k best of the earlier blocks and this one are kept, so memory does not grow with the bank.
        new_best, new_rows = ranked_by.topk(min(k, len(block)), dim=1)
        best, rows = torch.cat([best, new_best], dim=1), torch.cat([rows, new_rows + start], dim=1)
        best, kept = best.topk(min(k, best.shape[1]), dim=1)
        rows = rows.gather(1, kept)
    return best, rows
