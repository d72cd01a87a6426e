"""Rows of scores as they are computed: the same numbers as at once, from any source, in memory for a batch."""

import io
import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image

from skdfb import FrozenDetector
from skdfb.datasets import iter_parquet
from skdfb.detector import ImageScore
from skdfb.scorers import ViM
from tests.detector.conftest import make_detector, make_images
from tests.helpers import TinyBackbone

N = 40
X_NEW = make_images(N, seed=1)[0]


@pytest.fixture(scope="module")
def detector():
    return make_detector(batch_size=8).fit(*make_images())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("new")
    for number, image in enumerate(X_NEW):
        Image.fromarray(image).save(path / f"{number:02}.png")
    return path


def check(detector, rows, first=0):
    rows = list(rows)
    scores, labels = detector.score_and_classify(X_NEW)
    assert [row.index for row in rows] == list(range(N))
    np.testing.assert_allclose([row.score for row in rows], scores, rtol=1e-6)
    np.testing.assert_allclose([row.p_value for row in rows], detector.p_values(X_NEW), rtol=1e-6)
    assert [row.label for row in rows] == labels.tolist()
    assert [row.accepted for row in rows] == (detector.predict(X_NEW) == 1).tolist()
    assert not any(row.error for row in rows)
    return rows


@pytest.mark.parametrize("n_jobs", [None, 3])
def test_every_source_gives_the_same(detector, folder, n_jobs):
    detector.set_params(n_jobs=n_jobs)
    paths = sorted(map(str, folder.iterdir()))
    contents = [io.BytesIO() for _ in X_NEW]
    for image, buffer in zip(X_NEW, contents, strict=True):
        Image.fromarray(image).save(buffer, "png")
    assert [row.path for row in check(detector, detector.iter_scores(folder))] == paths
    assert [row.path for row in check(detector, detector.iter_scores(iter(paths)))] == paths
    for source in (X_NEW, iter(X_NEW), (buffer.getvalue() for buffer in contents), map(Image.fromarray, X_NEW)):
        assert all(row.path is None for row in check(detector, detector.iter_scores(source)))


def test_a_parquet_file(detector, tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    contents = [io.BytesIO() for _ in X_NEW]
    for image, buffer in zip(X_NEW, contents, strict=True):
        Image.fromarray(image).save(buffer, "png")
    table = pyarrow.table({"image": [buffer.getvalue() for buffer in contents]})
    parquet.write_table(table, tmp_path / "new.parquet", row_group_size=7)
    check(detector, detector.iter_scores(iter_parquet(tmp_path / "new.parquet", batch_size=3)))


@pytest.mark.filterwarnings("ignore:alpha_ is:UserWarning")
def test_other_detectors(detector):
    check(joint := detector.refit_scorer(ViM(), *make_images()), joint.iter_scores(iter(X_NEW)))
    frozen = FrozenDetector(TinyBackbone(), image_size=16, alpha=0.1, random_state=0).fit(*make_images())
    check(frozen, frozen.iter_scores(iter(X_NEW)))


def test_a_source_without_end(detector):
    endless = itertools.cycle(X_NEW)
    rows = list(itertools.islice(detector.iter_scores(endless), 100))
    assert [row.index for row in rows] == list(range(100))
    assert rows[5].score == pytest.approx(rows[45].score)


def test_no_more_is_read_than_a_batch(detector):
    read = []

    def images():
        for number, image in enumerate(X_NEW):
            read.append(number)
            yield image

    detector.set_params(n_jobs=None)
    rows = detector.iter_scores(images())
    assert not read
    next(rows)
    assert read == list(range(8))


def test_an_image_that_cannot_be_read_has_a_row(detector, folder, tmp_path):
    paths = sorted(map(str, folder.iterdir()))
    (bad := tmp_path / "bad.png").write_bytes(b"no image")
    paths[11] = str(bad)
    for source in (paths, iter(paths)):
        row = list(detector.iter_scores(source))[11]
        assert (row.index, row.path, row.accepted, row.label) == (11, str(bad), False, None)
        assert math.isnan(row.score)
        assert math.isnan(row.p_value)
        assert row.error == "it is no image of a known format"
    contents = (b"no image" if number == 11 else (folder / f"{number:02}.png").read_bytes() for number in range(N))
    rows = list(detector.iter_scores(contents))
    assert rows[11].error == "these bytes are no image of a known format"
    assert sum(bool(row.error) for row in rows) == 1


def test_all_images_of_a_batch_may_be_unreadable(detector):
    rows = list(detector.iter_scores(iter([b"no image"] * 20)))
    assert len(rows) == 20
    assert all(row.error for row in rows)


@pytest.mark.parametrize("wrong", [None, 3, [], "no such folder", [1.5], np.zeros((2, 3, 4, 5, 6))])
def test_wrong_sources_are_refused_at_once(detector, wrong):
    with pytest.raises((TypeError, ValueError, OSError)):
        detector.iter_scores(wrong)


def test_a_wrong_item_is_an_error(detector):
    with pytest.raises(TypeError, match="has type"):
        list(detector.iter_scores(iter(["a.png", 3])))


def test_the_caller_keeps_its_own_modes_of_torch(detector):
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        rows = detector.iter_scores(iter(X_NEW))
        first = next(rows)
        assert torch.is_inference_mode_enabled()
        assert torch.is_autocast_enabled("cpu")
        list(rows)
    assert first.score == pytest.approx(detector.score_samples(X_NEW)[0])


def test_a_row_is_small():
    assert not hasattr(ImageScore(0, None, 1.0, 0.5, True, "a"), "__dict__")


def test_parameters_that_were_changed_since_fit_are_checked(detector):
    """A batch of no images would end the rows without a word."""
    detector.set_params(batch_size=0)
    try:
        with pytest.raises(ValueError, match="batch_size"):
            detector.iter_scores(iter(X_NEW))
    finally:
        detector.set_params(batch_size=8)
