"""skops, too, writes whatever the library has, networks over timm backbones among it."""

import pytest
from numpy.testing import assert_array_equal

from tests.persistence.test_round_trip import ESTIMATORS, fitted

skops = pytest.importorskip("skops.io")
pytestmark = pytest.mark.filterwarnings("ignore:alpha_ is:UserWarning")

NAMED = {"backbone": "test_resnet", "pretrained": False, "image_size": 128}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_there_and_back(name):
    # A module of torch's as a parameter is none of its types; the name of one is.
    model, ask = fitted(name, NAMED)
    data = skops.dumps(model)
    unknown = skops.get_untrusted_types(data=data)
    assert all(each.startswith("skdfb.") for each in unknown), unknown
    assert_array_equal(ask(skops.loads(data, trusted=unknown)), ask(model))
