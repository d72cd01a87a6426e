"""Loading a file takes at most four times its size in memory, also if its numbers were changed."""

import gc
import json
from pathlib import Path

import numpy as np
import pytest

import skdfb
from skdfb import Trainer
from skdfb.exceptions import InvalidModelError
from tests.detector.conftest import make_detector, make_images
from tests.helpers import TinyBackbone
from tests.persistence.test_bad_files import places_in, rewritten

PEAK = Path("/proc/self/clear_refs")  # Linux: writing 5 to it resets the peak to the present value
SLACK = 32 * 2**20  # memory that torch and the allocator take


class WideBackbone(TinyBackbone):
    """A backbone with some megabytes of weights."""

    def __init__(self):
        super().__init__(width=500)


def status(name):
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)]
    return 1024 * int(line.split()[1])


def peak_of(work):
    """Return the largest growth of the process in bytes while ``work`` runs."""
    gc.collect()
    PEAK.write_text("5")
    before = status("VmRSS")
    work()
    return status("VmHWM") - before


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    trainer = Trainer(max_steps=1, batch_size=8)
    detector = make_detector(backbone=WideBackbone(), classifier_trainer=trainer, dense_trainer=trainer)
    path = tmp_path_factory.mktemp("saved") / "model.safetensors"
    detector.fit(*make_images()).save(path)
    return path


def try_to_load(path):
    try:
        skdfb.load(path, customs=[WideBackbone], device="cpu")
    except InvalidModelError:
        return


def numbers_in(content):
    header = 8 + int.from_bytes(content[:8], "little")
    text = json.loads(content[8:header])["__metadata__"]["skdfb"]
    document = json.loads(text.partition(" ")[2])

    def value(path):
        node = document
        for key in path:
            node = node[key]
        return node

    return [path for path in places_in(document) if path and type(value(path)) is int]


@pytest.mark.skipif(not PEAK.exists(), reason="the peak of memory is read from a file of Linux")
@pytest.mark.filterwarnings("ignore:alpha_ is:UserWarning")
def test_memory(saved, tmp_path):
    content = saved.read_bytes()
    assert len(content) > 2**24
    limit = 4 * len(content) + SLACK
    assert peak_of(lambda: try_to_load(saved)) < limit
    for fraction in (0.3, 0.6, 0.99):
        (tmp_path / "cut").write_bytes(content[: int(fraction * len(content))])
        assert peak_of(lambda: try_to_load(tmp_path / "cut")) < limit
    rng, places = np.random.default_rng(0), numbers_in(content)
    for index in rng.choice(len(places), 15, replace=False):
        way = places[index]

        def change(document, way=way):
            node = document
            for key in way[:-1]:
                node = node[key]
            node[way[-1]] = int(rng.choice([10**9, 2**40, 10**5]))
            return document

        rewritten(content, tmp_path / "changed", change)
        assert peak_of(lambda: try_to_load(tmp_path / "changed")) < limit, way
