import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skdfb.scorers import _neighbours
from skdfb.scorers._neighbours import candidates, distances, draw_images, parts, products, unit_bank, unit_rows
from tests.scorers.helpers import quick, random_representation


def unit_float32(rng, n, C):
    rows = rng.normal(size=(n, C))
    return torch.from_numpy((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32))


def ranked_oracle(query, bank):
    """Rows of the bank by decreasing product in float64."""
    return np.argsort([-float(query.double() @ row.double()) for row in bank], kind="stable")


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1.0, 1e30, 1e300])
def test_unit_rows(scale):
    h = torch.tensor([[3.0, -4.0], [0.0, 2.0]], dtype=torch.float64) * scale
    np.testing.assert_allclose(unit_rows(h), [[0.6, -0.8], [0, 1]], rtol=1e-15)


def test_unit_rows_of_zeros_and_narrow_types():
    assert unit_rows(torch.zeros(2, 3)).tolist() == [[0.0] * 3] * 2
    # The squares overflow in half precision.
    narrow = unit_rows(torch.tensor([[3e4, 4e4]], dtype=torch.float16))
    assert narrow.dtype == torch.float64
    np.testing.assert_allclose(narrow, [[0.6, 0.8]], rtol=1e-3)


@pytest.mark.parametrize(("n", "bank_size", "expected"), [
    (10, None, 10), (10, 4, 4), (10, 10, 10), (10, 99, 10), (10, 0.5, 5), (10, 1.0, 10), (10, 1, 1), (10, 1e-9, 1),
    (10, np.float32(0.5), 5), (10, np.int64(4), 4),
])  # fmt: skip
def test_number_of_drawn_images(n, bank_size, expected):
    images = draw_images(n, bank_size, 0)
    assert len(set(images)) == len(images) == expected
    assert (np.diff(images) > 0).all()
    assert images.min() >= 0
    assert images.max() < n


def test_drawn_images_depend_on_the_seed():
    assert np.array_equal(draw_images(1000, 10, 3), draw_images(1000, 10, 3))
    assert not np.array_equal(draw_images(1000, 10, 3), draw_images(1000, 10, 4))


def test_images_are_drawn_evenly():
    counts = np.bincount(np.concatenate([draw_images(10, 3, seed) for seed in range(1000)]), minlength=10)
    assert (abs(counts - 300) < 80).all()


def test_bank_reads_no_other_image():
    representation = random_representation(n=50)
    images = np.array([3, 7, 48])
    representation.features[np.setdiff1d(np.arange(50), images)] = torch.nan
    bank = unit_bank(representation, images, np.array([1.0, 2.0, 3.0]))
    assert bank.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(bank, axis=1), [1, 2, 3], rtol=1e-6)
    assert [len(part) for _, part in parts(representation, images)] == [3]


def test_bank_in_parts(monkeypatch):
    representation = random_representation(n=50)
    whole = unit_bank(representation, np.arange(50))
    monkeypatch.setattr(_neighbours, "_ROWS", 7)
    assert np.array_equal(unit_bank(representation, np.arange(50)), whole)


@given(seed=st.integers(0, 10**6), n=st.integers(1, 60), block=st.integers(1, 70), data=st.data())
@quick
def test_candidates_include_the_requested_ranks(seed, n, block, data):
    rng = np.random.default_rng(seed)
    last = data.draw(st.integers(1, n))
    first = data.draw(st.integers(1, last))
    queries, bank = unit_float32(rng, 5, 6), unit_float32(rng, n, 6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_neighbours, "_BANK_ROWS", block)
        rows, n_better = candidates(queries, bank, first, last)
    for query, found in zip(queries, rows.tolist(), strict=True):
        ranked = ranked_oracle(query, bank)
        assert set(ranked[first - 1 : last]) <= set(found)
        assert not set(ranked[:n_better]) & set(found)
        assert len(set(found)) == len(found)


def test_candidates_that_float32_cannot_order():
    # Products differ by only 1e-13.
    rng = np.random.default_rng(0)
    bank = torch.zeros(200, 64)
    bank[:, 0] = 1
    bank[:, 1] = torch.from_numpy(rng.permutation(200) * 1e-7)
    queries = torch.zeros(3, 64)
    queries[:, 0], queries[:, 1] = 1, 1e-6
    rows, n_better = candidates(queries, bank, 100, 100)
    expected = ranked_oracle(queries[0], bank)[99]
    exact = products(queries, bank, rows)[0].sort(descending=True)
    assert rows[0, exact.indices[99 - n_better]] == expected


def test_distances_and_products(monkeypatch):
    rng = np.random.default_rng(0)
    queries, bank = unit_float32(rng, 9, 5), unit_float32(rng, 20, 5)
    rows = torch.from_numpy(rng.integers(20, size=(9, 4)))
    q, b = queries.double().numpy(), bank.double().numpy()[rows]
    before = bank.clone()
    for gathered in (1, 45, 10**6):
        monkeypatch.setattr(_neighbours, "_GATHERED", gathered)
        np.testing.assert_allclose(distances(queries, bank, rows), np.linalg.norm(q[:, None] - b, axis=2), rtol=1e-13)
        np.testing.assert_allclose(products(queries, bank, rows), np.einsum("mc,msc->ms", q, b), rtol=1e-12)
    assert torch.equal(bank, before)
