"""The benchmark on real images, end to end on tiny packs, and its arithmetic."""

import importlib
import io
import json
import sys
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from skdfb import DFBDetector
from skdfb.detector._masks import make_masks
from skdfb.images import as_images
from skdfb.masks import AffinityMaskGenerator, CAMMaskGenerator
from skdfb.metrics import auroc_score, fpr_at_tpr
from tests.benchmarks.conftest import BENCHMARKS
from tests.masks.helpers import trained_network

CLASSES = [f"class {label}" for label in range(10)]
# Networks after a few steps have logits about 0, for which ViM warns.
pytestmark = pytest.mark.filterwarnings("ignore:alpha_ is:UserWarning")


def benchmark(name: str) -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def real_images() -> ModuleType:
    return benchmark("real_images")


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    return benchmark("real_images_tables")


def write_pack(path, n, n_classes, seed):
    """Write n JPEG images, with a different colour for each class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % n_classes
    colours = np.random.default_rng(0).integers(0, 256, (n_classes, 3))
    files = []
    for label in labels:
        pixels = np.clip(colours[label] + rng.normal(0, 40, (32, 32, 3)), 0, 255).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG")
        files.append(np.frombuffer(stream.getvalue(), np.uint8))
    offsets = np.concatenate([[0], np.cumsum([len(file) for file in files])])
    np.savez(path, jpeg=np.concatenate(files), offsets=offsets, labels=labels, classes=CLASSES[:n_classes])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packs")
    write_pack(folder / "cifar10_train.npz", 500, 10, seed=1)
    write_pack(folder / "cifar10_test.npz", 100, 10, seed=2)
    write_pack(folder / "textures.npz", 20, 5, seed=3)
    return folder


@pytest.fixture(scope="module")
def run(real_images, folder):
    """A function that runs a short open-set experiment and returns its JSON; it keeps networks beside the packs."""

    def run(*more):
        settings = ["--only", "open-set", "--seeds", "0", "--epochs", "1", "--image-size", "32", "--device", "cpu"]
        settings += ["--ablation", real_images.DEFAULT_NETWORK, "--data", str(folder), *more]
        real_images.main([*settings, "--networks", str(folder / "kept"), "--json", str(folder / "results.json")])
        return json.loads((folder / "results.json").read_text())

    return run


@pytest.fixture(scope="module")
def results(run):
    return run()


def test_every_scorer_and_joint_score_has_its_figures(real_images, results):
    table = pd.DataFrame(results["rows"])
    scorers = {type(scorer).__name__ for scorer in real_images.SCORERS}
    assert (
        set(table["scorer"]) == scorers == {"MSP", "MaxLogit", "ODIN", "Energy", "ReAct", "KNN", "Mahalanobis", "ViM"}
    )
    assert set(table["fusion"]) == {"plain", "control", *real_images.FUSIONS}
    assert len(table) == 8 * (2 + len(real_images.FUSIONS))
    assert set(table["ood"]) == {"unknown classes"}
    assert table[["auroc", "fpr95"]].to_numpy().min() >= 0
    assert table[["auroc", "fpr95"]].to_numpy().max() <= 100
    note, control = results["notes"]
    assert control["network"] == "control"
    assert {"accuracy_plain", "accuracy_dfb", "rejected", "fit_seconds"} <= set(note)


def test_a_second_run_reads_the_networks_and_has_the_same_rows(real_images, run, results, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a network is trained again")

    monkeypatch.setattr(real_images.Trainer, "train", refuse)
    assert run()["rows"] == results["rows"]


def test_networks_of_other_settings_are_refused(run, results):
    with pytest.raises(SystemExit, match=r"were trained with .*0\.3.*: expected .*0\.01"):
        run("--learning-rate", "0.01")


def test_the_default_row_is_the_default_detector(real_images, folder, run, results):
    """The joint score of the benchmark is the score of a detector with default parts and fusion."""
    arguments = real_images.parse(
        ["--epochs", "1", "--image-size", "32", "--device", "cpu", "--networks", str(folder / "kept")]
    )
    arguments.data, arguments.ablation = folder, [real_images.DEFAULT_NETWORK]
    data = real_images.load("open-set", 0, arguments)
    ((_, detector, _),) = real_images.fitted_detectors("open-set", 0, data, arguments)
    default = DFBDetector(scorer=real_images.Energy())._joint_score()
    alone = real_images.default_parts(detector)
    assert str(alone.joint_score_.parts) == str(default.parts)
    assert str(alone.joint_score_.fusion) == str(default.fusion)
    known, unknown = alone.score_samples(data.X_test), alone.score_samples(data.ood["unknown classes"])
    rows = pd.DataFrame(results["rows"])
    row = rows[(rows["scorer"] == "Energy") & (rows["fusion"] == "default")].iloc[0]
    assert_allclose(row["auroc"], 100 * auroc_score(known, unknown), atol=0.1)
    assert_allclose(row["fpr95"], 100 * fpr_at_tpr(known, unknown), atol=1.0)


def test_classes_and_sets_of_the_experiments(real_images, folder):
    arguments = real_images.parse([])
    arguments.data = folder
    textures = real_images.load("textures", 0, arguments)
    assert len(set(textures.y)) == 10
    assert {name: len(X) for name, X in textures.ood.items()} == {"textures": 20, "noise": real_images.N_NOISE}
    known = []
    for seed in (0, 1):
        opened = real_images.load("open-set", seed, arguments)
        assert set(opened.y) == set(opened.y_test)
        assert len(set(opened.y)) == 6
        assert len(opened.X_test) + len(opened.ood["unknown classes"]) == 100
        known.append(set(opened.y))
    assert known[0] != known[1]


def test_the_defaults_were_chosen_on_other_images_than_the_reported_ones(real_images, folder, monkeypatch):
    monkeypatch.setattr(real_images, "LEFT_OUT", ("class 2", "class 7"))  # the indices of bird and horse in CIFAR-10
    monkeypatch.setattr(real_images, "N_VALIDATION", 10)
    arguments = real_images.parse([])
    arguments.data = folder
    for seed in range(3):
        chosen, reported = (real_images.load(name, seed, arguments) for name in ("choice-cifar", "open-set"))
        assert set(chosen.y) == set(chosen.y_test) == set(reported.y) - {"class 2", "class 7"}
        assert {"class 2", "class 7"} <= set(reported.y)
        used = {image.tobytes() for X in (chosen.X, chosen.X_test, *chosen.ood.values()) for image in X}
        assert not used & {image.tobytes() for X in (reported.X_test, *reported.ood.values()) for image in X}
        assert len(chosen.X_test) == 10 * len(set(chosen.y))
        assert not {image.tobytes() for image in chosen.X} & {image.tobytes() for image in chosen.X_test}
    again, first = (real_images.load(name, 0, arguments) for name in ("choice-embedded", "embedded"))
    assert not np.array_equal(again.X, first.X)


def test_ood_images_are_compressed_like_the_pack(real_images, folder):
    pack = folder / "cifar10_train.npz"
    raw = np.random.default_rng(0).integers(60, 200, (4, 32, 32, 3), dtype=np.uint8)
    once = real_images.compressed_like(pack, raw)
    change, more = (
        np.abs(first.astype(int) - second).mean()
        for first, second in [(raw, once), (once, real_images.compressed_like(pack, once))]
    )
    assert change > 5
    assert more < change / 4  # a second compression with the same tables changes little


def test_noise_is_reproducible_and_has_four_grains(real_images):
    noise = real_images.synthetic_noise(8, 16)
    assert_array_equal(noise, real_images.synthetic_noise(8, 16))
    for image, grain in zip(noise, [1, 2, 4, 8, 1, 2, 4, 8], strict=True):
        blocks = image.reshape(16 // grain, grain, 16 // grain, grain, 3)
        assert (blocks == blocks[:, :1, :, :1]).all()
        assert len(np.unique(blocks[:, 0, :, 0].reshape(-1, 3), axis=0)) > 1


def test_gains_are_differences_to_the_plain_scorer_of_the_same_seed_and_set(tables):
    rows = [
        {"experiment": "e", "seed": seed, "scorer": scorer, "network": "", "fusion": fusion, "ood": ood}
        | {"auroc": auroc, "fpr95": 100 - auroc}
        for seed, scorer, fusion, ood, auroc in [
            (0, "A", "plain", "far", 50.0),
            (0, "A", "default", "far", 60.0),
            (0, "A", "plain", "near", 40.0),
            (0, "A", "default", "near", 42.0),
            (1, "A", "plain", "far", 70.0),
            (1, "A", "default", "far", 71.0),
            (1, "A", "plain", "near", 10.0),
            (1, "A", "default", "near", 13.0),
        ]
    ]
    gain = tables.gains(pd.DataFrame(rows))
    assert_array_equal(gain.sort_values(["seed", "ood"])["auroc"], [10, 2, 1, 3])
    text = tables.mean_and_spread(gain, ["experiment", "scorer"])
    # Means over the sets are 6 and 2.
    assert text["auroc"].tolist() == [f"{4.0:+.1f} ± {np.std([6, 2], ddof=1):.1f}"]
    assert text["fpr95"].tolist() == [f"{-4.0:+.1f} ± {np.std([6, 2], ddof=1):.1f}"]


def test_no_packs(real_images, tmp_path, capsys):
    real_images.main(["--only", "textures", "--data", str(tmp_path)])
    assert "textures skipped: no image packs" in capsys.readouterr().out


def test_results_of_several_runs_are_reported_together(real_images, results, tmp_path, capsys):
    for seed in (3, 4):
        rows = [row | {"seed": seed} for row in results["rows"]]
        notes = [note | {"seed": seed, "accuracy_dfb": float(seed)} for note in results["notes"]]
        (tmp_path / f"{seed}.json").write_text(json.dumps(results | {"rows": rows, "notes": notes}))
    real_images.main(["--report", str(tmp_path / "3.json"), str(tmp_path / "4.json")])
    text = capsys.readouterr().out
    assert "open-set, mean over its OOD sets: DFB against plain" in text
    assert " 3.5 ± 0.7 " in text  # the mean accuracy of both files


def test_maps_made_once_give_the_masks_of_the_generators(real_images):
    network = trained_network(4)
    X, y = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8), np.arange(40) % 4

    def masks_of(generator):
        return make_masks(generator, network, as_images(X), y, random_state=0, n_jobs=None)[np.arange(40)]

    once = real_images.MapsMadeOnce()
    refined = AffinityMaskGenerator(batch_size=16), AffinityMaskGenerator(once, batch_size=16)
    for plain, shared in [(CAMMaskGenerator(), once), refined, (CAMMaskGenerator(), once)]:
        masks = masks_of(plain)
        assert 0.1 < (masks == 4).mean() < 0.95
        assert_array_equal(masks_of(shared), masks)
