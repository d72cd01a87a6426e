import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skdfb.scorers import Energy, RankFeat, Representation, activations_needed
from tests.scorers.early_errors import assert_same_error_early, early_error
from tests.scorers.helpers import fit_and_score, quick, random_arrays, random_representation


def rank_feat_oracle(maps, arrays):
    """RankFeat as in the paper, in float64, with one full SVD per image."""
    W, b = (np.asarray(arrays[name], dtype=np.float64) for name in ("weight", "bias"))
    scores = []
    for image in np.asarray(maps, dtype=np.float64):
        A = image.reshape(len(image), -1)
        U, s, Vt = np.linalg.svd(A, full_matrices=False)
        z = W @ (A - s[0] * np.outer(U[:, 0], Vt[0])).mean(axis=1) + b
        scores.append(max(z) + np.log(np.exp(z - max(z)).sum()))
    return np.array(scores)


def with_maps(maps, seed=0, **head):
    C = maps.shape[1]
    head = {name: random_arrays(seed, C=C, **head)[name].astype(maps.dtype) for name in ("weight", "bias")}
    arrays = {"features": maps.mean(axis=(2, 3)), **head}
    return arrays, Representation.from_numpy(**arrays, activations={"feature_map": maps})


def random_maps(seed=0, shape=(6, 5, 3, 3), scale=1.0, dtype=np.float64):
    return (scale * (np.random.default_rng(seed).normal(size=shape) + 0.3)).astype(dtype)


def assert_scores_close(scores, expected):
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


@given(
    seed=st.integers(0, 10**6),
    C=st.integers(2, 12),
    h=st.integers(1, 4),
    w=st.integers(2, 4),
    K=st.integers(1, 4),
)
@quick
def test_oracle(seed, C, h, w, K):
    maps = random_maps(seed, (5, C, h, w))
    arrays, representation = with_maps(maps, seed, K=K)
    assert_scores_close(fit_and_score(RankFeat(), representation), rank_feat_oracle(maps, arrays))


@pytest.mark.parametrize("shape", [(6, 5, 3, 3), (6, 20, 2, 2), (6, 9, 3, 3)])
@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_oracle_at_any_scale(shape, scale, dtype):
    maps = random_maps(shape=shape, scale=scale, dtype=dtype)
    arrays, representation = with_maps(maps)
    scores = fit_and_score(RankFeat(), representation)
    assert_scores_close(scores, rank_feat_oracle(maps, arrays))
    without_bias = Representation.from_numpy(
        **{**arrays, "bias": np.zeros(4), "weight": arrays["weight"] / scale},
        activations={"feature_map": maps},
    )
    assert np.ptp(fit_and_score(RankFeat(), without_bias)) > 0.1


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_squares_do_not_overflow_or_underflow(scale):
    maps = random_maps()
    arrays, representation = with_maps(maps)
    scaled = Representation.from_numpy(
        features=arrays["features"] * scale,
        weight=arrays["weight"] / scale,
        bias=arrays["bias"],
        activations={"feature_map": maps * scale},
    )
    np.testing.assert_allclose(fit_and_score(RankFeat(), scaled), fit_and_score(RankFeat(), representation), rtol=1e-9)


@pytest.mark.parametrize("shape", [(8, 5, 3, 3), (8, 20, 2, 2)])
def test_oracle_on_maps_of_low_rank(shape):
    rng = np.random.default_rng(0)
    n, C, h, w = shape
    maps = (rng.normal(size=(n, C, 2)) @ rng.normal(size=(n, 2, h * w))).reshape(shape)
    arrays, representation = with_maps(maps)
    assert_scores_close(fit_and_score(RankFeat(), representation), rank_feat_oracle(maps, arrays))


@pytest.mark.parametrize("shape", [(8, 5, 3, 3), (8, 20, 2, 2)])
def test_map_with_at_most_one_pattern_leaves_the_bias(shape):
    rng = np.random.default_rng(0)
    n, C, h, w = shape
    maps = (rng.normal(size=(n, C, 1)) @ rng.normal(size=(n, 1, h * w))).reshape(shape)
    maps[3] = 0
    maps[4] = 7
    arrays, representation = with_maps(maps)
    expected = np.full(n, np.log(np.exp(arrays["bias"]).sum()))
    np.testing.assert_allclose(fit_and_score(RankFeat(), representation), expected, rtol=1e-9)


@given(seed=st.integers(0, 10**6))
@quick
def test_order_of_places_and_rotation_of_channels_do_not_matter(seed):
    maps = random_maps(seed, (5, 6, 2, 4))
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    arrays, representation = with_maps(maps, seed)
    turned = np.einsum("cd,ndp->ncp", rotation, maps.reshape(5, 6, 8)[:, :, rng.permutation(8)]).reshape(5, 6, 4, 2)
    other = Representation.from_numpy(
        features=turned.mean(axis=(2, 3)),
        weight=arrays["weight"] @ rotation.T,
        bias=arrays["bias"],
        activations={"feature_map": turned},
    )
    np.testing.assert_allclose(fit_and_score(RankFeat(), other), fit_and_score(RankFeat(), representation), rtol=1e-7)


@given(seed=st.integers(0, 10**6), factor=st.floats(1.1, 100))
@quick
def test_strength_of_the_strongest_pattern_does_not_matter(seed, factor):
    maps = random_maps(seed, (4, 6, 3, 3))
    stronger = []
    for image in maps:
        U, s, Vt = np.linalg.svd(image.reshape(6, 9), full_matrices=False)
        stronger.append((U * np.r_[s[0] * factor, s[1:]] @ Vt).reshape(6, 3, 3))
    arrays, representation = with_maps(maps, seed)
    other = Representation.from_numpy(**arrays, activations={"feature_map": np.array(stronger)})
    np.testing.assert_allclose(fit_and_score(RankFeat(), other), fit_and_score(RankFeat(), representation), rtol=1e-7)


def test_batches_and_chunks_do_not_matter(monkeypatch):
    maps = random_maps(shape=(1100, 3, 2, 2))
    _, representation = with_maps(maps)
    scorer = RankFeat().fit(representation)
    scores = scorer.score_samples(representation)
    order = np.random.default_rng(0).permutation(1100)
    monkeypatch.setattr("skdfb.scorers._shaped_energy._MAP_NUMBERS", 100)
    np.testing.assert_allclose(scorer.score_samples(representation[order]), scores[order], rtol=1e-9, atol=1e-9)
    assert scorer.score_samples(representation[:0]).shape == (0,)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float16, 2e-2)])
def test_narrow_maps(dtype, tolerance):
    maps = random_maps()
    arrays, wide = with_maps(maps)
    scores = fit_and_score(RankFeat(), wide)
    narrow = Representation.from_numpy(**arrays, activations={"feature_map": maps.astype(dtype)})
    np.testing.assert_allclose(fit_and_score(RankFeat(), narrow), scores, rtol=tolerance, atol=tolerance)


def test_input_is_not_modified():
    maps = random_maps()
    before = maps.copy()
    fit_and_score(RankFeat(), with_maps(maps)[1])
    assert np.array_equal(maps, before)


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_broken_maps_are_refused(broken):
    _, representation = with_maps(random_maps())
    representation.activations["feature_map"][3, 1, 0, 0] = broken
    with pytest.raises(ValueError, match="NaN or infinite, first in row 3"):
        fit_and_score(RankFeat(), representation)


def test_broken_logits_are_refused():
    _, representation = with_maps(random_maps())
    representation.logits[3] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinite, first in row 3"):
        fit_and_score(RankFeat(), representation)


def test_needs_maps():
    assert activations_needed(RankFeat()) == ("feature_map",)
    scorer = RankFeat().fit(random_representation())
    with pytest.raises(ValueError, match="expected 'feature_map'"):
        scorer.score_samples(random_representation())


def test_single_feature_or_place():
    with pytest.raises(ValueError, match=r"1 feature.* at least 2 features"):
        RankFeat().fit(random_representation(C=1))
    _, representation = with_maps(random_maps(shape=(3, 4, 1, 1)))
    with pytest.raises(ValueError, match=r"one place.* at least 2 places"):
        fit_and_score(RankFeat(), representation)


@pytest.mark.parametrize("C", [1, 2, 3])
@pytest.mark.parametrize("n", [1, 4])
def test_sizes_are_checked_early(monkeypatch, n, C):
    representation = random_representation(n=n, C=C, K=1)
    assert_same_error_early(monkeypatch, RankFeat(), representation)
    assert (early_error(RankFeat(), representation) is None) == (C >= 2)


def test_differs_from_the_energy():
    _, representation = with_maps(random_maps())
    assert (fit_and_score(RankFeat(), representation) != fit_and_score(Energy(), representation)).all()
