"""Scores of parts, batch by batch; on a device they are computed there, see ``tests/devices``."""

import numpy as np
import pytest

from skdfb._transfers import Download
from skdfb.scorers import KNN, Energy, Representation, TemperatureScaled
from skdfb.scorers._protocol import computes_on_device
from skdfb.scoring import JointScore
from skdfb.scoring._part_scores import PartScores
from tests.scorers.helpers import random_arrays


def views(seed: int, n: int) -> dict[str, Representation]:
    fields = random_arrays(seed, n=n)
    head = {name: random_arrays(0)[name] for name in ("weight", "bias")}
    return {"dense": Representation.from_numpy(features=fields["features"], **head)}


@pytest.fixture
def joint_score() -> JointScore:
    parts = [("foreground", "dense", Energy()), ("near", "dense", KNN(n_neighbors=2))]
    return JointScore(parts, alpha=0.1).fit(views(0, 60), np.arange(60) % 3, held_out=(views(1, 60), None))


def test_they_are_those_of_the_joint_score(joint_score: JointScore) -> None:
    scores = PartScores(joint_score)
    for seed in (2, 3):
        new, download = views(seed, 5), Download()
        finish = scores.start(new, download)
        download.send()
        found, expected = finish(), joint_score.score_parts(new)
        assert list(found) == list(expected)
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values)


def test_a_score_that_is_no_number_is_named(joint_score: JointScore) -> None:
    class Broken(Energy):
        def score_samples(self, representation):
            return np.full(len(representation), np.nan)

    joint_score.parts_ = [(name, view, Broken()) for name, view, _ in joint_score.parts_]
    download = Download()
    finish = PartScores(joint_score).start(views(2, 5), download)
    download.send()
    with pytest.raises(
        ValueError, match="scorer of part 'foreground' returned NaN or infinity for 5 of 5 images, first in row 0"
    ):
        finish()


class Negated(Energy):
    """Would score in another way on a GPU, if what it inherits were called there."""

    def score_samples(self, representation):
        return -super().score_samples(representation)


class NegatedEverywhere(Negated):
    def score_on_device(self, representation):
        return -super().score_on_device(representation)


def test_a_scorer_computes_on_a_gpu_what_it_computes_elsewhere() -> None:
    changed = Energy()
    changed.score_samples = Negated().score_samples
    switched_off = Energy()
    switched_off.score_on_device = None
    scorers = [Energy(), NegatedEverywhere(), Negated(), changed, switched_off, object()]
    expected = [True, True, False, False, False, False]
    assert [computes_on_device(scorer) for scorer in scorers] == expected
    assert [computes_on_device(TemperatureScaled(scorer)) for scorer in scorers] == expected
