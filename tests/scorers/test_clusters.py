import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skdfb.scorers import Representation
from skdfb.scorers._clusters import _first_centres, _moved, best_class, cluster_classes, k_means
from tests.scorers.helpers import quick


def groups_of(seed, n_groups, C, size=15, spread=0.1):
    """Points around well-separated centres, as a tensor, and the group of each."""
    rng = np.random.default_rng(seed)
    middles = 10 * rng.permutation(np.eye(C))[:n_groups] + rng.normal(size=(n_groups, C))
    group = rng.permutation(np.repeat(np.arange(n_groups), size))
    return torch.from_numpy(middles[group] + spread * rng.normal(size=(len(group), C))), group


def same_partition(a, b):
    pairs = set(zip(np.asarray(a).tolist(), np.asarray(b).tolist(), strict=True))
    return len(pairs) == len(set(np.asarray(a).tolist())) == len(set(np.asarray(b).tolist()))


def members_of(rows, centres):
    return np.argmin([[np.linalg.norm(row - centre) for centre in centres.numpy()] for row in rows.numpy()], axis=1)


@pytest.mark.parametrize("spherical", [False, True])
@given(seed=st.integers(0, 10**6), n_groups=st.integers(1, 6), offset=st.sampled_from([0.0, 1e6]))
@quick
def test_true_groups_are_found(spherical, seed, n_groups, offset):
    rows, group = groups_of(seed, n_groups, 6)
    if spherical:
        rows = rows / rows.norm(dim=1, keepdim=True)
    else:
        rows = rows + offset
    centres = k_means(rows, n_groups, np.random.RandomState(seed), spherical=spherical)
    assert centres.shape == (n_groups, 6)
    members = members_of(rows, centres)
    assert same_partition(members, group)
    for j, centre in enumerate(centres.numpy()):
        mean = rows.numpy()[members == j].mean(axis=0)
        np.testing.assert_allclose(centre, mean / np.linalg.norm(mean) if spherical else mean, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("spherical", [False, True])
@given(seed=st.integers(0, 10**6), n=st.integers(1, 30), n_clusters=st.integers(1, 6))
@quick
def test_order_of_rows_does_not_matter(spherical, seed, n, n_clusters):
    rng = np.random.default_rng(seed)
    rows = torch.from_numpy(rng.normal(size=(n, 4)))
    if spherical:
        rows = rows / rows.norm(dim=1, keepdim=True)
    one, other = (
        k_means(some, n_clusters, np.random.RandomState(0), spherical=spherical).numpy()
        for some in (rows, rows[rng.permutation(n)])
    )
    np.testing.assert_allclose(other, one, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("spherical", [False, True])
def test_no_row_is_nearer_to_another_centre(spherical):
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(100, 3)))
    rows = rows / rows.norm(dim=1, keepdim=True)
    centres = k_means(rows, 5, np.random.RandomState(0), spherical=spherical).numpy()
    members = members_of(rows, torch.from_numpy(centres))
    for j, centre in enumerate(centres):
        mean = rows.numpy()[members == j].mean(axis=0)
        np.testing.assert_allclose(centre, mean / np.linalg.norm(mean) if spherical else mean, atol=1e-12)
    assert (np.linalg.norm(centres, axis=1) < 1 - 1e-6).all() != spherical


def test_as_good_as_scikit_learn():
    # The sum of squared distances is at most that of scikit-learn with three starts.
    cluster = pytest.importorskip("sklearn.cluster")
    rows, _ = groups_of(3, 6, 8, spread=2.0)
    centres = k_means(rows, 6, np.random.RandomState(0)).numpy()
    inertia = sum(min(np.square(row - centre).sum() for centre in centres) for row in rows.numpy())
    peer = cluster.KMeans(6, n_init=3, random_state=0).fit(rows.numpy())
    assert inertia <= peer.inertia_ * 1.001


def test_starts_are_distinct_rows():
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(12, 3)) + 5)
    for start in _first_centres(rows, 12, np.random.RandomState(0)):
        assert len({tuple(centre) for centre in start.tolist()}) == 12


def test_starts_prefer_far_rows_by_squared_distance():
    rows = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64)
    counts = np.zeros((3, 3))
    for seed in range(500):
        for first, second in _first_centres(rows, 2, np.random.RandomState(seed))[:, :, 0].tolist():
            counts[[0, 1, 3].index(first), [0, 1, 3].index(second)] += 1
    shares = counts / counts.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(shares, [[0, 0.1, 0.9], [0.2, 0, 0.8], [9 / 13, 4 / 13, 0]], atol=0.03)
    np.testing.assert_allclose(counts.sum(axis=1) / counts.sum(), 1 / 3, atol=0.03)


@pytest.mark.parametrize("spherical", [False, True])
def test_empty_clusters_keep_their_centres(spherical):
    rows, members = torch.eye(2, dtype=torch.float64), torch.tensor([[0], [0]])
    centres = torch.tensor([[[1.0, 0], [0.6, 0.8]]], dtype=torch.float64)
    moved = _moved(rows, members, centres, spherical)
    length = 0.5**0.5 if spherical else 0.5
    np.testing.assert_allclose(moved, [[[length, length], [0.6, 0.8]]])


@pytest.mark.parametrize("spherical", [False, True])
def test_fewer_different_rows_than_clusters(spherical):
    rows = torch.eye(2, dtype=torch.float64).repeat(5, 1)
    assert len(k_means(rows, 4, np.random.RandomState(0), spherical=spherical)) == 2
    same = torch.full((5, 3), 0.5, dtype=torch.float64)
    assert len(k_means(same, 4, np.random.RandomState(0), spherical=spherical)) == 1


def test_directions_that_cancel():
    rows = torch.tensor([[1.0, 0], [-1, 0]], dtype=torch.float64)
    assert k_means(rows, 1, np.random.RandomState(0), spherical=True).tolist() == [[0, 0]]


def clustered(features, labels, K, **options):
    representation = Representation.from_numpy(
        features=features, weight=np.zeros((K, features.shape[1])), bias=[0.0] * K
    )
    options = {"samples_per_class": None, "random_state": 0, **options}
    return cluster_classes(representation, labels, lambda h: h, lambda n: min(3, n), **options)


@pytest.mark.parametrize("samples_per_class", [None, 1000, 45, 20])
def test_clusters_of_classes(samples_per_class):
    features, group = groups_of(0, 6, 6)
    labels = np.where(group < 3, 0, 2)  # class 1 is empty
    clusters, classes = clustered(features.numpy(), labels, 3, samples_per_class=samples_per_class)
    assert classes.tolist() == [0, 0, 0, 2, 2, 2]
    assert same_partition(clusters, group)
    assert np.array_equal(classes[clusters], labels)


def test_samples_per_class_limits_the_rows_of_k_means(monkeypatch):
    numbers = []
    features = np.random.default_rng(0).normal(size=(200, 3))
    monkeypatch.setattr(
        "skdfb.scorers._clusters.k_means", lambda rows, *_, **__: numbers.append(len(rows)) or rows[:2].clone()
    )
    clusters, _ = clustered(features, np.repeat([0, 1], [150, 50]), 2, samples_per_class=60)
    assert numbers == [60, 50]
    assert set(clusters) == {0, 1, 2, 3}


def test_sample_depends_on_the_seed():
    features, labels = np.random.default_rng(0).normal(size=(200, 3)), np.zeros(200, dtype=int)
    runs = [clustered(features, labels, 1, samples_per_class=20, random_state=seed)[0] for seed in (0, 0, 1)]
    assert np.array_equal(runs[0], runs[1])
    assert not same_partition(runs[0], runs[2])


@given(seed=st.integers(0, 10**6), scale=st.sampled_from([1.0, 100.0, 1e6]))
@quick
def test_best_class(seed, scale):
    rng = np.random.default_rng(seed)
    terms, classes = scale * rng.normal(size=(5, 7)), np.array([0, 0, 0, 2, 2, 5, 5])
    expected = [max(np.logaddexp.reduce(row[classes == k]) for k in (0, 2, 5)) for row in terms]
    np.testing.assert_allclose(best_class(torch.from_numpy(terms), classes), expected, rtol=1e-12)
