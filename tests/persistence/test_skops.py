"""skops, too, writes what holds no network: scorers, fusions, calibrators, trainers."""

import pytest
from numpy.testing import assert_array_equal

from tests.persistence.test_round_trip import ESTIMATORS, fitted

skops = pytest.importorskip("skops.io")
pytestmark = pytest.mark.filterwarnings("ignore:alpha_ is:UserWarning")

WITH_NETWORKS = {"DFBDetector", "CAMMaskGenerator", "AffinityMaskGenerator", "DenseMaskGenerator"}


@pytest.mark.parametrize("name", sorted(ESTIMATORS.keys() - WITH_NETWORKS))
def test_there_and_back(name):
    model, ask = fitted(name)
    data = skops.dumps(model)
    unknown = skops.get_untrusted_types(data=data)
    assert all(each.startswith("skdfb.") for each in unknown), unknown
    assert_array_equal(ask(skops.loads(data, trusted=unknown)), ask(model))
