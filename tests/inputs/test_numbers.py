"""Types and ranges of numbers: every form gives the pixels that the numbers mean, or they are refused by name."""

import re
from typing import Any

import numpy as np
import pytest
import torchvision
from PIL import Image
from torchvision.datasets import ImageFolder

from skdfb.exceptions import UnreadableImageError
from skdfb.images import as_images, check_images
from tests.bad_images import ItemDataset
from tests.inputs.forms import FORMS, Estimator, as_pil, can_hold, numbers, saved, unit_pixels

# The type, the least and the largest value, and the numbers that are black and white.
RANGES: dict[str, tuple[Any, float, float, tuple[float, float]]] = {
    "bytes": (np.uint8, 0, 255, (0, 255)),
    "dark bytes": (np.uint8, 0, 90, (0, 255)),
    "black and white": (np.bool_, 0, 1, (0, 1)),
    "8 bits with a sign": (np.int8, 0, 120, (0, 255)),
    "8 bits in 16": (np.uint16, 0, 255, (0, 255)),
    "8 bits in 32": (np.int32, 3, 255, (0, 255)),
    "10 bits in 16": (np.uint16, 0, 1000, (0, 1023)),
    "12 bits in 16": (np.uint16, 5, 4095, (0, 4095)),
    "12 bits in 32": (np.int32, 5, 4000, (0, 4095)),
    "14 bits in 16": (np.uint16, 0, 16_000, (0, 16_383)),
    "16 bits": (np.uint16, 0, 65_535, (0, 65_535)),
    "16 bits with a sign": (np.int16, 0, 30_000, (0, 65_535)),
    "tomography": (np.int16, -1000, 2000, (-1000, 2000)),
    "tomography in 32": (np.int32, -1024, 3071, (-1024, 3071)),
    "counts": (np.int32, 0, 2**31 - 1, (0, 2**31 - 1)),
    "counts without a sign": (np.uint32, 7, 2**32 - 1, (7, 2**32 - 1)),
    "half floats": (np.float16, 0, 1, (0, 1)),
    "floats": (np.float32, 0, 1, (0, 1)),
    "doubles": (np.float64, 0, 0.5, (0, 1)),
    "floats rounded up": (np.float64, 0, 1 + 1e-9, (0, 1)),
    "floats rounded down": (np.float64, -1e-9, 1, (0, 1)),
}
ROWS = [(kind, form) for kind in RANGES for form in FORMS if can_hold(form, RANGES[kind][0])]


@pytest.mark.parametrize(("kind", "form"), ROWS)
def test_pixels(kind: str, form: str, tmp_path: Any) -> None:
    dtype, low, high, (black, white) = RANGES[kind]
    array = numbers(dtype, low, high)
    # By hand, in Python's numbers.
    expected = [np.clip((image.astype(object) - black) / (white - black), 0, 1).astype(float) for image in array]
    X = FORMS[form](array, tmp_path)
    estimator = Estimator()
    for images in (as_images(X), check_images(estimator, X, reset=True), check_images(estimator, X, reset=False)):
        for image, wanted in zip(unit_pixels(images), expected, strict=True):
            np.testing.assert_allclose(image[: len(wanted)], np.repeat(wanted, 3, axis=-1), rtol=0, atol=1e-6)
    assert estimator.image_range_ == ((black, white) if np.dtype(dtype).kind in "ui" else (0, 255))


# The type, the least and the largest value, and what the error says, after the name of the image.
REFUSED: dict[str, tuple[Any, float, float, str]] = {
    "floats to 255": (
        np.float32,
        0,
        254.5,
        r"has float pixels in 0\.\.254\.5: expected floats in 0\.\.1 .* image_range=",
    ),
    "normalised floats": (np.float32, -2.5, 2, r"has float pixels in -2\.5\.\.2: expected .* Do not normalise"),
    "floats just above 1": (np.float64, 0, 1.00001, r"in 0\.\.1\.00001: expected floats in 0\.\.1"),
    "floats far below 0": (np.float64, -0.001, 1, r"in -0\.001\.\.1: expected floats"),
    "NaN": (np.float32, 0, np.nan, "contains NaN or infinity"),
    "infinity": (np.float64, 0, np.inf, "contains NaN or infinity"),
}
REFUSED_ROWS = [
    (kind, form)
    for kind in REFUSED
    for form in ("array", "list of sizes", "list of tensors", "PIL", "dataset of arrays", "tif", "npy", "pairs")
    if can_hold(form, REFUSED[kind][0])
]


@pytest.mark.parametrize(("kind", "form"), REFUSED_ROWS)
def test_numbers_that_cannot_be_told_are_refused(kind: str, form: str, tmp_path: Any) -> None:
    dtype, low, high, message = REFUSED[kind]
    with np.errstate(invalid="ignore"):
        array = np.nan_to_num(numbers(dtype, 0, 0.5))
    array[0, 0, 0], array[0, 1, 1] = low, high
    X, estimator = FORMS[form](array, tmp_path), Estimator()
    named = rf"^(X|X\[\d\]|image \d|image \d .*: it) {message}" if "NaN" in message else message
    with pytest.raises(ValueError, match=named):
        check_images(estimator, X, reset=True)
    (tmp_path / "good").mkdir()
    check_images(estimator, FORMS[form](numbers(dtype, 0, 1), tmp_path / "good"), reset=True)
    with pytest.raises(ValueError, match=message):
        unit_pixels(check_images(estimator, X, reset=False))


class TestGivenRange:
    @pytest.mark.parametrize("form", ["array", "list of sizes", "list of tensors", "PIL", "tif", "npy", "pairs"])
    @pytest.mark.parametrize(
        ("dtype", "low", "high", "image_range"),
        [
            (np.float32, 0, 254.5, (0, 255)),
            (np.float32, -2.5, 2, (-3, 3)),
            (np.float32, 250, 320.5, (200, 400)),
            (np.int32, 0, 4000, (0, 65_535)),
            (np.int32, -900, 1000, (-1024, 3071)),
            (np.uint8, 0, 15, (0, 15)),
        ],
    )
    def test_it_is_used_and_kept(
        self, form: str, dtype: Any, low: float, high: float, image_range: Any, tmp_path: Any
    ) -> None:
        array, estimator = numbers(dtype, low, high), Estimator()
        expected = (array.astype(np.float64) - image_range[0]) / (image_range[1] - image_range[0])
        X = FORMS[form](array, tmp_path)
        for images in (
            as_images(X, image_range=image_range),
            check_images(estimator, X, reset=True, image_range=image_range),
            check_images(estimator, FORMS[form](array[:2], tmp_path), reset=False),
        ):
            for image, wanted in zip(unit_pixels(images), expected, strict=False):
                np.testing.assert_allclose(image[: len(wanted)], np.repeat(wanted, 3, -1), rtol=0, atol=1e-5)
        assert estimator.image_range_ == image_range

    def test_it_does_not_hold_for_the_bytes_of_a_mixed_set(self) -> None:
        images = as_images(
            [as_pil(numbers(np.uint8, 0, 255)[-1]), as_pil(numbers(np.uint16, 0, 4095)[-1])], image_range=(0, 4095)
        )
        assert [float(image.max()) for image in unit_pixels(images)] == [1.0, 1.0]

    @pytest.mark.parametrize("form", ["array", "list of sizes", "PIL", "tif"])
    def test_values_beyond_it_are_refused(self, form: str, tmp_path: Any) -> None:
        X = FORMS[form](numbers(np.int32, -5, 4096), tmp_path)
        with pytest.raises(
            ValueError, match=r"integer pixels in -5\.\.\d+: expected values within image_range=\(0\.0, 4095"
        ):
            check_images(Estimator(), X, reset=True, image_range=(0, 4095))

    @pytest.mark.parametrize(
        "image_range", [(1, 0), (0, 0), (0, np.nan), (0, np.inf), 5, "ab", (0, 1, 2), ("a", 1), {}]
    )
    def test_bad_ranges(self, image_range: Any) -> None:
        with pytest.raises(ValueError, match=r"image_range=.*: expected \(low, high\), the numbers that become black"):
            as_images(numbers(np.uint16, 0, 4095), image_range=image_range)


class TestScoring:
    """Later images are read as those of ``fit``, whatever their own values."""

    @pytest.mark.parametrize("form", ["array", "list of arrays", "PIL", "png", "tif", "dataset of arrays", "bytes"])
    def test_dark_images(self, form: str, tmp_path: Any) -> None:
        estimator = Estimator()
        check_images(estimator, FORMS[form](numbers(np.uint16, 0, 4095), tmp_path), reset=True)
        dark = numbers(np.uint16, 0, 200)
        images = check_images(estimator, FORMS[form](dark, tmp_path), reset=False)
        np.testing.assert_allclose(unit_pixels(images)[0][..., 0], dark[0, ..., 0] / 4095, rtol=0, atol=1e-6)

    @pytest.mark.parametrize("form", ["array", "list of arrays", "PIL", "png", "tif", "dataset of arrays", "bytes"])
    @pytest.mark.parametrize("fitted", [(np.uint16, 4095), (np.uint8, 255)])
    def test_brighter_images_than_the_range_are_refused(
        self, form: str, fitted: tuple[Any, int], tmp_path: Any
    ) -> None:
        dtype, high = fitted
        estimator = Estimator()
        check_images(estimator, FORMS[form](numbers(dtype, 0, high), tmp_path), reset=True)
        with pytest.raises(ValueError, match=rf"in \d+\.\.\d+: expected 0\.\.{high}, the range of the training images"):
            unit_pixels(check_images(estimator, FORMS[form](numbers(np.uint16, 9, 60_000), tmp_path), reset=False))

    def test_an_observed_range_does_not_end_at_its_largest_value(self) -> None:
        estimator = Estimator()
        check_images(estimator, numbers(np.int16, -1000, 1000), reset=True)
        images = check_images(estimator, numbers(np.int16, -1000, 1500), reset=False)
        assert max(float(image.max()) for image in unit_pixels(images)) == pytest.approx(1.25)

    def test_bytes_after_deeper_integers_are_refused_with_a_remedy(self) -> None:
        estimator, X = Estimator(), numbers(np.uint8, 0, 255)
        check_images(estimator, numbers(np.uint16, 0, 4095), reset=True)
        with pytest.raises(
            ValueError, match=r"X holds integers of 8 bits, but fit was given integers in 0\.\.4095"
        ) as error:
            check_images(estimator, X, reset=False)
        remedy = re.search(r"pass (.*)\.$", str(error.value)).group(1)  # type: ignore[union-attr]
        images = check_images(estimator, eval(remedy, {"np": np, "X": X}), reset=False)
        np.testing.assert_allclose(unit_pixels(images)[0][..., 0], X[0, ..., 0] / 255, rtol=0, atol=2e-4)

    def test_floats_after_deeper_integers_are_refused_with_a_remedy(self) -> None:
        estimator, X = Estimator(), numbers(np.float64, 0, 1)
        check_images(estimator, numbers(np.int16, -1000, 1000), reset=True)
        with pytest.raises(
            ValueError, match=r"X holds grey images of floats .*, but fit was given grey images of int"
        ) as error:
            check_images(estimator, X, reset=False)
        remedy = re.search(r"pass (.*)\.$", str(error.value)).group(1)  # type: ignore[union-attr]
        images = check_images(estimator, eval(remedy, {"np": np, "X": X}), reset=False)
        np.testing.assert_allclose(unit_pixels(images)[0][..., 0], X[0, ..., 0], rtol=0, atol=1e-3)

    def test_photographs_after_floats(self, tmp_path: Any) -> None:
        """A file tells its type: bytes are 0..255."""
        estimator = Estimator()
        check_images(estimator, saved(numbers(np.float32, 0, 1), tmp_path, "tif"), reset=True)
        X = numbers(np.uint8, 0, 255)
        images = check_images(estimator, saved(X, tmp_path, "png"), reset=False)
        np.testing.assert_allclose(unit_pixels(images)[0][..., 0], X[0, ..., 0] / 255, rtol=0, atol=1e-6)


def test_a_mixed_folder_of_bytes_and_deeper_integers(tmp_path: Any) -> None:
    small, deep = numbers(np.uint8, 0, 255), numbers(np.uint16, 0, 60_000)
    (tmp_path / "deep").mkdir()
    images = as_images([*saved(small, tmp_path, "png"), *saved(deep, tmp_path / "deep", "tif")])
    read = unit_pixels(images)
    np.testing.assert_allclose(read[1][..., :1], small[1] / 255, rtol=0, atol=1e-6)
    np.testing.assert_allclose(read[-1][..., :1], deep[-1] / 65_535, rtol=0, atol=1e-6)


@pytest.mark.parametrize("n_channels", [1, 3])
def test_deep_colours(n_channels: int, tmp_path: Any) -> None:
    """PIL keeps 8 of the 16 bits of a colour."""
    array = numbers(np.uint16, 0, 4095, n_channels)
    for suffix in ("png", "tif"):
        read = unit_pixels(as_images(saved(array, tmp_path, suffix)))
        np.testing.assert_allclose(read[0], np.broadcast_to(array[0] / 4095, read[0].shape), rtol=0, atol=1e-6)


class TestLoadersOfDatasets:
    @pytest.fixture
    def folder(self, tmp_path: Any) -> Any:
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            saved(numbers(np.uint16, 0, 65_535), tmp_path / name, "png")
        return tmp_path

    def test_a_loader_that_cuts_off_numbers_is_refused(self, folder: Any) -> None:
        """torchvision's own converts to colour, and PIL then makes every number above 255 white."""
        with pytest.raises(ValueError, match=r"image 0 has 8 bits.*'.*0\.png' holds other numbers \(PIL's mode I;16\)"):
            check_images(Estimator(), ImageFolder(folder), reset=True)

    def test_a_part_of_a_folder(self, folder: Any) -> None:
        import torch

        with pytest.raises(ValueError, match="which the loader of the dataset has cut off"):
            check_images(Estimator(), torch.utils.data.Subset(ImageFolder(folder), [1, 5, 6]), reset=True)

    def test_the_remedy(self, folder: Any) -> None:
        images = check_images(Estimator(), ImageFolder(folder, loader=Image.open), reset=True)
        expected = numbers(np.uint16, 0, 65_535)
        np.testing.assert_allclose(unit_pixels(images)[0][..., :1], expected[0] / 65_535, rtol=0, atol=1e-6)

    def test_integers_that_lost_their_sign(self, folder: Any) -> None:
        transform = torchvision.transforms.Lambda(lambda image: np.asarray(image).astype(np.int16))
        with pytest.raises(ValueError, match="or numbers below 0, but its file"):
            check_images(Estimator(), ImageFolder(folder, transform, loader=Image.open), reset=True)

    def test_an_ordinary_folder(self, tmp_path: Any) -> None:
        (tmp_path / "a").mkdir()
        saved(numbers(np.uint8, 0, 255), tmp_path / "a", "png")
        assert check_images(Estimator(), ImageFolder(tmp_path), reset=True).labels() == [0] * 4


def test_one_bad_image_is_named_in_any_form() -> None:
    X = [*numbers(np.float32, 0, 1), np.full((3, 4, 1), 7.0)]
    with pytest.raises(UnreadableImageError, match=r"image 4 has float pixels in 7\.\.7"):
        check_images(Estimator(), ItemDataset(X), reset=True)
