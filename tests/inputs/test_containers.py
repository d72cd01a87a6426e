"""What holds images: folders read by datasets, lists of pairs, tables, files; in fit, scoring and cross-validation."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from torch.utils.data import DataLoader, Subset, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import ToTensor

from skdfb import Trainer
from skdfb.datasets import load_image_folder
from skdfb.images import as_images, check_images, labels_given
from skdfb.scorers import MSP
from tests.bad_images import CountingDataset, ItemDataset
from tests.detector.conftest import make_detector, make_images
from tests.inputs.forms import Estimator, png, unit_pixels

NAMES = np.array(["cat", "dog", "emu"])


def detector(**changes: Any) -> Any:
    trainer = Trainer(max_steps=2, batch_size=16)
    small = {"scorer": MSP(), "classifier_trainer": trainer, "dense_trainer": trainer, "alpha": 0.2}
    return make_detector(**small | changes)


FITTED: dict[str, Any] = {}


class NoTraining(Trainer):
    def train(self, *args: Any, **kwargs: Any) -> Any:
        pytest.fail("training began")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "sets" / "folder"
    for index, (image, label) in enumerate(zip(*make_images(), strict=True)):
        path = root / NAMES[label] / f"{index:02d}.png"
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(image).save(path)
    return root


class Slice(Sequence[Any]):
    """The images of a dataset, as a lazy sequence."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        return self.dataset[index][0]


class Table:
    """Rows of a dataset library: a row is a dict, several rows are a dict of lists."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self.shape = (len(rows), len(rows[0]))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, int | np.integer):
            return self.rows[key]
        return {name: [self.rows[index][name] for index in key] for name in self.rows[0]}


# From a folder to images whose labels are the names or the indices of the classes.
CONTAINERS: dict[str, Any] = {
    "folder": lambda folder: ImageFolder(folder),
    "part of a folder": lambda folder: Subset(ImageFolder(folder), range(60)),
    "list of pairs": lambda folder: list(ImageFolder(folder)),
    "tuple of pairs": lambda folder: tuple(ImageFolder(folder)),
    "list of tensors and labels": lambda folder: list(ImageFolder(folder, ToTensor())),
    "paths and labels": lambda folder: ImageFolder(folder).samples,
    "rows": lambda folder: [{"image": image, "label": label} for image, label in ImageFolder(folder)],
    "rows of files": lambda folder: [
        {"img": {"bytes": Path(path).read_bytes(), "path": None}, "fine_label": label}
        for path, label in ImageFolder(folder).samples
    ],
    "rows of paths": lambda folder: [
        {"image": {"bytes": None, "path": path}, "label": label} for path, label in ImageFolder(folder).samples
    ],
    "table": lambda folder: Table([{"image": image, "label": label} for image, label in ImageFolder(folder)]),
    "columns": lambda folder: Table([{"image": i, "label": k} for i, k in ImageFolder(folder)])[range(60)],
}
# Without labels of their own.
UNLABELLED: dict[str, Any] = {
    "lazy sequence": lambda folder: Slice(ImageFolder(folder)),
    "frame": lambda folder: pd.DataFrame({"path": paths_of(folder)}),
    "series": lambda folder: pd.Series(paths_of(folder)),
    "column": lambda folder: np.array(paths_of(folder), object)[:, None],
    "frame of PIL images": lambda folder: pd.DataFrame({"image": pil_images(folder)}),
    "bytes": lambda folder: [Path(path).read_bytes() for path in paths_of(folder)],
    "bytearrays": lambda folder: [bytearray(Path(path).read_bytes()) for path in paths_of(folder)],
    "open files": lambda folder: [io.BytesIO(Path(path).read_bytes()) for path in paths_of(folder)],
    "files of several kinds": lambda folder: [*paths_of(folder)[:30], *pil_images(folder)[30:]],
    "begins with an array": lambda folder: [np.asarray(Image.open(paths_of(folder)[0])), *paths_of(folder)[1:]],
}


def paths_of(folder: Path) -> list[str]:
    return [path for path, _ in ImageFolder(folder).samples]


def pil_images(folder: Path) -> list[Image.Image]:
    return [image for image, _ in ImageFolder(folder)]


@pytest.fixture(scope="module")
def expected(folder: Path) -> Any:
    """Pixels, labels, and what a detector says of them as an array."""
    X = np.stack([np.asarray(image) for image, _ in ImageFolder(folder)])
    y = ImageFolder(folder).targets
    return X, y, detector().fit(list(map(Image.fromarray, X)), y).score_samples(X)


@pytest.mark.parametrize("form", [*CONTAINERS, *UNLABELLED])
def test_pixels_and_labels(form: str, folder: Path, expected: Any) -> None:
    X = (CONTAINERS | UNLABELLED)[form](folder)
    images = check_images(Estimator(), X, reset=True)
    assert_allclose(np.stack(unit_pixels(images)), expected[0] / 255, rtol=0, atol=1e-6)
    labels = labels_given((CONTAINERS | UNLABELLED)[form](folder), None)
    assert labels == (expected[1] if form in CONTAINERS else None)
    assert images.labels() == labels


@pytest.mark.parametrize("form", [*CONTAINERS, *UNLABELLED])
def test_fit_and_score(form: str, folder: Path, expected: Any) -> None:
    X = (CONTAINERS | UNLABELLED)[form](folder)
    y = None if form in CONTAINERS else expected[1]
    fitted = detector().fit(X, y)
    assert fitted.classes_.tolist() == [0, 1, 2]
    assert_allclose(fitted.score_samples(X), expected[2], rtol=1e-4, atol=1e-4)
    assert 0 <= fitted.score(X, y) <= 1


def cross_validated(X: Any, y: Any) -> Any:
    folds = StratifiedKFold(2, shuffle=True, random_state=0)
    return cross_val_score(detector(), X, y, cv=folds, error_score="raise")


@pytest.fixture(scope="module")
def expected_of_folds(expected: Any) -> Any:
    return cross_validated(list(map(Image.fromarray, expected[0])), expected[1])


@pytest.mark.parametrize("form", ["folder", "list of pairs", "paths and labels", "rows", *UNLABELLED])
def test_cross_validation(form: str, folder: Path, expected: Any, expected_of_folds: Any) -> None:
    assert_array_equal(cross_validated((CONTAINERS | UNLABELLED)[form](folder), expected[1]), expected_of_folds)


def test_grid_search_over_a_folder(folder: Path) -> None:
    dataset = ImageFolder(folder)
    grid = {"classifier_trainer__max_steps": [1, 2]}
    search = GridSearchCV(detector(), grid, cv=StratifiedKFold(2), refit=False, error_score="raise").fit(
        dataset, dataset.targets
    )
    assert len(search.cv_results_["mean_test_score"]) == 2


def test_a_column_of_a_pipeline(folder: Path, expected: Any) -> None:
    frame = pd.DataFrame({"path": paths_of(folder), "patient": range(60)})
    pipeline = make_pipeline(ColumnTransformer([("images", "passthrough", ["path"])]), detector()).fit(
        frame, expected[1]
    )
    assert_allclose(pipeline.score_samples(frame), expected[2], rtol=1e-4, atol=1e-4)


def test_rows_of_a_scaler() -> None:
    """Its largest value is 1.0000000000000002."""
    X, y = make_images()
    rows = X.reshape(60, -1)
    pipeline = make_pipeline(MinMaxScaler(), detector(image_shape=(16, 16, 3))).fit(rows, y)
    assert MinMaxScaler().fit_transform(rows).max() > 1
    assert np.isfinite(pipeline.score_samples(rows)).all()


@pytest.mark.parametrize("image_shape", [np.array([16, 16, 3]), [16, 16, 3], (np.int64(16), 16, 3)])
def test_image_shape_of_any_kind(image_shape: Any) -> None:
    X, y = make_images()
    assert detector(image_shape=image_shape).fit(X.reshape(60, -1), y).score_samples(X.reshape(60, -1)).shape == (60,)


# ------------------------------------------------------------------ labels of items


class Mapped(ItemDataset):
    """Lists six classes in ``targets`` and maps them to two in its items."""

    targets = np.arange(60) % 6

    def __getitem__(self, index: int) -> Any:
        return self.items[index], "animal" if self.targets[index] < 3 else "thing"


def test_the_labels_that_train_are_those_of_the_items() -> None:
    dataset = Mapped(list(make_images()[0]))
    fitted = detector().fit(dataset)
    assert fitted.classes_.tolist() == ["animal", "thing"]
    assert fitted.score(dataset) == np.mean(
        fitted.classify(dataset) == ["animal" if k < 3 else "thing" for k in Mapped.targets]
    )


def test_labels_that_are_given_count() -> None:
    dataset = Mapped(list(make_images()[0]))
    assert detector().fit(dataset, make_images()[1]).classes_.tolist() == [0, 1, 2]


# ---------------------------------------------------------------- reading once


class TestEachImageIsReadOnce:
    """Once for everything before the training, and once per pass of a network."""

    def passes(self, fitted: Any, n: int) -> float:
        steps = sum(len(history["loss"]) for history in fitted.training_history_.values())
        # Two trainings, of 16 images a step; the masks of the images that train; the views of all images.
        return steps * 16 / n + len(fitted._split_.train) / n + 1

    @pytest.mark.parametrize("with_labels", [True, False])
    def test_fit(self, with_labels: bool) -> None:
        X, y = make_images()
        dataset = CountingDataset([(Image.fromarray(image), int(label)) for image, label in zip(X, y, strict=True)])
        fitted = detector().fit(dataset, None if with_labels else y)
        assert dataset.counts.sum() < 60 * (1 + self.passes(fitted, 60)) + 2

    @pytest.mark.parametrize(
        "method", ["score", "score_samples", "predict", "classify", "transform", "predict_proba", "p_values"]
    )
    def test_scoring(self, method: str) -> None:
        X, y = make_images()
        fitted = detector().fit(X, y)
        dataset = CountingDataset([(Image.fromarray(image), int(label)) for image, label in zip(X, y, strict=True)])
        getattr(fitted, method)(dataset)
        # The accuracy asks the first item whether it has a label.
        assert dataset.counts[1:].tolist() == [1] * 59
        assert dataset.counts[0] == 1 + (method == "score")

    def test_labels_for_clusters(self) -> None:
        dataset = CountingDataset(list(make_images()[0]))
        fitted = detector(calibration_fraction=0.4).fit(dataset)
        # One more pass for the clusters, and the first item is asked for a label.
        assert dataset.counts.sum() < 60 * (2 + self.passes(fitted, 60)) + 2


# ---------------------------------------------------------------- refused


def bad_row(folder: Path) -> Any:
    return [{"picture of": 1}] * 4


REFUSED: dict[str, tuple[Any, str]] = {
    "folder of folders of classes": (
        lambda folder: folder.parent,
        r"X is the folder '.*', whose sub-folder .*; pass '",
    ),
    "folder in a list": (
        lambda folder: [folder],
        r"image 0 cannot be read: file '.*': it is a folder; pass it alone, not in a list, or the paths",
    ),
    "loader": (
        lambda folder: DataLoader(ImageFolder(folder)),
        r"X is a DataLoader, which gives batches: .*pass X\.dataset",
    ),
    "iterator": (
        lambda folder: iter(paths_of(folder)),
        r"X is a list_iterator, which can be read only once: .*list\(X\)",
    ),
    "generator": (lambda folder: (path for path in paths_of(folder)), r"X is a generator, which can be read only once"),
    "frame of two columns": (
        lambda folder: pd.DataFrame({"path": paths_of(folder), "label": ["a"] * 60}),
        r"X is a table with the columns \['path', 'label'\].*expected numbers, or a column of images; pass X\['path'\]",
    ),
    "frame of a path and a number": (
        lambda folder: pd.DataFrame({"age": range(60), "file": paths_of(folder)}),
        r"of which \['file'\] are no numbers: .*pass X\['file'\]",
    ),
    "rows without an image": (bad_row, r"image 0 has type dict with the keys \['picture of'\]: expected a path"),
    "columns without an image": (
        lambda folder: {"a": [1], "b": [2]},
        r"X is a dict with the keys \['a', 'b'\]: expected",
    ),
    "HEIC": (
        lambda folder: [b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(300)] * 4,
        r"image 0 cannot be read: it is a HEIC file; install pillow-heif and call pillow_heif\.register_heif_opener",
    ),
    "bytes of no image": (lambda folder: [b"text"] * 4, "image 0 cannot be read: these bytes are no image of a known"),
    "one file's bytes": (
        lambda folder: Path(paths_of(folder)[0]).read_bytes(),
        r"X is a single bytes: .*wrap it in a list",
    ),
    "one open file": (lambda folder: io.BytesIO(b"x"), "X is a single BytesIO: .*wrap it in a list"),
    "pickled array": (lambda folder: pickled(folder), r"image 0 cannot be read: file '.*\.npy': .*Python objects"),
}


def pickled(folder: Path) -> Any:
    np.save(folder.parents[1] / "objects.npy", np.array([{}], object), allow_pickle=True)
    return [folder.parents[1] / "objects.npy"] * 4


# Estimators refuse iterators.
REFUSED_BY = [
    (door, case)
    for door in ["as_images", "fit", "score_samples"]
    for case in REFUSED
    if door != "as_images" or case not in ("iterator", "generator")
]


@pytest.mark.parametrize(("door", "case"), REFUSED_BY)
def test_refused(door: str, case: str, folder: Path, expected: Any) -> None:
    make, message = REFUSED[case]
    doors = {
        "as_images": lambda X: as_images(X).read(np.array([0])),
        "fit": lambda X: detector(classifier_trainer=NoTraining(), dense_trainer=NoTraining()).fit(X, [0, 1, 0, 1]),
        "score_samples": FITTED.setdefault("detector", detector().fit(expected[0], expected[1])).score_samples,
    }
    with pytest.raises((ValueError, TypeError), match=message) as error:
        doors[door](make(folder))
    # The user's data is never printed.
    assert len(str(error.value)) < 1000


class TestRemedies:
    """Each piece of advice, as the message words it."""

    def evaluated(self, error: Exception, pattern: str, **names: Any) -> Any:
        remedy = re.search(pattern, str(error))
        assert remedy, str(error)
        return eval(remedy.group(1), names)

    def test_paths_of_a_folder(self, folder: Path, expected: Any) -> None:
        with pytest.raises(ValueError, match="it is a folder; pass it alone") as raised:
            as_images([folder])
        names = {"path": folder, "load_image_folder": load_image_folder}
        paths = self.evaluated(raised.value, r"or the paths of its images, (load_image_folder\(path\)\.paths)", **names)
        assert detector().fit(paths, expected[1]).classes_.tolist() == [0, 1, 2]

    def test_a_folder_one_level_up(self, folder: Path) -> None:
        with pytest.raises(ValueError, match="whose sub-folder") as raised:
            detector().fit(folder.parent)
        assert detector().fit(self.evaluated(raised.value, r"pass ('.*?')\.")).classes_.tolist() == NAMES.tolist()

    def test_dataset_of_a_loader(self, folder: Path) -> None:
        loader = DataLoader(ImageFolder(folder, ToTensor()), batch_size=8)
        with pytest.raises(TypeError) as raised:
            detector().fit(loader)
        assert detector().fit(self.evaluated(raised.value, r"pass (X\.dataset)", X=loader)).classes_.tolist() == [
            0,
            1,
            2,
        ]

    def test_list_of_an_iterator(self, folder: Path, expected: Any) -> None:
        X = iter(paths_of(folder))
        with pytest.raises(TypeError) as raised:
            detector().fit(X, expected[1])
        detector().fit(self.evaluated(raised.value, r"pass (list\(X\))", X=X, list=list), expected[1])

    def test_column_of_a_table(self, folder: Path, expected: Any) -> None:
        X = pd.DataFrame({"path": paths_of(folder), "label": expected[1]})
        with pytest.raises(TypeError) as raised:
            detector().fit(X, expected[1])
        detector().fit(self.evaluated(raised.value, r"pass (X\['path'\])", X=X), expected[1])

    def test_alpha_channel(self) -> None:
        X, y = make_images()
        X = np.concatenate([X, np.full_like(X[..., :1], 255)], axis=-1)
        with pytest.raises(ValueError, match="alpha channel") as raised:
            detector().fit(X, y)
        detector().fit(self.evaluated(raised.value, r"alpha channel: pass (X\[\.\.\., :3\])", X=X), y)

    def test_channels_first(self) -> None:
        X, y = make_images()
        X = np.moveaxis(X, -1, 1)
        with pytest.raises(ValueError, match="Channels come last") as raised:
            detector().fit(X, y)
        detector().fit(self.evaluated(raised.value, r"pass (np\.moveaxis\(.*?\))\.", X=X, np=np), y)

    def test_colour_for_a_network_of_one_channel(self) -> None:
        X = make_images()[0]
        with pytest.raises(ValueError, match="expected one channel") as raised:
            as_images(X, n_channels=1)
        as_images(self.evaluated(raised.value, r"pass (X\.mean.*)\.$", X=X), n_channels=1)

    def test_closed_images(self, folder: Path, expected: Any) -> None:
        closed = []
        for path in paths_of(folder):
            with Image.open(path) as image:
                closed.append(image)
        with pytest.raises(
            ValueError, match=r"image 0 .*was closed before its pixels were read; call image\.load\(\) before"
        ):
            detector().fit(closed, expected[1])
        loaded = []
        for path in paths_of(folder):
            with Image.open(path) as image:
                image.load()
                loaded.append(image)
        assert_allclose(detector().fit(loaded, expected[1]).score_samples(loaded), expected[2], rtol=1e-4, atol=1e-4)

    def test_floats_to_255(self) -> None:
        X, y = make_images()
        with pytest.raises(ValueError, match=r"image_range=\(0, 255\)"):
            detector().fit(X.astype(float), y)
        first = detector().fit(X.astype(float), y, image_range=(0, 255)).score_samples(X.astype(float))
        assert_allclose(first, detector().fit(X / 255, y).score_samples(X / 255), rtol=1e-4, atol=1e-4)

    def test_deeper_integers_than_in_fit(self) -> None:
        X, y = make_images()
        with pytest.raises(
            ValueError, match=r"expected 0\.\.255, the range of the training images.*fit with image_range="
        ):
            detector().fit(X, y).score_samples(X.astype(int) * 16)
        fitted = detector().fit(X.astype(int), y, image_range=(0, 4095))
        assert np.isfinite(fitted.score_samples(X.astype(int) * 16)).all()


# ---------------------------------------------------------------- errors of a user's own code


class TestOwnErrors:
    @pytest.fixture
    def lenient(self) -> Any:
        return detector(on_error="nan").fit(*make_images())

    def test_a_mistake_in_a_transform_is_raised(self, lenient: Any, folder: Path) -> None:
        def transform(image: Any) -> Any:
            return ToTensor()(image) @ torch.ones(7, 7)

        with pytest.raises(RuntimeError, match=r"shape|size"):
            lenient.predict(ImageFolder(folder, transform))

    def test_normalised_images_are_refused(self, lenient: Any, folder: Path) -> None:
        def transform(image: Any) -> Any:
            return (ToTensor()(image) - 0.5) / 0.2

        with pytest.raises(
            ValueError, match=r"none of 60 images can be read: image 0 has float pixels .*Do not normalise"
        ):
            lenient.predict(ImageFolder(folder, transform))

    def test_a_damaged_file_of_a_folder_is_not(self, lenient: Any, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        for index in range(3):
            (tmp_path / "a" / f"{index}.png").write_bytes(
                Path(paths_of(folder)[index]).read_bytes()[: 200 if index == 1 else None]
            )
        with pytest.warns(UserWarning, match="1 of 3 images could not be read"):
            assert np.isnan(lenient.score_samples(ImageFolder(tmp_path, ToTensor()))).tolist() == [False, True, False]


def test_tensors_of_integers_deeper_than_bytes() -> None:
    X, y = make_images()
    dataset = TensorDataset(torch.from_numpy(X.astype(np.int32) * 16).movedim(-1, 1), torch.from_numpy(y))
    fitted = detector().fit(dataset)
    assert fitted.image_range_ == (0, 4095)
    assert fitted.score_samples([torch.from_numpy(X[0].astype(np.int32)).movedim(-1, 0)]).shape == (1,)


def test_the_bytes_of_a_file_and_the_file_are_the_same(tmp_path: Path) -> None:
    content = png(make_images()[0][0])
    (tmp_path / "a.png").write_bytes(content)
    first, second = (unit_pixels(as_images([item]))[0] for item in (content, tmp_path / "a.png"))
    assert_array_equal(first, second)
