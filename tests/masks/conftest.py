"""Images and labels that the tests of the mask generators share."""

import numpy as np
import pytest

from tests.masks.helpers import SIZE, K, N


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (N, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture
def labels():
    return np.arange(N) % K
