"""Progress bars of evaluate and compare_scorers."""

import numpy as np
import pytest

from skdfb import DFBDetector
from skdfb.datasets import load_digits_on_photos
from skdfb.evaluation import compare_scorers, evaluate
from skdfb.scorers import Energy
from skdfb.training import Trainer
from tests.helpers import TinyBackbone


class Detector:
    """Scores numbers as they are."""

    def score_samples(self, X):
        return np.asarray(X)[:, 0]


@pytest.mark.parametrize(("verbose", "shown"), [(0, False), (1, True)])
def test_bootstrap(verbose, shown, capfd):
    rng = np.random.default_rng(0)
    known, unknown = rng.normal(size=(2, 700, 1))
    evaluate(Detector(), known, {"noise": unknown}, n_bootstrap=5000, random_state=0, verbose=verbose)
    out, err = capfd.readouterr()
    assert out == ""
    assert ("bootstrap: 100%" in err and "5000/5000" in err) == shown
    assert bool(err) == shown


def test_few_resamples_need_no_bar(capfd):
    known, unknown = np.random.default_rng(0).normal(size=(2, 20, 1))
    evaluate(Detector(), known, {"noise": unknown}, n_bootstrap=10, random_state=0, verbose=1)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("verbose", [0, 1])
def test_image_sets_by_name(verbose, fitted_and_data, capfd):
    detector, X, y = fitted_and_data
    evaluate(detector, X, {"other": X[::-1]}, n_bootstrap=0, verbose=verbose)
    err = capfd.readouterr().err
    for label in ("scoring X_id", "scoring ood['other']"):
        assert (f"{label}: 100%" in err) == bool(verbose)
    compare_scorers(detector, X, {"other": X[::-1]}, X=X, y=y, scorers=[Energy()], verbose=verbose)
    assert ("computing features: 100%" in capfd.readouterr().err) == bool(verbose)


@pytest.fixture(scope="module")
def fitted_and_data():
    data, trainer = load_digits_on_photos(n_train=60, n_test=6, n_ood=6, random_state=0), Trainer(max_steps=2)
    detector = DFBDetector(
        TinyBackbone(),
        scorer=Energy(),
        classifier_trainer=trainer,
        dense_trainer=trainer,
        alpha=None,
        batch_size=8,
        image_size=32,
        device="cpu",
        random_state=0,
    )
    return detector.fit(data.images, data.target), data.images, data.target
