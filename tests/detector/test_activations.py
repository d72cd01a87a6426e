"""What scorers need beyond features and logits: the detector supplies it, one batch at a time."""

import dataclasses

import numpy as np
import pytest
import torch

from skdfb.detector._views import StreamedRepresentation, ViewRequest
from skdfb.evaluation import compare_scorers
from skdfb.fusion import TailProbabilityFusion
from skdfb.images import BatchSize, check_images
from skdfb.scorers import KNN, ODIN, Energy, RankFeat, ReAct, ViM
from skdfb.scorers._needs import needs_of
from tests.detector.conftest import make_detector


class Recorder:
    """Scores by the largest activations, and notes what it was given."""

    def __init__(self, needs_activations=("feature_map", "layers"), learns_from_held_out=False):
        self.needs_activations = needs_activations
        self.learns_from_held_out = learns_from_held_out

    def fit(self, representation, y, **held_out):
        self.fitted_on = representation
        self.labels = y
        self.held_out = held_out.get("held_out")
        self.batches = list(representation.batches())
        return self

    def score_samples(self, representation):
        return np.concatenate([self.score(batch) for batch in representation.batches()])

    def score(self, batch):
        maxima = [tensor.flatten(1).amax(1) for tensor in (batch.activations or {}).values()]
        return sum(maxima, start=batch.logits[:, 0]).numpy()


def all_hooks(network):
    return [hook for module in network.modules() for hook in module._forward_hooks.values()]


@pytest.fixture(scope="module")
def recorded(fitted, X, y):
    return fitted.refit_scorer(Recorder(), X, y)


def test_activations_of_training_images_come_batch_by_batch(recorded, X):
    scorer, network = recorded.scorer_, recorded.dense_network_
    assert isinstance(scorer.fitted_on, StreamedRepresentation)
    assert scorer.fitted_on.activations is None
    assert len(scorer.labels) == len(scorer.fitted_on) == sum(map(len, scorer.batches))
    assert max(map(len, scorer.batches)) <= recorded.batch_size
    whole = torch.cat([batch.features for batch in scorer.batches])
    torch.testing.assert_close(whole, scorer.fitted_on.features)
    for batch in scorer.batches:
        feature_map = batch.activations["feature_map"]
        assert feature_map.shape == (len(batch), network.num_features, *network.map_size)
        torch.testing.assert_close(feature_map.mean((2, 3)), batch.features)
        layers = {name: tensor for name, tensor in batch.activations.items() if name != "feature_map"}
        names = [name for name, _ in network.feature_map.backbone.named_children()]
        assert layers
        assert set(layers) <= set(names)
        assert all(tensor.shape[0] == len(batch) and tensor.ndim == 2 for tensor in layers.values())
        # The map is the last layer behind a ReLU, which keeps maxima.
        torch.testing.assert_close(layers[names[-1]].relu(), feature_map.amax((2, 3)))
    assert all_hooks(network) == []


def test_scores_do_not_depend_on_the_batches(recorded, X_new):
    parts = recorded.score_parts(X_new)
    one_by_one = np.concatenate([recorded.score_foreground(X_new[i : i + 1]) for i in range(len(X_new))])
    np.testing.assert_allclose(one_by_one, parts["foreground"], rtol=1e-5)
    request = ViewRequest("dense", needs_of(recorded.scorer_))
    images = check_images(recorded, X_new, reset=False)
    whole = recorded._views(BatchSize(7)).collect(images, {"dense": request})["dense"]
    np.testing.assert_allclose(recorded.scorer_.score_samples(whole), parts["foreground"], rtol=1e-5)
    some = whole[3:9]
    np.testing.assert_allclose(recorded.scorer_.score_samples(some), parts["foreground"][3:9], rtol=1e-5)


def test_only_what_is_asked_for_is_supplied(fitted, X, y):
    maps = fitted.refit_scorer(Recorder(("feature_map",)), X, y).scorer_
    assert all(list(batch.activations) == ["feature_map"] for batch in maps.batches)
    layers = fitted.refit_scorer(Recorder(("layers",)), X, y).scorer_
    assert all("feature_map" not in batch.activations for batch in layers.batches)
    nothing = fitted.refit_scorer(Recorder(())).scorer_
    assert type(nothing.fitted_on) is not StreamedRepresentation
    assert nothing.fitted_on.activations is None


def test_scorers_that_learn_nothing_spare_the_training_images(fitted, X, y, X_new):
    class Idle(Recorder):
        learns_from_images = False

    idle, recorded = (fitted.refit_scorer(scorer, X, y) for scorer in (Idle(), Recorder()))
    assert all(batch.activations is None for batch in idle.scorer_.batches)
    assert len(idle.scorer_.fitted_on) == len(recorded.scorer_.fitted_on)
    # Scoring, and the held-out images that set the threshold, have what is asked for.
    np.testing.assert_allclose(idle.score_samples(X_new), recorded.score_samples(X_new), rtol=1e-5)
    assert idle.offset_ == pytest.approx(recorded.offset_)


def test_which_scorers_learn_of_images():
    scorers = (Energy(), ODIN(), RankFeat(), ViM(), ReAct())
    learning = {type(scorer).__name__: scorer.learns_from_images for scorer in scorers}
    assert learning == {"Energy": False, "ODIN": False, "RankFeat": False, "ViM": True, "ReAct": True}


def test_activations_are_not_kept(recorded, X, y):
    assert recorded._kept_ is None
    with pytest.raises(ValueError, match=r"X is None.*needs perturbed images or activations"):
        recorded.refit_scorer(Energy())


def test_perturbed_images_with_activations(fitted, X, y, X_new):
    class Perturbing(Recorder):
        input_perturbation = 0.05

        def perturbation_objective(self, logits):
            return logits[:, 0]

    detector = fitted.refit_scorer(Perturbing(), X, y)
    batch = detector.scorer_.batches[0]
    assert batch.input_perturbation == 0.05
    torch.testing.assert_close(batch.activations["feature_map"].mean((2, 3)), batch.features)
    plain = fitted.refit_scorer(Recorder(), X, y).scorer_.batches[0]
    # Layers of the perturbed images, not of the images as they were.
    for name in batch.activations:
        assert not torch.allclose(batch.activations[name], plain.activations[name])


def test_fit_with_activations(X, y, X_new, recorded):
    detector = make_detector(scorer=Recorder()).fit(X, y)
    np.testing.assert_allclose(detector.score_samples(X_new), recorded.score_samples(X_new), rtol=1e-5)


@pytest.mark.parametrize("needs", ["feature_map", ("maps",)])
def test_unknown_needs_are_refused_before_training(X, y, needs):
    with pytest.raises(ValueError, match=r"Recorder.needs_activations is .*'feature_map' and 'layers'"):
        make_detector(scorer=Recorder(needs), classifier_trainer=None).fit(X, y)


def test_background_scorers_with_needs_are_refused(X, y):
    with pytest.raises(ValueError, match=r"part 'background' is .*needs activations, but the background view has none"):
        make_detector(background_scorer=Recorder(), classifier_trainer=None).fit(X, y)


def test_the_background_is_one_class(fitted):
    background = fitted.refit_scorer(background_scorer=Recorder(())).part_scorers_["background"]
    assert not background.labels.any()
    assert len(background.labels) == len(background.fitted_on)


def test_held_out_images_for_scorers_that_learn_from_them(fitted, X, y):
    detector = fitted.refit_scorer(Recorder(learns_from_held_out=True), X, y, alpha=0.1)
    representation, labels = detector.scorer_.held_out
    split = detector._split_
    n = len(split.held_out) // 2
    rows = split.held_out[:n]
    np.testing.assert_array_equal(labels, detector._labels_[rows])
    np.testing.assert_allclose(representation.features, detector.transform(X[rows]), rtol=1e-5)
    # They do not set the threshold.
    rest = split.held_out[n:]
    assert len(detector.calibrator_.scores_) == len(rest)
    assert len(fitted.calibrator_.scores_) == len(split.held_out)
    assert fitted.refit_scorer(Recorder(), X, y).scorer_.held_out is None


def test_comparison_with_needs(fitted, X, y, X_new):
    scorers = [Recorder(), Energy()]
    table = compare_scorers(fitted, X[:20], {"new": X_new}, X=X, y=y, scorers=scorers)
    assert len(table["auroc"]) == 6
    assert np.isfinite(table["auroc"]).all()


def test_replace_keeps_the_stream(recorded):
    streamed = recorded.scorer_.fitted_on
    again = dataclasses.replace(streamed)
    assert [len(batch) for batch in again.batches()] == [len(batch) for batch in recorded.scorer_.batches]


def test_scorers_of_one_view_with_different_perturbations_are_refused(X, y):
    parts = [("foreground_odin", "dense", ODIN(input_perturbation=0.1)), ("foreground_knn", "dense", KNN())]
    with pytest.raises(ValueError, match="'foreground_odin' and 'foreground_knn' share the view 'dense', but need"):
        make_detector(scorer=parts, fusion=None, classifier_trainer=None).fit(X, y)


def test_scorers_of_one_view_share_their_activations(fitted, X, y, X_new):
    maps, layers = Recorder(("feature_map",)), Recorder(("layers",))
    parts = [("foreground_maps", "dense", maps), ("foreground_layers", "dense", layers)]
    detector = fitted.refit_scorer(parts, X, y, fusion=TailProbabilityFusion(), alpha=0.2)
    assert set(detector.part_scorers_["foreground_maps"].batches[0].activations) > {"feature_map"}
    alone = fitted.refit_scorer(Recorder(), X, y).score_foreground(X_new)
    np.testing.assert_allclose(detector.score_parts(X_new)["foreground_maps"], alone, rtol=1e-5)
