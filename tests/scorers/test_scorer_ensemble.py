from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone

from skdfb.metrics import auroc_score
from skdfb.scorers import MSP, ODIN, Energy, MaxLogit, Representation, ScorerEnsemble, TemperatureScaled, ViM
from skdfb.utils import TailProbability
from tests.scorers.helpers import cyclic_labels, quick, random_representation


def test_scores_are_sums_of_log_tail_probabilities():
    train, held_out, new = (random_representation(seed, n=80) for seed in range(3))
    y = cyclic_labels(train)
    ensemble = ScorerEnsemble([Energy(), ViM()]).fit(train, y, held_out=(held_out, y))
    expected = np.zeros(len(new))
    for scorer in (Energy(), ViM()):
        scorer.fit(train, y)
        expected += TailProbability.fit(scorer.score_samples(held_out)).log_p(scorer.score_samples(new))
    np.testing.assert_allclose(ensemble.score_samples(new), expected, rtol=1e-12)


@given(seed=st.integers(0, 1000))
@quick
def test_one_member_keeps_its_order(seed):
    train, held_out, new = (random_representation(seed + i, n=60) for i in range(3))
    far = replace(new, features=new.features * 50, logits=new.logits * 50)
    ensemble = ScorerEnsemble([Energy()]).fit(train, held_out=(held_out, None))
    for images in (new, far):
        order = Energy().fit(train).score_samples(images).argsort()
        assert (np.diff(ensemble.score_samples(images)[order]) >= 0).all()


def test_scale_of_a_member_does_not_matter():
    class Scaled(Energy):
        def score_samples(self, representation):
            return 1e6 * super().score_samples(representation) + 3

    train, new = random_representation(n=80), random_representation(1)
    plain, scaled = (ScorerEnsemble([MSP(), member], random_state=0).fit(train) for member in (Energy(), Scaled()))
    np.testing.assert_allclose(scaled.score_samples(new), plain.score_samples(new), rtol=1e-6)


def test_images_that_both_members_find_strange_come_last():
    rng = np.random.default_rng(0)
    head = {"weight": np.eye(2, 6), "bias": np.zeros(2)}

    def images(n, shift, residual):
        features = rng.normal(size=(n, 6))
        features[np.arange(n), rng.integers(0, 2, size=n)] += shift
        features[:, 4:] *= residual
        return Representation.from_numpy(features=features, **head)

    train, known = images(400, 6, 0.2), images(300, 6, 0.2)
    strange = {"low energy": images(300, 1, 0.2), "residual": images(300, 6, 4), "both": images(300, 1, 4)}
    members = [Energy(), ViM(n_components=4)]
    ensemble = ScorerEnsemble([*members], random_state=0).fit(train)
    single = [member.fit(train) for member in members]
    for images_of in strange.values():
        aurocs = [auroc_score(s.score_samples(known), s.score_samples(images_of)) for s in (ensemble, *single)]
        assert aurocs[0] > min(aurocs[1:])
        assert aurocs[0] > 0.9


def test_members_of_different_networks():
    one, other = random_representation(n=80, C=8), random_representation(1, n=80, C=5)
    y = cyclic_labels(one)
    ensemble = ScorerEnsemble([Energy(), ViM()]).fit([one, other], y, held_out=([one, other], y))
    assert ensemble.scorers_[0].n_features_in_ == 8
    assert ensemble.scorers_[1].n_features_in_ == 5
    assert ensemble.score_samples([one, other]).shape == (80,)
    for wrong, message in (
        ([one], "of 1: expected one Representation"),
        ([one, other[:40]], r"\[80, 40\] images"),
        (3, "int"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            ensemble.score_samples(wrong)


def test_a_perturbing_member_may_bring_its_own_representation():
    plain = random_representation(n=80)
    perturbed = replace(plain, input_perturbation=0.0014)
    ensemble = ScorerEnsemble([Energy(), ODIN()], random_state=0).fit([plain, perturbed])
    assert np.isfinite(ensemble.score_samples([plain, perturbed])).all()


def test_own_held_out_share():
    train = random_representation(n=100)
    y = cyclic_labels(train)

    class Counting(Energy):
        def _fit(self, representation, y):
            self.n_seen_ = len(representation), len(y)

    fits = [
        ScorerEnsemble([Counting()], calibration_fraction=0.3, random_state=seed).fit(train, y) for seed in (0, 0, 1)
    ]
    assert fits[0].scorers_[0].n_seen_ == (70, 70)
    scores = [fitted.score_samples(train) for fitted in fits]
    np.testing.assert_array_equal(scores[0], scores[1])
    assert not np.array_equal(scores[0], scores[2])


def test_held_out_images_reach_members_that_learn_from_them():
    train, held_out = random_representation(n=80), random_representation(1, n=80)
    y = cyclic_labels(train)
    ensemble = ScorerEnsemble([TemperatureScaled(MSP()), Energy()]).fit(train, y, held_out=(held_out, y))
    alone = TemperatureScaled(MSP()).fit(train, y, held_out=(held_out, y))
    assert ensemble.scorers_[0].temperature_ == alone.temperature_


def test_names_and_parameters():
    ensemble = ScorerEnsemble([Energy(), ("mine", ViM()), Energy(temperature=2.0)])
    assert [name for name, _ in ensemble.named_scorers] == ["energy_1", "mine", "energy_2"]
    ensemble.set_params(mine__n_components=3)
    assert dict(ensemble.named_scorers)["mine"].n_components == 3
    ensemble.set_params(mine=MSP())
    assert isinstance(dict(ensemble.named_scorers)["mine"], MSP)
    assert [name for name, _ in clone(ensemble).named_scorers] == ["energy_1", "mine", "energy_2"]
    assert clone(ensemble) is not ensemble


def test_members_given_are_not_fitted():
    members = [Energy(), ViM()]
    ScorerEnsemble(members, random_state=0).fit(random_representation(n=80))
    assert not any(hasattr(member, "n_features_in_") for member in members)


@pytest.mark.parametrize(
    ("scorers", "message"),
    [
        ([], "scorers is empty"),
        (Energy(), "'scorers' parameter"),
        ([Energy], "is the class Energy"),
        ([("a", Energy()), ("a", MSP())], "not unique"),
        ([("calibration_fraction", Energy())], "conflict"),
    ],
)
def test_bad_members(scorers, message):
    with pytest.raises((TypeError, ValueError), match=message):
        ScorerEnsemble(scorers).fit(random_representation(n=80))


def test_too_few_images_to_hold_some_out():
    with pytest.raises(ValueError, match=r"1 image\(s\), of which .* pass held_out=."):
        ScorerEnsemble([Energy()]).fit(random_representation(n=1))


def test_one_network_cannot_serve_perturbing_members():
    with pytest.raises(ValueError, match="needs perturbed images"):
        ScorerEnsemble([MaxLogit(), ODIN()]).check_sizes(8, 4, 1000)
