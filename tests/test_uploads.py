"""Tensors on their way to a device."""

import pytest
import torch
from torch import Tensor

from skdfb._uploads import pinned, upload


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
