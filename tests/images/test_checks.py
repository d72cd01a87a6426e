"""Checks of training data: labels are read once, and images that are all the same are refused."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from sklearn.base import BaseEstimator
from torch import Tensor

from skdfb.exceptions import UnreadableImageError
from skdfb.images import as_images, check_images, check_labels, labels_given
from tests.bad_images import CountingDataset, ItemDataset

Array = npt.NDArray[Any]
N, HEIGHT, WIDTH = 5, 6, 7


class Estimator(BaseEstimator):
    """Has what ``check_images`` reads of an estimator."""

    def __init__(self, image_shape: tuple[int, ...] | None = None) -> None:
        self.image_shape = image_shape


def noise(n: int = N, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (n, HEIGHT, WIDTH, 3)).astype(np.uint8)


def labelled() -> CountingDataset:
    return CountingDataset([(image, "cat" if index % 2 else "dog") for index, image in enumerate(noise())])


LABELS = ["dog", "cat", "dog", "cat", "dog"]


class TestLabelsAreReadOnce:
    def test_any_number_of_calls(self) -> None:
        dataset = labelled()
        images = as_images(dataset)
        y = labels_given(images, None)
        assert y == LABELS
        assert dataset.counts.max() == 1
        assert labels_given(images, None) == LABELS
        for given in (None, y):
            classes, indices = check_labels(given, images)
            assert classes.tolist() == ["cat", "dog"]
            assert classes[indices].tolist() == LABELS
        assert (dataset.counts == 1).all()

    def test_given_labels_read_nothing(self) -> None:
        dataset = labelled()
        images = as_images(dataset)
        assert labels_given(images, [0, 1, 0, 1, 1]) == [0, 1, 0, 1, 1]
        assert labels_given(dataset, [0, 1, 0, 1, 1]) == [0, 1, 0, 1, 1]
        check_labels([0, 1, 0, 1, 1], images)
        assert not dataset.counts.any()

    def test_a_dataset_without_labels_reads_one_item(self) -> None:
        dataset = CountingDataset(noise())
        images = as_images(dataset)
        assert labels_given(images, None) is None
        with pytest.raises(ValueError, match="requires y to be passed, but the target y is None: expected"):
            check_labels(labels_given(images, None), images)
        assert dataset.counts.tolist() == [1, 0, 0, 0, 0]

    @pytest.mark.parametrize("lenient", [False, True])
    def test_subsets(self, lenient: bool) -> None:
        dataset = labelled()
        images = as_images(dataset, lenient=lenient)
        assert images.labels() == LABELS
        subset = images.subset(np.array([3, 0, 2])).subset(np.array([1, 0]))
        assert subset.labels() == ["dog", "cat"]
        assert (dataset.counts == 1).all()

    @pytest.mark.parametrize("make", [noise, lambda: list(map(Image.fromarray, noise()))])
    def test_other_images_have_none(self, make: Any) -> None:
        images = as_images(make())
        assert images.labels() is None
        assert images.subset(np.array([1])).labels() is None
        assert labels_given(make(), None) is None

    def test_the_dataset_itself(self) -> None:
        assert labels_given(labelled(), None) == LABELS

    def test_an_item_that_cannot_be_read_is_named(self) -> None:
        class Damaged(ItemDataset):
            def __getitem__(self, index: int) -> Any:
                if index == 2:
                    raise OSError("the file is damaged")
                return super().__getitem__(index)

        with pytest.raises(UnreadableImageError, match="image 2 cannot be read: the file is damaged"):
            as_images(Damaged([(image, 0) for image in noise()])).labels()


def constant(value: Any, dtype: Any, n: int = N) -> Array:
    return np.full((n, HEIGHT, WIDTH, 3), value, dtype)


def write(folder: Path, images: Any) -> list[Path]:
    paths = [folder / f"{index}.png" for index in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


def check(X: Any, image_shape: tuple[int, ...] | None = None) -> None:
    check_images(Estimator(image_shape), X, reset=True)


EVERY_PIXEL = r"X holds 5 images that are all the same \(every pixel is {}\): expected different images; check how"


class TestImagesThatAreAllTheSame:
    @pytest.mark.parametrize(
        ("X", "value"),
        [
            (constant(128, np.uint8), "128"),
            (constant(255, np.int64), "255"),
            (constant(True, bool), "255"),
            (constant(0.5, np.float32), "0.5"),
            (constant(0, float), "0"),
            (constant(1, float)[..., 0], "1"),
            (torch.full((N, HEIGHT, WIDTH, 3), 0.25), "0.25"),
            ([np.full((side, 4), 9, np.uint8) for side in range(1, N + 1)], "9"),
            ([Image.new("L", (side, 4), 7) for side in range(1, N + 1)], "7"),
            ([torch.full((3, 4, 4), 0.5)] * N, "0.5"),
            (ItemDataset([(torch.full((3, side, 4), 0.5), side) for side in range(1, N + 1)]), "0.5"),
        ],
    )
    def test_one_value_in_all_pixels(self, X: Any, value: str) -> None:
        with pytest.raises(ValueError, match=EVERY_PIXEL.format(re.escape(value))):
            check(X)

    def test_files(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=EVERY_PIXEL.format(200)):
            check(write(tmp_path, constant(200, np.uint8)))

    @pytest.mark.parametrize("value", [7.0, -2.5, 0.0])
    def test_rows_of_numbers(self, value: float) -> None:
        with pytest.raises(
            ValueError, match=rf"X holds 4 images that are all the same \(every value is {value:g}\): expected"
        ):
            check(np.full((4, 3), value))

    def test_flattened_images(self) -> None:
        with pytest.raises(ValueError, match=EVERY_PIXEL.format(r"0\.5")):
            check(constant(0.5, float).reshape(N, -1), (HEIGHT, WIDTH, 3))

    @pytest.mark.parametrize(
        "make",
        [
            lambda image: np.stack([image] * N),
            lambda image: np.stack([image] * N) / 255,
            lambda image: [Image.fromarray(image)] * N,
            lambda image: ItemDataset([image] * N),
            lambda image: np.stack([image.ravel()] * N),
        ],
    )
    def test_one_image_again_and_again(self, make: Any) -> None:
        with pytest.raises(ValueError, match="X holds 5 images that are all the same: expected different images;"):
            check(make(noise()[0]))

    def test_a_single_image(self) -> None:
        check(noise(1))
        with pytest.raises(ValueError, match=r"X holds 1 image\(s\) .* \(every pixel is 3\)"):
            check(constant(3, np.uint8, 1))

    @pytest.mark.parametrize(
        "X",
        [
            noise(),
            noise() / 255,
            noise() > 127,
            # Constant images of two values, and equal images but one.
            np.stack([np.full((5, 5), value, np.uint8) for value in (3, 3, 3, 9)]),
            np.concatenate([noise(1)] * 4 + [noise(1, seed=1)]),
            [np.zeros((4, 4), np.uint8), np.full((5, 4), 9, np.uint8)],
            ItemDataset([np.full((4, 4), 51, np.uint8), np.full((4, 4), 0.3, np.float32)]),
            np.array([[1.0, 2.0], [1.0, 2.5]]),
        ],
    )
    def test_others_pass(self, X: Any) -> None:
        check(X)

    @pytest.mark.parametrize(
        ("X", "values"),
        [
            (np.stack([np.full((5, 5), value, np.uint8) for value in (3, 3, 3, 4)]), r"0\.011765 to 0\.015686"),
            (0.5 + noise() / 255e3, r"0\.5 to 0\.501"),
            ([Image.fromarray((image > 127).astype(np.uint8) + 100) for image in noise()], r"0\.392157 to 0\.396078"),
            (ItemDataset([torch.from_numpy(image / 255e3) for image in noise()[..., 0]]), r"4e-06 to 0\.000984"),
        ],
    )
    def test_nearly_of_one_colour(self, X: Any, values: str) -> None:
        message = rf"X holds \d images that are nearly of one colour \(every pixel is {values} of 0\.\.1\): expected"
        with pytest.raises(ValueError, match=message):
            check(X)

    def test_of_many_images_a_hundred_are_compared(self) -> None:
        dataset = CountingDataset(list(constant(0.5, float, 1000)))
        message = r"X holds 1000 images, and the 100 that were compared are all the same \(every pixel is 0\.5\)"
        with pytest.raises(ValueError, match=message):
            check(dataset)
        assert (dataset.counts == 1).all()

    def test_each_image_of_a_dataset_is_read_once(self) -> None:
        dataset = CountingDataset(list(noise(200)))
        check(dataset)
        assert (dataset.counts == 1).all()

    def test_both_checks_read_each_image_once(self) -> None:
        class Counted(np.ndarray[Any, Any]):
            counts = np.zeros(50, dtype=int)

            def __getitem__(self, index: Any) -> Any:
                if isinstance(index, np.ndarray):
                    self.counts[index] += 1
                return super().__getitem__(index)

        images = as_images(np.ones((50, 4, 4, 3), np.uint8))
        images.array = images.array.view(Counted)  # type: ignore[attr-defined]
        with pytest.raises(ValueError, match="X holds no integer above 1"):
            check_images(Estimator(), images, reset=True)
        assert (Counted.counts == 1).all()

    def test_images_that_are_readable_already_have_their_own_form(self) -> None:
        images = as_images(noise())
        check_images(Estimator(), images, reset=True)
        with pytest.raises(ValueError, match=r"image_range=.* is given beside X as ArrayImages, whose range is set"):
            check_images(Estimator(), images, reset=True, image_range=(0, 9))
        with pytest.raises(ValueError, match="X has images of 3 channels: expected 4, as many as the backbone takes"):
            check_images(Estimator(), images, reset=True, n_channels=4)

    def test_scoring_takes_any(self) -> None:
        estimator = Estimator()
        check_images(estimator, noise(), reset=True)
        check_images(estimator, constant(3, np.uint8), reset=False)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
@pytest.mark.parametrize("value", [0, 1])
def test_integers_without_one_above_1(dtype: Any, value: int) -> None:
    X = constant(0, dtype)
    X[::2, 0, 0] = value
    message = r"X holds no integer above 1: expected integers in 0\.\.255, .* pass them as floats; .*X\.astype\(bool\)"
    with pytest.raises(ValueError, match=message):
        check(X)
    check((noise() > 127).astype(float))


def test_a_tensor_of_labels_becomes_a_list() -> None:
    dataset = torch.utils.data.TensorDataset(Tensor(noise() / 255).permute(0, 3, 1, 2), torch.tensor([2, 0, 2, 1, 1]))
    assert as_images(dataset).labels() == [2, 0, 2, 1, 1]


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("X", [None, 3, 0.5, np.array(7), {3}], ids=str)
def test_what_holds_no_images_is_named(X: Any, reset: bool) -> None:
    estimator = Estimator()
    check_images(estimator, noise(), reset=True)
    with pytest.raises(TypeError, match=f"^X is {re.escape(repr(X))}: expected images as an array"):
        check_images(estimator, X, reset=reset)
