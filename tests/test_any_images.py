"""For any array given as images: finite scores, one per image, or an error of the library's own checks."""

import re
import traceback
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from skdfb.images import as_images
from tests.detector.conftest import make_detector, make_images

SHAPES = st.one_of(
    st.tuples(st.integers(0, 4), st.integers(0, 40), st.integers(0, 40), st.sampled_from([1, 3])),
    st.tuples(st.integers(0, 4), st.integers(0, 40), st.integers(0, 40)),
    st.lists(st.integers(0, 5), max_size=5).map(tuple),
    st.sampled_from([(1, 10_000, 3, 3), (2, 1, 10_000, 1), (1, 1, 1, 3), (1, 1, 1)]),
)
DTYPES = st.one_of(
    st.sampled_from(["u1", "f4", "f8", "f2", "bool", "i8", ">i4", ">f8", "u2"]),
    arrays.array_dtypes(max_size=2),
    st.sampled_from(["c8", "M8[s]", "m8[s]", "O", "U3", "S3", "V4", "f16"]),
)


def filled(shape: tuple[int, ...], dtype: str, seed: int, how: str) -> np.ndarray:
    """An array of that shape and dtype: pixels, or pixels with one bad value among them."""
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype).kind
    if kind not in "buif":
        return np.zeros(shape, dtype)
    array = np.asarray(rng.random(shape) if kind == "f" else rng.integers(0, 2 if kind == "b" else 256, shape))
    with np.errstate(over="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = array.astype(dtype)
        if how != "pixels" and array.size:
            odd = {"nan": np.nan, "infinite": np.inf, "negative": -1, "large": 300, "tiny": 1e-300}[how]
            np.put(array, [rng.integers(array.size)], np.asarray(odd).astype(dtype))
    return array


def laid_out(array: np.ndarray, layout: str) -> object:
    """The same values in another memory layout or container."""
    if layout == "fortran":
        return np.asfortranarray(array)
    if layout == "reversed" and array.ndim:
        return array[::-1]
    if layout == "strided" and array.ndim > 1:
        return np.repeat(array, 2, axis=1)[:, ::2]
    if layout == "read_only":
        array = array.copy()
        array.setflags(write=False)
    if layout == "masked" and array.dtype.names is None:
        return np.ma.masked_array(array, mask=np.zeros(array.shape, bool))
    if layout == "list":
        return array.tolist()
    if layout == "list of images" and array.ndim:
        return list(array)
    return array


@pytest.fixture(scope="module")
def detectors():
    X, y = make_images()
    return {"integer": make_detector().fit(X, y), "float": make_detector().fit(X / 255, y)}


def check_named(error: Exception) -> None:
    """It is raised by a check of skdfb or scikit-learn, and names the argument."""
    where = traceback.extract_tb(error.__traceback__)[-1].filename
    assert "/skdfb/" in where or "/sklearn/" in where, f"{where}: {error}"
    assert re.search(r"\bX\b|image|array|samples", str(error)), str(error)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    shape=SHAPES,
    dtype=DTYPES,
    seed=st.integers(0, 2**32 - 1),
    how=st.sampled_from(["pixels", "pixels", "pixels", "nan", "infinite", "negative", "large", "tiny"]),
    layout=st.sampled_from(
        ["unchanged", "fortran", "reversed", "strided", "read_only", "masked", "list", "list of images"]
    ),
)
@example((2, 16, 16, 3), "f2", 0, "pixels", "fortran")
@example((1, 10_000, 3, 3), "u1", 0, "pixels", "unchanged")
@example((1, 1, 1, 3), "f8", 0, "tiny", "reversed")
def test_a_result_or_a_named_error(detectors, shape, dtype, seed, how, layout):
    given_images = laid_out(filled(shape, dtype, seed, how), layout)
    numbers = "float" if np.dtype(dtype).kind == "f" else "integer"
    try:
        scores = detectors[numbers].score_samples(given_images)
    except (ValueError, TypeError) as error:
        check_named(error)
        return
    n_images = len(as_images(given_images))
    assert scores.shape == (n_images,)
    assert np.isfinite(scores).all()
    assert how in ("pixels", "tiny", "large", "negative") or numbers == "integer"


def test_good_images_are_scored(detectors):
    """A detector that refuses everything would pass the test above."""
    for shape in [(2, 16, 16, 3), (3, 1, 1, 3), (1, 40, 7, 3), (1, 10_000, 3, 3)]:
        for layout in ["unchanged", "fortran", "reversed", "strided", "read_only", "masked", "list", "list of images"]:
            for dtype in ["u1", "f4", "f8", "f2", "i8", ">i4", ">f8", "u2", "bool", "f16"]:
                numbers = "float" if np.dtype(dtype).kind == "f" else "integer"
                scores = detectors[numbers].score_samples(laid_out(filled(shape, dtype, 0, "pixels"), layout))
                assert scores.shape == shape[:1]
                assert np.isfinite(scores).all()
