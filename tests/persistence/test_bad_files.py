"""Incomplete, changed and malicious files: they load with equal scores or raise InvalidModelError, nothing else."""

import json
import os
import pickle
import socket
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from safetensors import safe_open
from safetensors.torch import save_file

import skdfb
from skdfb.exceptions import InvalidModelError
from skdfb.utils import digest_of
from tests.detector.conftest import make_detector, make_images
from tests.helpers import TinyBackbone

CUSTOMS = {"tests.helpers.TinyBackbone": TinyBackbone}
X_NEW = make_images(5, seed=3)[0]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The bytes of a saved detector, and its scores."""
    detector = make_detector().fit(*make_images())
    path = tmp_path_factory.mktemp("saved") / "model.safetensors"
    skdfb.save(detector, path)
    return path.read_bytes(), detector.score_samples(X_NEW)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("changed") / "model.safetensors"


def loads_or_is_refused(path, scores):
    """Return whether a file loads. If it does, its scores must be those of the saved model."""
    try:
        model = skdfb.load(path, customs=CUSTOMS, device="cpu")
    except InvalidModelError:
        return False
    assert_array_equal(model.score_samples(X_NEW), scores)
    return True


def test_the_whole_file_is_loaded(saved, place):
    place.write_bytes(saved[0])
    assert loads_or_is_refused(place, saved[1])


def test_cut_at_every_hundredth(saved, place):
    content, scores = saved
    for percent in range(100):
        place.write_bytes(content[: len(content) * percent // 100])
        assert not loads_or_is_refused(place, scores)
    place.write_bytes(content + b"\0")
    assert not loads_or_is_refused(place, scores)


def test_flipped_bits(saved, place):
    content, scores = saved
    rng = np.random.default_rng(0)
    header = 8 + int.from_bytes(content[:8], "little")
    # Half of them in the header, which is the smaller part.
    bits = np.concatenate([rng.integers(0, 8 * header, 250), rng.integers(8 * header, 8 * len(content), 250)])
    for bit in bits.tolist():
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        place.write_bytes(changed)
        assert not loads_or_is_refused(place, scores)


# ------------------------------------------------------------- JSON of an attacker


def rewritten(content, place, change):
    """Write the file with changed JSON and the digest of the changed content."""
    place.write_bytes(content)
    with safe_open(place, framework="pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        document = json.loads(file.metadata()["skdfb"].partition(" ")[2])
    text = json.dumps(change(document))
    save_file(tensors, place, {"skdfb": f"{digest_of(text, tensors)} {text}"})


def places_in(node, path=()):
    """All paths to values in a JSON document."""
    yield path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, item in items:
        yield from places_in(item, (*path, key))


WRONG_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from(
        [10**30, -(10**12), 2**63, 1e308, 0.5, "", "../../etc/passwd", "model", "ViM", "os.system", "Part"]
    ),
    st.sampled_from([[], {}, [[]], {"is": "tensor"}, {"is": "same", "as": "model"}, {"is": "array", "dtype": "O"}]),
    st.sampled_from(
        [
            {"is": "instance", "custom": "os.system", "state": {}},
            {"is": "instance", "class": "Representation", "state": {}},
            {"is": "module", "class": "builtins.eval", "weights": []},
            {"is": "array", "dtype": "<U8", "shape": [10**9], "items": ["a"]},
            {"is": "module", "arguments": {"name": "vit_giant_patch14_224", "image_size": 10**6}, "weights": []},
            {"is": "float", "value": "nan"},
            {"is": "number", "dtype": "float64", "value": "x"},
            {"is": "random state", "state": {}},
        ]
    ),
)


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    position=st.floats(0, 1, exclude_max=True), how=st.sampled_from(["replace", "add", "remove"]), value=WRONG_VALUES
)
def test_changed_json(saved, place, position, how, value):
    content, scores = saved

    def change(document):
        ways = [path for path in places_in(document) if path]
        *way, last = ways[int(position * len(ways))]
        node = document
        for key in way:
            node = node[key]
        if how == "replace" or (how == "add" and not isinstance(node, dict)):
            node[last] = value
        elif how == "add":
            node["unknown"] = value
        else:
            del node[last]
        return document

    rewritten(content, place, change)
    try:
        model = skdfb.load(place, customs=CUSTOMS, device="cpu")
    except InvalidModelError:
        return
    # The changed file may be valid: the change may be in a parameter that scoring does not use.
    try:
        found = model.score_samples(X_NEW)
    except ValueError as error:  # or in the kind of arrays that fit was given, by which others are refused
        if "expected the form that fit was given" not in str(error):
            raise
        return
    np.testing.assert_allclose(found, scores, rtol=0.05, atol=0.05)


class Payload:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


@pytest.mark.parametrize("around", [b"%s", b"\x00\x00\x00\x00\x00\x00\x00\x00%s", b"PK\x03\x04%s"])
def test_a_pickle_runs_nothing(place, tmp_path, around):
    place.write_bytes(around % pickle.dumps(Payload(tmp_path / "run")))
    with pytest.raises(InvalidModelError):
        skdfb.load(place)
    assert not (tmp_path / "run").exists()


def test_a_third_party_class_is_not_looked_up(saved, place, tmp_path, monkeypatch):
    """It is neither imported nor called: the code of its module does not run."""
    (tmp_path / "other_module.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'run')!r})\nclass Other: pass\n")
    monkeypatch.syspath_prepend(tmp_path)

    def change(document):
        document["model"]["state"]["scorer_"] = {"is": "instance", "custom": "other_module.Other", "state": {}}
        return document

    rewritten(saved[0], place, change)
    with pytest.raises(InvalidModelError, match=r"'other_module.Other', which is not part of skdfb; if you trust it"):
        skdfb.load(place, customs=CUSTOMS)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 3}, r"its format is 3, but this version reads formats up to 2: .*update skdfb"),
        ({"format": 0}, "its format is 0, but this version reads formats from 1 on"),
        ({"format": "1"}, "its format is '1'"),
        ({"more": 1}, "the entries of its JSON are not exactly format, versions, model and trial"),
    ],
)
def test_other_formats(saved, place, change, message):
    rewritten(saved[0], place, lambda document: document | change)
    with pytest.raises(InvalidModelError, match=message):
        skdfb.load(place)


def test_other_files(place, tmp_path):
    place.write_text("hello")
    with pytest.raises(InvalidModelError, match=r"model.safetensors' cannot be loaded"):
        skdfb.load(place)
    save_file({}, place, {"format": "pt"})
    with pytest.raises(InvalidModelError, match="it was not written by skdfb"):
        skdfb.load(place)
    place.write_bytes(b"")
    with pytest.raises(InvalidModelError, match=r"is empty \(0 bytes\): expected the file of a model"):
        skdfb.load(place)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        skdfb.load(tmp_path / "missing")
    with pytest.raises(IsADirectoryError, match="is a folder: expected the file of a model"):
        skdfb.load(tmp_path)


def with_backbone(name, image_size, **options):
    """Return a change of a document that gives it a timm backbone."""

    def change(document):
        backbone = document["model"]["state"]["dense_network_"]["backbone"]
        values = [name, image_size, {"is": "map", "keys": list(options), "values": list(options.values())}]
        del backbone["class"]
        backbone["arguments"] = {"is": "map", "keys": ["name", "image_size", "options"], "values": values}
        return document

    return change


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet18", {"pretrained": True}, r"options \['pretrained'\] would have weights read from elsewhere"),
        ("resnet18", {"checkpoint_path": "/etc/passwd"}, "would have weights read from elsewhere"),
        ("resnet18", {"cache_dir": "somewhere"}, "would have weights read from elsewhere"),
        ("resnet18", {"pretrained_cfg": "a1_in1k"}, "would have weights read from elsewhere"),
        ("hf-hub:somebody/something", {}, "is no timm model"),
        ("local-dir:/tmp", {}, "is no timm model"),
    ],
)
def test_loading_opens_no_connections_and_no_other_files(saved, place, monkeypatch, name, options, message):
    def refuse(*arguments):
        pytest.fail("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    rewritten(saved[0], place, with_backbone(name, 64, **options))
    with pytest.raises(InvalidModelError, match=message):
        skdfb.load(place, customs=CUSTOMS)


def test_a_giant_network_is_refused_before_it_is_built(saved, place):
    rewritten(saved[0], place, with_backbone("vit_giant_patch14_224", 10**6))
    tracemalloc.start()
    try:
        with pytest.raises(InvalidModelError, match="weights are missing or have another shape"):
            skdfb.load(place, customs=CUSTOMS)
    finally:
        tracemalloc.stop()
