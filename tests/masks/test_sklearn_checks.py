"""scikit-learn's own checks of the generators, but for CAM, on tables: a row of numbers is a line of pixels."""

from typing import Any

import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from skdfb.masks import AffinityMaskGenerator, CAMMaskGenerator, DenseMaskGenerator, NormalizedCutMaskGenerator
from skdfb.training import Trainer
from tests.detector.test_sklearn_checks import TRUE_AND_PREDICTED, hashable_backbone

# In float64, because the checks of invariance ask for 1e-7.
SMALL: dict[str, Any] = {
    "backbone": hashable_backbone(),
    "image_size": 16,
    "device": "cpu",
    "trainer": Trainer(max_steps=2, batch_size=16),
    "scales": (1.0,),
    "random_state": 0,
}
AFFINITY = AffinityMaskGenerator(CAMMaskGenerator(**SMALL), dilations=(1, 2), n_iterations=2, device="cpu")
DENSE = DenseMaskGenerator(
    **SMALL | {"backbone": hashable_backbone(1)},  # one that does not predict the true class of every image
    generator=CAMMaskGenerator(scales=(1.0,), flip=False),
    dense_trainer=Trainer(max_steps=2, batch_size=16),
    flip=False,
)
NORMALIZED_CUT = NormalizedCutMaskGenerator(hashable_backbone(), image_size=16, device="cpu")
ESTIMATORS = [AFFINITY, DENSE, NORMALIZED_CUT]
EXPECTED_FAILURES = {
    "check_transformer_general": TRUE_AND_PREDICTED,
    "check_transformer_data_not_an_array": TRUE_AND_PREDICTED,
}


def expected_failures(estimator):
    # The nearest mean is the true class of each of the checks' images, so both masks are the same.
    return {} if isinstance(estimator, NormalizedCutMaskGenerator) else EXPECTED_FAILURES


@parametrize_with_checks(ESTIMATORS, expected_failed_checks=expected_failures, xfail_strict=True)
def test_sklearn_check(estimator, check):
    check(estimator)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=["affinity", "dense", "normalized cut"])
def test_the_checks_are_yielded(estimator):
    names = [check.func.__name__ for _, check in estimator_checks_generator(estimator)]
    assert len(names) >= 45
    assert "check_methods_sample_order_invariance" in names
