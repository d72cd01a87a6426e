"""The loss of pixels in parts is the loss of all pixels, for less memory."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from skdfb.augmentation._batch import IGNORED
from skdfb.networks import DenseClassifier, create_backbone
from skdfb.training import Trainer, _pixel_loss
from skdfb.training._pixel_loss import pixel_cross_entropy
from tests.scorers.helpers import quick


def make_problem(seed, n_images, n_classes, map_size, size, *, dtype=torch.float64, device="cpu"):
    generator = torch.Generator().manual_seed(seed)
    logit_map = 3 * torch.randn(n_images, n_classes, *map_size, generator=generator, dtype=dtype)
    masks = torch.randint(IGNORED, n_classes, (n_images, *size), generator=generator)
    return logit_map.to(device).requires_grad_(), masks.to(device)


def all_at_once(logit_map, masks):
    pixels = F.interpolate(logit_map, masks.shape[-2:], mode="bilinear")
    return F.cross_entropy(pixels, masks, ignore_index=IGNORED, reduction="none").sum()


def with_gradient(loss, logit_map, masks, factor=0.25):
    value = loss(logit_map, masks)
    # with a factor, as that of the mean over a batch
    return value.detach(), torch.autograd.grad(factor * value, logit_map)[0]


@quick
@given(
    seed=st.integers(0, 2**31),
    n_images=st.integers(1, 5),
    n_classes=st.sampled_from([1, 2, 15, 16, 40]),
    map_size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    size=st.tuples(st.integers(1, 17), st.integers(1, 17)),
    at_once=st.sampled_from([1, 100, 3000, 2**20]),
    factor=st.sampled_from([0.25, 1, -3]),
)
def test_parts(seed, n_images, n_classes, map_size, size, at_once, factor):
    problem = make_problem(seed, n_images, n_classes, map_size, size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_pixel_loss, "_AT_ONCE_ON_CPU", at_once)
        (loss, gradient), expected = (
            with_gradient(each, *problem, factor) for each in (pixel_cross_entropy, all_at_once)
        )
    torch.testing.assert_close(loss, expected[0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradient, expected[1], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("n_classes", [11, 101])
def test_few_logits_are_enlarged_at_once(n_classes, monkeypatch):
    sizes = []
    cross_entropy = F.cross_entropy
    monkeypatch.setattr(
        F,
        "cross_entropy",
        lambda logits, *args, **kw: sizes.append(logits.numel()) or cross_entropy(logits, *args, **kw),
    )
    problem = make_problem(0, 30, n_classes, (4, 4), (128, 128), dtype=torch.float32)
    pixel_cross_entropy(*problem)
    assert sum(sizes) == 30 * n_classes * 128**2
    assert max(sizes) <= _pixel_loss._AT_ONCE_ON_CPU
    assert len(sizes) <= 2 * sum(sizes) / _pixel_loss._AT_ONCE_ON_CPU + 1  # nor much fewer


def test_no_pixel_counts():
    logit_map, masks = make_problem(0, 2, 3, (2, 2), (8, 8))
    loss, gradient = with_gradient(pixel_cross_entropy, logit_map, torch.full_like(masks, IGNORED))
    assert loss == 0
    assert not gradient.any()


def test_without_a_gradient(monkeypatch):
    logit_map, masks = make_problem(0, 2, 3, (2, 2), (8, 8))
    monkeypatch.setattr(_pixel_loss, "_AT_ONCE_ON_CPU", 50)
    monkeypatch.setattr(torch.autograd, "grad", None)  # not called
    with torch.no_grad():
        loss = pixel_cross_entropy(logit_map, masks)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, all_at_once(logit_map, masks).detach())
    assert not pixel_cross_entropy(logit_map.detach(), masks).requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bits_are_summed_in_32(dtype, monkeypatch):
    """Also under autocast, which would multiply in 16 bits."""
    monkeypatch.setattr(_pixel_loss, "_AT_ONCE_ON_CPU", 5000)
    logit_map, masks = make_problem(0, 4, 5, (8, 8), (64, 64), dtype=torch.float32)
    few_bits = logit_map.detach().to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss, gradient = with_gradient(pixel_cross_entropy, few_bits, masks)
    expected = with_gradient(all_at_once, few_bits.detach().float().requires_grad_(), masks)
    assert loss.dtype == torch.float32
    assert gradient.dtype == dtype
    torch.testing.assert_close(loss, expected[0])
    torch.testing.assert_close(gradient, expected[1].to(dtype), rtol=1e-2, atol=1e-4)


def test_masks_of_another_shape():
    """Where nothing zooms or mirrors the images, masks of any shape cover them."""
    images = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    masks = np.random.default_rng(1).integers(0, 3, (12, 16, 40))
    network = DenseClassifier(create_backbone("test_resnet", pretrained=False, output_stride=8), 3, image_size=32)
    trainer = Trainer(max_steps=2, batch_size=4, flip=False, scale_range=None)
    history = trainer.train(network, images, np.arange(12) % 2, masks, device="cpu", random_state=0)
    assert np.isfinite(history["loss"]).all()


@pytest.mark.gpu
def test_a_thousand_classes_on_a_gpu():
    """All pixels at once would be 13 GB, and more than PyTorch can enlarge on a GPU."""
    if not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    problem = make_problem(0, 64, 1001, (14, 14), (224, 224), dtype=torch.float32, device="cuda")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    loss, gradient = with_gradient(pixel_cross_entropy, *problem)
    assert torch.cuda.max_memory_allocated() - before < 4 * 2**30
    again, same = with_gradient(pixel_cross_entropy, *problem)
    assert loss == again
    assert torch.equal(gradient, same)
    logit_map, masks = (tensor.detach().cpu()[:2] for tensor in problem)
    expected, gradient_on_cpu = with_gradient(pixel_cross_entropy, logit_map.requires_grad_(), masks)
    torch.testing.assert_close(gradient[:2].cpu(), gradient_on_cpu, rtol=1e-3, atol=1e-4)
    first_two = with_gradient(pixel_cross_entropy, problem[0].detach()[:2].requires_grad_(), problem[1][:2])[0]
    torch.testing.assert_close(first_two.cpu(), expected, rtol=1e-5, atol=0)
