"""The hub of weights: a server that does not answer is found within seconds, and files from before are used."""

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from skdfb import DFBDetector, FrozenDetector
from skdfb.images import _checks
from skdfb.masks import CAMMaskGenerator
from skdfb.networks import _hub, _timm, create_backbone

NAME, REPOSITORY = "test_resnet.r160_in1k", "timm/test_resnet.r160_in1k"
ADDRESS = "https://hub.example"
X = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)


class Session:
    """Stands for the session of the hub; ``head`` is what a request does."""

    def __init__(self, head: Callable[..., Any]) -> None:
        self.head = head


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", ADDRESS)
    monkeypatch.delenv("HF_HUB_ETAG_TIMEOUT", raising=False)


def answering(monkeypatch: pytest.MonkeyPatch, head: Callable[..., Any]) -> None:
    monkeypatch.setattr(huggingface_hub, "get_session", lambda: Session(head))


def refusing(address: str, timeout: float) -> None:
    raise OSError("no route\nto the host")


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A firewall that drops all packets: the request goes on after its own timeout."""
    released = threading.Event()
    monkeypatch.setattr(_hub, "_SECONDS", 0.01)
    answering(monkeypatch, lambda address, timeout: released.wait())
    before = set(threading.enumerate())
    yield
    released.set()
    for thread in set(threading.enumerate()) - before:
        thread.join()


class TestWhyUnreachable:
    def test_any_answer_will_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        requests = []
        answering(monkeypatch, lambda address, timeout: requests.append((address, timeout)) or "404")
        assert _hub.why_unreachable(ADDRESS) is None
        assert requests == [(ADDRESS, 5.0)]

    def test_an_error_is_named_in_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        answering(monkeypatch, refusing)
        assert _hub.why_unreachable(ADDRESS) == f"{ADDRESS} cannot be reached: OSError: no route"

    @pytest.mark.usefixtures("silent")
    def test_a_server_that_never_answers(self) -> None:
        assert _hub.why_unreachable(ADDRESS) == (
            f"{ADDRESS} did not answer within 0.01 s; for more set HF_HUB_ETAG_TIMEOUT"
        )

    def test_a_connection_that_times_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The true session, and no socket that connects."""

        def timed_out(*args: Any, **kwargs: Any) -> None:
            raise TimeoutError("timed out")

        monkeypatch.setattr(socket, "getaddrinfo", timed_out)
        monkeypatch.setattr(socket, "create_connection", timed_out)
        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        reason = _hub.why_unreachable(ADDRESS)
        assert reason is not None
        assert reason.startswith(f"{ADDRESS} cannot be reached: ")

    def test_the_user_may_wait_longer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        timeouts = []
        monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "30")
        answering(monkeypatch, lambda address, timeout: timeouts.append(timeout))
        assert _hub.why_unreachable(ADDRESS) is None
        assert timeouts == [30.0]

    def test_offline_by_wish_asks_nobody(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        answering(monkeypatch, lambda *args, **kwargs: pytest.fail("asked"))
        assert _hub.why_unreachable(ADDRESS) == "HF_HUB_OFFLINE is set"


def in_cache(folder: Path, names: list[str], seed: int = 7) -> dict[str, torch.Tensor]:
    """Put weights where a download would put them, and return them."""
    torch.manual_seed(seed)
    weights: dict[str, torch.Tensor] = timm.create_model("test_resnet").state_dict()
    repository = folder / "cache" / f"models--{REPOSITORY.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    for name in names:
        save_file(weights, snapshot / name) if name.endswith(".safetensors") else torch.save(weights, snapshot / name)
    return weights


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.usefixtures("silent")
def test_weights_from_before_are_used_without_a_connection(file: str, tmp_path: Path) -> None:
    weights = in_cache(tmp_path, [file])
    model = create_backbone(NAME)
    assert torch.equal(model.state_dict()["layer1.0.conv1.weight"], weights["layer1.0.conv1.weight"])
    assert model.pretrained_cfg == timm.create_model(NAME).pretrained_cfg
    _timm.check_weights(NAME)


@pytest.mark.usefixtures("silent")
def test_a_published_model_from_before(tmp_path: Path) -> None:
    weights = in_cache(tmp_path, ["model.safetensors"])
    (snapshot,) = (tmp_path / "cache").glob("*/snapshots/*")
    (snapshot / "config.json").write_text('{"architecture": "test_resnet"}')
    model = create_backbone(f"hf-hub:{REPOSITORY}")
    assert torch.equal(model.state_dict()["layer1.0.conv1.weight"], weights["layer1.0.conv1.weight"])


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("name", [NAME, f"hf-hub:{REPOSITORY}"])
@pytest.mark.parametrize("make", [create_backbone, _timm.check_weights])
def test_nothing_here_and_no_connection(make: Callable[[str], Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"backbone='{name}' cannot be .*{ADDRESS} did not answer within 0.01 s"):
        make(name)


def test_timm_downloads_if_the_server_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, lambda address, timeout: None)
    made = []
    monkeypatch.setattr(
        _timm, "_create", lambda name, pretrained, size, options: made.append(pretrained) or torch.nn.ReLU()
    )
    create_backbone(NAME)
    assert made == [True]


@pytest.mark.usefixtures("silent")
def test_wrong_options_are_named_first() -> None:
    with pytest.raises(ValueError, match="does not take the options"):
        create_backbone(NAME, colour="blue")


@pytest.mark.parametrize("backbone", ["resnetv2_50x1_bit.goog_in21k", "resnet51", f"hf-hub:{REPOSITORY}"])
@pytest.mark.parametrize("estimator", [DFBDetector, FrozenDetector, CAMMaskGenerator])
@pytest.mark.usefixtures("silent")
def test_fit_asks_before_it_reads_images(estimator: Any, backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_checks, "survey", lambda *args: pytest.fail("images were read"))
    with pytest.raises(
        ValueError, match=rf"backbone='{backbone}' (is no timm model|cannot be)|of backbone='{backbone}'"
    ):
        estimator(backbone).fit(X, list("abababab"))


@pytest.mark.usefixtures("silent")
def test_the_message_of_the_default_detector() -> None:
    """One sentence for what is wrong, and the ways round."""
    with pytest.raises(ValueError, match="pre-trained weights") as raised:
        DFBDetector().fit(X, list("abababab"))
    message = str(raised.value)
    assert "\n" not in message
    assert len(message) < 600
    name = "resnetv2_50x1_bit.goog_in21k"
    for way in ("'tf_efficientnet_lite0'", f"create_backbone('{name}', checkpoint_path=...)", "HF_ENDPOINT"):
        assert way in message
