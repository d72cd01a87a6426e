"""``skdfb fit``: what is written, and what is refused before any training."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from skdfb import DFBDetector, FrozenDetector, load
from skdfb.cli._detectors import Preset, make_detector, scorer_names
from skdfb.cli._output import file_size, in_options
from skdfb.training import Trainer
from tests.cli.conftest import FAST, Run


@pytest.fixture
def never_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(self: Any, *args: Any, **more: Any) -> Any:
        raise AssertionError("fit was called")

    monkeypatch.setattr(FrozenDetector, "fit", fit)
    monkeypatch.setattr(DFBDetector, "fit", fit)


def test_a_model_is_written(run: Run, images: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    result = run("fit", images / "known", "-o", path, *FAST, "--scorer", "knn", "--alpha", 0.1, "--seed", 3)
    assert result.code == 0
    detector = load(path)
    assert isinstance(detector, FrozenDetector)
    assert type(detector.scorer_).__name__ == "KNN"
    assert (detector.alpha, detector.random_state, detector.image_size) == (0.1, 3, 128)
    assert detector.classes_.tolist() == [f"digit-{label}" for label in range(6)]
    n_held_out = len(detector.calibrator_.scores_)
    assert result.out == (
        f"{path}: 6 classes, 200 images, of which {n_held_out} set the threshold for alpha = 0.1; "
        f"{file_size(path.stat().st_size)}\n"
    )
    assert f"skdfb: next: skdfb score {path} NEW_IMAGES" in result.err


def test_json_is_alone_on_stdout(run: Run, images: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    result = run("fit", images / "known", "-o", path, *FAST, "--json")
    found = json.loads(result.out)
    assert found["model"] == str(path)
    assert found["bytes"] == path.stat().st_size
    assert (len(found["classes"]), found["n_images"], found["alpha"]) == (6, 200, 0.05)
    assert found["threshold"] == load(path).offset_


def test_the_training_presets_train(run: Run, images: Path, tmp_path: Path) -> None:
    small, path = tmp_path / "small", tmp_path / "model.safetensors"
    known = [sorted((images / "known" / name).iterdir())[:20] for name in ("digit-0", "digit-1")]
    for label, paths in enumerate(known):
        (small / str(label)).mkdir(parents=True)
        for name in paths:
            shutil.copy(name, small / str(label))
    options = (
        "--backbone",
        "tf_efficientnet_lite0",
        "--image-size",
        128,
        "--steps",
        1,
        "--alpha",
        0.2,
        "--batch-size",
        16,
    )
    result = run("fit", small, "-o", path, *options, "--debug")
    assert result.code == 0, result.err
    detector = load(path)
    assert isinstance(detector, DFBDetector)
    assert len(detector.training_history_["dense"]["loss"]) == 1
    assert detector.batch_size == detector.dense_trainer.batch_size == 16
    # Its explanation has maps, too.
    new = next((images / "new").iterdir())
    assert run("explain", path, new, "-o", tmp_path / "why.png").code == 0
    assert (tmp_path / "why.png").stat().st_size > 1000


# --------------------------------------------------------------- presets and scorers


def test_presets() -> None:
    options = {"backbone": None, "alpha": 0.1, "image_size": None, "random_state": 0}
    fast = make_detector(Preset.FAST, None, None, options)
    assert (type(fast), fast.alpha, fast.backbone) == (FrozenDetector, 0.1, FrozenDetector().backbone)
    balanced = make_detector(Preset.BALANCED, "vim", 7, options)
    assert (type(balanced), type(balanced.scorer).__name__) == (DFBDetector, "ViM")
    assert balanced.classifier_trainer.max_steps == balanced.dense_trainer.max_steps == 7
    paper = make_detector(Preset.PAPER, None, None, options | {"image_size": 96})
    assert paper.image_size == 96
    assert paper.dense_trainer.get_params() == Trainer.paper_dense().get_params()
    few = make_detector(Preset.PAPER, None, 5, options)
    assert few.dense_trainer.get_params() == Trainer.paper_dense().set_params(max_steps=5).get_params()


def test_batch_size_is_that_of_training_and_passes() -> None:
    assert make_detector(Preset.FAST, None, None, {}, 8).batch_size == 8
    balanced = make_detector(Preset.BALANCED, None, None, {}, 8)
    assert balanced.batch_size == 8
    for trainer in (balanced.classifier_trainer, balanced.dense_trainer):
        assert trainer.get_params() == Trainer(batch_size=8).get_params()
    paper = make_detector(Preset.PAPER, None, 5, {}, 8)
    assert paper.dense_trainer.get_params() == Trainer.paper_dense().set_params(max_steps=5, batch_size=8).get_params()


def test_scorers_are_named_after_their_classes() -> None:
    from skdfb import scorers

    names = scorer_names()
    assert {"vim", "knn", "energy", "relative-mahalanobis", "kl-matching", "nn-guide", "kernel-pca"} <= set(names)
    assert not {"background-logit", "scorer-ensemble", "representation"} & set(names)
    made = [make_detector(Preset.FAST, name, None, {}).scorer for name in names]
    assert len({type(scorer) for scorer in made}) == len(names)
    assert all(isinstance(scorer, scorers.ForegroundScorer) for scorer in made)
    # Other spellings.
    assert type(make_detector(Preset.FAST, "Relative_Mahalanobis", None, {}).scorer) is scorers.RelativeMahalanobis


@pytest.mark.usefixtures("never_fitted")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--scorer", "mahalanobi"), "'mahalanobi': did you mean mahalanobis or relative-mahalanobis"),
        (("--preset", "fast", "--steps", "5"), "Invalid value for --steps: the preset 'fast' trains no network"),
        (("--preset", "fast", "--checkpoint-dir", "x"), "Invalid value for --checkpoint-dir: the preset 'fast'"),
        (("--alpha", "2"), "expected a number between 0 and 1"),
        (("--preset", "slow"), "'slow'"),
        (("--image-size", "0"), "--image-size"),
        (("--n-jobs", "0"), "'--n-jobs': 0: expected a number of threads, such as 4, or -1 for"),
        (("--nothing",), "--nothing"),
    ],
)
def test_wrong_usage(run: Run, images: Path, tmp_path: Path, options: Any, message: str) -> None:
    result = run("fit", images / "known", "-o", tmp_path / "m.safetensors", *options)
    assert (result.code, result.out) == (2, "")
    assert message in result.error
    assert result.error.endswith("(see skdfb fit --help)") or "--help" not in result.error


# --------------------------------------------------------------- refused before training


@pytest.mark.usefixtures("never_fitted")
def test_an_output_is_not_replaced_by_accident(run: Run, images: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"old")
    result = run("fit", images / "known", "-o", path)
    assert (result.code, path.read_bytes()) == (1, b"old")
    assert result.error == f"{str(path)!r} exists already: choose another name, or replace it by --force"


@pytest.mark.usefixtures("never_fitted")
def test_an_output_must_be_writable(run: Run, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "is a folder" in run("fit", images / "known", "-o", tmp_path).error
    assert "there is no folder" in run("fit", images / "known", "-o", tmp_path / "no" / "m.safetensors").error

    def touch(self: Path, *more: Any) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "touch", touch)
    result = run("fit", images / "known", "-o", tmp_path / "m.safetensors")
    assert result.code == 1
    assert result.error == f"{str(tmp_path / 'm.safetensors')!r} cannot be written: Permission denied"


@pytest.mark.usefixtures("never_fitted")
def test_folders_without_images(run: Run, tmp_path: Path) -> None:
    empty, output = tmp_path / "empty", tmp_path / "m.safetensors"
    empty.mkdir()
    result = run("fit", empty, "-o", output)
    assert result.code == 1
    assert result.error.startswith(f"DIR is the folder {str(empty)!r}, which holds no images")
    result = run("fit", tmp_path / "missing", "-o", output)
    assert result.code == 1
    assert "does not exist" in result.error


def test_a_broken_image_is_named_before_the_training(
    run: Run, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from skdfb.networks import DenseClassifier

    def runs(*args: Any) -> None:
        raise AssertionError("a network ran")

    known = tmp_path / "known"
    for name in ("digit-0", "digit-1"):
        (known / name).mkdir(parents=True)
        for path in sorted((images / "known" / name).iterdir())[:20]:
            (known / name / path.name).write_bytes(path.read_bytes())
    broken = sorted((known / "digit-1").iterdir())[3]
    broken.write_bytes(broken.read_bytes()[:300])
    monkeypatch.setattr(DenseClassifier, "forward", runs)
    result = run("fit", known, "-o", tmp_path / "m.safetensors", *FAST)
    assert result.code == 1
    assert str(broken) in result.error
    assert [path.name for path in tmp_path.iterdir()] == ["known"]


def test_weights_that_cannot_be_had(run: Run, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    result = run("fit", images / "known", "-o", tmp_path / "m.safetensors", "--preset", "fast")
    assert result.code == 1
    assert "take --backbone 'tf_efficientnet_lite0' (installed)" in result.error


# --------------------------------------------------------------- Ctrl-C


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ((), "with --checkpoint-dir DIR an interrupted fit goes on"),
        (("--checkpoint-dir", "kept"), "the last checkpoint"),
    ],
)
def test_interrupt(
    run: Run, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: Any, kept: str
) -> None:
    def fit(self: Any, *args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(DFBDetector, "fit", fit)
    result = run("fit", images / "known", "-o", tmp_path / "m.safetensors", *options)
    assert (result.code, result.out) == (130, "")
    assert result.err.startswith(f"skdfb: interrupted: {str(tmp_path / 'm.safetensors')!r} is not written")
    assert kept in result.err
    assert list(tmp_path.iterdir()) == []


def test_advice_names_options(run: Run, images: Path, tmp_path: Path) -> None:
    for label in ("digit-0", "digit-1"):
        (tmp_path / "known" / label).mkdir(parents=True)
        for path in sorted((images / "known" / label).iterdir())[:5]:
            shutil.copy(path, tmp_path / "known" / label)
    result = run("fit", tmp_path / "known", "-o", tmp_path / "m.safetensors", *FAST)
    assert result.code == 1
    advice = re.search(r"Pass (--alpha) ([0-9.]+)", result.error)
    assert advice is not None, result.error
    assert run("fit", tmp_path / "known", "-o", tmp_path / "m.safetensors", *FAST, *advice.groups()).code == 0


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        (("--image-size", 128, "--alpha", 0.001), "rejected. Pass --alpha 0.01, or at least 1998 images."),
        (("--image-size", 128, "--alpha", 0.0099), "rejected. Pass --alpha 0.01, or at least 202 images."),
        (("--image-size", 8), "useless. Raise --image-size."),
    ],
)
def test_advice_has_no_words_of_python(run: Run, images: Path, tmp_path: Path, options: Any, advice: str) -> None:
    result = run("fit", images / "known", "-o", tmp_path / "m.safetensors", *FAST[:4], *options)
    assert result.code == 1
    assert result.error.endswith(advice)


@pytest.mark.parametrize("given", ["", "calibration_fraction=0.5, or "])
def test_without_an_alpha_that_is_large_enough(given: str) -> None:
    text = (
        f"Pass {given}alpha=None, which sets no threshold, or at least 38 images with calibration_fraction='auto', or "
    )
    assert in_options(f"{text}an X_calibration of at least 19 images.") == "Pass at least 38 images."


# --------------------------------------------------------------- folders without classes


@pytest.mark.usefixtures("never_fitted")
def test_a_single_class_folder_is_refused(run: Run, images: Path, tmp_path: Path) -> None:
    shutil.copytree(images / "new", tmp_path / "known" / "daisy")
    result = run("fit", tmp_path / "known", "-o", tmp_path / "m.safetensors")
    assert result.code == 1
    assert result.error == (
        f"{str(tmp_path / 'known')!r} has one class folder, 'daisy': expected at least 2; add a folder of images per "
        "class"
    )


def test_a_folder_without_class_folders_is_warned_of_once(run: Run, images: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, path in enumerate(sorted((images / "known").glob("*/*"))[:40]):
        shutil.copy(path, flat / f"{number}.png")
    result = run("fit", flat, "-o", tmp_path / "m.safetensors", *FAST, "--alpha", 0.2)
    assert result.code == 0
    lines = [line for line in result.err.splitlines() if "class folders" in line]
    assert lines == [
        f"skdfb: warning: {str(flat)!r} has no class folders: its images are sorted into classes by their looks; "
        "put the images of each class into a folder of its own"
    ]
    assert result.err.count("the pre-trained weights of") == 1
