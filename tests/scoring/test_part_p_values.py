"""Tail probabilities of parts, with every fusion, against a slow count with an exponential tail."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import skdfb
from skdfb.fusion import TailProbabilityFusion, TemperatureFusion
from skdfb.scorers import BackgroundLogit, Energy, Mahalanobis, ScorerEnsemble
from skdfb.scoring import JointScore
from tests.scoring.test_joint_score import HELD_OUT, NEW, PARTS, TRAIN, views

PAPER = [("foreground", "dense", Energy()), ("background", "background", BackgroundLogit())]
LEARNING = ScorerEnsemble([Energy(), Mahalanobis(shrinkage="auto")])


class Minimum:
    """A third party's fusion, without tails."""

    def fit(self, parts):
        return self

    def combine(self, parts):
        return np.min(list(parts.values()), axis=0)


CASES = {
    "tails": (PARTS, TailProbabilityFusion("fisher")),
    "default": (PARTS, None),
    "temperature": (PAPER, TemperatureFusion()),
    "single": (PARTS[:1], None),
    "third party": (PARTS, Minimum()),
    "a scorer learns": ([("foreground", "dense", LEARNING)], None),
}


def slow_p(score, known):
    """P(a known image scores no higher): a count between the scores, an exponential tail below the lowest tenth."""
    known = np.sort(known)
    n = len(known)
    size = min(n, max(10, round(0.1 * n)))
    t = known[size - 1]
    if score > known[-1]:
        top = known[n - size :]
        rest = 1 - n / (n + 1)
        return 1 - rest * (1 + np.exp(-(score - known[-1]) / np.mean(top - top[0]))) / 2
    if score < t:
        return size / (n + 1) * np.exp(-(t - score) / np.mean(t - known[:size]))
    lower, upper = known[known <= score][-1], known[known >= score][0]
    p_lower, p_upper = (np.sum(known <= end) / (n + 1) for end in (lower, upper))
    share = 0 if upper == lower else (score - lower) / (upper - lower)
    return np.exp(np.log(p_lower) * (1 - share) + np.log(p_upper) * share)


@pytest.fixture(scope="module", params=CASES)
def case(request):
    parts, fusion = CASES[request.param]
    return request.param, JointScore(parts, fusion=fusion).fit(*TRAIN, held_out=HELD_OUT)


def known_parts(name, joint_score):
    """Scores of the held-out images that no scorer learned from."""
    held_out = joint_score.score_parts(HELD_OUT[0])
    if name != "a scorer learns":
        return held_out
    n_threshold = len(joint_score.calibrator_.scores_)
    return {part: scores[-n_threshold:] for part, scores in held_out.items()}


def test_equal_a_slow_count(case):
    joint_score = case[1]
    parts = joint_score.score_parts(views(40, seed=2, shift=0.7)[0])
    found, known = joint_score.part_p_values(parts), known_parts(*case)
    assert list(found) == [part[0] for part in joint_score.parts_]
    for part, scores in parts.items():
        expected = [slow_p(score, known[part]) for score in scores]
        assert_allclose(found[part], expected, rtol=1e-6, atol=1e-12)


def test_logarithms_tell_far_images_apart(case):
    joint_score = case[1]
    parts = {part: np.array([-1e9, -2e9, np.nan]) for part in joint_score.part_tails_}
    for values in joint_score.part_p_values(parts).values():
        assert_array_equal(values, [0, 0, np.nan])
    for values in joint_score.part_p_values(parts, log=True).values():
        assert values[1] < values[0] < -1e3
        assert np.isnan(values[2])


SINGLE = JointScore(PARTS[:1]).fit(*TRAIN, held_out=HELD_OUT)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20))
def test_rises_with_the_score(scores):
    values = SINGLE.part_p_values({"foreground": np.sort(scores)})["foreground"]
    assert (np.diff(values) >= 0).all()
    assert ((values >= 0) & (values <= 1)).all()


def test_they_change_no_score(case):
    joint_score = case[1]
    before = joint_score.score_samples(NEW)
    joint_score.part_p_values(joint_score.score_parts(NEW))
    assert_array_equal(joint_score.score_samples(NEW), before)


def test_kept_by_with_alpha_pickling_and_saving(case, tmp_path):
    joint_score = case[1]
    parts = joint_score.score_parts(NEW)
    expected = joint_score.part_p_values(parts)
    copies = [joint_score.with_alpha(0.2), joint_score.with_alpha(None), pickle.loads(pickle.dumps(joint_score))]
    skdfb.save(joint_score, tmp_path / "model.safetensors")
    copies.append(skdfb.load(tmp_path / "model.safetensors", customs=[Minimum]))
    for other in copies:
        for part, values in other.part_p_values(parts).items():
            assert_array_equal(values, expected[part])


def test_a_model_of_an_older_version(case):
    name, joint_score = case
    older = pickle.loads(pickle.dumps(joint_score))
    del older.part_tails_
    parts = joint_score.score_parts(NEW)
    if name in ("temperature", "third party"):
        with pytest.raises(ValueError, match=r"older version: fit again, or call refit_scorer\(X=X, y=y\)"):
            older.part_p_values(parts)
        return
    for part, values in older.part_p_values(parts).items():
        # From fewer images: those that the fusion learned from, or that set the threshold.
        assert_allclose(values, joint_score.part_p_values(parts)[part], atol=0.15)


def test_other_names_are_refused(case):
    with pytest.raises(ValueError, match=r"parts has the names \['near'\]: expected \["):
        case[1].part_p_values({"near": np.zeros(2)})
