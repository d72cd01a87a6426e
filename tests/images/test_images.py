"""Every accepted form gives the same pixels; every other one is refused with a helpful message."""

import io
import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import TensorDataset

from skdfb.images import Images, as_images, value_bounds
from skdfb.images._as_images import is_sequence_of_images
from tests.bad_images import CountingDataset, ItemDataset, zeros

Array = npt.NDArray[Any]

N, HEIGHT, WIDTH = 5, 6, 7
ALL = np.arange(N)


@pytest.fixture(scope="module")
def colour() -> Array:
    return np.random.default_rng(0).integers(0, 256, (N, HEIGHT, WIDTH, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def grey(colour: Array) -> Array:
    return colour[..., 0].copy()


def pixels(images: Images, indices: Any = ALL) -> Array:
    """Read as floats in 0..1, shape (b, H, W, 3)."""
    batch = images.read(np.asarray(indices))
    batch = torch.stack(batch) if isinstance(batch, list) else batch
    assert batch.shape[1] == 3
    assert batch.dtype in (torch.uint8, torch.float32)
    batch = batch.float() / 255 if batch.dtype == torch.uint8 else batch
    return np.asarray(batch.permute(0, 2, 3, 1).numpy())


def read_only(array: Array) -> Array:
    array = array.copy()
    array.flags.writeable = False
    return array


def tensors(array: Array) -> list[torch.Tensor]:
    return [torch.from_numpy(image).permute(2, 0, 1) for image in array]


EXACT: dict[str, Callable[[Array], Any]] = {
    "uint8": lambda a: a,
    "int64": lambda a: a.astype(np.int64),
    "uint16": lambda a: a.astype(np.uint16),
    "big_endian": lambda a: a.astype(">i4"),
    "read_only": read_only,
    "fortran": np.asfortranarray,
    "negative_strides": lambda a: a[:, ::-1].copy()[:, ::-1],
    "strided": lambda a: np.repeat(a, 2, axis=2)[:, :, ::2],
    "tensor": torch.from_numpy,
    "tensor_int": lambda a: torch.from_numpy(a.astype(np.int32)),
    "list_of_arrays": list,
    "tuple_of_arrays": tuple,
    "list_of_lists": lambda a: a.tolist(),
    "object_array": lambda a: np.array([*a, None], dtype=object)[:-1],
    "list_of_tensors": tensors,
    "pil": lambda a: [Image.fromarray(image) for image in a],
    "pil_tuple": lambda a: tuple(Image.fromarray(image) for image in a),
    "dataset_of_arrays": ItemDataset,
    "dataset_of_read_only": lambda a: ItemDataset(read_only(a)),
    "dataset_of_pairs": lambda a: ItemDataset([(image, 3) for image in a]),
    "dataset_of_lists": lambda a: ItemDataset([[image, 3, "more"] for image in a]),
    "dataset_of_pil": lambda a: ItemDataset([(Image.fromarray(image), 3) for image in a]),
    "tensor_dataset": lambda a: TensorDataset(torch.stack(tensors(a)), torch.arange(N)),
    "torch_subset": lambda a: torch.utils.data.Subset(ItemDataset(a[::-1]), range(N - 1, -1, -1)),
    "images": as_images,
}
FLOATS: dict[str, tuple[Callable[[Array], Any], float]] = {
    "float32": (lambda a: (a / 255).astype(np.float32), 1e-7),
    "float64": (lambda a: a / 255, 1e-7),
    "float16": (lambda a: (a / 255).astype(np.float16), 5e-4),
    "tensor": (lambda a: torch.from_numpy(a / 255), 1e-7),
    "bfloat16": (lambda a: torch.from_numpy(a / 255).bfloat16(), 4e-3),
    "needs_gradient": (lambda a: torch.from_numpy(a / 255).requires_grad_(), 1e-7),
    "dataset": (lambda a: TensorDataset(torch.stack(tensors(a)) / 255), 1e-7),
    "dataset_bfloat16": (lambda a: TensorDataset((torch.stack(tensors(a)) / 255).bfloat16()), 4e-3),
}


class TestSamePixels:
    @pytest.mark.parametrize("form", EXACT)
    def test_exact(self, colour: Array, form: str) -> None:
        images = as_images(EXACT[form](colour))
        assert len(images) == N
        np.testing.assert_array_equal(pixels(images), (colour / np.float32(255)).astype(np.float32))

    @pytest.mark.parametrize("form", FLOATS)
    def test_floats(self, colour: Array, form: str) -> None:
        make, tolerance = FLOATS[form]
        np.testing.assert_allclose(pixels(as_images(make(colour))), colour / 255, rtol=0, atol=tolerance)

    @pytest.mark.parametrize(
        "make",
        [
            lambda g: g,
            lambda g: g[..., None],
            lambda g: g / 255,
            lambda g: list(g),
            lambda g: [Image.fromarray(image) for image in g],
            lambda g: ItemDataset(g),
            lambda g: ItemDataset(g[..., None]),
            lambda g: ItemDataset([torch.from_numpy(image) for image in g]),
            lambda g: ItemDataset([torch.from_numpy(image)[None] for image in g]),
        ],
    )
    def test_grey_becomes_three_equal_channels(self, grey: Array, make: Callable[[Array], Any]) -> None:
        expected = np.repeat(grey[..., None] / 255, 3, axis=-1)
        np.testing.assert_allclose(pixels(as_images(make(grey))), expected, rtol=0, atol=1e-7)

    @pytest.mark.parametrize("as_path", [Path, str, np.str_])
    @pytest.mark.parametrize("container", [list, tuple, np.array, lambda paths: np.array(paths, dtype=object)])
    def test_paths(
        self, colour: Array, tmp_path: Path, as_path: Callable[[Any], Any], container: Callable[[Any], Any]
    ) -> None:
        paths = [tmp_path / f"{index}.png" for index in range(N)]
        for path, image in zip(paths, colour, strict=True):
            Image.fromarray(image).save(path)
        images = as_images(container([as_path(path) for path in paths]))
        np.testing.assert_array_equal(pixels(images), (colour / np.float32(255)).astype(np.float32))

    def test_series_of_paths(self, colour: Array, tmp_path: Path) -> None:
        pd = pytest.importorskip("pandas")
        Image.fromarray(colour[0]).save(tmp_path / "0.png")
        images = as_images(pd.Series([str(tmp_path / "0.png")]))
        np.testing.assert_allclose(pixels(images, [0])[0], colour[0] / 255, rtol=0, atol=1e-7)

    def test_memory_map(self, colour: Array, tmp_path: Path) -> None:
        np.save(tmp_path / "images.npy", colour)
        mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
        images = as_images(mapped)
        assert np.shares_memory(images.array, mapped)  # type: ignore[attr-defined]  # nothing is read yet
        np.testing.assert_allclose(pixels(images), colour / 255, rtol=0, atol=1e-7)

    def test_booleans_are_black_and_white(self, grey: Array) -> None:
        expected = np.repeat((grey > 99)[..., None], 3, axis=-1)
        np.testing.assert_array_equal(pixels(as_images(grey > 99)), expected)

    @pytest.mark.parametrize("shape", [(HEIGHT, WIDTH, 3), [HEIGHT, WIDTH, 3], tuple(np.array([HEIGHT, WIDTH, 3]))])
    @pytest.mark.parametrize("dtype", [np.uint8, np.int64])
    def test_rows_with_image_shape(self, colour: Array, shape: Any, dtype: type) -> None:
        images = as_images(colour.reshape(N, -1).astype(dtype), image_shape=shape)
        assert images.size == (HEIGHT, WIDTH)
        np.testing.assert_allclose(pixels(images), colour / 255, rtol=0, atol=1e-7)

    @pytest.mark.parametrize("shape", [(HEIGHT, WIDTH), (HEIGHT, WIDTH, 1)])
    def test_rows_of_grey_images(self, grey: Array, shape: tuple[int, ...]) -> None:
        images = as_images(grey.reshape(N, -1), image_shape=shape)
        np.testing.assert_allclose(pixels(images)[..., 0], grey / 255, rtol=0, atol=1e-7)

    def test_rows_three_pixels_wide(self) -> None:
        """Only a bare 3-d array can be mistaken for one colour image."""
        rows = np.zeros((N, 12), dtype=np.uint8)
        assert as_images(rows, image_shape=(4, 3)).size == (4, 3)
        assert as_images(np.zeros((N, 4, 3, 1), dtype=np.uint8)).size == (4, 3)

    def test_images_of_several_sizes(self, colour: Array) -> None:
        mixed = [colour[0], colour[1, :3], colour[2, ..., 0]]
        for form in (mixed, [Image.fromarray(image) for image in mixed], np.array([*mixed, None], dtype=object)[:-1]):
            images = as_images(form)
            assert images.size is None
            read = images.read(np.arange(3))
            assert isinstance(read, list)
            assert [tuple(image.shape) for image in read] == [(3, 6, 7), (3, 3, 7), (3, 6, 7)]
            for image, expected in zip(read, mixed, strict=True):
                expected = expected if expected.ndim == 3 else np.repeat(expected[..., None], 3, -1)
                np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), expected)


class TestTable:
    """Rows without image_shape: one pixel per value, the range of the values mapped to 0..1."""

    def test_own_range(self) -> None:
        rows = np.array([[-3.0, 1.0], [5.0, 0.0]])
        np.testing.assert_allclose(pixels(as_images(rows), [0, 1])[..., 0, :, 0], (rows + 3) / 8)

    def test_values_beyond_the_given_range(self) -> None:
        rows = np.array([[-3.0, 1.0], [5.0, 0.0]])
        images = as_images(rows, value_range=(0.0, 2.0))
        np.testing.assert_allclose(pixels(images, [0, 1])[..., 0, :, 0], rows / 2)

    def test_constant_table(self) -> None:
        assert not pixels(as_images(np.full((2, 3), 7.0)), [0, 1]).any()

    @given(chunk=st.integers(1, 9), n=st.integers(1, 20))
    def test_bounds_do_not_depend_on_the_chunk(self, chunk: int, n: int) -> None:
        rows = np.random.default_rng(n).normal(size=(n, 3))
        assert value_bounds(rows, "X", chunk) == (rows.min(), rows.max())


class TestPIL:
    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
    def test_modes(self, colour: Array, mode: str) -> None:
        image = Image.fromarray(np.repeat(np.repeat(colour[0], 4, 0), 4, 1)).convert(mode)
        read = as_images([image]).read(np.array([0]))[0]
        np.testing.assert_array_equal(read.permute(1, 2, 0).numpy(), np.asarray(image.convert("RGB")))

    def test_sixteen_bits(self) -> None:
        levels = np.array([[0, 257], [32896, 65535]], dtype=np.uint16)
        image = Image.fromarray(levels)
        assert image.mode.startswith("I")
        read = as_images([image]).read(np.array([0]))[0]
        np.testing.assert_allclose(read.numpy(), np.stack([levels / 65535] * 3), rtol=0, atol=1e-6)

    def test_palette_with_alpha_gives_no_warning(self) -> None:
        image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).convert("P")
        buffer = io.BytesIO()
        image.save(buffer, "PNG", transparency=bytes(range(256)))
        read = as_images([Image.open(buffer)]).read(np.array([0]))[0]
        np.testing.assert_array_equal(read[0].numpy(), np.arange(64).reshape(8, 8))

    @pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "webp"])
    def test_orientation(self, colour: Array, tmp_path: Path, suffix: str) -> None:
        image = Image.fromarray(colour[0])
        exif = image.getexif()
        exif[0x0112] = 6  # orientation: rotate by 90 degrees
        image.save(tmp_path / f"turned.{suffix}", exif=exif)
        assert as_images([tmp_path / f"turned.{suffix}"]).read(np.array([0]))[0].shape == (3, WIDTH, HEIGHT)

    @pytest.mark.parametrize("suffix", ["gif", "bmp", "ppm", "tiff", "webp", "png", "jpg"])
    def test_file_formats(self, colour: Array, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"image.{suffix}"
        Image.fromarray(colour[0]).save(path)
        read = as_images([path]).read(np.array([0]))[0]
        with Image.open(path) as image:
            np.testing.assert_array_equal(read.permute(1, 2, 0).numpy(), np.asarray(image.convert("RGB")))

    def test_the_image_of_the_caller_is_not_changed(self, colour: Array) -> None:
        image = Image.fromarray(colour[0])
        as_images([image]).read(np.array([0]))[0].zero_()
        np.testing.assert_array_equal(np.asarray(image), colour[0])


class TestSubset:
    @pytest.mark.parametrize("form", ["uint8", "pil", "dataset_of_arrays"])
    def test_order_and_repeats(self, colour: Array, form: str) -> None:
        subset = as_images(EXACT[form](colour)).subset(np.array([3, 0, 3, 1]))
        assert len(subset) == 4
        np.testing.assert_allclose(pixels(subset, [2, 1, 3]), colour[[3, 0, 1]] / 255, rtol=0, atol=1e-7)
        nested = subset.subset(np.array([1, 2]))
        np.testing.assert_allclose(pixels(nested, [0, 1]), colour[[0, 3]] / 255, rtol=0, atol=1e-7)

    def test_size_is_kept(self, colour: Array) -> None:
        assert as_images(colour).subset(np.array([1])).size == (HEIGHT, WIDTH)
        assert as_images(list(map(Image.fromarray, colour))).subset(np.array([1])).size is None

    @pytest.mark.parametrize("form", EXACT)
    def test_reading_changes_nothing(self, colour: Array, form: str) -> None:
        given = EXACT[form](colour.copy())
        images = as_images(given)
        first = images.read(ALL)
        for image in first:
            if image.stride(0):  # not an expanded grey image
                image.zero_()
        np.testing.assert_allclose(pixels(images), colour / 255, rtol=0, atol=1e-7)


class TestRefusals:
    def test_the_argument_is_named(self) -> None:
        with pytest.raises(ValueError, match=r"background_images has shape .*np\.moveaxis\(background_images"):
            as_images(zeros(5, 3, 6, 4), name="background_images")

    @pytest.mark.parametrize(
        "shape", [(), (4,), (2, 2, 3, 1), (0, 4), (4, -1), (2.5, 4), "44", 16, (4, 4, 2), ("4", "4"), (None, 4)]
    )
    def test_bad_image_shape(self, shape: Any) -> None:
        with pytest.raises(ValueError, match=r"image_shape=.*: expected \(H, W\), \(H, W, 1\) or \(H, W, 3\)"):
            as_images(zeros(2, 16), image_shape=shape)

    def test_image_shape_that_does_not_fit(self) -> None:
        with pytest.raises(
            ValueError, match=r"X has 16 features: expected 20, the values of an image of image_shape=\(4, 5\)"
        ):
            as_images(zeros(2, 16), image_shape=(4, 5))

    def test_missing_file(self, colour: Array, tmp_path: Path) -> None:
        Image.fromarray(colour[0]).save(tmp_path / "0.png")
        with pytest.raises(ValueError, match=r"image 1 is missing: there is no file '.*gone\.png'"):
            as_images([tmp_path / "0.png", tmp_path / "gone.png"])

    @pytest.mark.parametrize(
        "content", [b"", b"no image", b"\x89PNG\r\n\x1a\n\x00\x00"], ids=["empty", "text", "header"]
    )
    def test_unreadable_file(self, colour: Array, tmp_path: Path, content: bytes) -> None:
        Image.fromarray(colour[0]).save(tmp_path / "0.png")
        (tmp_path / "1.png").write_bytes(content)
        with pytest.raises(ValueError, match=r"image 1 cannot be read: file '.*1\.png'"):
            as_images([tmp_path / "0.png", tmp_path / "1.png"])

    @pytest.mark.parametrize("path", ["", "a\0b"])
    def test_impossible_path(self, path: str) -> None:
        with pytest.raises(ValueError, match=r"image 0 (is missing|cannot be read)"):
            as_images([path])

    def test_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="image 0 cannot be read: file"):
            as_images([tmp_path])

    @pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "webp", "tiff"])
    def test_cut_file_is_named_when_read(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"cut.{suffix}"
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(ValueError, match=rf"image 0 cannot be read: file '.*cut\.{suffix}'"):
            as_images([path]).read(np.array([0]))

    def test_file_that_was_removed(self, colour: Array, tmp_path: Path) -> None:
        paths = [tmp_path / "0.png", tmp_path / "1.png"]
        for path, image in itertools.product(paths, colour[:1]):
            Image.fromarray(image).save(path)
        images = as_images(paths)
        paths[1].unlink()
        with pytest.raises(ValueError, match=r"image 1 is missing: .*1\.png"):
            images.subset(np.array([1])).read(np.array([0]))

    def test_files_are_closed(self, colour: Array, tmp_path: Path) -> None:
        """The ResourceWarning of an open file would be an error here."""
        Image.fromarray(colour[0]).save(tmp_path / "0.tiff")
        as_images([tmp_path / "0.tiff"]).read(np.array([0, 0]))

    @pytest.mark.parametrize(
        ("item", "error", "message"),
        [
            (zeros(3, 5, 4), ValueError, r"image 1 has shape \(3, 5, 4\).*np\.moveaxis"),
            (torch.full((3, 5, 4), 2.0), ValueError, r"image 1 has float pixels in 2\.\.2"),
            (torch.full((3, 5, 4), np.nan), ValueError, "image 1 contains NaN"),
            (torch.zeros(1, 3, 5, 4), ValueError, r"image 1 has shape \(1, 3, 5, 4\)"),
            ("text", ValueError, "image 1 is missing"),
            ({"image": zeros(5, 4)}, TypeError, "image 1 has type dict: expected a path, a PIL image or an array"),
        ],
    )
    def test_item_of_a_dataset(self, item: Any, error: type[Exception], message: str) -> None:
        images = as_images(ItemDataset([(zeros(5, 4, 3), 0), (item, 1)]))
        with pytest.raises(error, match=message):
            images.read(np.array([0, 1]))


class TestLabels:
    @pytest.mark.parametrize("make", [list, tuple, torch.tensor, np.array])
    def test_targets_are_used_where_the_items_agree(self, make: Any) -> None:
        dataset = CountingDataset([(zeros(4, 4), 7 + index % 3) for index in range(100)])
        dataset.targets = make([7 + index % 3 for index in range(100)])  # type: ignore[attr-defined]
        labels = as_images(dataset).labels()
        assert labels == [7 + index % 3 for index in range(100)]
        assert not isinstance(labels[0], torch.Tensor)
        assert dataset.counts.sum() == 10

    @pytest.mark.parametrize("targets", [[0, 1, 2] * 4, [0, 1], np.arange(12) + 5])
    def test_the_labels_of_the_items_count(self, targets: Any) -> None:
        dataset = CountingDataset([(zeros(4, 4), index % 2) for index in range(12)])
        dataset.targets = targets  # type: ignore[attr-defined]
        images = as_images(dataset)
        assert images.labels() == [0, 1] * 6
        assert images.labels() == [0, 1] * 6
        assert dataset.counts.max() == 1

    @pytest.mark.parametrize(("targets", "expected"), [([7], [7]), ([7, 8], None)])
    def test_targets_where_the_items_have_no_labels(self, targets: Any, expected: Any) -> None:
        dataset = ItemDataset([zeros(4, 4)])
        dataset.targets = targets  # type: ignore[attr-defined]
        assert as_images(dataset).labels() == expected

    def test_items_are_read(self) -> None:
        assert as_images(TensorDataset(torch.zeros(3, 3, 4, 4), torch.tensor([2, 0, 2]))).labels() == [2, 0, 2]
        assert as_images(ItemDataset([(zeros(4, 4), "cat"), (zeros(4, 4), "dog")])).labels() == ["cat", "dog"]

    def test_no_labels(self) -> None:
        assert as_images(ItemDataset([zeros(4, 4)])).labels() is None


@pytest.mark.parametrize(
    ("X", "expected"),
    [
        (["a.png"], True),
        ((Path("a.png"),), True),
        ([Image.new("L", (2, 2))], True),
        ([torch.zeros(3, 2, 2)], True),
        ([zeros(2, 2), zeros(3, 2)], True),
        ([zeros(2, 2), zeros(2, 2)], False),
        ([[1.0, 2.0]], False),
        ([zeros(3), zeros(3)], False),
        ([torch.zeros(3)], False),
        ([], False),
        (zeros(2, 2), False),
    ],
)
def test_is_sequence_of_images(X: Any, expected: bool) -> None:
    assert is_sequence_of_images(X) is expected


@pytest.mark.parametrize("how", ["target_transform", "transforms"])
def test_labels_of_a_dataset_that_transforms_them_are_its_items(how):
    class Halved(torch.utils.data.Dataset):
        targets = (0, 1, 2, 3)

        def __init__(self):
            setattr(self, how, lambda target: target // 2)

        def __len__(self):
            return 4

        def __getitem__(self, index):
            return torch.rand(3, 4, 4), getattr(self, how)(self.targets[index])

    assert as_images(Halved()).labels() == [0, 0, 1, 1]


def test_targets_of_a_dataset_that_transforms_images_only_are_taken():
    class Untransformed(torch.utils.data.Dataset):
        targets = (0, 1)
        target_transform = None
        transforms = SimpleNamespace(transform=abs, target_transform=None)  # torchvision's StandardTransform

        def __len__(self):
            return 2

        def __getitem__(self, index):
            return torch.zeros(3, 4, 4), self.targets[index]

    assert as_images(Untransformed()).labels() == [0, 1]
