"""Training through torch.compile gives what training without it gives, and goes on where it cannot compile."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from skdfb.augmentation import BackMix
from skdfb.exceptions import CompileWarning
from skdfb.training import Trainer
from skdfb.training._compiled import Compiled
from tests.training.problems import SIZE, equal, train, weights_of

SHORT = {"max_steps": 6, "batch_size": 16, "learning_rate": 0.05}


def assert_trained_alike(dense, **changes):
    (network, history), (plain, expected) = (
        train(Trainer(**SHORT | changes, compile=compile), dense=dense) for compile in (True, False)
    )
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-4)
    torch.testing.assert_close(weights_of(network), weights_of(plain), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("changes", [{}, {"augmentation": BackMix(), "clip_grad_norm": 0.1}], ids=["plain", "BackMix"])
def test_traced(dense, changes, monkeypatch):
    """With the tracer of torch.compile, and PyTorch's own kernels."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    assert_trained_alike(dense, **changes)


@pytest.mark.slow
@pytest.mark.parametrize("dense", [False, True])
def test_compiled(dense):
    assert_trained_alike(dense)


def test_goes_on_without(monkeypatch):
    from torch._dynamo.exc import BackendCompilerFailed

    def failing(*_):
        raise BackendCompilerFailed(None, RuntimeError("no compiler"), None)

    monkeypatch.setattr(torch, "compile", lambda module: failing)
    with pytest.warns(CompileWarning, match="trained without torch.compile: .*no compiler") as caught:
        network, history = train(Trainer(**SHORT, compile=True))
    assert len(caught) == 1
    plain, expected = train(Trainer(**SHORT))
    assert history["loss"] == expected["loss"]
    assert equal(weights_of(network), weights_of(plain))


def test_the_loss_of_pixels_is_not_compiled(monkeypatch):
    """Its memory is bounded in parts that are computed one after the other, which compiled code is not."""
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda module: compiled.append(module) or module)
    network, _ = train(Trainer(**SHORT, compile=True), dense=True)
    (module,) = compiled
    images = torch.zeros(2, 3, SIZE, SIZE, dtype=network.dtype)
    torch.testing.assert_close(module(images), network.logit_map(images))


def test_errors_of_the_module_are_raised():
    class Broken(nn.Module):
        def forward(self):
            raise ValueError("its own")

    with pytest.raises(ValueError, match="its own"):
        Compiled(Broken())()
