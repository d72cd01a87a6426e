import numpy as np
import pytest
import torch
from hypothesis import given

from skdfb.scorers._softmax import Softmax, energy, row_by_row
from tests.scorers.helpers import quick
from tests.scorers.softmax_oracle import decimal_softmax, logit_rows, long_decimals


def log_softmax(logits):
    return Softmax.of(logits).log_p()


def log_complement(logits):
    return Softmax.of(logits).log_complements()


@given(logits=logit_rows)
@quick
def test_oracle(logits):
    with long_decimals():
        rows = [decimal_softmax(row) for row in logits]
        log_p = [[float(p.ln()) for p in row] for row in rows]
        log_one_less_p = [[float((1 - p).ln()) for p in row] for row in rows]
    np.testing.assert_allclose(log_softmax(torch.from_numpy(logits)), log_p, rtol=1e-12)
    np.testing.assert_allclose(log_complement(torch.from_numpy(logits)), log_one_less_p, rtol=1e-12)


def test_beyond_the_floating_point_range():
    logits = torch.tensor([[1e308, -1e308, 0.0], [1e30, -1e30, 0.0]], dtype=torch.float64)
    log_p = log_softmax(logits)
    lowest = torch.finfo(torch.float64).min
    assert log_p.tolist() == [[0.0, lowest, -1e308], [0.0, -2e30, -1e30]]
    assert log_complement(logits).tolist() == [[-1e308, 0.0, 0.0], [-1e30, 0.0, 0.0]]


@pytest.mark.parametrize("function", [log_softmax, log_complement])
def test_nan_stays(function):
    assert torch.isnan(function(torch.tensor([[torch.nan, 1.0]], dtype=torch.float64))).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_confident_rows_of_narrow_types_keep_their_ranks(dtype):
    # Margins of 1 to 500: in float32, exponentials underflow for margins of more than about 100.
    margins = torch.arange(1, 500).to(dtype)
    logits = torch.stack([margins, torch.zeros_like(margins), torch.full_like(margins, -1.0)], dim=1)
    scores = row_by_row(logits, lambda softmax: -softmax.log_normaliser[:, 0])
    assert scores.dtype == torch.float64
    exact = row_by_row(logits.double(), lambda softmax: -softmax.log_normaliser[:, 0])
    torch.testing.assert_close(scores, exact, rtol=1e-6, atol=0)
    assert (scores.diff() > 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("shift", [0.0, -300.0, 2000.0])
def test_energy(dtype, shift):
    logits = (torch.randn(50, 7, generator=torch.Generator().manual_seed(0)) * 4 + shift).to(dtype)
    expected = logits.double().logsumexp(dim=1)
    assert energy(logits).dtype == torch.float64
    torch.testing.assert_close(energy(logits), expected, rtol=0, atol=1e-12 if dtype == torch.float64 else 1e-5)
    assert energy(torch.tensor([[torch.nan, 1.0]], dtype=dtype)).isnan().all()
