import numpy as np
import pytest
import torch
from hypothesis import given

from skdfb.scorers._softmax import log_complement, log_softmax
from tests.scorers.helpers import quick
from tests.scorers.softmax_oracle import decimal_softmax, logit_rows, long_decimals


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
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_float64_from_any_type(function, dtype):
    logits = torch.tensor([[3.0, 1.0, -8.0]])
    assert torch.equal(function(logits.to(dtype)), function(logits.double()))
    assert torch.isnan(function(torch.tensor([[torch.nan, 1.0]], dtype=dtype))).all()
