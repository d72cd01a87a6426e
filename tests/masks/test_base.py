"""What all mask generators share: masks batch by batch."""

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from skdfb.images import as_images
from skdfb.masks import AffinityMaskGenerator, CAMMaskGenerator, DenseMaskGenerator, NormalizedCutMaskGenerator
from skdfb.training import Trainer
from tests.masks.helpers import SIZE, N, trained_network

CAM = {"scales": (1.0,), "flip": False, "device": "cpu", "batch_size": 4}


def cam(**parameters):
    return CAMMaskGenerator(trained_network(), **CAM | parameters)


GENERATORS = {
    "cam": cam,
    "cam of the predicted class": lambda: cam(true_class=False),
    "affinity": lambda: AffinityMaskGenerator(cam(), dilations=(1,), n_iterations=2, device="cpu", batch_size=4),
    "dense": lambda: DenseMaskGenerator(trained_network(), dense_trainer=Trainer(max_steps=2), random_state=0, **CAM),
    "normalized cut": lambda: NormalizedCutMaskGenerator(trained_network(), device="cpu", batch_size=4),
}


@pytest.mark.parametrize("kind", GENERATORS)
def test_batches_are_the_masks_of_fit_transform(images, labels, kind):
    expected = GENERATORS[kind]().fit_transform(images, labels)
    generator = GENERATORS[kind]().fit(as_images(images), labels)
    found = np.full((N, SIZE, SIZE), 99, dtype=np.uint8)
    sizes = []
    for indices, masks in generator.iter_masks(as_images(images), labels):
        assert masks.shape == (len(indices), SIZE, SIZE)
        assert masks.dtype == np.uint8
        found[indices] = masks
        sizes.append(len(indices))
    np.testing.assert_array_equal(found, expected)
    assert sizes == [4, 4, 2]


def test_one_batch_is_computed_at_a_time(images, labels):
    generator, passes = cam().fit(images, labels), []
    generator.network_.feature_map.register_forward_hook(lambda _, args, __: passes.append(len(args[0])))
    batches = generator.iter_masks(as_images(images), labels)
    assert passes == []
    next(batches)
    assert passes == [4]


def test_not_fitted(images, labels):
    with pytest.raises(NotFittedError):
        cam().iter_masks(as_images(images), labels)
