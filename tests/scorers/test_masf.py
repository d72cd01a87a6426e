import pickle
import re

import joblib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skdfb.scorers import MaSF, Representation, activations_needed
from tests.scorers.helpers import quick


def masf_oracle(train, labels, test):
    """Max-Simes-Fisher by the paper: dictionaries with logits (n, K) and layers, lists of (n, C, h, w) or (n, C)."""

    def maxima(layer):
        values = np.asarray(layer, dtype=np.float32)
        return values.reshape(*values.shape[:2], -1).max(axis=2)

    scores = []
    for i, z in enumerate(test["logits"]):
        predicted = max(set(labels), key=lambda k, z=z: z[k])
        members = [j for j, label in enumerate(labels) if label == predicted]
        score = 0.0
        for layer, reference in zip(test["layers"], train["layers"], strict=True):
            p_values = []
            for channel, t in enumerate(maxima(layer)[i]):
                others = [maxima(reference)[j, channel] for j in members]
                below = (1 + sum(other <= t for other in others)) / (len(members) + 1)
                above = (1 + sum(other >= t for other in others)) / (len(members) + 1)
                p_values.append(min(1.0, 2 * min(below, above)))
            C = len(p_values)
            score += np.log(min(C / (j + 1) * p for j, p in enumerate(sorted(p_values))))
        scores.append(score)
    return np.array(scores)


def random_data(seed=0, *, n=20, K=3, shapes=((4,), (6, 2, 2)), scale=1.0, integers=False, dtype=np.float64):
    rng = np.random.default_rng(seed)
    layers = [rng.integers(0, 4, size=(n, *s)) if integers else rng.normal(size=(n, *s)) for s in shapes]
    return {"logits": rng.normal(size=(n, K)), "layers": [(scale * layer).astype(dtype) for layer in layers]}


def representation_of(data):
    n, K = data["logits"].shape
    return Representation.from_numpy(
        features=np.zeros((n, 2)),
        weight=np.zeros((K, 2)),
        bias=np.zeros(K),
        logits=data["logits"],
        activations={f"layer{i}": layer for i, layer in enumerate(data["layers"])},
    )


def score(train, labels, test, **parameters):
    return MaSF(**parameters).fit(representation_of(train), labels).score_samples(representation_of(test))


def random_labels(seed, n=20, K=3):
    return np.random.default_rng(seed + 7).integers(0, K, size=n)


@given(seed=st.integers(0, 10**6), n=st.integers(1, 20), K=st.integers(1, 4), integers=st.booleans())
@quick
def test_oracle(seed, n, K, integers):
    train = random_data(seed, n=n, K=K, integers=integers)
    test = random_data(seed + 1, n=6, K=K, integers=integers)
    labels = random_labels(seed, n, K)
    np.testing.assert_allclose(score(train, labels, test), masf_oracle(train, labels, test), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_oracle_at_any_scale(scale, dtype):
    train, test = random_data(scale=scale, dtype=dtype), random_data(1, scale=scale, dtype=dtype)
    labels = random_labels(0)
    scores = score(train, labels, test)
    assert np.ptp(scores) > 0
    np.testing.assert_allclose(scores, masf_oracle(train, labels, test), rtol=1e-9)


@given(seed=st.integers(0, 10**6))
@quick
def test_growing_transformations_change_nothing(seed):
    train, test, labels = random_data(seed), random_data(seed + 1), random_labels(seed)
    scores = score(train, labels, test)
    for data in (train, test):
        data["layers"] = [np.exp(0.5 * layer) for layer in data["layers"]]
    np.testing.assert_allclose(score(train, labels, test), scores, rtol=1e-12, atol=1e-12)


@given(seed=st.integers(0, 10**6))
@quick
def test_both_tails_count_the_same(seed):
    # Only activations without places can change sign: then their maxima do, too.
    shapes = ((4,), (5,))
    train, test, labels = random_data(seed, shapes=shapes), random_data(seed + 1, shapes=shapes), random_labels(seed)
    scores = score(train, labels, test)
    for data in (train, test):
        data["layers"] = [-layer for layer in data["layers"]]
    np.testing.assert_allclose(score(train, labels, test), scores, rtol=1e-12, atol=1e-12)


@given(seed=st.integers(0, 10**6))
@quick
def test_order_of_images_channels_and_layers_does_not_matter(seed):
    train, test, labels = random_data(seed), random_data(seed + 1), random_labels(seed)
    scores = score(train, labels, test)
    rng = np.random.default_rng(seed)
    images, channels = rng.permutation(20), rng.permutation(6)
    train = {"logits": train["logits"], "layers": [train["layers"][1][images][:, channels], train["layers"][0][images]]}
    test = {"logits": test["logits"], "layers": [test["layers"][1][:, channels], test["layers"][0]]}
    np.testing.assert_allclose(score(train, labels[images], test), scores, rtol=1e-12, atol=1e-12)


def test_usual_images_score_higher_than_unusual_ones():
    train, labels = random_data(n=300), random_labels(0, n=300)
    usual, high, low = random_data(1), random_data(1), random_data(1)
    high["layers"] = [layer + 3 for layer in high["layers"]]
    low["layers"] = [layer - 3 for layer in low["layers"]]
    usual, high, low = (score(train, labels, data) for data in (usual, high, low))
    assert (usual <= 0).all()
    assert usual.mean() > high.mean() + 2
    assert usual.mean() > low.mean() + 2


def test_classes_have_distributions_of_their_own():
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    train = {"logits": np.zeros((200, 2)), "layers": [rng.normal(size=(200, 5)) + 10 * labels[:, None]]}
    test = {"logits": np.eye(2), "layers": [np.zeros((2, 5))]}
    as_first, as_second = score(train, labels, test)
    assert as_first > as_second + 1


def test_class_without_images_is_left_out():
    train, test = random_data(), random_data(1)
    labels = np.arange(20) % 2 * 2  # 0 and 2 of 0, 1, 2
    test["logits"][:] = [1.0, 9.0, 2.0]
    scores = score(train, labels, test)
    np.testing.assert_allclose(scores, masf_oracle(train, labels, test), rtol=1e-9)
    test["logits"][:, 1] = -5
    assert np.array_equal(score(train, labels, test), scores)


def test_one_class_needs_no_labels():
    train, test = random_data(K=1), random_data(1, K=1)
    np.testing.assert_allclose(score(train, None, test), masf_oracle(train, np.zeros(20, dtype=int), test), rtol=1e-9)


def test_constant_channels():
    train, labels = random_data(), random_labels(0)
    train["layers"] = [np.zeros_like(layer) for layer in train["layers"]]
    assert np.array_equal(score(train, labels, train), np.zeros(20))
    other = {**train, "layers": [layer + 1 for layer in train["layers"]]}
    assert (score(train, labels, other) < 0).all()


def test_samples_per_class():
    train, labels = random_data(n=40), np.arange(40) % 4 // 2 + np.arange(40) // 39
    scorer = MaSF(samples_per_class=5, random_state=0).fit(representation_of(train), labels)
    counts = np.bincount(labels).clip(max=5)
    assert scorer.class_counts_.tolist() == counts.tolist()
    assert scorer.layers_ == ["layer0", "layer1"]
    assert scorer.layer_widths_.tolist() == [4, 6]
    assert scorer.maxima_.shape == (10 * counts.sum(),)
    assert scorer.maxima_.dtype == np.float32
    first = scorer.maxima_[: 10 * 5].reshape(10, 5)
    assert (np.diff(first) >= 0).all()
    own = np.concatenate([layer.reshape(40, layer.shape[1], -1).max(axis=2) for layer in train["layers"]], axis=1)
    own = own[labels == 0].astype(np.float32)
    assert all(np.isin(row, own[:, channel]).all() for channel, row in enumerate(first))


def test_random_state():
    train, labels, test = random_data(n=60), random_labels(0, n=60), representation_of(random_data(1))
    train = representation_of(train)

    def scores(random_state):
        scorer = MaSF(samples_per_class=5, random_state=random_state)
        return scorer.fit(train, labels).score_samples(test)

    assert np.array_equal(scores(0), scores(0))
    assert not np.array_equal(scores(0), scores(1))


class Streamed(Representation):
    """Has activations only in its batches, like the training images of a detector."""

    @classmethod
    def of(cls, whole, *cuts):
        kept = {name: getattr(whole, name) for name in ("features", "logits", "weight", "bias")}
        streamed = cls(**kept)
        parts = [whole[start:stop] for start, stop in zip((0, *cuts), (*cuts, len(whole)), strict=True)]
        object.__setattr__(streamed, "parts", parts)
        object.__setattr__(streamed, "rounds", [])
        return streamed

    def batches(self, batch_size=None):
        self.rounds.append(batch_size)
        return iter(self.parts)


@pytest.mark.parametrize("cuts", [(), (1,), (13, 14, 39)])
@pytest.mark.parametrize("samples_per_class", [500, 4])
def test_one_pass_over_batches_of_any_size(cuts, samples_per_class):
    whole, labels = representation_of(random_data(n=40)), random_labels(0, n=40)
    scorer = MaSF(samples_per_class=samples_per_class, random_state=0)
    expected = scorer.fit(whole, labels).maxima_
    streamed = Streamed.of(whole, *cuts)
    assert np.array_equal(scorer.fit(streamed, labels).maxima_, expected)
    assert len(streamed.rounds) == 1
    np.testing.assert_allclose(scorer.score_samples(streamed), scorer.score_samples(whole), rtol=1e-12)


def test_order_and_batches_of_scored_images_do_not_matter(tmp_path):
    scorer = MaSF().fit(representation_of(random_data()), random_labels(0))
    many = representation_of(random_data(1, n=1100))
    scores = scorer.score_samples(many)
    order = np.random.default_rng(0).permutation(1100)
    np.testing.assert_allclose(scorer.score_samples(many[order]), scores[order], rtol=1e-12)
    np.testing.assert_allclose(scorer.score_samples(many[1020:1030]), scores[1020:1030], rtol=1e-12)
    assert scorer.score_samples(many[:0]).shape == (0,)
    assert np.array_equal(pickle.loads(pickle.dumps(scorer)).score_samples(many), scores)
    joblib.dump(scorer, tmp_path / "scorer.joblib")
    mapped = joblib.load(tmp_path / "scorer.joblib", mmap_mode="r")
    assert np.array_equal(mapped.score_samples(many), scores)


def test_narrow_types():
    # Small integers are exact in all types.
    wide, labels = random_data(integers=True), random_labels(0)
    for dtype in (np.float16, np.float32):
        narrow = {**wide, "layers": [layer.astype(dtype) for layer in wide["layers"]]}
        assert np.array_equal(score(narrow, labels, narrow), score(wide, labels, wide))
    stored = representation_of(wide)
    activations = {name: tensor.bfloat16() for name, tensor in stored.activations.items()}
    narrow = Representation(
        features=stored.features, logits=stored.logits, weight=stored.weight, bias=stored.bias, activations=activations
    )
    scores = MaSF().fit(narrow, labels).score_samples(narrow)
    assert np.array_equal(scores, score(wide, labels, wide))


def test_choice_of_layers():
    train, test, labels = random_data(), random_data(1), random_labels(0)
    second = [{"logits": data["logits"], "layers": data["layers"][1:]} for data in (train, test)]
    np.testing.assert_allclose(
        score(train, labels, test, layers=["layer1"]), masf_oracle(second[0], labels, second[1]), rtol=1e-9
    )


def test_feature_map_is_used_only_if_named():
    whole, labels = representation_of(random_data()), random_labels(0)
    extra = Representation(
        features=whole.features,
        logits=whole.logits,
        weight=whole.weight,
        bias=whole.bias,
        activations={"feature_map": torch.randn(20, 2, 3, 3), **whole.activations},
    )
    assert np.array_equal(
        MaSF().fit(extra, labels).score_samples(extra), MaSF().fit(whole, labels).score_samples(whole)
    )
    assert MaSF(layers=["feature_map"]).fit(extra, labels).layer_widths_.tolist() == [2]
    assert activations_needed(MaSF()) == ("layers",)


def test_input_is_not_changed():
    train = random_data(dtype=np.float32)
    before = [layer.copy() for layer in train["layers"]]
    score(train, random_labels(0), train)
    assert all(np.array_equal(layer, old) for layer, old in zip(train["layers"], before, strict=True))


@pytest.mark.parametrize("broken", [np.nan, np.inf, 1e300])
def test_broken_activations_in_fit(broken):
    train = random_data()
    train["layers"][1][3, 2, 0, 0] = broken
    with pytest.raises(ValueError, match=r"representation\.activations of the layers .* hold NaN"):
        MaSF().fit(representation_of(train), random_labels(0))


def test_broken_images_raise_an_error():
    train, labels = random_data(), random_labels(0)
    scorer = MaSF().fit(representation_of(train), labels)
    for name in ("layers", "logits"):
        test = random_data(1)
        (test["layers"][0] if name == "layers" else test["logits"])[3, 1] = 0
        representation = representation_of(test)
        tensor = representation.activations["layer0"] if name == "layers" else representation.logits
        tensor[3, 1] = torch.nan
        with pytest.raises(ValueError, match="NaN or infinite, first in row 3"):
            scorer.score_samples(representation)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer1": None}, r"activations holds \['layer0'\]: expected 'layer1'"),
        ({"layer1": (5, 2, 2)}, r"activations\['layer1'\] has shape \(20, 5, 2, 2\): expected \(n, 6\)"),
        ({"layer0": ()}, r"activations\['layer0'\] has shape \(20,\): expected \(n, 4\)"),
        ({"layer1": (6, 0, 2)}, r"activations\['layer1'\] has shape \(20, 6, 0, 2\)"),
    ],
)
def test_other_layers_than_fitted(change, message):
    whole = representation_of(random_data())
    scorer = MaSF().fit(whole, random_labels(0))
    activations = dict(whole.activations)
    for name, shape in change.items():
        del activations[name]
        if shape is not None:
            activations[name] = torch.zeros(20, *shape)
    other = Representation(
        features=whole.features, logits=whole.logits, weight=whole.weight, bias=whole.bias, activations=activations
    )
    with pytest.raises(ValueError, match=message):
        scorer.score_samples(other)


def test_layer_that_does_not_exist():
    with pytest.raises(ValueError, match=r"activations holds \['layer0', 'layer1'\]: expected 'other'"):
        MaSF(layers=["layer0", "other"]).fit(representation_of(random_data()), random_labels(0))


@pytest.mark.parametrize("layers", [[], ["layer0", "layer0"]])
def test_no_layers_and_layers_named_twice(layers):
    message = re.escape(f"layers={layers}: expected one name or more, each once")
    with pytest.raises(ValueError, match=message):
        MaSF(layers=layers).fit(representation_of(random_data()), random_labels(0))
    with pytest.raises(ValueError, match=message):
        MaSF(layers=layers).check_sizes(2, 3, 20)


def test_no_activations():
    whole = representation_of(random_data())
    bare = Representation(features=whole.features, logits=whole.logits, weight=whole.weight, bias=whole.bias)
    with pytest.raises(ValueError, match=r"layers=None with representation\.activations of \[\]"):
        MaSF().fit(bare, random_labels(0))


def test_labels_are_checked():
    with pytest.raises(ValueError, match="y is None"):
        MaSF().fit(representation_of(random_data()), None)


@pytest.mark.parametrize(
    "parameter", [{"layers": "layer0"}, {"samples_per_class": 0}, {"samples_per_class": 2.5}, {"random_state": "a"}]
)
def test_parameters_are_checked(parameter):
    with pytest.raises(ValueError, match=next(iter(parameter))):
        MaSF(**parameter).fit(representation_of(random_data()), random_labels(0))
