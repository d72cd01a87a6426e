import numpy as np
import pytest

from skdfb.scorers import BackgroundLogit
from tests.scorers.helpers import fit_and_score, random_arrays, random_representation


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("K", [1, 5])
def test_oracle(scale, K):
    arrays = random_arrays(K=K, scale=scale)
    oracle = []
    for feature in arrays["features"]:
        z = arrays["bias"][-1]
        for w, h in zip(arrays["weight"][-1], feature, strict=True):
            z += w * h
        oracle.append(z)
    scores = fit_and_score(BackgroundLogit(), random_representation(K=K, scale=scale))
    np.testing.assert_allclose(scores, oracle, rtol=1e-6, atol=1e-12 * scale)


def test_higher_is_more_in_distribution():
    representation = random_representation(K=1)
    scores = fit_and_score(BackgroundLogit(), representation)
    assert np.array_equal(np.argsort(scores), np.argsort(representation.logits.numpy()[:, 0]))
