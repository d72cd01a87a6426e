"""A detector on folders of images, from the fit to the evaluation."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score

from skdfb import CAMMaskGenerator, DFBDetector, FrozenDetector, Trainer
from skdfb.datasets import load_image_folder
from skdfb.detector import FeatureDetector
from skdfb.evaluation import (
    LeaveClassesOut,
    class_accuracy,
    class_count_sweep,
    compare_scorers,
    evaluate,
    temperature_sweep,
)
from skdfb.networks import DenseClassifier
from skdfb.scorers import MSP
from tests.detector.conftest import make_detector, make_images, tiny_backbone

NAMES = ["ant", "bee", "cow"]
METHODS = [
    "score_samples",
    "predict_open_set",
    "p_values",
    "predict",
    "classify",
    "transform",
    "segment",
    "predict_proba",
]


class NoTraining(Trainer):
    def train(self, *args: Any, **kwargs: Any) -> Any:
        pytest.fail("training began")


def detector(**changes: Any) -> DFBDetector:
    trainer = Trainer(max_steps=2, batch_size=16)
    small = {"scorer": MSP(), "classifier_trainer": trainer, "dense_trainer": trainer, "alpha": 0.2}
    return make_detector(**small | changes)


def frozen() -> FrozenDetector:
    return FrozenDetector(tiny_backbone(), scorer=MSP(), alpha=0.2, device="cpu", random_state=0)


def write(root: Path, seed: int, *, flat: bool = False, n: int = 60, names: list[str] = NAMES) -> Path:
    """Images of three classes, in files that are not in the order of the classes."""
    for index, (image, label) in enumerate(zip(*make_images(n, seed), strict=True)):
        path = root / ("" if flat else names[label]) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("folders")
    write(root / "train", 0)
    write(root / "test", 1, n=12)
    write(root / "new", 2, n=8, flat=True)
    write(root / "others", 3, n=9, names=["ant", "dog", "elk"])
    return root


@pytest.fixture(scope="module")
def train(root: Path) -> Any:
    return load_image_folder(root / "train")


@pytest.fixture(scope="module")
def fitted(root: Path) -> DFBDetector:
    return detector().fit(root / "train")


def test_a_folder_is_the_list_of_its_paths(root: Path, train: Any, fitted: DFBDetector) -> None:
    alone = detector().fit(train.paths, train.labels)
    assert fitted.classes_.tolist() == alone.classes_.tolist() == train.classes == NAMES
    np.testing.assert_array_equal(fitted.score_samples(root / "new"), alone.score_samples(root / "new"))


@pytest.mark.parametrize("name", ["test", "new"])
@pytest.mark.parametrize("method", METHODS)
def test_scoring(root: Path, fitted: DFBDetector, name: str, method: str) -> None:
    paths = load_image_folder(root / name).paths
    np.testing.assert_array_equal(getattr(fitted, method)(f"{root / name}/"), getattr(fitted, method)(paths))


def test_accuracy(root: Path, fitted: DFBDetector) -> None:
    data = load_image_folder(root / "test")
    assert (
        fitted.score(root / "test") == fitted.score(data.paths, data.labels) == fitted.score(root / "test", data.labels)
    )
    with pytest.raises(ValueError, match="y is None"):
        fitted.score(root / "new")


@pytest.mark.parametrize("make", [detector, frozen])
def test_labels_beside_class_folders(root: Path, train: Any, make: Any) -> None:
    shuffled = np.random.default_rng(0).permutation(train.labels)
    message = r"images of 3 of 3 class folders more than one label .* 'ant' the labels \[.*\]\. y is used"
    with pytest.warns(UserWarning, match=message) as caught:
        fitted = make().fit(root / "train", shuffled)
    assert caught[0].filename == __file__
    assert fitted.classes_[fitted._labels_].tolist() == shuffled.tolist()
    # Renamed, merged, and the advice of the message: no warning.
    names = {"ant": "insect", "bee": "insect", "cow": "mammal"}
    merged = make().fit(root / "train", [names[label] for label in train.labels])
    assert merged.classes_.tolist() == ["insect", "mammal"]
    make().fit(train.paths, shuffled)


@pytest.mark.parametrize("make", [detector, frozen])
def test_a_file_with_two_labels_is_named(root: Path, train: Any, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    path = Path(train.paths[0])
    again = str(path.relative_to(root))
    with pytest.warns(UserWarning, match=rf"1 file\(s\) .*{path.name}' with \['ant', 'bee'\]: expected one") as caught:
        make().fit([*train.paths, again], [*train.labels, "bee"])
    assert caught[0].filename == __file__
    make().fit([*train.paths, again], [*train.labels, "ant"])


def test_unreadable_images(root: Path, tmp_path: Path) -> None:
    write(tmp_path, 2, n=4, flat=True)
    (tmp_path / "1.png").write_bytes(b"text")
    lenient = detector(on_error="nan").fit(root / "train")
    with pytest.warns(UserWarning, match="1 of 4 images could not be read"):
        assert np.isnan(lenient.score_samples(tmp_path)).tolist() == [False, True, False, False]


def test_images_without_labels_are_clustered(root: Path, tmp_path: Path) -> None:
    write(tmp_path, 0, flat=True)
    with pytest.warns(UserWarning, match="has no class folders, and y is None: .* sorted into classes by") as caught:
        fitted = detector(calibration_fraction=0.4).fit(tmp_path)
    assert [warning.filename for warning in caught] == [__file__]
    alone = detector(calibration_fraction=0.4).fit(load_image_folder(tmp_path).paths)
    np.testing.assert_array_equal(fitted.score_samples(root / "new"), alone.score_samples(root / "new"))


def test_a_calibration_folder(root: Path) -> None:
    fitted = detector().fit(root / "train", X_calibration=root / "test")
    assert fitted._n_own_ == 12
    with pytest.raises(ValueError, match=r"y_calibration holds \['dog', 'elk'\], which are not classes of y"):
        detector().fit(root / "train", X_calibration=root / "others")


def test_refused_before_the_training(root: Path, tmp_path: Path) -> None:
    refusing = detector(classifier_trainer=NoTraining(), dense_trainer=NoTraining())
    with pytest.raises(ValueError, match=rf"whose sub-folder .*; pass '{root}/\w+'"):
        refusing.fit(root)
    write(tmp_path, 0, names=["ant"] * 3)
    with pytest.raises(ValueError, match="y has one class, 'ant': expected at least 2 classes"):
        refusing.fit(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        refusing.fit(tmp_path / "gone")
    with pytest.raises(ValueError, match="X has 60 images and y has 2 labels"):
        refusing.fit(root / "train", [0, 1])


def test_masks_and_trainer(root: Path, train: Any) -> None:
    generator = CAMMaskGenerator(tiny_backbone(), scales=(1.0,), trainer=Trainer(max_steps=1), random_state=0)
    masks = generator.fit_transform(root / "train")
    np.testing.assert_array_equal(masks, generator.fit_transform(train.paths, train.labels))
    assert generator.transform(root / "new").shape[0] == 8
    network = DenseClassifier(tiny_backbone(), 3, image_size=16)
    y = np.unique(train.labels, return_inverse=True)[1]
    assert len(Trainer(max_steps=1).train(network, root / "train", y)["loss"]) == 1


def test_a_detector_of_features() -> None:
    message = r"X is the path 'images/': expected features .* for a folder of images use DFBDetector or FrozenDetector"
    with pytest.raises(TypeError, match=message):
        FeatureDetector().fit("images/")
    with pytest.raises(TypeError, match=message):
        FeatureDetector(alpha=0.2).fit(*make_features()).predict("images/")


def make_features() -> Any:
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    return rng.normal(y[:, None], 1, (60, 4)), y


class TestEvaluation:
    def test_labels_of_class_folders(self, root: Path, fitted: DFBDetector) -> None:
        data, ood = load_image_folder(root / "test"), {"new": root / "new", "others": str(root / "others")}
        lists = {name: load_image_folder(path).paths for name, path in ood.items()}
        table = evaluate(fitted, root / "test", ood, n_bootstrap=0)
        expected = evaluate(fitted, data.paths, lists, data.labels, n_bootstrap=0)
        assert table.accuracy[0] == fitted.score(root / "test")
        for column in table:
            np.testing.assert_array_equal(table[column], expected[column])

    def test_images_alone_have_no_labels(self, root: Path, fitted: DFBDetector) -> None:
        table = evaluate(fitted, root / "new", {"others": root / "others"}, n_bootstrap=0)
        assert np.isnan(table.accuracy).all()
        assert table.n_id.tolist() == [8]

    def test_class_folders_that_are_no_classes(self, root: Path, fitted: DFBDetector) -> None:
        with pytest.raises(
            ValueError, match=r"X_id is the folder .* class folders 'dog', 'elk', which are not"
        ) as error:
            evaluate(fitted, root / "others", {"new": root / "new"})
        text = str(error.value)
        paths = eval(
            text[text.index("load_image_folder(") :].removesuffix("."), {"load_image_folder": load_image_folder}
        )
        assert evaluate(fitted, paths, {"new": root / "new"}, n_bootstrap=0).n_id.tolist() == [9]

    def test_the_ood_images_are_found_before_any_is_scored(self, root: Path, fitted: DFBDetector) -> None:
        with pytest.raises(FileNotFoundError, match=r"ood\['no'\] is the path 'no/such', which does not exist"):
            evaluate(fitted, root / "test", {"no": "no/such"})
        with pytest.raises(TypeError, match=r"ood is the path 'ood/': .*by name, like \{'noise': 'ood/'\}"):
            evaluate(fitted, root / "test", "ood/")  # type: ignore[arg-type]

    def test_compare_scorers_and_accuracies(self, root: Path, train: Any, fitted: DFBDetector) -> None:
        data, ood = load_image_folder(root / "test"), {"new": root / "new"}
        table = compare_scorers(fitted, root / "test", ood, X=root / "train", y=None, scorers=[MSP()])
        expected = compare_scorers(
            fitted, data.paths, ood, X=train.paths, y=train.labels, scorers=[MSP()], y_id=data.labels
        )
        for column in table:
            np.testing.assert_array_equal(table[column], expected[column])
        assert class_accuracy(fitted, root / "test") == class_accuracy(fitted, data.paths, data.labels)

    def test_sweeps(self, root: Path, fitted: DFBDetector) -> None:
        ood = {"new": root / "new"}
        assert len(temperature_sweep(fitted, root / "test", ood, [1.0]).auroc) == 1
        table = class_count_sweep(detector(), root / "train", None, root / "test", None, ood, [2], random_state=0)
        assert table.n_classes.tolist() == [2]


class TestCrossValidation:
    """It takes images by their place, which a path has not."""

    def test_paths_and_labels(self, train: Any) -> None:
        scores = cross_val_score(detector(), train.paths, train.labels, cv=StratifiedKFold(2), error_score="raise")
        assert len(scores) == 2

    def test_a_path_in_our_splits(self, root: Path, train: Any) -> None:
        with pytest.raises(TypeError, match=r"X is the path .*pass load_image_folder\(X\)\.paths and its labels"):
            next(LeaveClassesOut().split(str(root / "train"), train.labels))

    def test_a_path_in_a_search(self) -> None:
        search = GridSearchCV(detector(), {"alpha": [0.2]}, cv=2, error_score="raise")
        with pytest.raises(ValueError, match=r"X holds single characters, .*pass load_image_folder\(path\)\.paths"):
            search.fit("no/such/train")
