"""The paper's experiments end to end, on a few images in the exact formats of the real sets."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.torch import save_file

from skdfb import DFBDetector, Trainer
from skdfb.networks import create_backbone

METRICS = ("auroc", "aupr_in", "aupr_out", "fpr95")


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A file with weights of the small network, in the format of timm."""
    state = create_backbone("test_resnet", pretrained=False, random_state=0).state_dict()
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(state, path)
    return path


def settings(weights, folder, *more):
    fixed = ["--device", "cpu", "--n-jobs", "1", "--backbone", "test_resnet", "--steps", "2", "--batch-size", "8"]
    return [*fixed, "--weights", str(weights), "--data", str(folder), "--calibration-fraction", "0.5", *more]


def rows(table, **values):
    """Return the numbers of the rows with these values."""
    n_rows = len(table["scorer"])
    return [row for row in range(n_rows) if all(table[column][row] == value for column, value in values.items())]


def test_from_download_to_tables(reproduce_paper, published, weights, tmp_path, capsys):
    pytest.importorskip("pooch")
    json_path, folder = tmp_path / "figures.json", tmp_path / "data"
    more = ["--id", "cifar10", "--recipe", "paper", "--download", "--json", str(json_path), "--temperature-sweep"]
    assert reproduce_paper.main(settings(weights, folder, *more, "1", "2.5")) == 0

    figures = json.loads(json_path.read_text())
    assert figures["n_images"] == {
        "train": 50, "test": 10, "cifar100": 12, "svhn": 9, "places365": 7, "textures": 8,
    }  # fmt: skip
    assert figures["n_steps"] == {"classifier": 2, "dense": 2}
    assert figures["missing_ood_sets"] == []
    assert figures["settings"]["recipe"] == "paper"
    assert len(published.served) == 5
    table = figures["table"]
    assert list(dict.fromkeys(table["scorer"])) == ["MSP", "ODIN", "Energy", "ViM"]
    assert list(dict.fromkeys(table["ood"])) == ["cifar100", "svhn", "places365", "textures"]
    for metric in METRICS:
        assert len(table[metric]) == 4 * 3 * 4
        assert all(0 <= value <= 1 for value in table[metric])
    assert set(figures["accuracy"]) == {"plain", "dfb"}
    for metric in ("auroc", "fpr95", "aupr_in"):
        plain, dfb = (
            np.mean([table[metric][row] for row in rows(table, method=method)]) for method in ("plain", "dfb")
        )
        assert_allclose(figures["mean_change"][metric], dfb - plain)

    # At the temperatures of Eq. 7 the sweep has the figures of the table.
    sweep = {(row["scorer"], row["temperature"]): row for row in figures["temperature_sweep"]}
    assert len(sweep) == 4 * 2
    for scorer, temperature in [("MSP", 1), ("ODIN", 1), ("Energy", 2.5), ("ViM", 2.5)]:
        for metric in ("auroc", "fpr95"):
            of_table = [table[metric][row] for row in rows(table, scorer=scorer, method="dfb")]
            assert_allclose(sweep[scorer, temperature][metric], np.mean(of_table))

    printed = capsys.readouterr().out
    for heading in ("AUROC [%]", "FPR95 [%]", "AUPR_IN [%]", "Table 4", "T=2.5", "Mean change: AUROC"):
        assert heading in printed
    assert f"plain {figures['accuracy']['plain']:.2%}" in printed
    assert "left out" not in printed


def test_sets_that_are_missing_are_left_out(reproduce_paper, paper_data, published, weights, tmp_path, capsys):
    for name in ("svhn", "textures"):
        (published.folder / paper_data.file_of(name).name).unlink()
    json_path = tmp_path / "figures.json"
    more = ["--id", "cifar100", "--recipe", "default", "--json", str(json_path)]
    limits = ["--n-train", "80", "--n-test", "8", "--n-ood", "5"]
    assert reproduce_paper.main(settings(weights, published.folder, *more, *limits)) == 0
    figures = json.loads(json_path.read_text())
    assert figures["n_images"] == {"train": 80, "test": 8, "cifar10": 5, "places365": 5}
    assert figures["missing_ood_sets"] == ["svhn", "textures"]
    assert figures["temperature_sweep"] == []
    printed = capsys.readouterr()
    assert "left out: svhn, textures" in printed.out
    assert "test_32x32.mat" in printed.err
    assert "dtd-r1.0.1.tar.gz" in printed.err
    assert "cifar-10-binary" not in printed.err
    assert published.served == []


@pytest.mark.parametrize("kept", [[], ["cifar100", "svhn"], ["cifar10"]], ids=["nothing", "no ID set", "no OOD set"])
def test_nothing_to_run(reproduce_paper, paper_data, published, weights, tmp_path, capsys, kept):
    folder = tmp_path / "data"
    folder.mkdir()
    for name in kept:
        shutil.copy(published.folder / paper_data.file_of(name).name, folder)
    assert reproduce_paper.main(settings(weights, folder, "--id", "cifar10")) == 1
    printed = capsys.readouterr().err
    assert "Nothing to run" in printed
    assert "--download fetches them" in printed
    for name in ("cifar10", *reproduce_paper.OOD_SETS["cifar10"]):
        assert (paper_data.file_of(name).url in printed) == (name not in kept)
    assert published.served == []


def test_a_damaged_file_is_refused_before_any_training(
    reproduce_paper, paper_data, published, weights, capsys, monkeypatch
):
    path = published.folder / paper_data.file_of("places365").name
    path.write_bytes(path.read_bytes()[:-1])
    monkeypatch.setattr(reproduce_paper, "run", lambda *args: pytest.fail("the experiment was run"))
    assert reproduce_paper.main(settings(weights, published.folder)) == 1
    assert "val_256.tar has the digest sha256:" in capsys.readouterr().err


def test_weights_are_not_downloaded_without_the_option(reproduce_paper, published, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    arguments = ["--backbone", "test_resnet", "--data", str(published.folder)]
    assert reproduce_paper.main(arguments) == 1
    assert "--weights FILE, or --download" in capsys.readouterr().err
    assert constants.HF_HUB_OFFLINE is False


@pytest.mark.parametrize(
    ("before", "allowed", "offline"), [(False, True, False), (False, False, True), (True, True, True)]
)
def test_hub_access(reproduce_paper, monkeypatch, before, allowed, offline):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", before)
    with reproduce_paper.hub_access(allowed):
        assert constants.HF_HUB_OFFLINE is offline
    assert constants.HF_HUB_OFFLINE is before


def test_format_of_the_sweep(reproduce_paper):
    rows = [
        {"scorer": scorer, "temperature": temperature, "auroc": 0.5, "fpr95": 0.25}
        for scorer in ("MSP", "ViM")
        for temperature in (0.5, 4.0)
    ]
    printed = reproduce_paper.format_sweep(rows).splitlines()
    assert printed[0].split() == ["AUROC", "[%]", "T=0.5", "T=4"]
    assert printed[2].split() == ["ViM", "50.0", "50.0"]
    assert printed[5].split() == ["ViM", "25.0", "25.0"]
    assert len(printed) == 6


def test_mean_change(reproduce_paper):
    table = {"method": ["plain", "dfb", "background", "plain", "dfb"], "auroc": [0.5, 0.8, 0.0, 0.7, 0.6]}
    assert_allclose(reproduce_paper.mean_change(table, "auroc"), 0.1)


# ------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--id", "mnist"], "invalid choice"),
        (["--weights", "nowhere.safetensors"], "--weights: there is no file nowhere.safetensors"),
        (["--json", "no/such/folder/figures.json"], "--json: there is no folder"),
        (["--recipe", "default", "--temperature-sweep"], "needs --recipe paper"),
        (["--temperature-sweep", "1", "0"], "greater than 0"),
        (["--n-train", "0"], "0 is below 1"),
    ],
)
def test_wrong_settings_are_refused(reproduce_paper, capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        reproduce_paper.main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_default_temperatures_of_the_sweep(reproduce_paper):
    assert 2.5 in reproduce_paper.parse(["--temperature-sweep"]).temperature_sweep
    assert reproduce_paper.parse(["--temperature-sweep", "3"]).temperature_sweep == [3.0]
    assert reproduce_paper.parse([]).temperature_sweep is None


def detector_of(reproduce_paper, *arguments):
    return reproduce_paper.make_detector("test_resnet", reproduce_paper.parse(list(arguments)))


def test_the_papers_recipe(reproduce_paper):
    detector = detector_of(reproduce_paper)
    recipe = DFBDetector.paper("test_resnet").get_params(deep=False)
    changed = {"calibration_fraction", "device", "n_jobs", "random_state", "verbose"}
    for name, value in detector.get_params(deep=False).items():
        assert name in changed or repr(value) == repr(recipe[name])
    assert detector.image_size == 128
    assert detector.calibration_fraction == 0.01
    classifier, dense = detector.classifier_trainer, detector.dense_trainer
    for trainer in (classifier, dense):
        assert (trainer.n_steps(50_000), trainer.batch_size, trainer.learning_rate) == (20_000, 128, 0.003)
        assert (trainer.warmup_steps, trainer.schedule, trainer.precision) == (500, "step", "32-true")
    assert (classifier.mixup, classifier.scale_range) == (0.1, (1.25, 1.25))
    assert (dense.mixup, dense.scale_range, dense.classification_weight) == (None, (0.5, 2.0), 0.0)


def test_the_librarys_recipe(reproduce_paper):
    detector = detector_of(reproduce_paper, "--recipe", "default", "--precision", "bf16-mixed")
    for name in ("scorer", "background_scorer", "fusion", "mask_generator"):
        assert getattr(detector, name) is None
    assert detector.calibration_fraction == "auto"
    for trainer in (detector.classifier_trainer, detector.dense_trainer):
        assert trainer.get_params() == type(trainer)(precision="bf16-mixed").get_params()


def test_settings_reach_the_detector(reproduce_paper):
    detector = detector_of(
        reproduce_paper, "--steps", "7", "--batch-size", "5", "--precision", "bf16-mixed", "--seed", "3",
        "--device", "cpu", "--n-jobs", "2", "--verbose", "1", "--image-size", "64", "--calibration-fraction", "0.2",
    )  # fmt: skip
    for trainer in (detector.classifier_trainer, detector.dense_trainer):
        assert (trainer.max_steps, trainer.batch_size, trainer.precision) == (7, 5, "bf16-mixed")
        assert trainer.warmup_steps is None  # 500 would be all of them
    assert (detector.random_state, detector.device, detector.n_jobs, detector.verbose) == (3, "cpu", 2, 1)
    assert (detector.image_size, detector.calibration_fraction) == (64, 0.2)


@pytest.mark.parametrize("recipe", ["paper", "default"])
def test_the_start_of_the_dense_network(reproduce_paper, recipe):
    detector = detector_of(reproduce_paper, "--recipe", recipe, "--dense-start", "pretrained")
    assert detector.dense_trainer.dense_start == "pretrained"
    assert detector_of(reproduce_paper, "--recipe", recipe).dense_trainer.dense_start == "classifier"


def test_limits_draw_by_the_seed(reproduce_paper):
    images = list(range(30))
    assert_array_equal(reproduce_paper.some(images, None, 0), images)
    assert_array_equal(reproduce_paper.some(images, 30, 0), images)
    assert_array_equal(reproduce_paper.some(images, 99, 0), images)
    drawn = reproduce_paper.some(images, 10, 0)
    assert len(np.unique(drawn)) == 10
    assert_array_equal(drawn, np.sort(drawn))
    assert_array_equal(drawn, reproduce_paper.some(images, 10, 0))
    assert not np.array_equal(drawn, reproduce_paper.some(images, 10, 1))
    assert not np.array_equal(drawn, images[:10])


def test_labels_stay_with_their_images(reproduce_paper, paper_data, published, weights):
    arguments = reproduce_paper.parse(settings(weights, published.folder, "--n-train", "9", "--n-test", "4"))
    X, y, X_test, y_test, ood = reproduce_paper.read_data(("svhn",), arguments)
    for part, images, labels, n in (("train", X, y, 9), ("test", X_test, y_test, 4)):
        all_images, all_labels = paper_data.read_cifar("cifar10", part, published.folder)
        label_of = {image.tobytes(): label for image, label in zip(all_images, all_labels, strict=True)}
        assert len(images) == len(labels) == n
        assert [label_of[image.tobytes()] for image in images] == labels.tolist()
    assert_array_equal(ood["svhn"], paper_data.read_ood("svhn", published.folder))


# --------------------------------------------------------------- differences


def changed_parameters(detector):
    """Return the parameters of a detector that are not the defaults, those of trainers as ``trainer__name``."""
    default = DFBDetector().get_params(deep=False)
    given = detector.get_params(deep=False)
    changed = {name: value for name, value in given.items() if repr(value) != repr(default[name])}
    for name in ("classifier_trainer", "dense_trainer"):
        default_trainer = Trainer().get_params()
        for key, value in changed.pop(name).get_params().items():
            if value != default_trainer[key]:
                changed[f"{name}__{key}"] = value
    return changed


TECHNICAL = {"backbone", "device", "n_jobs", "random_state", "verbose"}


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--dense-start", "pretrained"],
        ["--steps", "7", "--batch-size", "5", "--precision", "bf16-mixed", "--image-size", "64"],
        ["--calibration-fraction", "0.2"],
    ],
)
def test_every_changed_parameter_is_in_the_paper_or_among_the_differences(reproduce_paper, paper_differences, options):
    arguments = reproduce_paper.parse(options)
    listed = {name for found in paper_differences.differences(arguments) for name in found.parameters}
    paper = dict(paper_differences.PAPER_DETECTOR)
    for trainer, values in paper_differences.PAPER_TRAINERS.items():
        paper |= {f"{trainer}__{name}": value for name, value in values.items()}
    changed = changed_parameters(reproduce_paper.make_detector("test_resnet", arguments))
    assert {"fusion", "classifier_trainer__flip", "dense_trainer__classification_weight"} <= set(changed)
    for name, value in changed.items():
        assert name in listed | TECHNICAL or str(value) == str(paper.get(name)), name


def test_the_recipe_has_the_values_of_the_paper(paper_differences):
    parameters = DFBDetector.paper().get_params(deep=True)
    for trainer, values in paper_differences.PAPER_TRAINERS.items():
        for name, value in values.items():
            assert parameters[f"{trainer}__{name}"] == value
    for name, value in paper_differences.PAPER_DETECTOR.items():
        assert str(parameters[name]) == str(value)


def test_listed_parameters_exist(paper_differences):
    parameters = DFBDetector.paper().get_params(deep=True)
    assert {name for found in paper_differences.DIFFERENCES for name in found.parameters} <= set(parameters)


def test_differences_are_printed_and_nothing_is_run(reproduce_paper, capsys, monkeypatch):
    monkeypatch.setattr(reproduce_paper, "run", lambda *args: pytest.fail("the experiment was run"))
    assert reproduce_paper.main(["--differences", "--dense-start", "pretrained", "--steps", "50"]) == 0
    printed = capsys.readouterr().out
    for text in ("implementation details", "500 steps", "ReLU", "softplus", "No flips", "1 % of the training images"):
        assert text in printed
    for text in ("50 in each stage", "true_class=False", "use_bias=True", "no S_b", "Here 20,000", "Mixup"):
        assert text in printed
    assert "{" not in printed


def test_the_documentation_has_the_same_list(reproduce_paper, paper_differences):
    page = (Path(__file__).parents[2] / "docs" / "measured" / "paper.rst").read_text(encoding="utf-8")
    text = " ".join(page.replace("``", "").split())
    for row in paper_differences.as_rows(reproduce_paper.parse([])):
        for part in row.values():
            assert part in text
    for subject, part in paper_differences.AUTHORS_CODE:
        assert f"{subject} {part}" in text
