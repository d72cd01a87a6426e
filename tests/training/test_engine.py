"""The engine runs on the device that is asked for, and options of ``fabric run`` take precedence."""

import pytest
import torch

from skdfb.training import _engine


@pytest.mark.parametrize(("device", "own"), [("cuda:1", [1]), ("cuda", [0]), ("cpu", 1)])
def test_devices(device, own, monkeypatch):
    given = []
    monkeypatch.setattr(_engine, "Fabric", lambda **options: given.append(options))
    monkeypatch.delenv("LT_DEVICES", raising=False)
    _engine.make_engine(torch.device(device), "32-true", torch.float32)
    # Fabric refuses other devices than those of the command line.
    monkeypatch.setenv("LT_DEVICES", "1")
    _engine.make_engine(torch.device(device), "32-true", torch.float32)
    assert [options["devices"] for options in given] == [own, "1"]
    assert {options["accelerator"] for options in given} == {torch.device(device).type}


@pytest.mark.parametrize(
    ("dtype", "precision"), [(torch.float32, "32-true"), (torch.float64, "64-true"), (torch.bfloat16, "bf16-true")]
)
def test_weights_of_another_type_keep_it(dtype, precision, monkeypatch):
    given = []
    monkeypatch.setattr(_engine, "Fabric", lambda **options: given.append(options))
    _engine.make_engine(torch.device("cpu"), "32-true", dtype)
    assert given[0]["precision"] == precision
