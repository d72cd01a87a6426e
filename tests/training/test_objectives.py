"""The losses of both stages against slow NumPy oracles (Eq. 3, 4)."""

import numpy as np
import pytest
import torch

from skdfb.augmentation._batch import IGNORED
from skdfb.training._objectives import ClassificationLoss, DenseLoss
from tests.training.problems import N_CLASSES, SIZE, tiny_network


def enlarge(values, size):
    """Bilinear upsampling of (h, w) to (size, size); edges are continued."""
    height, width = values.shape
    out = np.empty((size, size))
    for row in range(size):
        for column in range(size):
            y = min(max((row + 0.5) * height / size - 0.5, 0), height - 1)
            x = min(max((column + 0.5) * width / size - 0.5, 0), width - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            upper = values[top, left] * (left + 1 - x) + values[top, right] * (x - left)
            lower = values[bottom, left] * (left + 1 - x) + values[bottom, right] * (x - left)
            out[row, column] = upper * (top + 1 - y) + lower * (y - top)
    return out


def log_softmax(logits):
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def pixel_loss(logit_map, masks):
    """Mean over all pixels of all images that are not ignored."""
    terms = []
    for logits, mask in zip(logit_map, masks, strict=True):
        large = np.stack([enlarge(channel, mask.shape[0]) for channel in logits])
        for row, column in zip(*np.where(mask != IGNORED), strict=True):
            terms.append(-log_softmax(large[:, row, column])[mask[row, column]])
    return np.mean(terms)


def classification_loss(logits, targets):
    return np.mean([-(target * log_softmax(row)).sum() for row, target in zip(logits, targets, strict=True)])


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.normal(size=(4, 3, SIZE, SIZE)))
    targets = torch.from_numpy(rng.dirichlet(np.ones(N_CLASSES), 4))
    masks = torch.from_numpy(rng.integers(IGNORED, N_CLASSES + 1, (4, SIZE, SIZE)))
    masks[0, :9] = IGNORED  # images of unequal numbers of pixels
    return images, targets, masks


def network_with_random_head(num_classes, dtype=torch.float64):
    network = tiny_network(num_classes, dtype)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        network.head.weight.copy_(torch.randn(network.head.weight.shape, generator=generator))
        network.head.bias.copy_(torch.randn(num_classes, generator=generator))
    return network.eval()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_dense_loss(problem, weight, dtype, tolerance):
    images, targets, masks = problem
    network = network_with_random_head(N_CLASSES + 1, dtype)
    loss = DenseLoss(network, weight)(images.to(dtype), targets.to(dtype), masks)
    with torch.no_grad():
        logit_map = network.logit_map(images.to(dtype)).double().numpy()
    expected = pixel_loss(logit_map, masks.numpy())
    # the K known classes only: labels do not lower the background logit
    expected += weight * classification_loss(logit_map.mean((2, 3))[:, :N_CLASSES], targets.numpy())
    assert loss.item() == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_classification_loss_takes_soft_targets(problem, dtype, tolerance):
    images, targets, _ = problem
    network = network_with_random_head(N_CLASSES, dtype)
    loss = ClassificationLoss(network)(images.to(dtype), targets.to(dtype))
    with torch.no_grad():
        logits = network(images.to(dtype)).double().numpy()
    assert loss.item() == pytest.approx(classification_loss(logits, targets.numpy()), abs=tolerance)


def test_weight_zero_leaves_the_labels_out(problem):
    images, targets, masks = problem
    objective = DenseLoss(network_with_random_head(N_CLASSES + 1), 0.0)
    assert torch.equal(objective(images, targets, masks), objective(images, targets.flip(0), masks))
    objective = DenseLoss(network_with_random_head(N_CLASSES + 1), 0.1)
    assert not torch.equal(objective(images, targets, masks), objective(images, targets.flip(0), masks))


def test_classification_term_does_not_move_the_background_logit(problem):
    images, targets, masks = problem
    gradients = []
    for weight in (0.0, 1.0):
        network = network_with_random_head(N_CLASSES + 1)
        DenseLoss(network, weight)(images, targets, masks).backward()
        gradients.append(network.head.weight.grad)
    torch.testing.assert_close(gradients[0][-1], gradients[1][-1], atol=1e-12, rtol=0)
    assert not torch.allclose(gradients[0][:-1], gradients[1][:-1])


def test_masks_may_be_larger_than_the_input(problem):
    images, targets, _ = problem
    masks = torch.from_numpy(np.random.default_rng(1).integers(0, N_CLASSES + 1, (4, 21, 21)))
    network = network_with_random_head(N_CLASSES + 1)
    loss = DenseLoss(network, 0.0)(images, targets, masks)
    with torch.no_grad():
        expected = pixel_loss(network.logit_map(images).numpy(), masks.numpy())
    assert loss.item() == pytest.approx(expected, abs=1e-9)


def test_ignored_pixels_do_not_count(problem):
    images, targets, masks = problem
    network = network_with_random_head(N_CLASSES + 1)
    alone = DenseLoss(network, 0.0)(images[1:], targets[1:], masks[1:])
    masks = masks.clone()
    masks[0] = IGNORED
    torch.testing.assert_close(DenseLoss(network, 0.0)(images, targets, masks), alone, atol=1e-12, rtol=0)
