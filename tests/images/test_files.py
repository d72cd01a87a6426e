"""Files from untrusted sources: damaged, very large, or of a format that would start a program."""

import contextlib
import io
import pickle
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image, ImageFile
from torch.utils.data import Dataset

from skdfb.exceptions import UnreadableImageError
from skdfb.images import LenientImages, as_images

FORMATS = [
    "avif",
    "png",
    "jpeg",
    "gif",
    "bmp",
    "webp",
    "tiff",
    "ppm",
    "tga",
    "ico",
    "jpeg2000",
    "pcx",
    "sgi",
    "dds",
    "qoi",
]


def file_of(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def picture(side: int = 24) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3)).astype(np.uint8))


def png_that_claims(width: int, height: int) -> bytes:
    """A valid header for an image of this size, and almost no pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


class TestAbsurdSizes:
    @pytest.mark.parametrize("side", [10_000, 100_000])
    @pytest.mark.parametrize("strict", [True, False])
    def test_a_bomb_is_refused_by_its_header(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int, strict: bool
    ) -> None:
        path = tmp_path / "bomb.png"
        path.write_bytes(png_that_claims(side, side))
        Image.init()  # the import of one plugin creates an image
        monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("pixels were decoded"))
        with warnings.catch_warnings():
            warnings.simplefilter("error" if strict else "ignore")
            with pytest.raises(
                UnreadableImageError, match=r"image 0 cannot be read: file '.*bomb\.png': .*limit"
            ) as info:
                as_images([path])
        assert (info.value.index, info.value.path) == (0, str(path))

    def test_the_limit_is_that_of_pil(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 24 * 24 - 1)
        images = as_images([picture()])
        with pytest.raises(
            UnreadableImageError, match=r"image 0 cannot be read: 24 x 24 pixels .*limit of 575 .*raise PIL"
        ):
            images.read(np.array([0]))
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
        assert images.read(np.array([0]))[0].shape == (3, 24, 24)

    def test_long_and_thin(self) -> None:
        images = as_images([np.zeros((10_000, 3), np.uint8), np.zeros((1, 1), np.uint8)])
        assert [image.shape for image in images.read(np.arange(2))] == [(3, 10_000, 3), (3, 1, 1)]


def postscript() -> bytes:
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n%%EOF\n"


def postscript_in_iptc() -> bytes:
    """An IPTC file that holds a PostScript image, which PIL's reader would open."""

    def field(record: int, dataset: int, value: bytes) -> bytes:
        return bytes([0x1C, record, dataset]) + struct.pack(">H", len(value)) + value

    header = field(3, 60, b"\1\0") + field(3, 20, b"\0\x20") + field(3, 30, b"\0\x20") + field(3, 120, b"\5")
    return header + field(8, 10, postscript()) + field(9, 10, b"")


class TestPrograms:
    @pytest.fixture(autouse=True)
    def no_ghostscript(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            EpsImagePlugin, "Ghostscript", lambda *args, **kwargs: pytest.fail("Ghostscript was called")
        )

    @pytest.mark.parametrize("content", [postscript(), postscript_in_iptc()])
    def test_postscript_is_not_run(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "innocent.jpg"
        path.write_bytes(content)
        with pytest.raises(UnreadableImageError, match=r"image 0 cannot be read: file '.*innocent\.jpg'"):
            as_images([path])
        with (
            Image.open(path) as image,
            pytest.raises(UnreadableImageError, match=r"format (EPS|IPTC) is not read here"),
        ):
            as_images([image]).read(np.array([0]))

    def test_an_opener_that_the_user_installed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As pillow-heif does."""

        class OwnImage(ImageFile.ImageFile):
            format = "OWN"

            def _open(self) -> None:
                self._size, self._mode = (3, 2), "RGB"
                self.tile = [ImageFile._Tile("raw", (0, 0, 3, 2), 4, ("RGB", 0, 1))]

        Image.init()
        monkeypatch.setattr(Image, "ID", [*Image.ID, "OWN"])
        monkeypatch.setattr(Image, "OPEN", Image.OPEN | {"OWN": (OwnImage, lambda prefix: prefix.startswith(b"OWN!"))})
        (tmp_path / "image.own").write_bytes(b"OWN!" + bytes(range(18)))
        (pixels,) = as_images([tmp_path / "image.own"]).read(np.array([0]))
        assert pixels.permute(1, 2, 0).flatten().tolist() == list(range(18))


class TestDamagedFiles:
    @pytest.mark.parametrize("kind", FORMATS)
    @settings(max_examples=40, deadline=None)
    @given(data=st.data())
    def test_read_or_refused(self, tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject) -> None:
        content = bytearray(file_of(picture(), kind))
        for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
            content[place] ^= data.draw(st.integers(1, 255))
        path = tmp_path_factory.mktemp("damaged") / "image"
        path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
        with warnings.catch_warnings(), contextlib.suppress(UnreadableImageError):
            warnings.simplefilter("ignore")  # PIL warns of some kinds of damage and reads on
            (image,) = as_images([path]).read(np.array([0]))
            assert image.dtype in (torch.uint8, torch.float32)
            assert image.ndim == 3
            assert len(image) == 3

    def test_a_pil_image_that_is_cut(self, tmp_path: Path) -> None:
        (tmp_path / "cut.png").write_bytes(file_of(picture(), "png")[:500])
        with (
            Image.open(tmp_path / "cut.png") as image,
            pytest.raises(UnreadableImageError, match=r"image 1 cannot be read: file '.*cut\.png': .*truncated"),
        ):
            as_images([picture(), image]).read(np.arange(2))

    def test_the_error_can_be_pickled(self) -> None:
        error = pickle.loads(pickle.dumps(UnreadableImageError("image 3 cannot be read.", 3, Path("x.png"))))
        assert (str(error), error.index, error.path) == ("image 3 cannot be read.", 3, "x.png")


class Loader(Dataset[Any]):
    """Opens files as ``torchvision.datasets.ImageFolder`` does."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        with Image.open(self.paths[index]) as image:
            return image.convert("RGB"), 0


class TestLenient:
    @pytest.fixture
    def paths(self, tmp_path: Path) -> list[Path]:
        paths = [tmp_path / f"{index}.png" for index in range(6)]
        for path in paths:
            picture().save(path)
        paths[1].write_bytes(b"no image")
        paths[3].unlink()
        paths[5].write_bytes(paths[4].read_bytes()[:300])
        return paths

    @pytest.mark.parametrize("form", [list, Loader])
    def test_others_are_read(self, paths: list[Path], form: Any) -> None:
        images = as_images(form(paths), lenient=True)
        assert isinstance(images, LenientImages)
        read = images.read(np.arange(6))
        assert [tuple(image.shape[1:]) for image in read] == [(24, 24), (1, 1)] * 3
        assert sorted(images.errors) == [1, 3, 5]
        for index, error in images.errors.items():
            assert error.index == index
            assert f"image {index} " in str(error)

    def test_places_are_those_of_all_images(self, paths: list[Path]) -> None:
        images = as_images(paths, lenient=True)
        images.subset(np.array([4, 5])).read(np.array([1]))
        assert list(images.errors) == [5]

    def test_arrays_out_of_range(self) -> None:
        images = as_images([np.zeros((4, 4)), np.full((5, 4), np.nan), np.full((5, 4), 2.0)], lenient=True)
        images.read(np.arange(3))
        assert sorted(images.errors) == [1, 2]

    def test_an_item_of_another_type_is_an_error(self) -> None:
        with pytest.raises(TypeError, match=r"X\[1\] has type int"):
            as_images([picture(), 3], lenient=True)

    @pytest.mark.parametrize("error", [OSError, SyntaxError, struct.error, Image.DecompressionBombError, EOFError])
    def test_errors_of_loaders(self, error: type[Exception]) -> None:
        class Damaged(Loader):
            def __getitem__(self, index: int) -> Any:
                raise error("damaged")

        with pytest.raises(UnreadableImageError, match="image 1 cannot be read: damaged") as raised:
            as_images(Damaged([Path(), Path()])).read(np.array([1]))
        assert isinstance(raised.value.__cause__, error)

    @pytest.mark.parametrize("error", [KeyError, ValueError, OverflowError, RuntimeError, TypeError])
    def test_errors_of_the_users_own_code_are_not_changed(self, error: type[Exception]) -> None:
        class Broken(Loader):
            def __getitem__(self, index: int) -> Any:
                raise error("a bug in a transform")

        with pytest.raises(error, match="a bug in a transform") as raised:
            as_images(Broken([Path()]), lenient=True).read(np.array([0]))
        assert type(raised.value) is error

    @pytest.mark.parametrize("cut", [100, 200])
    def test_any_error_of_a_reader_counts(self, tmp_path: Path, cut: int) -> None:
        """NumPy raises a ValueError for a cut file, as a user's own code does for other reasons."""

        class Decoder(Loader):
            def __getitem__(self, index: int) -> Any:
                return np.load(self.paths[index]), 0

        np.save(tmp_path / "cut.npy", np.asarray(picture()))
        (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:cut])
        images = as_images(Decoder([tmp_path / "cut.npy"]), lenient=True)
        images.read(np.array([0]))
        assert isinstance(images, LenientImages)
        assert isinstance(images.errors[0].__cause__, ValueError)
