import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skdfb.scorers import KNN, Representation, _neighbours
from tests.scorers.helpers import fit_and_score, quick, random_arrays, random_representation


def knn_oracle(train, test, k):
    """KNN by the paper, in float64, on features."""
    train, test = (np.asarray(features, dtype=np.float64) for features in (train, test))
    scores = []
    for h in test:
        z = h / np.linalg.norm(h)
        distances = sorted(np.linalg.norm(z - t / np.linalg.norm(t)) for t in train)
        scores.append(-distances[k - 1])
    return np.array(scores)


def of_features(features):
    features = np.asarray(features)
    C = features.shape[1]
    return Representation.from_numpy(features=features, weight=np.eye(2, C), bias=np.zeros(2))


def knn(train, test, **parameters):
    return KNN(**parameters).fit(of_features(train)).score_samples(of_features(test))


@given(seed=st.integers(0, 10**6), n=st.integers(1, 60), C=st.integers(2, 12), data=st.data())
@quick
def test_oracle(seed, n, C, data):
    k = data.draw(st.integers(1, n))
    train, test = (random_arrays(seed + i, n=m, C=C)["features"] for i, m in enumerate((n, 7)))
    np.testing.assert_allclose(knn(train, test, n_neighbors=k), knn_oracle(train, test, k), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rank", [None, 3])
def test_oracle_at_any_scale(scale, dtype, rank):
    arrays = random_arrays(scale=scale, dtype=dtype, rank=rank)["features"]
    train, test = arrays[:20], arrays[20:]
    np.testing.assert_allclose(knn(train, test, n_neighbors=4), knn_oracle(train, test, 4), rtol=1e-6)


def test_oracle_beyond_a_batch_and_a_block(monkeypatch):
    monkeypatch.setattr(_neighbours, "_BANK_ROWS", 100)
    monkeypatch.setattr(_neighbours, "_GATHERED", 1000)
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(350, 5)), rng.normal(size=(1100, 5))
    scores = knn(train, test, n_neighbors=50)
    chosen = np.r_[:10, 1020:1030, 1095:1100]
    np.testing.assert_allclose(scores[chosen], knn_oracle(train, test[chosen], 50), rtol=1e-6)


@pytest.mark.parametrize("spread", [1e-5, 1e-4, 1e-2])
@pytest.mark.parametrize("k", [1, 30, 150])
def test_near_duplicates(spread, k):
    # Squared distances are 1e-10 to 1e-4, and products in float32 have errors of 1e-7.
    rng = np.random.default_rng(0)
    middle = rng.normal(size=300)
    train = middle + spread * rng.normal(size=(200, 300))
    test = middle + spread * rng.normal(size=(20, 300))

    def rounded(features):
        return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32).astype(np.float64)

    z, bank = rounded(test), rounded(train)
    expected = -np.sort([[np.linalg.norm(q - b) for b in bank] for q in z], axis=1)[:, k - 1]
    np.testing.assert_allclose(knn(train, test, n_neighbors=k), expected, rtol=1e-9)


@pytest.mark.parametrize("k", [1, 5, 35, 40])
def test_near_duplicates_among_others(k):
    # Float32 cannot order the first 40, but separates them from the others.
    rng = np.random.default_rng(0)
    others = rng.normal(size=(60, 300))
    near = others[0] + 1e-4 * rng.normal(size=(40, 300))
    train, test = np.vstack([near, others[1:]]), others[:1] + 1e-4 * rng.normal(size=(20, 300))
    np.testing.assert_allclose(knn(train, test, n_neighbors=k), knn_oracle(train, test, k), rtol=1e-3)


@pytest.mark.parametrize("k", [1, 20, 40, 41, 60, 80])
def test_copies_among_the_neighbours(k):
    features = np.repeat(random_arrays(n=5, C=6)["features"], 40, axis=0)
    np.testing.assert_allclose(
        knn(features, features[::40], n_neighbors=k), knn_oracle(features, features[::40], k), rtol=1e-6, atol=1e-7
    )


def test_copies_are_at_distance_zero():
    features = random_arrays(n=60)["features"]
    assert knn(features, features * 2.0, n_neighbors=1).tolist() == [0.0] * 60


def test_one_neighbour_more_leaves_the_image_itself_out():
    features = random_arrays(n=25)["features"]
    left_out = [knn_oracle(np.delete(features, i, axis=0), features[i : i + 1], 3)[0] for i in range(25)]
    np.testing.assert_allclose(knn(features, features, n_neighbors=4), left_out, rtol=1e-6)


@given(seed=st.integers(0, 10**6))
@quick
def test_lengths_and_rotation_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    train, test = rng.normal(size=(30, 6)), rng.normal(size=(5, 6))
    rotation, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    scores = knn(train, test, n_neighbors=5)
    lengths = 10 ** rng.uniform(-5, 5, size=(35, 1))
    np.testing.assert_allclose(knn(train * lengths[:30], test * lengths[30:], n_neighbors=5), scores, atol=1e-6)
    np.testing.assert_allclose(knn(train @ rotation, test @ rotation, n_neighbors=5), scores, atol=1e-6)


@given(seed=st.integers(0, 10**6), k=st.integers(1, 15))
@quick
def test_training_set_twice(seed, k):
    rng = np.random.default_rng(seed)
    train, test = rng.normal(size=(15, 4)), rng.normal(size=(5, 4))
    once, twice = knn(train, test, n_neighbors=k), knn(np.tile(train, (2, 1)), test, n_neighbors=2 * k)
    np.testing.assert_allclose(twice, once, rtol=1e-12)


@given(seed=st.integers(0, 10**6))
@quick
def test_falls_with_the_number_of_neighbours(seed):
    rng = np.random.default_rng(seed)
    train, test = rng.normal(size=(30, 4)), rng.normal(size=(5, 4))
    scores = np.array([knn(train, test, n_neighbors=k) for k in (1, 9, 10, 30)])
    assert (np.diff(scores, axis=0) <= 0).all()
    assert (scores >= -2).all()
    assert (scores <= 0).all()


def test_higher_nearer_to_training_features():
    train = np.random.default_rng(0).normal(size=(100, 3)) * 0.1 + [1, 0, 0]
    away = np.array([[1.0, angle, 0] for angle in (0, 0.5, 1, 2)])
    assert (np.diff(knn(train, away, n_neighbors=10)) < 0).all()


def test_bank():
    representation = random_representation(n=200)
    scorer = KNN(n_neighbors=5, bank_size=40).fit(representation)
    assert scorer.bank_.shape == (40, 8)
    assert scorer.bank_.dtype == np.float32
    unit = representation.features / representation.features.norm(dim=1, keepdim=True)
    own = {row.tobytes() for row in unit.numpy().astype(np.float32)}
    assert {row.tobytes() for row in scorer.bank_} <= own
    np.testing.assert_allclose(
        scorer.score_samples(representation[:20]), knn_oracle(scorer.bank_, representation.features[:20], 5), rtol=1e-6
    )
    again = KNN(n_neighbors=5, bank_size=0.2).fit(representation)
    assert np.array_equal(again.bank_, scorer.bank_)
    other = KNN(n_neighbors=5, bank_size=40, random_state=1).fit(representation)
    assert not np.array_equal(other.bank_, scorer.bank_)
    assert KNN().fit(representation).bank_.shape == (200, 8)


def test_small_bank_of_a_memory_map_reads_little(tmp_path, monkeypatch):
    array = np.lib.format.open_memmap(tmp_path / "features.npy", mode="w+", dtype=np.float16, shape=(5000, 4))
    array[:] = np.random.default_rng(0).normal(size=(5000, 4))
    array.flush()
    features = np.load(tmp_path / "features.npy", mmap_mode="r")
    representation = Representation.from_numpy(features=features, weight=np.eye(2, 4), bias=np.zeros(2))
    read = []
    original = Representation.__getitem__

    def counted(self, index):
        read.append(len(original(self, index)))
        return original(self, index)

    monkeypatch.setattr(Representation, "__getitem__", counted)
    KNN(n_neighbors=3, bank_size=100).fit(representation)
    assert sum(read) == 100


@pytest.mark.parametrize(("n", "parameters", "size"), [
    (30, {}, 30), (30, {"n_neighbors": 31}, 30), (60, {"n_neighbors": 7, "bank_size": 0.1}, 6),
    (60, {"n_neighbors": 7, "bank_size": 6}, 6), (1, {"n_neighbors": 2}, 1),
])  # fmt: skip
def test_too_few_images(n, parameters, size):
    k = parameters.get("n_neighbors", 50)
    message = rf"^n_neighbors={k} is more than the {size} image\(s\) of the bank: expected n_neighbors <= {size}; lower"
    with pytest.raises(ValueError, match=message):
        KNN(**parameters).fit(random_representation(n=n))


@pytest.mark.parametrize(("bank_size", "n", "size"), [(49, 1000, 49), (0.1, 494, 49), (None, 49, 49), (0.01, 30, 1)])
def test_check_sizes(bank_size, n, size):
    with pytest.raises(ValueError, match=f"n_neighbors=50 is more than the {size} image"):
        KNN(bank_size=bank_size).check_sizes(8, 4, n)
    KNN(n_neighbors=size, bank_size=bank_size).check_sizes(8, 4, n)


@pytest.mark.parametrize("representation", [
    random_representation(n=1), random_representation(C=1), random_representation(K=1), of_features(np.ones((5, 3))),
    of_features(np.zeros((5, 3))), random_representation(n=3, C=40),
    of_features(np.full((4, 2), 6e4, dtype=np.float16)),
])  # fmt: skip
def test_unusual_data(representation):
    scores = fit_and_score(KNN(n_neighbors=1), representation)
    assert np.array_equal(scores, np.zeros(len(representation)))


def test_features_of_zeros_are_at_distance_one():
    train = np.eye(3)
    np.testing.assert_allclose(knn(train, np.zeros((1, 3)), n_neighbors=2), [-1.0])
    np.testing.assert_allclose(knn(np.zeros((2, 3)), train, n_neighbors=2), [-1.0] * 3)


def test_opposite_features():
    np.testing.assert_allclose(knn([[1.0, 0.0]], [[-3.0, 0.0]], n_neighbors=1), [-2.0])


def test_nan():
    representation = random_representation()
    scorer = KNN(n_neighbors=3).fit(representation)
    representation.features[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"representation\.features.* NaN"):
        KNN(n_neighbors=3).fit(representation)
    with pytest.raises(ValueError, match="gives 1 scores that are NaN or infinite, first in row 2"):
        scorer.score_samples(representation)


@pytest.mark.parametrize("parameters", [
    {"n_neighbors": 0}, {"n_neighbors": 2.0}, {"bank_size": 0}, {"bank_size": 1.5}, {"bank_size": 0.0},
    {"bank_size": "all"}, {"random_state": "x"},
])  # fmt: skip
def test_parameters_are_checked(parameters):
    with pytest.raises(ValueError, match=next(iter(parameters))):
        KNN(**parameters).fit(random_representation(n=60))
