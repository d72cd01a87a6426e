"""The detector that trains no network: head, scorers and threshold on frozen features."""

import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

import skdfb
from skdfb import FeatureDetector, FrozenDetector
from skdfb.evaluation import evaluate
from skdfb.networks import DenseClassifier, create_backbone
from skdfb.scorers import KNN, MSP, ODIN, Energy, Mahalanobis, ReAct, RelativeMahalanobis
from skdfb.utils import shallow_copy
from tests.detector.conftest import CLASSES, make_images, tiny_backbone


def make_frozen(**changes):
    return FrozenDetector(**{"backbone": tiny_backbone(torch.float64), "device": "cpu", "random_state": 0} | changes)


@pytest.fixture(scope="module")
def frozen(X, y):
    """Tests must not change it."""
    return make_frozen().fit(X, y)


def features_of(detector, X):
    """The mean of the feature map of normalised images, from the backbone alone."""
    network = detector.classifier_
    preprocessor = network.preprocessor
    pixels = torch.from_numpy(X.copy()).permute(0, 3, 1, 2).double() / 255
    mean, std = (torch.tensor(values).double()[:, None, None] for values in (preprocessor.mean, preprocessor.std))
    with torch.no_grad():
        return network.feature_map.backbone((pixels - mean) / std).mean((2, 3)).numpy()


def test_scores_are_those_of_the_scorer_on_the_features_of_the_backbone(frozen, X, y, X_new):
    """The oracle: the detector of features, given the same held-out images."""
    train, held_out = frozen._split_
    scorer = RelativeMahalanobis(shrinkage="auto", normalize=True)
    expected = FeatureDetector(scorer, random_state=0).fit(
        features_of(frozen, X[train]), y[train], X_calibration=features_of(frozen, X[held_out])
    )
    assert_allclose(frozen.score_samples(X_new), expected.score_samples(features_of(frozen, X_new)), atol=1e-5)
    assert_allclose(frozen.offset_, expected.offset_, rtol=1e-5)
    assert_array_equal(frozen.predict(X_new), expected.predict(features_of(frozen, X_new)))


def test_classes_are_those_of_a_logistic_regression(frozen, X, y, X_new):
    train = frozen._split_.train
    features = features_of(frozen, X)
    scale = np.sqrt(features[train].var(axis=0).mean())
    scaled = (features - features[train].mean(axis=0)) / scale
    expected = LogisticRegression(max_iter=1000).fit(scaled[train], y[train])
    assert_allclose(frozen.predict_proba(X), expected.predict_proba(scaled), atol=1e-4)
    assert frozen.score(X, y) == pytest.approx(expected.score(scaled, y))
    assert frozen.classify(X_new).shape == (len(X_new),)


@pytest.mark.parametrize(
    ("names", "other"),
    [
        (["ant", "unknown", "bee"], "'none'"),
        (["none", "unknown", "bee"], "'none of these'"),
        ([0, -1, 7], "-2"),
        ([-3.0, -1.0, 7.0], "-4.0"),
    ],
)
def test_a_class_with_the_name_of_unknown_images(X, y, X_new, names, other):
    default = "'unknown'" if isinstance(names[0], str) else "-1"
    with pytest.warns(UserWarning, match=f"{default} is a class.* predict_open_set .*unknown_label={other}") as caught:
        fitted = make_frozen().fit(X, np.array(names)[y])
    assert caught[0].filename == __file__
    with pytest.raises(ValueError, match=f"unknown_label is None.* {default}, but .* unknown_label={other}"):
        fitted.predict_open_set(X_new)
    assert fitted.predict_open_set(X_new, unknown_label="?").shape == (len(X_new),)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"on_error": "nann"}, "a str among {.*'nan'.*}. Got 'nann'"),
        ({"batch_size": 0}, "an int in the range .*. Got 0"),
        ({"n_jobs": 0}, "an int in the range .*. Got 0"),
        ({"verbose": "loud"}, "Got 'loud'"),
    ],
)
def test_parameters_that_act_at_once_are_checked_when_they_act(frozen, X_new, changes, expected):
    changed = shallow_copy(frozen, fitted_state=True).set_params(**changes)
    message = f"'{next(iter(changes))}' parameter of FrozenDetector must be .*{expected}"
    for method in ("predict", "explain", "classify", "transform", "represent"):
        with pytest.raises(ValueError, match=message):
            getattr(changed, method)(X_new)


def test_the_only_part_has_the_name_of_its_view(frozen, X_new):
    """Nothing separates the foreground."""
    assert list(frozen.score_parts(X_new)) == ["classifier"]
    assert list(frozen.explain(X_new).part_p_values) == ["classifier"]


@pytest.mark.parametrize("alpha", [2, "0.1", 0])
def test_with_alpha_names_the_detector(frozen, alpha):
    with pytest.raises(ValueError, match=f"'alpha' parameter of FrozenDetector must be .* Got {alpha!r} instead"):
        frozen.with_alpha(alpha)


def test_the_network_stays_as_it_was(X, y):
    backbone = tiny_backbone()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    fitted = make_frozen(backbone=backbone).fit(X, y)
    for weights in (backbone.state_dict(), fitted.classifier_.feature_map.backbone.state_dict()):
        assert all(torch.equal(value, before[name]) for name, value in weights.items())


def test_the_network_runs_once_per_image(X, y):
    fitted = make_frozen(backbone=CountingBackbone()).fit(X, y)
    # A few trial images tell layout and width of the feature map.
    assert 0 <= fitted.classifier_.feature_map.backbone.n_images - len(X) <= 4


class CountingBackbone(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.n_images = tiny_backbone(), 0

    def forward(self, images):
        self.n_images += len(images)
        return self.inner(images)


@pytest.mark.parametrize("scorer", [MSP(), KNN(n_neighbors=3), ODIN(input_perturbation=0.01), ReAct()], ids=repr)
def test_any_scorer(X, y, X_new, scorer):
    fitted = make_frozen(scorer=scorer).fit(X, y)
    scores = fitted.score_samples(X_new)
    assert np.isfinite(scores).all()
    assert len(set(scores.tolist())) > 1
    # In batches of other sizes too.
    assert_allclose(fitted.set_params(batch_size=5).score_samples(X_new), scores, rtol=1e-6)


def test_several_parts_on_layers(X, y, X_new):
    parts = [
        ("foreground", "classifier", Energy()),
        ("early", "classifier.first", Mahalanobis(shrinkage="auto")),
        ("logits", "classifier.second", MSP()),
    ]
    fitted = make_frozen(scorer=parts, calibration_fraction=0.5, alpha=0.2).fit(X, y)
    assert list(fitted.score_parts(X_new)) == ["foreground", "early", "logits"]
    assert set(fitted.heads_) == {"classifier.first", "classifier.second"}
    assert fitted.get_params()["early__shrinkage"] == "auto"


def test_layers_alone(X, y, X_new):
    """The head is fitted all the same."""
    fitted = make_frozen(scorer=[("early", "classifier.first", KNN(n_neighbors=2))]).fit(X, y)
    assert fitted.score(X, y) > 0.9
    assert np.isfinite(fitted.score_samples(X_new)).all()


@pytest.mark.parametrize("view", ["dense", "background", "pretrained", "dense.first"])
def test_views_of_networks_that_it_does_not_have(X, y, view):
    name = "background" if view == "background" else "part"
    with pytest.raises(ValueError, match="trains no dense network: expected 'classifier'"):
        make_frozen(scorer=[(name, view, Energy())]).fit(X, y)


def test_trained_classifier_keeps_its_head(frozen, X, y, X_new):
    """Nothing is fitted but scorer and threshold: a detector for a classifier that exists already."""
    fitted = make_frozen(backbone=frozen.classifier_, scorer=Energy()).fit(X, y)
    assert torch.equal(fitted.classifier_.head.weight, frozen.classifier_.head.weight)
    assert_array_equal(fitted.classify(X_new), frozen.classify(X_new))


def test_trained_classifier_in_another_order_is_refused(frozen, X, y):
    network = DenseClassifier(tiny_backbone(torch.float64), CLASSES, image_size=16)
    with torch.no_grad():
        network.head.weight.copy_(frozen.classifier_.head.weight.flip(0))
        network.head.bias.copy_(frozen.classifier_.head.bias.flip(0))
    with pytest.raises(ValueError, match="in another order"):
        make_frozen(backbone=network).fit(X, y)


def test_without_labels_clusters_are_the_classes(X, X_new):
    fitted = make_frozen().fit(X)
    assert len(fitted.classes_) >= 2
    assert set(fitted.classify(X_new)) <= set(fitted.classes_)


def test_groups(X, y, X_new):
    groups = np.arange(len(X)) // 2
    fitted = make_frozen(alpha=0.1).fit(X, y, groups=groups)
    train, held_out = fitted._split_
    assert not set(groups[train]) & set(groups[held_out])


def test_own_images_for_the_threshold(X, y, X_new):
    own, _ = make_images(30, seed=5)
    fitted = make_frozen().fit(X, y, X_calibration=own)
    assert len(fitted._split_.train) == len(X)
    # The threshold lies a little below one of the scores, for the sake of rounding.
    assert np.isclose(fitted.score_samples(own), fitted.offset_, rtol=1e-4).any()


@pytest.mark.parametrize("store", ["file", "pickle"])
def test_stored_detector_is_the_same(X, y, X_new, store, tmp_path):
    backbone = create_backbone("test_resnet", pretrained=False, random_state=0)
    fitted = FrozenDetector(backbone, image_size=128, device="cpu", random_state=0).fit(X, y)
    if store == "file":
        fitted.save(tmp_path / "frozen.safetensors")
        loaded = skdfb.load(tmp_path / "frozen.safetensors")
    else:
        loaded = pickle.loads(pickle.dumps(fitted))
    assert isinstance(loaded, FrozenDetector)
    assert_allclose(loaded.score_samples(X_new), fitted.score_samples(X_new), rtol=1e-5)
    assert_array_equal(loaded.predict_open_set(X_new), fitted.predict_open_set(X_new))
    assert loaded.with_alpha(0.2).offset_ >= loaded.offset_


def test_evaluate(frozen, X_new):
    _, y_new = make_images(24, seed=1)
    noise = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    table = evaluate(frozen, X_new, {"noise": noise}, y_new, n_bootstrap=0)
    assert table.auroc[0] > 0.9
    assert table.accuracy[0] > 0.9


def test_failed_fit_leaves_a_fitted_detector(X, y, X_new):
    fitted = make_frozen().fit(X, y)
    before = fitted.score_samples(X_new)
    with pytest.raises(ValueError, match=r"alpha=0\.001"):
        fitted.set_params(alpha=0.001).fit(X, y)
    assert_array_equal(fitted.score_samples(X_new), before)


def test_no_background(frozen):
    for name in ("segment", "score_background", "refit_scorer", "dense_network_"):
        assert not hasattr(frozen, name)


def test_clone_and_repr():
    detector = FrozenDetector(scorer=KNN(n_neighbors=3))
    assert repr(clone(detector)) == "FrozenDetector(scorer=KNN(n_neighbors=3))"
