import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skdfb.scorers import Energy, NNGuide, Representation, _neighbours, _nn_guide
from tests.scorers.early_errors import early_error, message_of
from tests.scorers.helpers import fit_and_score, quick, random_arrays, random_representation


def nn_guide_oracle(train, test, k):
    """NNGuide as in the paper, in float64; the arguments are mappings with features, weight and bias."""

    def energy(h):
        z = np.asarray(train["weight"], dtype=np.float64) @ h + np.asarray(train["bias"], dtype=np.float64)
        return max(z) + np.log(np.exp(z - max(z)).sum())

    train_features = [np.asarray(h, dtype=np.float64) for h in train["features"]]
    bank = [energy(h) * h / np.linalg.norm(h) for h in train_features]
    scores = []
    for h in np.asarray(test["features"], dtype=np.float64):
        similarities = sorted((h / np.linalg.norm(h) @ row for row in bank), reverse=True)
        scores.append(energy(h) * np.mean(similarities[:k]))
    return np.array(scores)


def scores_of(train, test, **parameters):
    representations = [Representation.from_numpy(**arrays) for arrays in (train, test)]
    return NNGuide(**parameters).fit(representations[0]).score_samples(representations[1])


def train_and_test(seed=0, n=30, **options):
    train = random_arrays(seed, n=n, **options)
    return train, {**random_arrays(seed + 1, n=7, **options), "weight": train["weight"], "bias": train["bias"]}


def assert_scores_close(scores, expected):
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


@given(seed=st.integers(0, 10**6), n=st.integers(1, 60), C=st.integers(2, 12), K=st.integers(1, 5), data=st.data())
@quick
def test_oracle(seed, n, C, K, data):
    k = data.draw(st.integers(1, n))
    train, test = train_and_test(seed, n, C=C, K=K)
    assert_scores_close(scores_of(train, test, n_neighbors=k), nn_guide_oracle(train, test, k))


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rank", [None, 3])
def test_oracle_at_any_scale(scale, dtype, rank):
    train, test = train_and_test(scale=scale, dtype=dtype, rank=rank)
    assert_scores_close(scores_of(train, test), nn_guide_oracle(train, test, 10))


def test_oracle_beyond_a_batch_and_a_block(monkeypatch):
    monkeypatch.setattr(_neighbours, "_BANK_ROWS", 100)
    monkeypatch.setattr(_neighbours, "_GATHERED", 1000)
    train, test = train_and_test(n=1100)
    tiled = {**test, "features": np.tile(test["features"], (200, 1))}
    scores = scores_of(train, tiled)
    assert_scores_close(scores.reshape(200, 7), np.tile(nn_guide_oracle(train, test, 10), (200, 1)))


def test_energies_beyond_float32():
    train, test = train_and_test()
    for arrays in (train, test):
        arrays.update(logits=arrays["features"] @ train["weight"].T * 1e100)
    scores = scores_of(train, test)
    for arrays in (train, test):
        arrays.update(logits=arrays["logits"] / 1e90)
    np.testing.assert_allclose(scores / 1e180, scores_of(train, test), rtol=1e-6)


def test_bank_of_energies_of_zero():
    arrays = {**random_arrays(n=20, K=1), "logits": np.zeros((20, 1))}
    assert fit_and_score(NNGuide(), Representation.from_numpy(**arrays)).tolist() == [0.0] * 20


@given(seed=st.integers(0, 10**6), factor=st.floats(1e-3, 1e3))
@quick
def test_scale_and_rotation_of_features_do_not_matter(seed, factor):
    train, test = train_and_test(seed)
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(8, 8)))
    moved = [
        {**arrays, "features": factor * arrays["features"] @ rotation, "weight": arrays["weight"] @ rotation / factor}
        for arrays in (train, test)
    ]
    assert_scores_close(scores_of(*moved), scores_of(train, test))


@given(seed=st.integers(0, 10**6), k=st.integers(1, 15))
@quick
def test_duplicating_all_training_images_changes_nothing(seed, k):
    train, test = train_and_test(seed, 15)
    twice = {**train, "features": np.tile(train["features"], (2, 1))}
    np.testing.assert_allclose(
        scores_of(twice, test, n_neighbors=2 * k), scores_of(train, test, n_neighbors=k), rtol=1e-11, atol=1e-12
    )


def test_factor_of_the_logits_with_one_class():
    # With one class the energy is the logit. The score is a product of two energies.
    train, test = train_and_test(K=1)
    tripled = [{**arrays, "weight": 3 * arrays["weight"], "bias": 3 * arrays["bias"]} for arrays in (train, test)]
    np.testing.assert_allclose(scores_of(*tripled), 9 * scores_of(train, test), rtol=1e-12)


def test_features_of_one_direction_leave_a_product_of_energies():
    rng = np.random.default_rng(0)
    head = {"weight": rng.normal(size=(3, 4)), "bias": np.full(3, 4.0)}
    train = {"features": rng.uniform(1, 2, size=(20, 1)) * np.ones((1, 4)), **head}
    test = {"features": rng.uniform(1, 2, size=(5, 1)) * np.ones((1, 4)), **head}
    energies = Energy().fit(Representation.from_numpy(**train))
    own = np.sort(energies.score_samples(Representation.from_numpy(**train)))[-3:].mean()
    expected = energies.score_samples(Representation.from_numpy(**test)) * own
    np.testing.assert_allclose(scores_of(train, test, n_neighbors=3), expected, rtol=1e-6)


def test_distance_from_training_features_lowers_the_score_at_equal_energy():
    head = {"weight": np.eye(2, 3), "bias": np.zeros(2)}
    train = {"features": np.random.default_rng(0).normal(size=(50, 3)) * 0.1 + [5, 0, 0], **head}
    # The third feature changes no logit.
    test = {"features": np.array([[5.0, 0, distance] for distance in (0, 1, 2, 4)]), **head}
    assert (np.diff(scores_of(train, test)) < 0).all()


def test_bank():
    representation = random_representation(n=200)
    scorer = NNGuide(bank_size=40).fit(representation)
    assert scorer.bank_.shape == (40, 8)
    assert scorer.bank_.dtype == np.float32
    lengths = np.linalg.norm(scorer.bank_, axis=1)
    assert lengths.max() == pytest.approx(1, abs=1e-6)
    energies = fit_and_score(Energy(), representation)
    assert np.isclose(np.abs(energies), scorer.bank_scale_, rtol=1e-12).any()
    assert np.array_equal(NNGuide(bank_size=0.2).fit(representation).bank_, scorer.bank_)
    assert not np.array_equal(NNGuide(bank_size=40, random_state=1).fit(representation).bank_, scorer.bank_)


@pytest.mark.parametrize(("n", "expected"), [(12, 12), (12_812, 12_812), (50_000, 12_812), (2_000_000, 20_000)])
def test_default_bank(n, expected):
    assert min(n, NNGuide()._choose_bank_size(n)) == expected
    assert NNGuide(bank_size=0.5)._choose_bank_size(n) == 0.5


def test_default_bank_is_drawn(monkeypatch):
    monkeypatch.setattr(_nn_guide, "_PAPER_BANK", 25)
    assert len(NNGuide().fit(random_representation(n=60)).bank_) == 25


@pytest.mark.parametrize(("n", "parameters", "k", "size"), [
    (9, {}, 10, 9), (60, {"n_neighbors": 7, "bank_size": 0.1}, 7, 6), (60, {"bank_size": 6}, 10, 6),
])  # fmt: skip
def test_too_few_images(n, parameters, k, size):
    with pytest.raises(ValueError, match=rf"^n_neighbors={k} is more than the {size} image\(s\) of the bank"):
        NNGuide(**parameters).fit(random_representation(n=n))


@pytest.mark.parametrize("n", [1, 6, 7, 9, 10, 59, 60])
@pytest.mark.parametrize("bank_size", [None, 6, 7, 40, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("n_neighbors", [1, 6, 7])
def test_sizes_are_checked_early(n_neighbors, bank_size, n):
    scorer, representation = NNGuide(n_neighbors, bank_size), random_representation(n=n)
    # The number of images that are drawn, counted without the check.
    n_bank = len(_neighbours.draw_images(n, scorer._choose_bank_size(n), 0))
    message = early_error(scorer, representation)
    assert (message is None) == (n_neighbors <= n_bank)
    assert message is None or f"the {n_bank} image(s) of the bank" in message
    assert message == message_of(scorer.fit, representation)


@pytest.mark.parametrize("options", [{"n": 1}, {"C": 1}, {"K": 1}, {"n": 3, "C": 40}, {"dtype": np.float16}])
def test_odd_data(options):
    assert np.isfinite(fit_and_score(NNGuide(n_neighbors=1), random_representation(**options))).all()


def test_features_of_zeros():
    train, test = train_and_test()
    test["features"][2] = 0
    assert scores_of(train, test)[2] == 0
    train["features"][:] = 0
    assert scores_of(train, test).tolist() == [0.0] * 7


@pytest.mark.parametrize("field", ["features", "logits"])
def test_nan(field):
    representation = random_representation()
    scorer = NNGuide().fit(representation)
    getattr(representation, field)[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"features or logits hold NaN"):
        NNGuide().fit(representation)
    with pytest.raises(ValueError, match="gives 1 scores that are NaN or infinite, first in row 2"):
        scorer.score_samples(representation)


@pytest.mark.parametrize("parameters", [
    {"n_neighbors": 0}, {"n_neighbors": 2.0}, {"bank_size": 0}, {"bank_size": 1.5}, {"random_state": "x"},
])  # fmt: skip
def test_parameters_are_checked(parameters):
    with pytest.raises(ValueError, match=next(iter(parameters))):
        NNGuide(**parameters).fit(random_representation(n=60))
