"""Folders of images: which files are taken, in which order, with which labels; and what is refused."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from skdfb.images import JoinedImages, as_images, check_images, labels_given, scan_folder
from skdfb.images._files import image_extensions
from tests.bad_images import ItemDataset
from tests.inputs.forms import Estimator, unit_pixels

CLASSES = ["cat/2.png", "cat/10.png", "cat-like/a.JPG", "dog/b.npy"]
IN_ORDER = ["cat/10.png", "cat/2.png", "cat-like/a.JPG", "dog/b.npy"]


def write(root: Path, *names: str) -> Path:
    """Images with a pixel of their own each, and texts for other extensions; a name with "/" at its end is a folder."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels: npt.NDArray[np.uint8] = np.full((4, 6, 3), 10 * number + 10, np.uint8)
        if name.endswith("/"):
            path.mkdir()
        elif path.suffix == ".npy":
            np.save(path, pixels)
        elif path.suffix.lower() in (".png", ".jpg", ".tif"):
            Image.fromarray(pixels).save(path)
        else:
            path.write_text("text")
    return root


def relative(root: Path, paths: list[str]) -> list[str]:
    return [str(Path(path).relative_to(root)) for path in paths]


class TestOrderAndLabels:
    @pytest.mark.parametrize("form", [str, Path, lambda root: f"{root}/", lambda root: f"{root}//"])
    def test_class_folders(self, tmp_path: Path, form: Any) -> None:
        folder = scan_folder(form(write(tmp_path, *CLASSES)))
        # By class and then by name, both as texts: "cat" comes before "cat-like", and "10" before "2".
        assert relative(tmp_path, folder.paths) == IN_ORDER
        assert folder.paths == [str(tmp_path / name) for name in IN_ORDER]
        assert folder.labels == ["cat", "cat", "cat-like", "dog"]

    def test_images_alone(self, tmp_path: Path) -> None:
        folder = scan_folder(write(tmp_path, "b.png", "a.png", "C.png"))
        assert relative(tmp_path, folder.paths) == ["C.png", "a.png", "b.png"]
        assert folder.labels is None

    @pytest.mark.parametrize(
        ("path", "names"), [(".", IN_ORDER), ("./", IN_ORDER), ("../here", [f"../here/{n}" for n in IN_ORDER])]
    )
    def test_relative(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, names: list[str]) -> None:
        monkeypatch.chdir(write(tmp_path / "here", *CLASSES))
        assert scan_folder(path).paths == names
        assert len(as_images(path)) == 4

    def test_home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(tmp_path / "set", *CLASSES)
        monkeypatch.setenv("HOME", str(tmp_path))
        assert scan_folder("~/set").paths[0] == str(tmp_path / "set/cat/10.png")
        assert as_images(Path("~/set")).labels() == ["cat", "cat", "cat-like", "dog"]

    def test_a_folder_whose_name_is_a_tilde(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(write(tmp_path, "~/a.png"))
        assert scan_folder("~").paths == ["~/a.png"]

    def test_a_folder_with_the_extension_of_an_image(self, tmp_path: Path) -> None:
        assert as_images(write(tmp_path / "set.png", "a.jpg/1.png", "b/1.png")).labels() == ["a.jpg", "b"]

    def test_links(self, tmp_path: Path) -> None:
        write(tmp_path / "far", "cat/1.png", "2.png")
        write(tmp_path / "near", "dog/1.png")
        (tmp_path / "near/cat").symlink_to(tmp_path / "far/cat")
        (tmp_path / "near/dog/2.png").symlink_to(tmp_path / "far/2.png")
        assert relative(tmp_path / "near", scan_folder(tmp_path / "near").paths) == [
            "cat/1.png",
            "dog/1.png",
            "dog/2.png",
        ]


class TestImages:
    def test_pixels_labels_and_names(self, tmp_path: Path) -> None:
        write(tmp_path, *CLASSES)
        images = as_images(tmp_path)
        alone = as_images([tmp_path / name for name in IN_ORDER])
        np.testing.assert_array_equal(np.stack(unit_pixels(images)), np.stack(unit_pixels(alone)))
        assert images.has_labels
        assert images.labels() == labels_given(tmp_path, None) == ["cat", "cat", "cat-like", "dog"]
        assert images.names == alone.names == [str(tmp_path / name) for name in IN_ORDER]

    def test_given_labels_count(self, tmp_path: Path) -> None:
        assert labels_given(write(tmp_path, *CLASSES), [1, 2, 3, 4]) == [1, 2, 3, 4]

    @pytest.mark.parametrize("reset", [True, False])
    def test_check_images(self, tmp_path: Path, reset: bool) -> None:
        estimator = Estimator()
        check_images(estimator, write(tmp_path, *CLASSES), reset=True)
        images = check_images(estimator, str(tmp_path), reset=reset, lenient=not reset)
        assert images.labels() == ["cat", "cat", "cat-like", "dog"]
        assert not hasattr(estimator, "n_features_in_")

    def test_parts_and_joined_sets(self, tmp_path: Path) -> None:
        images = as_images(write(tmp_path, *CLASSES))
        part = images.subset(np.array([3, 0]))
        assert part.names == [str(tmp_path / IN_ORDER[index]) for index in (3, 0)]
        assert part.labels() == ["dog", "cat"]
        both = JoinedImages(part, images)
        assert both.names == [*part.names, *images.names]
        assert both.subset(np.array([2])).names == [str(tmp_path / IN_ORDER[0])]
        arrays = as_images(np.zeros((2, 4, 4, 3)))
        assert JoinedImages(part, arrays).names is None
        assert JoinedImages(arrays, part).names is None


class TestNames:
    """Of what did not come from a folder."""

    def test_arrays_have_none(self) -> None:
        for X in (np.zeros((2, 4, 4, 3)), [np.zeros((4, 4)), np.zeros((5, 5))], np.zeros((2, 6))):
            assert as_images(X).names is None

    def test_files_in_any_form(self, tmp_path: Path) -> None:
        write(tmp_path, "a.png", "b.png")
        paths = [tmp_path / "a.png", tmp_path / "b.png"]
        opened = [Image.open(path) for path in paths]
        for X in (paths, opened, [(paths[0], 1), (paths[1], 2)], [{"image": path} for path in map(str, paths)]):
            assert as_images(X).names == list(map(str, paths))
        assert as_images([paths[0], opened[1]]).names == list(map(str, paths))
        for image in opened:
            image.close()

    def test_files_without_a_name(self, tmp_path: Path) -> None:
        write(tmp_path, "a.png")
        content = (tmp_path / "a.png").read_bytes()
        for X in ([content], [tmp_path / "a.png", content], [Image.new("RGB", (4, 4))]):
            assert as_images(X).names is None

    def test_datasets(self, tmp_path: Path) -> None:
        dataset = ItemDataset([Image.new("RGB", (4, 4)), Image.new("RGB", (4, 4))])
        assert as_images(dataset).names is None
        dataset.samples = [("a.png", 0), ("b.png", 1)]
        assert as_images(dataset).names == ["a.png", "b.png"]


class TestOtherFiles:
    @pytest.mark.parametrize("layout", ["", "cat/"])
    def test_hidden_ones_are_left_out_silently(self, tmp_path: Path, layout: str) -> None:
        hidden = [".DS_Store", "._1.png", ".hidden.png", ".ipynb_checkpoints/1.png", "Thumbs.db", "thumbs.db"]
        hidden += ["__MACOSX/1.png", "@eaDir/1.png", "desktop.ini"]
        write(tmp_path, f"{layout}1.png", *(f"{layout}{name}" for name in hidden))
        write(tmp_path, "__MACOSX/cat/1.png", ".ipynb_checkpoints/cat/1.png", ".git/")
        assert relative(tmp_path, scan_folder(tmp_path).paths) == [f"{layout}1.png"]

    @pytest.mark.parametrize("layout", ["", "cat/"])
    def test_others_are_named_in_one_warning(self, tmp_path: Path, layout: str) -> None:
        others = ["2.heic", "3.heic", "readme.txt", "raw"]
        write(tmp_path, *(f"{layout}{name}" for name in ["1.png", *others]))
        with pytest.warns(
            UserWarning, match=r"4 files are left out.*2 \.heic, 1 without extension, 1 \.txt, such as"
        ) as found:
            images = as_images(tmp_path)
        assert relative(tmp_path, images.names or []) == [f"{layout}1.png"]
        assert len(found) == 1
        text = str(found[0].message)
        assert f"load_image_folder({str(tmp_path)!r}, extensions=('', '.heic', '.png', '.txt'))" in text
        assert "pillow_heif.register_heif_opener()" in text

    def test_texts_beside_class_folders_are_left_out_silently(self, tmp_path: Path) -> None:
        """They have no class, so no training lacks them."""
        write(tmp_path, *CLASSES, "LICENSE.txt", "README", "labels.csv")
        assert relative(tmp_path, scan_folder(tmp_path).paths) == IN_ORDER

    def test_folders_without_images_inside_of_class_folders(self, tmp_path: Path) -> None:
        write(tmp_path, *CLASSES, "cat/notes/deep/a.txt", "dog/empty/")
        assert relative(tmp_path, scan_folder(tmp_path).paths) == IN_ORDER

    def test_extensions_that_are_given(self, tmp_path: Path) -> None:
        write(tmp_path, "cat/1.png", "cat/2.RAW", "cat/3.txt", "dog/1.raw", "dog/2")
        for extensions in [(".raw",), ["RAW"], {"Raw"}]:
            assert relative(tmp_path, scan_folder(tmp_path, extensions=extensions).paths) == ["cat/2.RAW", "dog/1.raw"]
        assert relative(tmp_path / "dog", scan_folder(tmp_path / "dog", extensions=("",)).paths) == ["2"]

    @pytest.mark.parametrize("extensions", [".raw", (), 3, [b".raw"]])
    def test_extensions_of_a_wrong_type(self, tmp_path: Path, extensions: Any) -> None:
        with pytest.raises(TypeError, match=r"extensions=.*: expected a tuple of texts, such as \('\.jpg', '\.heic'\)"):
            scan_folder(write(tmp_path, "1.png"), extensions=extensions)

    def test_the_formats_that_are_read(self) -> None:
        assert {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".npy"} <= image_extensions()
        # PostScript, whose reader runs programs, and what holds no photographs.
        assert not {".eps", ".ps", ".pdf", ".txt", ".mpg", ".wmf", ""} & image_extensions()


class TestRefused:
    @pytest.mark.parametrize(
        ("names", "message"),
        [
            (["train/cat/1.png", "val/cat/1.png"], r"sub-folder '.*train' holds a folder of images, '.*train/cat': "),
            (["train/cat/1.png", "val/cat/1.png"], r"; pass '\S*train'\."),
            (["test/cat/1.png", "training/cat/1.png"], r"; pass '\S*training'\."),
            (["a/b/c/cat/1.png"], r"; pass '\S*a/b/c'\."),
            (["cat/1.png", "cat/more/2.png", "dog/1.png"], r"; move the images of '\S*cat/more' to '\S*cat', or away"),
            (["1.png", "cat/2.png"], r"holds 1 images, such as '1\.png', beside a folder of images, '\S*cat'"),
            (["1.png", "a/b/2.png"], r"beside a folder of images, '\S*a/b': expected images, or one sub-folder of"),
            (
                ["cat/1.png", "dog/", "emu/a.txt"],
                r"2 of 3 class folders hold no images: 'dog' \(empty\), 'emu' \(1 \.txt\)",
            ),
            (["cat/1.png", "dog/", "emu/a.txt"], "expected images in each; add some, or move these folders away"),
            (["a.txt", "b.txt", "c.csv"], r"which holds no images but 2 \.txt, 1 \.csv: expected images, or one"),
            (["cat/a.heic", "dog/b.heic", "c.txt"], r"no images but 2 \.heic, 1 \.txt.*pillow_heif\.register_heif"),
            (["cat/"], "which holds no images and no other files: "),
            ([], "which holds no images and no other files: "),
            ([".DS_Store"], "which holds no images and no other files: "),
        ],
    )
    def test_layouts(self, tmp_path: Path, names: list[str], message: str) -> None:
        write(tmp_path, *names)
        with pytest.raises(ValueError, match=f"X is the folder '.*', (whose|which|of which) .*{message}|{message}"):
            as_images(tmp_path)

    def test_a_path_that_does_not_exist(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(
            FileNotFoundError, match=f"X is the path 'imgaes', which does not exist in '{tmp_path}': expec"
        ):
            as_images("imgaes")
        with pytest.raises(
            FileNotFoundError, match=r"'/no/such/\*', which does not exist: .*sorted\(glob\.glob\(pattern"
        ):
            as_images("/no/such/*")
        with pytest.raises(FileNotFoundError, match=r"sorted\(glob\.glob\(pattern"):
            as_images("images/*.jpg")

    def test_an_empty_path(self) -> None:
        with pytest.raises(
            ValueError, match=r"X is an empty path: expected a folder; for the current folder, pass '\.'"
        ):
            as_images("")

    @pytest.mark.parametrize("form", [str, Path])
    def test_a_single_file(self, tmp_path: Path, form: Any) -> None:
        with pytest.raises(TypeError, match=r"X is a single .*; wrap it in a list: X=\[\.\.\.\]"):
            as_images(form(write(tmp_path, "1.png") / "1.png"))

    def test_a_table(self, tmp_path: Path) -> None:
        with pytest.raises(TypeError, match=r"X is a single .*the paths and labels of load_image_table\(X\)"):
            as_images(write(tmp_path, "a.csv") / "a.csv")

    def test_a_listing(self) -> None:
        with pytest.raises(TypeError, match=r"\['paths', 'labels'\].* Pass X\.paths and X\.labels"):
            as_images({"paths": ["a.png"], "labels": ["a"]})

    def test_the_characters_of_a_path(self) -> None:
        with pytest.raises(ValueError, match=r"single characters, 'i' first.*pass load_image_folder\(path\)\.paths"):
            as_images(list("images"))

    @pytest.mark.parametrize("name", ["cat/broken.png", "broken"])
    def test_broken_links(self, tmp_path: Path, name: str) -> None:
        write(tmp_path, *CLASSES)
        (tmp_path / name).symlink_to(tmp_path / "gone.png")
        with pytest.raises(FileNotFoundError, match=r"broken\S*' is a link to '\S*gone\.png', which is missing"):
            as_images(tmp_path)

    def test_a_link_to_a_folder_above(self, tmp_path: Path) -> None:
        write(tmp_path, "cat/a.txt")
        (tmp_path / "cat/again").symlink_to(tmp_path)
        with pytest.raises(ValueError, match="holds no images"):
            as_images(tmp_path)

    def test_a_folder_that_cannot_be_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(tmp_path, *CLASSES)
        scan = os.scandir

        def denied(path: Any) -> Any:
            if str(path).endswith("dog"):
                raise PermissionError(13, "Permission denied", path)
            return scan(path)

        monkeypatch.setattr(os, "scandir", denied)
        with pytest.raises(
            PermissionError, match=r"the folder '\S*dog' cannot be read \(Permission denied\): expected"
        ):
            as_images(tmp_path)

    def test_a_folder_in_a_list(self, tmp_path: Path) -> None:
        with pytest.raises(
            ValueError, match=r"image 0 cannot be read: .* it is a folder; pass it alone, not in a list"
        ):
            as_images([write(tmp_path, *CLASSES)])


def test_no_file_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder may hold 100,000 files, on a slow disk."""
    write(tmp_path, *CLASSES)
    stat, seen = os.stat, []
    monkeypatch.setattr(os, "stat", lambda path, **options: (seen.append(str(path)), stat(path, **options))[1])
    scan_folder(tmp_path)
    assert not [path for path in seen if Path(path).suffix]
