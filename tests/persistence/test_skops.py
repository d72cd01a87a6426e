"""skops can save detectors and mask generators whose backbone is a timm model that is given by name."""

import pytest
from numpy.testing import assert_array_equal

from skdfb.networks import create_backbone
from tests.persistence.test_round_trip import ESTIMATORS, fitted

skops = pytest.importorskip("skops.io")
pytestmark = pytest.mark.filterwarnings("ignore:alpha_ is:UserWarning")


def by_name(model):
    """Set the backbone of a fitted estimator to its name: skops has no type for torch modules."""
    if hasattr(model, "backbone"):
        model.set_params(backbone="test_resnet")
    for inner in (getattr(model, "generator", None), getattr(model, "generator_", None)):
        if inner is not None:
            by_name(inner)
    return model


@pytest.mark.parametrize("name", ESTIMATORS)
def test_saved_and_loaded(name):
    network = {"backbone": create_backbone("test_resnet", pretrained=False, random_state=0), "image_size": 128}
    model, output = fitted(name, network)
    expected = output(model)
    data = skops.dumps(by_name(model))
    unknown = skops.get_untrusted_types(data=data)
    assert all(each.startswith("skdfb.") for each in unknown), unknown
    assert_array_equal(output(skops.loads(data, trusted=unknown)), expected)
