import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skdfb.scorers import ASH, Energy, Representation, activations_needed
from tests.scorers.helpers import fit_and_score, quick, random_arrays, random_representation

PERCENTILES = {"s": 90, "b": 65, "p": 60}


def shape_oracle(a, variant, percentile):
    """The shaped activations of one image by the algorithms of the paper, as a flat list."""
    n = len(a)
    n_left = max(1, n - int(np.round(n * percentile / 100)))
    threshold = sorted(a)[n - n_left]
    pruned = [value if value >= threshold else 0.0 for value in a]
    before, after = math.fsum(a), math.fsum(pruned)
    if variant == "s":
        # The paper has no negative activations, for which this bound is needed.
        exponent = before / after if after > 0 else n / n_left
        return [value * math.exp(min(exponent, 300)) for value in pruned]
    if variant == "b":
        count = sum(value != 0 for value in pruned)
        return [before / count if value != 0 else 0.0 for value in pruned]
    return pruned


def energy_oracle(features, weight, bias):
    z = np.asarray(weight, dtype=np.float64) @ features + np.asarray(bias, dtype=np.float64)
    return max(z) + np.log(np.exp(z - max(z)).sum())


def ash_oracle(arrays, variant, percentile):
    rows = np.asarray(arrays["features"], dtype=np.float64).tolist()
    shaped = [np.array(shape_oracle(row, variant, percentile)) for row in rows]
    return np.array([energy_oracle(h, arrays["weight"], arrays["bias"]) for h in shaped])


def ash_oracle_on_maps(maps, arrays, variant, percentile):
    scores = []
    for image in np.asarray(maps, dtype=np.float64):
        shaped = np.reshape(shape_oracle(image.ravel().tolist(), variant, percentile), image.shape)
        scores.append(energy_oracle(shaped.mean(axis=(1, 2)), arrays["weight"], arrays["bias"]))
    return np.array(scores)


def rectified_arrays(seed=0, **options):
    arrays = random_arrays(seed, **options)
    return {**arrays, "features": arrays["features"].clip(0)}


def with_maps(seed=0, *, n=6, C=8, h=3, w=2, dtype=np.float64, rectified=True):
    maps = np.random.default_rng(seed).normal(size=(n, C, h, w)).astype(dtype)
    maps = maps.clip(0) if rectified else maps
    arrays = {**random_arrays(seed, n=n, C=C, dtype=dtype), "features": maps.mean(axis=(2, 3))}
    return maps, arrays, Representation.from_numpy(**arrays, activations={"feature_map": maps})


every_variant = pytest.mark.parametrize("variant", "sbp")


def assert_scores_close(scores, expected):
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-9)


@every_variant
@given(seed=st.integers(0, 10**6), C=st.integers(1, 40), percentile=st.floats(0, 99.9), rectified=st.booleans())
@quick
def test_oracle(variant, seed, C, percentile, rectified):
    arrays = (rectified_arrays if rectified else random_arrays)(seed, C=C, n=8)
    scores = fit_and_score(ASH(variant, percentile), Representation.from_numpy(**arrays))
    assert_scores_close(scores, ash_oracle(arrays, variant, percentile))


@every_variant
@pytest.mark.parametrize("options", [{"rank": 2}, {"scale": 1e-30}, {"scale": 1e30}, {"C": 1}, {"K": 1}, {"n": 1}])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_oracle_on_unusual_input(variant, options, dtype):
    arrays = random_arrays(**options, dtype=dtype)
    scores = fit_and_score(ASH(variant), Representation.from_numpy(**arrays))
    expected = ash_oracle(arrays, variant, PERCENTILES[variant])
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


@every_variant
@given(seed=st.integers(0, 10**6), percentile=st.floats(0, 99.9), rectified=st.booleans())
@quick
def test_oracle_on_maps(variant, seed, percentile, rectified):
    maps, arrays, representation = with_maps(seed, rectified=rectified)
    scores = fit_and_score(ASH(variant, percentile, on_maps=True), representation)
    assert_scores_close(scores, ash_oracle_on_maps(maps, arrays, variant, percentile))


@every_variant
def test_maps_in_chunks(variant, monkeypatch):
    maps, arrays, representation = with_maps(n=11)
    monkeypatch.setattr("skdfb.scorers._shaped_energy._MAP_NUMBERS", 100)
    scores = fit_and_score(ASH(variant, on_maps=True), representation)
    assert_scores_close(scores, ash_oracle_on_maps(maps, arrays, variant, PERCENTILES[variant]))
    scorer = ASH(variant, on_maps=True).fit(representation)
    np.testing.assert_allclose(scorer.score_samples(representation[[7, 2]]), scores[[7, 2]], rtol=1e-12)
    assert scorer.score_samples(representation[:0]).shape == (0,)


@every_variant
def test_map_of_one_place_is_the_features(variant):
    arrays = random_arrays()
    maps = arrays["features"][:, :, None, None]
    representation = Representation.from_numpy(**arrays, activations={"feature_map": maps})
    np.testing.assert_allclose(
        fit_and_score(ASH(variant, on_maps=True), representation),
        fit_and_score(ASH(variant), representation),
        rtol=1e-12,
    )


def test_needs_maps_only_with_on_maps():
    assert activations_needed(ASH()) == ()
    assert activations_needed(ASH(on_maps=True)) == ("feature_map",)
    assert activations_needed(ASH().set_params(on_maps=True)) == ("feature_map",)


@every_variant
def test_default_percentiles(variant):
    representation = random_representation(C=40)
    explicit = fit_and_score(ASH(variant, PERCENTILES[variant]), representation)
    assert np.array_equal(fit_and_score(ASH(variant), representation), explicit)
    assert not np.array_equal(fit_and_score(ASH(variant, 75), representation), explicit)


@every_variant
@given(seed=st.integers(0, 10**6))
@quick
def test_order_of_features_does_not_matter_with_ties(variant, seed):
    rng = np.random.default_rng(seed)
    arrays = {**random_arrays(seed), "features": rng.integers(-1, 3, size=(30, 8)).astype(float)}
    order = rng.permutation(8)
    shuffled = {**arrays, "features": arrays["features"][:, order], "weight": arrays["weight"][:, order]}
    np.testing.assert_allclose(
        fit_and_score(ASH(variant, 50), Representation.from_numpy(**shuffled)),
        fit_and_score(ASH(variant, 50), Representation.from_numpy(**arrays)),
        rtol=1e-9,
        atol=1e-9,
    )


@every_variant
@given(seed=st.integers(0, 10**6), factor=st.floats(0.01, 100))
@quick
def test_scale_of_features_does_not_matter_if_logits_stay(variant, seed, factor):
    arrays = rectified_arrays(seed)
    scaled = {**arrays, "features": arrays["features"] * factor, "weight": arrays["weight"] / factor}
    np.testing.assert_allclose(
        fit_and_score(ASH(variant), Representation.from_numpy(**scaled)),
        fit_and_score(ASH(variant), Representation.from_numpy(**arrays)),
        rtol=1e-9,
        atol=1e-9,
    )


def test_percentile_0_removes_nothing():
    representation = random_representation()
    np.testing.assert_allclose(
        fit_and_score(ASH("p", 0), representation), fit_and_score(Energy(), representation), rtol=1e-12
    )


@every_variant
def test_features_of_zero_score_the_energy_of_the_bias(variant):
    arrays = {**random_arrays(), "features": np.zeros((3, 8))}
    scores = fit_and_score(ASH(variant), Representation.from_numpy(**arrays))
    np.testing.assert_allclose(scores, np.log(np.exp(arrays["bias"]).sum()), rtol=1e-12)


def test_binarised_sum_is_shared_by_nonzero_features():
    # 2 of 4 features remain, and the second of them is 0.
    head = {"weight": np.eye(4), "bias": np.zeros(4)}
    representation = Representation.from_numpy(features=np.array([[5.0, 0.0, 0.0, 0.0]]), **head)
    np.testing.assert_allclose(fit_and_score(ASH("b", 50), representation), math.log(math.exp(5) + 3), rtol=1e-12)


@pytest.mark.parametrize("percentile", [90, 99.99])
def test_sums_of_any_sign_give_finite_scores(percentile):
    rng = np.random.default_rng(0)
    C = 4000
    features = np.stack([
        -rng.uniform(1, 2, size=C),  # a negative sum remains
        np.r_[np.zeros(C // 2), -np.ones(C // 2)],  # the remaining sum is 0
        np.r_[1e-300, -np.ones(C - 1)],
        np.r_[np.ones(C // 2), -np.ones(C // 2)],
        np.ones(C),  # all are equal
        rng.uniform(1, 1.001, size=C),  # at 99.99 the ratio is 4000
        np.r_[1e-320, np.zeros(C - 1)],
    ])  # fmt: skip
    arrays = {"features": features, "weight": rng.normal(size=(3, C)), "bias": np.zeros(3)}
    scores = fit_and_score(ASH("s", percentile), Representation.from_numpy(**arrays))
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(scores, ash_oracle(arrays, "s", percentile), rtol=1e-6)


@every_variant
@pytest.mark.parametrize("on_maps", [False, True])
def test_input_is_not_changed(variant, on_maps):
    maps, arrays, representation = with_maps()
    before = maps.copy(), arrays["features"].copy()
    fit_and_score(ASH(variant, on_maps=on_maps), representation)
    assert np.array_equal(maps, before[0])
    assert np.array_equal(arrays["features"], before[1])


@every_variant
def test_narrow_maps(variant):
    _, _, wide = with_maps(dtype=np.float32)
    scores = fit_and_score(ASH(variant, on_maps=True), wide)
    narrow = Representation(
        features=wide.features,
        logits=wide.logits,
        weight=wide.weight,
        bias=wide.bias,
        activations={"feature_map": wide.activations["feature_map"].half()},
    )
    np.testing.assert_allclose(
        fit_and_score(ASH(variant, on_maps=True), narrow), scores, rtol=2e-2, atol=2e-2 * np.abs(scores).max()
    )


@every_variant
@pytest.mark.parametrize("on_maps", [False, True])
def test_nan_raises_an_error(variant, on_maps):
    _, _, representation = with_maps()
    scorer = ASH(variant, on_maps=on_maps).fit(representation)
    for tensor in (representation.activations["feature_map"] if on_maps else representation.features,):
        tensor[3, 1] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinite, first in row 3"):
        scorer.score_samples(representation)


def test_no_maps():
    scorer = ASH(on_maps=True).fit(random_representation())
    with pytest.raises(ValueError, match=r"holds \[\]: expected 'feature_map'"):
        scorer.score_samples(random_representation())


@pytest.mark.parametrize("shape", [(30, 8), (30, 7, 2, 2), (30, 2, 2, 8), (30, 8, 0, 2)])
def test_maps_of_wrong_shape(shape):
    representation = Representation.from_numpy(**random_arrays(), activations={"feature_map": np.zeros(shape)})
    with pytest.raises(ValueError, match=r"activations\['feature_map'\] has shape .* (wanted|expected) \(n, 8, h, w\)"):
        fit_and_score(ASH(on_maps=True), representation)


@pytest.mark.parametrize(
    "parameter",
    [{"variant": "x"}, {"variant": None}, {"percentile": 100}, {"percentile": -1}, {"percentile": "9"}, {"on_maps": 2}],
)
def test_parameters_are_checked(parameter):
    with pytest.raises(ValueError, match=next(iter(parameter))):
        ASH(**parameter).fit(random_representation())
