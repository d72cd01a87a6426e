"""Features are scaled for the head in parts, for little memory."""

import tracemalloc

import numpy as np
import pytest

from skdfb.detector import _linear_head
from skdfb.detector._linear_head import _scaled, fitted_head


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_at_once", [1, 70, 10**6])
def test_scaled(dtype, n_at_once, monkeypatch):
    X = np.random.default_rng(0).normal(3, 5, (101, 7)).astype(dtype)
    monkeypatch.setattr(_linear_head, "_LARGE", n_at_once)
    scaled, mean, scale = _scaled(X)
    np.testing.assert_allclose(mean, X.mean(0, dtype=float), rtol=1e-12)
    assert scale == pytest.approx(np.sqrt(X.var(0, dtype=float).mean()), rel=1e-12)
    assert scaled.dtype == dtype
    np.testing.assert_array_equal(scaled, ((X - mean) / scale).astype(dtype))


def test_constant_features():
    scaled, mean, scale = _scaled(np.full((10, 3), 7.0))
    assert scale == 1
    assert not scaled.any()
    np.testing.assert_array_equal(mean, 7)


def test_memory(monkeypatch):
    X = np.random.default_rng(0).normal(size=(50_000, 64)).astype(np.float32)
    monkeypatch.setattr(_linear_head, "_LARGE", 2**16)
    tracemalloc.start()
    try:
        _scaled(X)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # the scaled features, and a few parts in float64
    assert peak < 1.1 * X.nbytes + 4 * 8 * 2**16


def test_head_takes_features_as_they_are():
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    X = (100 + 10 * rng.normal(size=(300, 5)) + 40 * rng.normal(size=(3, 5))[labels]).astype(np.float32)
    weight, bias = fitted_head(None, X, labels)
    assert np.mean((X @ weight.T + bias).argmax(1) == labels) > 0.99
