import numpy as np
import pytest
import torch

from skdfb.scorers import KNN, ReAct, ViM
from skdfb.scorers._moments import feature_mean, gram, labelled_batches, second_moment
from tests.scorers.helpers import fit, random_representation


@pytest.mark.parametrize("C", [1, 5, 128, 129, 300, 1100])
def test_gram_of_any_width(C):
    rows = np.random.default_rng(C).normal(size=(20, C))
    found = gram(torch.from_numpy(rows))
    np.testing.assert_allclose(found, rows.T @ rows, rtol=0, atol=1e-12)
    assert torch.equal(found, found.T)


@pytest.mark.parametrize("n", [1, 30, 9000])  # 9000 images are more than a batch
def test_second_moment(n):
    representation = random_representation(n=n, C=3)
    origin, labels = torch.randn(2, 3, dtype=torch.float64), np.arange(n) % 2
    expected = np.zeros((3, 3))
    for h, label in zip(representation.features.numpy(), labels, strict=True):
        difference = h - origin[label].numpy()
        expected += np.outer(difference, difference) / n
    np.testing.assert_allclose(second_moment(representation, origin, labels), expected, rtol=1e-10)


def test_statistics_of_mapped_rows():
    representation = random_representation(n=5000, C=3)
    mean = feature_mean(representation, wider)
    rows = np.tile(np.sin(representation.features.numpy()), 2)
    np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-10)
    moment = second_moment(representation, mean, rows_of=wider)
    np.testing.assert_allclose(moment, np.cov(rows.T, bias=True), rtol=1e-9)


def wider(features):
    return features.double().sin().repeat(1, 2)


def test_batches_fit_the_width_of_the_rows():
    representation = random_representation(n=3000, C=3)
    assert [len(batch) for batch, _ in labelled_batches(representation)] == [3000]
    assert max(len(batch) for batch, _ in labelled_batches(representation, width=2048)) == 512


@pytest.mark.parametrize("scorer", [KNN(n_neighbors=3), ReAct(), ViM()], ids=repr)
def test_precision_setting_of_torch_does_not_matter(scorer):
    representation = random_representation(n=300, C=64, dtype=np.float32)
    scores = fit(scorer, representation).score_samples(representation)
    torch.set_float32_matmul_precision("medium")
    try:
        np.testing.assert_allclose(scorer.score_samples(representation), scores, rtol=1e-5)
    finally:
        torch.set_float32_matmul_precision("highest")
