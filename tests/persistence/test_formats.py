"""Files of all formats so far: they load, and the models give the outputs that were stored with the files.

``python -m tests.persistence.test_formats`` writes the file of the present format. Commit it when you raise FORMAT.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import skdfb
from skdfb.fusion import TailProbabilityFusion
from skdfb.persistence._format import FORMAT, OLDEST_FORMAT
from skdfb.scorers import KNN, BackgroundLogit, Energy, Mahalanobis, ScorerEnsemble
from tests.detector.conftest import make_detector, make_images
from tests.helpers import TinyBackbone

FOLDER = Path(__file__).parents[1] / "data"
X_NEW = make_images(6, seed=9)[0]


def detector():
    """A fitted detector with many kinds of content: strings, names, nested scorers, several parts."""
    X, y = make_images()
    ensemble = ScorerEnsemble([Energy(), ("far", Mahalanobis(shrinkage="auto"))], random_state=0)
    return make_detector(
        scorer=[("foreground_dense", "dense", ensemble), ("foreground_plain", "classifier", ensemble)],
        background_scorer=[BackgroundLogit(), ("near", KNN(n_neighbors=5))],
        fusion=TailProbabilityFusion("fisher"),
        alpha=0.2,
    ).fit(X, np.array(["red", "green", "blue"])[y])


def outputs_of(model):
    return {
        "scores": model.score_samples(X_NEW).tolist(),
        "parts": {name: scores.tolist() for name, scores in model.score_parts(X_NEW).items()},
        "labels": model.predict_open_set(X_NEW).tolist(),
        "p_values": model.p_values(X_NEW).tolist(),
    }


@pytest.mark.parametrize("number", range(OLDEST_FORMAT, FORMAT + 1))
def test_files_of_all_formats_are_loaded(number):
    model = skdfb.load(FOLDER / f"format_{number}.safetensors", customs=[TinyBackbone], device="cpu")
    expected, found = json.loads((FOLDER / f"format_{number}.json").read_text()), outputs_of(model)
    for name in ("scores", "p_values"):
        assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-4)
    assert set(found["parts"]) == set(expected["parts"])
    for name, scores in expected["parts"].items():
        assert_allclose(found["parts"][name], scores, rtol=1e-4, atol=1e-4)
    assert_array_equal(found["labels"], expected["labels"])


def main():
    FOLDER.mkdir(exist_ok=True)
    model = detector()
    model.save(FOLDER / f"format_{FORMAT}.safetensors")
    (FOLDER / f"format_{FORMAT}.json").write_text(json.dumps(outputs_of(model), indent=1) + "\n")


if __name__ == "__main__":
    main()
