"""Embeddings are those of scikit-learn, and each image is one point."""

import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA

from skdfb.displays import FeatureEmbeddingDisplay
from tests.displays.stubs import Detector, images, legend_of

RNG = np.random.default_rng(0)
ID, OOD, Y = (
    RNG.normal(size=(30, 5)),
    {"noise": RNG.normal(size=(12, 5)), "far": RNG.normal(3, 1, (7, 5))},
    [1, 2, 3] * 10,
)


def test_pca():
    display = FeatureEmbeddingDisplay.from_predictions(ID, OOD, Y, method="pca", random_state=0)
    expected = PCA(2, random_state=0).fit_transform(np.concatenate([ID, *OOD.values()]))
    np.testing.assert_allclose(np.abs(display.id_embedding), np.abs(expected[:30]))
    np.testing.assert_allclose(np.abs(display.ood_embeddings["far"]), np.abs(expected[42:]))
    drawn = [np.asarray(points.get_offsets()) for points in display.ax_.collections]
    assert [len(points) for points in drawn] == [10, 10, 10, 12, 7]
    np.testing.assert_array_equal(drawn[1], display.id_embedding[1::3])
    np.testing.assert_array_equal(drawn[3], display.ood_embeddings["noise"])
    assert legend_of(display.ax_) == ["1", "2", "3", "noise", "far"]


def test_tsne_is_determined_by_random_state():
    first, second = (
        FeatureEmbeddingDisplay.from_predictions(ID, OOD, max_samples=10, random_state=3) for _ in range(2)
    )
    np.testing.assert_array_equal(first.id_embedding, second.id_embedding)
    assert first.id_embedding.shape == (10, 2)
    assert {name: len(places) for name, places in first.ood_embeddings.items()} == {"noise": 10, "far": 7}
    assert legend_of(first.ax_) == ["in-distribution", "noise", "far"]


def test_labels_follow_the_drawn_images():
    features = np.repeat([[0.0, 0], [9, 0], [0, 9]], 10, axis=0)
    display = FeatureEmbeddingDisplay.from_predictions(
        features,
        {"noise": np.ones((3, 2))},
        np.repeat(["a", "b", "c"], 10),
        method="pca",
        max_samples=8,
        random_state=0,
    )
    assert len(display.y_id) == 8
    for label in set(display.y_id):
        assert np.ptp(display.id_embedding[display.y_id == label], axis=0).max() < 1e-9


def test_many_classes_share_a_colour():
    features = RNG.normal(size=(200, 4))
    display = FeatureEmbeddingDisplay.from_predictions(
        features, {"noise": features[:9]}, np.arange(200) % 100, method="pca"
    )
    assert legend_of(display.ax_) == ["in-distribution (100 classes)", "noise"]


def test_unreadable_images_are_left_out():
    features = ID.copy()
    features[4] = np.nan
    display = FeatureEmbeddingDisplay.from_predictions(features, OOD, Y, method="pca")
    assert len(display.id_embedding) == len(display.y_id) == 29


@pytest.mark.parametrize(("n", "n_features"), [(1, 4), (2, 1), (5, 1)])
@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_few_images_and_features(n, n_features, method):
    features = RNG.normal(size=(n, n_features))
    display = FeatureEmbeddingDisplay.from_predictions(features, {"noise": features + 1}, method=method, random_state=0)
    assert display.id_embedding.shape == (n, 2)


def test_from_estimator():
    display = FeatureEmbeddingDisplay.from_estimator(
        Detector(), images(9), {"noise": images(4)}, ["ant", "bee", "cat"] * 3, method="pca"
    )
    assert display.id_embedding.shape == (9, 2)
    assert display.y_id.tolist() == ["ant", "bee", "cat"] * 3


def test_labels_of_a_folder(tmp_path):
    for label in ("ant", "bee"):
        (tmp_path / label).mkdir()
        for index in range(3):
            Image.fromarray(np.full((4, 4, 3), index, np.uint8)).save(tmp_path / label / f"{index}.png")

    class Features:
        def transform(self, X):
            return ID[:6]

    display = FeatureEmbeddingDisplay.from_estimator(Features(), tmp_path, OOD | {"noise": tmp_path}, method="pca")
    assert display.y_id.tolist() == ["ant"] * 3 + ["bee"] * 3


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((ID, OOD), {"method": "umap"}, ValueError, "method='umap': expected 'tsne' or 'pca'"),
        ((ID, OOD), {"max_samples": 1}, ValueError, "max_samples == 1, must be >= 2"),
        ((ID, OOD["far"]), {}, TypeError, "ood_features is a ndarray: expected a mapping"),
        (
            (ID, {"noise": ID[:, :2]}),
            {},
            ValueError,
            r"ood_features\['noise'\] has shape \(30, 2\): expected .*\(n, 5\)",
        ),
        ((ID[0], OOD), {}, ValueError, r"id_features has shape \(5,\): expected features of shape \(n, C\)"),
        ((ID, OOD, Y[:3]), {}, ValueError, "y_id has 3 labels for 30 images"),
        ((ID * np.nan, OOD), {}, ValueError, "id_features has only rows with NaN"),
    ],
)
def test_bad_features_are_refused(arguments, options, error, message):
    with pytest.raises(error, match=message):
        FeatureEmbeddingDisplay.from_predictions(*arguments, **options)
