"""Tensors on their way to a device and back."""

import pytest
import torch
from torch import Tensor

from skdfb import _transfers
from skdfb._transfers import Download, one_behind, pinned, upload


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_images_can_be_pinned(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their channels share memory, into which torch would have to write more than once."""

    def pin_memory(tensor: Tensor) -> Tensor:  # what torch does, but in other memory
        memory = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
        return memory.copy_(tensor)

    monkeypatch.setattr(Tensor, "pin_memory", pin_memory)
    images = torch.rand(2, 4, 5, channels).permute(0, 3, 1, 2).expand(-1, 3, -1, -1)
    assert torch.equal(pinned(images), images)
    if channels == 1:
        with pytest.raises(RuntimeError, match="more than one element"):
            images.pin_memory()


def test_the_cpu_is_a_device() -> None:
    images = torch.rand(2, 3, 4, 5)
    assert upload(images, torch.device("cpu")) is images


def test_small_tensors_come_together_and_large_ones_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tried without a device: all are taken for those of one."""
    copies = []

    def to_cpu(tensor: Tensor) -> Tensor:
        copies.append(tensor.numel())
        return tensor.clone()

    monkeypatch.setattr(_transfers, "_to_cpu", to_cpu)
    monkeypatch.setattr(_transfers, "_LARGE", 1000)
    monkeypatch.setattr(_transfers, "_is_on_cpu", lambda tensor: False)
    given = [torch.rand(2, 3), torch.arange(4), torch.rand(500), torch.rand(5), torch.zeros(2, dtype=torch.bfloat16)]
    download = Download()
    finish = [download.add(tensor) for tensor in given]
    download.send()
    assert sorted(copies) == [4, 13, 500]
    for tensor, found in zip(given, (one() for one in finish), strict=True):
        assert found.shape == tensor.shape
        assert torch.equal(found.to(tensor.dtype), tensor)
    assert finish[-1]().dtype == torch.float32  # NumPy has no bfloat16
    assert finish[1]().dtype == torch.int64


def test_a_gpu_is_one_item_ahead() -> None:
    made = []
    items = one_behind((made.append(i) or i for i in range(3)), torch.device("cuda"))
    assert [(item, len(made)) for item in items] == [(0, 2), (1, 3), (2, 3)]


def test_a_cpu_makes_what_is_asked_for() -> None:
    made = []
    items = one_behind((made.append(i) or i for i in range(3)), torch.device("cpu"))
    assert [(item, len(made)) for item in items] == [(0, 1), (1, 2), (2, 3)]
