"""Devices are found; flags and random states are restored, also after a failure."""

import threading

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from skdfb.utils import evaluation_mode, isolated_rng, resolve_device, spawn_seeds

CPU = torch.device("cpu")


class TestResolveDevice:
    def test_cpu(self) -> None:
        assert resolve_device("cpu") == CPU
        assert resolve_device(CPU) == CPU

    @pytest.mark.parametrize("available", [True, False])
    def test_auto(self, available: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
        assert resolve_device("auto") == torch.device("cuda" if available else "cpu")

    @pytest.mark.parametrize("device", ["gpu", "", "cuda:x", "cpu:-2", None, 1.5, ["cpu"]])
    def test_unknown_device(self, device: object) -> None:
        with pytest.raises(ValueError, match=r"device=.* is not a device: expected 'auto', 'cpu', 'cuda' or 'cuda:1'"):
            resolve_device(device)  # type: ignore[arg-type]

    @pytest.mark.parametrize(("device", "count"), [("cuda", 0), ("cuda:0", 0), ("cuda:2", 2)])
    def test_missing_cuda_device(self, device: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        with pytest.raises(
            ValueError, match=rf"device='{device}' is not available: torch finds {count} CUDA devices.*'auto' or 'cpu'"
        ):
            resolve_device(device)

    @pytest.mark.skipif(torch.backends.mps.is_available(), reason="needs a machine without MPS")
    @pytest.mark.parametrize("device", ["mps", "xpu"])
    def test_missing_device_of_another_kind(self, device: str) -> None:
        with pytest.raises(ValueError, match=rf"device='{device}' cannot be used on this machine; use device='auto'"):
            resolve_device(device)


class TestSpawnSeeds:
    def test_same_state_same_seeds(self) -> None:
        assert spawn_seeds(0, 4) == spawn_seeds(0, 4)
        assert spawn_seeds(0, 2) == spawn_seeds(0, 4)[:2]
        assert len(set(spawn_seeds(0, 100))) == 100
        assert spawn_seeds(1, 4) != spawn_seeds(0, 4)

    def test_a_random_state_advances(self) -> None:
        state = np.random.RandomState(0)
        assert spawn_seeds(state, 2) != spawn_seeds(state, 2)

    def test_plain_integers(self) -> None:
        assert all(type(seed) is int and 0 <= seed < 2**31 for seed in spawn_seeds(0, 9))


class TestIsolatedRNG:
    def test_state_is_restored(self) -> None:
        torch.manual_seed(3)
        expected = torch.rand(4)
        torch.manual_seed(3)
        with isolated_rng(0):
            torch.rand(7)
        assert torch.equal(torch.rand(4), expected)

    def test_state_is_restored_after_an_error(self) -> None:
        state = torch.get_rng_state()
        with pytest.raises(IndexError), isolated_rng(0):
            torch.rand(7)[9]
        assert torch.equal(torch.get_rng_state(), state)

    def test_seed_decides(self) -> None:
        def draw(seed: int) -> Tensor:
            torch.rand(5)
            with isolated_rng(seed):
                return torch.rand(4)

        assert torch.equal(draw(0), draw(0))
        assert not torch.equal(draw(0), draw(1))

    @pytest.mark.gpu
    @pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:0"])
    def test_gpu_state_is_restored(self, device: str) -> None:
        before = torch.cuda.get_rng_state_all()
        with isolated_rng(0):
            first = torch.rand(4, device=device)
        after = torch.cuda.get_rng_state_all()
        assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
        with isolated_rng(0):
            assert torch.equal(torch.rand(4, device=device), first)


def mixed_module() -> nn.Module:
    module = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2), nn.Sequential(nn.BatchNorm1d(2), nn.ReLU()))
    module[1].eval()
    module[2][0].eval()
    return module


def flags(module: nn.Module) -> list[bool]:
    return [part.training for part in module.modules()]


class Frozen(nn.BatchNorm1d):
    """Stays in evaluation mode after ``train()``, as frozen batch statistics do."""

    def train(self, mode: bool = True) -> "Frozen":
        super().train(False)
        return self


class TestEvaluationMode:
    def test_the_flag_of_each_submodule_is_restored(self) -> None:
        module = mixed_module()
        before = flags(module)
        assert len(set(before)) == 2
        with evaluation_mode(module):
            assert not any(flags(module))
        assert flags(module) == before

    def test_also_after_an_error(self) -> None:
        module = mixed_module()
        before = flags(module)
        with pytest.raises(KeyError), evaluation_mode(module):
            raise KeyError
        assert flags(module) == before

    def test_nested(self) -> None:
        module = mixed_module()
        before = flags(module)
        with evaluation_mode(module):
            with evaluation_mode(module):
                pass
            assert not any(flags(module))
        assert flags(module) == before

    def test_frozen_parts_stay_frozen(self) -> None:
        module = nn.Sequential(Frozen(2), nn.Dropout()).train()
        before = flags(module)
        with evaluation_mode(module):
            pass
        assert flags(module) == before == [True, False, True]

    def test_a_module_in_evaluation_mode_is_not_changed(self) -> None:
        """So that threads can share a network."""
        module = mixed_module().eval()
        module.eval = module.train = None  # type: ignore[method-assign, assignment]
        with evaluation_mode(module):
            assert not any(flags(module))
        results: list[bool] = []
        threads = [threading.Thread(target=lambda: results.append(enter(module))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [False] * 4

    def test_values_cached_from_older_weights_are_dropped(self) -> None:
        """LeViT caches attention biases in evaluation mode; training between two blocks changes them."""
        model = timm.create_model("levit_128s", num_classes=0)
        images = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            with evaluation_mode(model):
                before = model.forward_features(images)
            for name, parameter in model.named_parameters():
                if name.endswith("attention_biases"):
                    parameter.copy_(torch.linspace(-9, 9, parameter.numel()).view_as(parameter))
            with evaluation_mode(model):
                after = model.forward_features(images)
            expected = model.eval().forward_features(images)
        assert torch.equal(after, expected)
        assert not torch.allclose(after, before)


def enter(module: nn.Module) -> bool:
    with evaluation_mode(module):
        return any(flags(module))
