"""The pretended device computes what the CPU computes, and finds what would be an error or a wait on a GPU."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skdfb import _transfers
from skdfb.scorers import Energy
from skdfb.training import Trainer, _run
from tests.detector.conftest import make_detector, make_images
from tests.devices.pretend import Counts, PretendTensor

pytestmark = pytest.mark.usefixtures("crossings")
DEVICE = "pretend"


def there(*shape: int) -> Tensor:
    return torch.arange(float(np.prod(shape))).reshape(shape).to(DEVICE)


class TestDevice:
    def test_tensors_say_where_they_are(self) -> None:
        made = [there(2), torch.zeros(2, device=DEVICE), torch.tensor([1, 2], device=DEVICE), there(2)[0], there(2) + 1]
        assert all(tensor.device == torch.device(DEVICE, 0) for tensor in made)
        assert there(2).cpu().device.type == "cpu"
        assert torch.zeros_like(there(2), device="cpu").device.type == "cpu"

    def test_a_network_learns_the_same_as_on_the_cpu(self) -> None:
        first = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
        images, labels = torch.rand(8, 3, 6, 6, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2
        first(images)
        second = copy.deepcopy(first).to(DEVICE)
        for network, device in ((first, "cpu"), (second, DEVICE)):
            optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
            for _ in range(3):
                optimizer.zero_grad()
                F.cross_entropy(network(images.to(device)), labels.to(device)).backward()
                optimizer.step()
        for name, tensor in second.state_dict().items():
            assert torch.equal(tensor.cpu(), first.state_dict()[name])
        assert copy.deepcopy(second)[0].weight.device.type == DEVICE

    def test_changes_in_place(self) -> None:
        tensor = there(2, 3)
        tensor[0] += 1
        tensor[1, 2:] = 9
        tensor.view(-1)[:1].zero_()
        assert tensor.cpu().tolist() == [[0, 2, 3], [3, 4, 9]]
        with pytest.raises(NotImplementedError, match="shape of a tensor in place"):
            tensor.resize_(6)


class TestCounts:
    def test_uploads(self, crossings: Counts) -> None:
        tensor = there(3)
        tensor.copy_(torch.ones(3))
        tensor[torch.tensor([0, 1])]
        torch.tensor([1.0], device=DEVICE)
        torch.zeros(3, device=DEVICE), tensor + 1, tensor.to(DEVICE), tensor.double()
        assert crossings.uploads.total() == 4

    def test_downloads(self, crossings: Counts) -> None:
        tensor = there(3)
        tensor.cpu(), torch.zeros(3).copy_(tensor), tensor.tolist(), tensor.numpy(force=True), tensor.to("cpu").cpu()
        assert crossings.downloads.total() == 5

    def test_waits(self, crossings: Counts) -> None:
        tensor = there(3)
        float(tensor[0]), tensor.sum().item(), tensor[tensor > 1], tensor.nonzero(), torch.equal(tensor, tensor)
        bool((tensor > 0).all())
        assert crossings.waits.total() == 6
        # Two lines of this file.
        assert len(crossings.waits) == 2
        assert all(place.startswith("devices/test_pretend.py:") for place in crossings.waits)
        assert "waits: 6\n" in repr(crossings)


@pytest.mark.parametrize(
    "mistake",
    [
        lambda: there(3) + torch.ones(3),
        lambda: torch.ones(2, 2) @ there(2, 2),
        lambda: torch.cat([there(2), torch.ones(2)]),
        lambda: torch.ones(3)[there(2).long()],
        lambda: there(3).index_add_(0, torch.tensor([0]), there(1)),
        lambda: there(3).masked_fill_(torch.tensor([True, False, True]), 0.0),
        lambda: torch.rand(3, device=DEVICE, generator=torch.Generator()),
        lambda: torch.randperm(3, generator=torch.Generator(DEVICE)),
        lambda: nn.Linear(3, 2)(there(3)),
    ],
)
def test_mixing_devices_is_refused(mistake) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(RuntimeError, match=r"same device|generator"):
        mistake()


def test_numpy_refuses() -> None:
    for convert in (lambda tensor: tensor.numpy(), np.asarray):
        with pytest.raises(TypeError, match=r"Use Tensor\.cpu"):
            convert(there(3))


def test_what_cuda_allows() -> None:
    tensor = there(3)
    for found in (tensor * torch.tensor(2.0), tensor[torch.tensor([1])], torch.rand(2, device=DEVICE)):
        assert isinstance(found, PretendTensor)


# Mistakes in the library, planted to see that the tests of this folder would find them.


def fit(**changes):  # type: ignore[no-untyped-def]
    X, y = make_images()
    return make_detector(device=DEVICE, **changes).fit(X, y)


def test_a_tensor_of_the_cpu_in_an_augmentation_is_found() -> None:
    class Darker:
        def augment(self, batch, generator):  # type: ignore[no-untyped-def]
            factors = torch.rand(len(batch.images), 1, 1, 1, generator=generator)
            return dataclasses.replace(batch, images=batch.images * factors)

    with pytest.raises(RuntimeError, match="same device"):
        fit(classifier_trainer=Trainer(max_steps=2, batch_size=16, augmentation=Darker()))


def test_a_tensor_of_the_cpu_in_a_scorer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def on_the_cpu(self, representation):  # type: ignore[no-untyped-def]
        return representation.logits.logsumexp(1) * torch.ones(len(representation))

    detector = fit(scorer=Energy())
    monkeypatch.setattr(Energy, "score_on_device", on_the_cpu)
    with pytest.raises(RuntimeError, match="same device"):
        detector.score_samples(make_images()[0])


def test_a_number_read_in_each_step_is_found(crossings: Counts, monkeypatch: pytest.MonkeyPatch) -> None:
    fit()
    before = crossings.waits.total()
    step_done = _run.Pace.step_done

    def reading(self, loss):  # type: ignore[no-untyped-def]
        float(loss)
        step_done(self, loss)

    monkeypatch.setattr(_run.Pace, "step_done", reading)
    crossings.waits.clear()
    fit()
    assert crossings.waits.total() == before + 60


def test_a_generator_on_the_wrong_device_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def noisy(batch, scales, flip, size, generator):  # type: ignore[no-untyped-def]
        noise = torch.rand(batch.images.shape, generator=generator, device=batch.images.device)
        return dataclasses.replace(batch, images=batch.images + noise)

    monkeypatch.setattr(_run, "zoom_and_flip", noisy)
    with pytest.raises(RuntimeError, match="generator"):
        fit()


def test_a_forgotten_copy_to_the_cpu_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_transfers, "_copied", list)
    with pytest.raises((TypeError, RuntimeError)):
        fit()
