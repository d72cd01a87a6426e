"""Representations on their way to the CPU; on a device, see ``tests/devices``."""

from collections.abc import Callable

import pytest
import torch

from skdfb._transfers import Download
from skdfb.scorers import Representation
from skdfb.scorers._views_on_cpu import ViewsOnCPU
from tests.scorers.helpers import random_representation


def started(views_on_cpu: ViewsOnCPU, view: Representation) -> Callable[[], dict[str, Representation]]:
    download = Download()
    finish = views_on_cpu.start({"dense": view}, download)
    download.send()
    return finish


def test_each_batch_has_its_rows_and_the_same_head() -> None:
    views_on_cpu, whole = ViewsOnCPU(), random_representation(n=10)
    finish = [started(views_on_cpu, whole[start : start + 5]) for start in (0, 5)]
    found = [one()["dense"] for one in finish]
    assert torch.equal(torch.cat([one.features for one in found]), whole.features)
    assert torch.equal(torch.cat([one.logits for one in found]), whole.logits)
    assert all(torch.equal(one.weight, whole.weight) for one in found)


def test_half_precision_becomes_float32() -> None:
    given = random_representation(n=5)
    half = Representation(
        **{name: getattr(given, name).bfloat16() for name in ("features", "logits", "weight", "bias")},
        activations={"feature_map": torch.ones(5, 2, dtype=torch.bfloat16)},
        input_perturbation=0.01,
    )
    found = started(ViewsOnCPU(), half)()["dense"]
    assert {found.features.dtype, found.logits.dtype, found.weight.dtype, found.bias.dtype} == {torch.float32}
    assert found.activations is not None
    assert found.activations["feature_map"].dtype == torch.float32
    assert found.input_perturbation == 0.01


def test_a_batch_that_does_not_fit_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory may run out while the head of the first batch is copied."""
    views_on_cpu, view = ViewsOnCPU(), random_representation(n=4)

    def out_of_memory(download: Download) -> None:
        raise torch.OutOfMemoryError("no memory")

    with monkeypatch.context() as patched:
        patched.setattr(Download, "send", out_of_memory)
        with pytest.raises(torch.OutOfMemoryError):
            started(views_on_cpu, view)
    assert torch.equal(started(views_on_cpu, view[:2])()["dense"].weight, view.weight)
