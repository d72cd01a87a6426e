"""The benchmark of BackMix, end to end on a few images."""

import json
from functools import partial

import pandas as pd
import pytest

from skdfb.datasets import load_digits_on_photos
from skdfb.scorers import KNN, Energy
from tests.benchmarks.test_real_images import benchmark

pytestmark = pytest.mark.filterwarnings("ignore:alpha_ is:UserWarning")


@pytest.fixture(scope="module")
def back_mix():
    return benchmark("back_mix")


def test_each_variant_trains_the_right_stages_with_back_mix(back_mix, tmp_path, monkeypatch, capsys):
    real_images = benchmark("real_images")
    monkeypatch.setattr(back_mix, "SCORERS", [Energy(), KNN()])
    monkeypatch.setattr(
        real_images, "load_digits_on_photos", partial(load_digits_on_photos, n_train=300, n_test=30, n_ood=30)
    )
    trained, train = [], real_images.Trainer.train
    monkeypatch.setattr(
        real_images.Trainer,
        "train",
        lambda self, *args, **options: trained.append(self) or train(self, *args, **options),
    )
    settings = ["--only", "embedded", "--seeds", "0", "--steps", "5", "--image-size", "32", "--device", "cpu"]
    back_mix.main([*settings, "--networks", str(tmp_path), "--json", str(tmp_path / "results.json")])
    table = pd.DataFrame(json.loads((tmp_path / "results.json").read_text())["rows"])
    augmented = {trainer.file.stem: trainer.augmentation is not None for trainer in trained}
    assert augmented == {
        "embedded-0-classifier": False,
        "embedded-0-pixel-+-classification-loss": False,
        "embedded-0-BackMix-classifier": True,
        "embedded-0-BackMix-pixel-+-classification-loss": True,
        "embedded-0-after-BackMix-pixel-+-classification-loss": False,
    }
    counts = table.groupby(["system", "variant"]).size().to_dict()
    assert counts == dict.fromkeys(
        [("plain", "without"), ("plain", "both stages")]
        + [("DFB", variant) for variant in ("without", "both stages", "classifier alone")],
        2 * 4,
    )
    assert "Every scorer, mean of all OOD sets [%]" in capsys.readouterr().out
    back_mix.main(["--report", str(tmp_path / "results.json")])
    assert "both stages" in capsys.readouterr().out


def test_gains_are_differences_to_the_same_training_without_it(back_mix):
    rows = [
        {"experiment": "e", "seed": seed, "variant": variant, "system": "DFB", "scorer": "A", "ood": "far"}
        | {"auroc": auroc, "fpr95": 100 - auroc}
        for seed, variant, auroc in [
            (0, "without", 50.0),
            (0, "both stages", 53.0),
            (0, "classifier alone", 52.0),
            (1, "without", 60.0),
            (1, "both stages", 61.0),
            (1, "classifier alone", 62.0),
        ]
    ]
    (row,) = back_mix.gain_table(pd.DataFrame(rows), ["experiment"]).to_dict("records")
    assert (row["AUROC without"], row["FPR95 without"]) == ("55.0", "45.0")
    assert (row["AUROC both stages"], row["FPR95 both stages"]) == ("+2.0 ± 1.4", "-2.0 ± 1.4")
    assert (row["AUROC classifier alone"], row["FPR95 classifier alone"]) == ("+2.0 ± 0.0", "-2.0 ± 0.0")
