"""The benchmarks on photographs, end to end on tiny packs, and their tables."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from safetensors.torch import save_file

from skdfb.scorers import KNN, Energy
from tests.benchmarks.test_real_images import benchmark, write_pack
from tests.detector.test_pretrained import pretrained_backbone

pytestmark = pytest.mark.filterwarnings("ignore:alpha_ is:UserWarning")
METHODS = ["plain", "frozen", "plain + pre-trained", "DFB paper", "DFB", "DFB, one pass", "DFB without trunk"]
METHODS += ["classifier of DFB", "control", "BackMix"]


@pytest.fixture(scope="module")
def photographs():
    return benchmark("photographs")


@pytest.fixture(scope="module")
def tables():
    return benchmark("photographs_tables")


def name_classes(path, *names):
    with np.load(path) as pack:
        content = dict(pack)
    # In pairs, so that each class has images in both halves of a pack.
    labels = np.arange(len(content["labels"])) // 2 % len(names)
    np.savez(path, **content | {"labels": labels, "classes": np.array(names)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packs")
    write_pack(folder / "flowers160.npz", 400, 5, seed=1)
    name_classes(folder / "flowers160.npz", "daisy", "dandelion", "roses", "sunflowers", "tulips")
    write_pack(folder / "scenes160.npz", 300, 6, seed=2)
    name_classes(folder / "scenes160.npz", "buildings", "forest", "glacier", "mountain", "sea", "street")
    write_pack(folder / "textures160.npz", 20, 10, seed=3)
    write_pack(folder / "imagenet160.npz", 20, 10, seed=4)
    write_pack(folder / "cifar10_train.npz", 400, 10, seed=5)
    write_pack(folder / "cifar10_test.npz", 100, 10, seed=6)
    save_file(pretrained_backbone().state_dict(), folder / "weights.safetensors")
    return folder


@pytest.fixture(scope="module")
def run(photographs, folder):
    """A function that runs one set with few steps, and returns its JSON; it keeps the networks."""
    patch = pytest.MonkeyPatch()
    patch.setattr(photographs, "SCORERS", {"Energy": Energy(), "KNN": KNN(n_neighbors=5)})
    create = photographs.create_backbone
    patch.setattr(photographs, "create_backbone", lambda name, **options: create(name, output_stride=8, **options))

    def run(name, module=photographs, *more):
        settings = ["--only", name, "--seeds", "0", "--data", str(folder), "--backbone", "test_resnet", "--steps", "2"]
        settings += ["--weights", str(folder / "weights.safetensors"), "--image-size", "32", "--batch-size", "16"]
        settings += ["--networks", str(folder / "kept"), "--json", str(folder / f"{name}.json"), *more]
        module.main(settings)
        return json.loads((folder / f"{name}.json").read_text())

    yield run
    patch.undo()


@pytest.fixture(scope="module")
def results(run):
    return run("flowers")


def test_every_method_and_scorer_has_its_figures(results):
    table = pd.DataFrame(results["rows"])
    assert list(table["method"].unique()) == METHODS
    sets = ["unknown classes", "textures", "scenes", "ImageNet", "noise"]
    assert table.groupby(["method", "scorer", "ood"]).size().to_dict() == {
        (method, scorer, ood): 1 for method in METHODS for scorer in ("Energy", "KNN") for ood in sets
    }
    unknown = table[table["ood"] == "unknown classes"]
    assert unknown[["auroc", "fpr95", "oscr", "f1"]].notna().all(axis=None)
    assert table[["auroc", "fpr95"]].to_numpy().min() >= 0
    notes = pd.DataFrame(results["notes"])
    assert list(notes["method"]) == METHODS
    seconds = notes.set_index("method")["seconds_classifier"]
    assert seconds[["plain", "DFB", "control"]].gt(0).all()
    assert np.isnan(seconds["frozen"])


def test_a_second_run_trains_nothing_and_has_the_same_rows(photographs, run, results, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a network is trained again")

    real_images = benchmark("real_images")
    train = real_images.Trainer.train
    # Only the dense network beside the control, which nothing is measured on, is trained again: for one step.
    monkeypatch.setattr(
        real_images.Trainer,
        "train",
        lambda self, *args, **options: train(self, *args, **options) if self.max_steps == 1 else refuse(),
    )
    assert run("flowers")["rows"] == results["rows"]


def test_ood_images_of_cifar_are_as_small(photographs, folder):
    arguments = photographs.parse(["--data", str(folder)])
    data = photographs.load("cifar", 1, arguments)
    assert set(data.ood) == {"unknown classes", "textures", "scenes", "noise"}
    assert {images.shape[1:] for images in data.ood.values()} == {(32, 32, 3)}
    assert len(np.unique(data.y)) == 6
    assert set(data.y_test) == set(data.y)


def test_the_images_follow_from_the_seed(photographs, folder):
    arguments = photographs.parse(["--data", str(folder)])
    first, again, other = (photographs.load("flowers", seed, arguments) for seed in (0, 0, 1))
    assert np.array_equal(first.X, again.X)
    assert all(np.array_equal(first.ood[name], again.ood[name]) for name in first.ood)
    assert not np.array_equal(first.X, other.X)


def test_report(photographs, results, folder, capsys):
    photographs.main(["--report", str(folder / "flowers.json"), "--chart", str(folder / "chart.png")])
    assert (folder / "chart.png").stat().st_size > 1000
    printed = capsys.readouterr().out
    assert "flowers: the best scorer of each method" in printed
    assert "The default against the best of plain, control and frozen" in printed


def test_margins_are_those_of_the_best_scorers(tables):
    rows = [
        {"set": "s", "seed": 0, "method": method, "scorer": scorer, "ood": ood, "auroc": auroc, "fpr95": 100 - auroc}
        for method, scorer, values in [
            ("plain", "A", (60, 70)),
            ("plain", "B", (50, 60)),
            ("control", "A", (66, 70)),
            ("frozen", "B", (40, 90)),
            ("DFB", "A", (70, 90)),
            ("DFB", "B", (68, 94)),
        ]
        for ood, auroc in zip(("unknown classes", "far"), values, strict=True)
    ]
    (row,) = tables.margins(tables.with_means(pd.DataFrame(rows))).to_dict("records")
    # Means over both OOD sets: DFB 80 and 81, the best opponent 68 (control).
    assert row == {
        "set": "s",
        "method": "DFB",
        "all OOD sets: AUROC": "+13.0",
        "all OOD sets: FPR95": "-13.0",
        "unknown classes: AUROC": "+4.0",
        "unknown classes: FPR95": "-4.0",
        "gain over plain, all scorers": "+20.5 / -20.5",
        "worst scorer's gain": "+15.0",
    }


def images_of(*sets):
    return {image.tobytes() for images in sets for image in images}


def test_nothing_was_chosen_on_a_reported_ood_image(photographs, folder):
    choice, arguments = benchmark("photographs_choice"), photographs.parse(["--data", str(folder)])
    reported = [photographs.load(name, seed, arguments) for name in ("flowers", "cifar") for seed in (0, 1, 2)]
    ood = images_of(*(images for data in reported for images in data.ood.values()))
    for trial in choice.TRIALS:
        data = choice.load(trial, folder)
        assert not images_of(*data.ood.values()) & ood
        assert set(data.y_test) <= set(data.y)
        assert min(len(images) for images in data.ood.values()) > 0


def test_the_choice_of_parts(run, folder, monkeypatch, capsys):
    choice = benchmark("photographs_choice")
    monkeypatch.setattr(choice, "SCORERS", {"Energy": Energy(), "KNN": KNN(n_neighbors=5)})
    monkeypatch.setattr(choice, "PRE_KNN", ("pretrained", KNN(n_neighbors=5)))
    table = pd.DataFrame(run("scenes-0", choice)["rows"])
    fused = [name for name, parts in choice.CANDIDATES.items() if len(parts) > 1]
    assert set(table["method"]) >= {"frozen", "foreground", *fused, *(f"{name}, Fisher" for name in fused)}
    assert list(table["ood"].unique()) == ["unknown classes", "textures", "ImageNet"]
    assert set(table.groupby(["method", "scorer"]).size()) == {3}
    printed = capsys.readouterr().out
    assert "unknown classes: gain over the best scorer of frozen features" in printed


def test_mask_generators(run, folder, capsys):
    masks = benchmark("photographs_masks")
    table = pd.DataFrame(run("scenes-0", masks, "--figures", str(folder / "figures"))["rows"])
    generators = ["CAM", "CAM, four scales", "CAM, affinity", "dense round two", "normalised cut", "disc"]
    assert list(table["scorer"].unique()) == generators
    assert set(table.groupby(["method", "scorer"]).size()) == {3}
    assert table["foreground"].between(1, 99).all()
    assert (folder / "figures" / "masks-scenes-0.png").stat().st_size > 1000
    assert "choice, all OOD sets: AUROC / FPR95" in capsys.readouterr().out


def test_views_of_cam(run):
    masks = benchmark("photographs_masks")
    table = pd.DataFrame(run("scenes-0", masks, "--views")["rows"])
    assert list(table["scorer"].unique()) == [
        f"{n} scale{s}{m}" for n, s in (("one", ""), ("four", "s")) for m in ("", ", mirrored")
    ]


def test_variants_of_the_training(run, folder, capsys):
    training = benchmark("photographs_training")
    table = pd.DataFrame(run("scenes-0", training)["rows"])
    assert list(table["variant"]) == list(training.VARIANTS)
    assert table[["accuracy", "auroc", "fpr95"]].stack().between(0, 100).all()
    # Each variant trains in its own way.
    assert not table.drop_duplicates(["accuracy", "auroc", "fpr95"]).shape[0] < len(table) / 2
    assert "AUROC / FPR95 of left-out classes" in capsys.readouterr().out


def test_weights_are_pulled_to_the_pretrained_ones_and_averaged():
    training = benchmark("photographs_training")
    network = training.DenseClassifier(pretrained_backbone(), 3, image_size=32)
    pull, average = training.PullToStart(0.25), training.Average(0.9)
    pull.start(network, None)
    average.start(network, None)
    weight = pull.weights[0]
    first = weight.detach().clone()
    with torch.no_grad():
        weight.add_(1)
        network.head.weight.add_(1)
    pull.augment(None, None)
    assert_allclose(weight.detach(), first + 0.75, atol=1e-6)
    assert_allclose(network.head.weight.detach(), pull.first[-2] + 1, atol=1e-6)
    average.augment(None, None)
    average.end()
    # Two updates: 1 - 0.9 ** 2 of the way.
    assert_allclose(pull.weights[0].detach(), first + 0.75 * 0.19, atol=1e-6)


def test_distillation_adds_its_gradients_and_the_probe_fits_the_training_images():
    training = benchmark("photographs_training")
    network = training.DenseClassifier(pretrained_backbone(), 3, image_size=32).train()
    distillation = training.Distillation(2)
    distillation.start(network, None)
    weight = distillation.weights[0]
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    batch = SimpleNamespace(images=images)
    distillation.augment(batch, None)
    # Nothing to learn from a teacher with the same weights, and the training goes on as before.
    assert_allclose(distillation.gradients[0], 0, atol=1e-5)
    assert network.training
    with torch.no_grad():
        weight.add_(0.3)
    distillation.augment(batch, None)
    network.eval()
    similarity = torch.nn.functional.cosine_similarity(network.features(images), distillation.teacher.features(images))
    # The hook adds its gradients to these as well.
    expected = torch.autograd.grad(2 * (1 - similarity.mean()), weight)[0] - distillation.gradients[0]
    assert expected.abs().max() > 1e-4
    (3 * weight).sum().backward()
    assert_allclose(weight.grad, 3 + expected, rtol=1e-4)
    images = torch.randint(0, 256, (30, 32, 32, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    data = SimpleNamespace(X=images.numpy(), y=np.arange(30) % 3)
    training.ProbeFirst().start(network, data)
    assert np.mean(training.represent(network, data.X).logits.numpy().argmax(1) == data.y) > 0.5
