"""Parts of the score: both networks, several background scorers, pooling, fusions and the paper's recipe."""

import copy

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from sklearn.base import clone

from skdfb import CAMMaskGenerator, DFBDetector, Trainer
from skdfb.detector._input import named_parts
from skdfb.detector._represent import representation_of_map
from skdfb.fusion import TailProbabilityFusion, TemperatureFusion
from skdfb.scorers import (
    KNN,
    MSP,
    ODIN,
    BackgroundLogit,
    Energy,
    Mahalanobis,
    MaxLogit,
    Representation,
    Residual,
    ScorerEnsemble,
)
from skdfb.scoring._hold_out import learning_share
from skdfb.utils import TailProbability
from tests.detector.conftest import CLASSES, SIDE, make_detector, make_images, tiny_backbone
from tests.detector.test_equations import feature_maps, head, normalised

BACKGROUND = [BackgroundLogit(), Mahalanobis()]


def on(view, scorer):
    """The foreground part on another view."""
    return [("foreground", view, scorer)]


def on_both(scorer):
    """A foreground part on each network."""
    return [("foreground_dense", "dense", scorer), ("foreground_classifier", "classifier", scorer)]


def share_of(detector):
    """How many of the held-out images the fusion learned from."""
    return learning_share(len(detector._split_.held_out), detector.calibrator_.number_needed)


@pytest.fixture(scope="module")
def several(fitted):
    """The default recipe's parts, on enough held-out images for alpha=0.2."""
    return fitted.refit_scorer(
        Energy(), background_scorer=BACKGROUND, fusion=TailProbabilityFusion("fisher"), alpha=0.2
    )


@pytest.fixture(scope="module")
def both(fitted, X, y):
    return fitted.refit_scorer(on_both(Energy()), X, y, fusion=TailProbabilityFusion(), alpha=0.2)


# ------------------------------------------------------------------------ names


def test_a_part_each(several, X_new):
    parts = several.score_parts(X_new)
    assert list(parts) == ["foreground", "background_logit", "background_mahalanobis"]
    assert list(several.part_scorers_) == list(parts)
    assert [type(scorer) for scorer in several.part_scorers_.values()] == [Energy, BackgroundLogit, Mahalanobis]
    assert_array_equal(several.score_samples(X_new), several.fusion_.combine(parts))
    assert_array_equal(several.score_foreground(X_new), parts["foreground"])


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (Mahalanobis(), ["background"]),
        ([], []),
        ([Mahalanobis()], ["background_mahalanobis"]),
        ([BackgroundLogit(), KNN()], ["background_logit", "background_knn"]),
        ([("far", KNN()), ("background_near", KNN())], ["background_far", "background_near"]),
        ([KNN(), Residual(), KNN()], ["background_knn_1", "background_residual", "background_knn_2"]),
        ([ScorerEnsemble([KNN()])], ["background_scorer_ensemble"]),
    ],
)
def test_names_of_background_parts(given, names):
    parts = named_parts(Energy(), given)
    assert [(name, view) for name, view, _ in parts] == [("foreground", "dense"), *((n, "background") for n in names)]


def test_a_list_of_foreground_parts(both, X_new):
    parts = on_both(MSP())
    assert [tuple(part) for part in named_parts(parts, [])] == parts
    assert list(both.score_parts(X_new)) == ["foreground_dense", "foreground_classifier", "background"]


def test_parameters_of_parts_are_set_by_their_names(fitted):
    detector = make_detector(
        scorer=on_both(KNN(n_neighbors=5)), background_scorer=[BackgroundLogit(), Mahalanobis(shrinkage=0.3)]
    )
    parameters = detector.get_params()
    assert parameters["background_mahalanobis__shrinkage"] == 0.3
    assert parameters["foreground_classifier__n_neighbors"] == 5
    changed = clone(detector).set_params(background_mahalanobis__shrinkage=0.1, foreground_dense__n_neighbors=2)
    assert changed.get_params()["background_mahalanobis__shrinkage"] == 0.1
    assert [scorer.n_neighbors for _, _, scorer in changed.scorer] == [2, 5]
    assert [view for _, view, _ in changed.scorer] == ["dense", "classifier"]
    assert detector.get_params()["background_mahalanobis__shrinkage"] == 0.3
    replaced = clone(detector).set_params(background_mahalanobis=MSP(), foreground_dense=Energy())
    assert isinstance(dict(replaced.background_scorer)["background_mahalanobis"], MSP)
    assert isinstance(replaced.scorer[0][2], Energy)
    single = make_detector(scorer=KNN(), background_scorer=Mahalanobis())
    single.set_params(scorer__n_neighbors=7, background_scorer__shrinkage=0.2)
    assert (single.scorer.n_neighbors, single.background_scorer.shrinkage) == (7, 0.2)
    with pytest.raises(ValueError, match="Invalid parameter 'background_near'"):
        detector.set_params(background_near__shrinkage=1)


def test_without_a_background_part(fitted, X_new):
    alone = fitted.refit_scorer(Energy(), background_scorer=[], fusion=TailProbabilityFusion(), alpha=0.2)
    assert list(alone.score_parts(X_new)) == ["foreground"]
    with pytest.raises(ValueError, match="there is no background part"):
        alone.score_background(X_new)


# ------------------------------------------------------------------ their values


def test_background_parts_are_those_of_single_scorers(fitted, several, X_new):
    parts = several.score_parts(X_new)
    for scorer, name in zip(BACKGROUND, ["background_logit", "background_mahalanobis"], strict=True):
        alone = fitted.refit_scorer(Energy(), background_scorer=scorer)
        assert_allclose(parts[name], alone.score_background(X_new), rtol=1e-6)


def test_the_group_of_several_parts_is_joined_by_the_fusion(fitted, several, X, X_new):
    held_out = fitted._split_.held_out
    share = share_of(several)
    names = ["background_logit", "background_mahalanobis"]
    learned = several.score_parts(X[held_out[:share]])
    expected = TailProbabilityFusion("fisher").fit({name: learned[name] for name in names})
    parts = several.score_parts(X_new)
    assert_allclose(several.score_background(X_new), expected.combine({name: parts[name] for name in names}), rtol=1e-4)


def test_the_joint_score_by_hand(fitted, several, X, X_new):
    """Tail probabilities of the first held-out images, the threshold from the others."""
    held_out = fitted._split_.held_out
    share = share_of(several)
    assert 0 < share < len(held_out)
    learned, new = several.score_parts(X[held_out[:share]]), several.score_parts(X_new)
    tails = {name: TailProbability.fit(scores) for name, scores in learned.items()}

    def joined(parts):
        return sum(tails[name].log_p(scores) for name, scores in parts.items())

    joint = TailProbability.fit(joined(learned))
    assert_allclose(several.score_samples(X_new), joint.log_p(joined(new)), rtol=1e-3)
    threshold = joint.log_p(joined(several.score_parts(X[held_out[share:]])))
    assert_allclose(several.calibrator_.scores_, np.sort(threshold), rtol=1e-3)


def test_the_classifiers_foreground(fitted, both, X, y, X_new):
    plain = fitted.refit_scorer(on("classifier", MaxLogit()), X, y)
    with torch.no_grad():
        logits = fitted.classifier_(torch.from_numpy(normalised(X_new)).float()).numpy()
    assert_allclose(plain.score_foreground(X_new), logits.max(1), atol=1e-5)
    assert_allclose(plain.score_background(X_new), fitted.score_background(X_new), atol=1e-6)
    # Classes, features and maps stay those of the dense network.
    assert_array_equal(plain.predict_proba(X_new), fitted.predict_proba(X_new))

    parts = both.score_parts(X_new)
    assert list(parts) == ["foreground_dense", "foreground_classifier", "background"]
    energy = np.log(np.exp(logits.astype(np.float64)).sum(1))
    assert_allclose(parts["foreground_classifier"], energy, atol=1e-5)
    assert_allclose(parts["foreground_dense"], fitted.refit_scorer(Energy()).score_foreground(X_new), atol=1e-5)
    assert both.score_foreground(X_new).shape == (len(X_new),)


def test_perturbed_images_on_both_networks(fitted, X, y, X_new):
    scorer = ODIN(temperature=10.0, input_perturbation=0.02)
    both = fitted.refit_scorer(on_both(scorer), X, y, fusion=TailProbabilityFusion(), alpha=0.2)
    parts = both.score_parts(X_new)
    for network in ("dense", "classifier"):
        alone = fitted.refit_scorer(on(network, scorer), X, y).score_foreground(X_new)
        assert_allclose(parts[f"foreground_{network}"], alone, rtol=1e-5)
    assert not np.allclose(parts["foreground_dense"], parts["foreground_classifier"])


class LayerMaxima:
    """Asks for the layers of whichever network it is on."""

    needs_activations = ("layers",)

    def fit(self, representation, y):
        for batch in representation.batches():
            self.names = list(batch.activations)
        return self

    def score_samples(self, representation):
        return np.concatenate(
            [sum(layer.amax(1) for layer in batch.activations.values()).numpy() for batch in representation.batches()]
        )


def test_layers_of_both_networks(fitted, X, y, X_new):
    both = fitted.refit_scorer(on_both(LayerMaxima()), X, y, fusion=TailProbabilityFusion(), alpha=0.2)
    parts = both.score_parts(X_new)
    for network in ("dense", "classifier"):
        alone = fitted.refit_scorer(on(network, LayerMaxima()), X, y).score_foreground(X_new)
        assert_allclose(parts[f"foreground_{network}"], alone, rtol=1e-5)
    assert not np.allclose(parts["foreground_dense"], parts["foreground_classifier"])


def test_features_pooled_over_the_foreground(fitted, X, y, X_new):
    detector = fitted.refit_scorer(on("foreground", FirstFeature()), X, y)
    W, b = head(fitted)
    F = feature_maps(fitted, normalised(X_new))  # (n, C, h, w)
    pooled = np.zeros(F.shape[:2])
    for i, feature_map in enumerate(F):
        total = 0.0
        for r in range(F.shape[2]):
            for s in range(F.shape[3]):
                foreground = 1 - softmax(W @ feature_map[:, r, s] + b)[CLASSES]
                pooled[i] += foreground * feature_map[:, r, s]
                total += foreground
        pooled[i] /= total
    assert_allclose(detector.score_foreground(X_new), pooled[:, 0], atol=1e-5)
    logits = fitted.refit_scorer(on("foreground", MaxLogit()), X, y).score_foreground(X_new)
    assert_allclose(logits, (pooled @ W[:CLASSES].T + b[:CLASSES]).max(1), atol=1e-5)
    # Classification and features stay those of the whole image.
    assert_array_equal(detector.transform(X_new), fitted.transform(X_new))
    assert_array_equal(detector.predict_proba(X_new), fitted.predict_proba(X_new))


class FirstFeature:
    def fit(self, representation, y):
        return self

    def score_samples(self, representation):
        assert isinstance(representation, Representation)
        return representation.features[:, 0].numpy()


@pytest.mark.parametrize("margin", [0.0, 95.0, 300.0])
@pytest.mark.parametrize("pooling", ["foreground", "background"])
def test_pooling_where_all_probabilities_are_tiny(fitted, X_new, margin, pooling):
    """Then the weights of the places cannot be told as numbers, only by their logarithms."""
    network = copy.deepcopy(fitted.dense_network_)
    place = slice(0, CLASSES) if pooling == "background" else slice(CLASSES, None)
    with torch.no_grad():
        network.head.bias[place] += margin  # of what is not pooled over
        feature_map = network.feature_map(torch.from_numpy(normalised(X_new)).float())
        pooled = representation_of_map(network, pooling, CLASSES, feature_map).features
        logits = network.map_head(feature_map).double().flatten(2)  # (b, K + 1, h * w)
        log_p = logits.log_softmax(1)
        log_p = log_p[:, -1] if pooling == "background" else log_p[:, :-1].logsumexp(1)
        expected = torch.einsum("bcp,bp->bc", feature_map.double().flatten(2), log_p.softmax(1))
    assert_allclose(pooled, expected, rtol=1e-4, atol=1e-6)


# --------------------------------------------------------------- held-out images


def test_a_threshold_from_few_held_out_images(X, y, X_new):
    """With 30 held-out images, the fusion takes 11 and leaves the 19 that alpha=0.05 needs."""
    detector = make_detector(calibration_fraction=0.5, fusion=TailProbabilityFusion()).fit(X, y)
    assert len(detector._split_.held_out) == 30
    assert detector.calibration_fraction_ == 0.5
    assert len(detector.calibrator_.scores_) == 19
    assert np.isfinite(detector.offset_)


def test_the_image_that_sets_the_threshold_is_accepted_in_any_batch(several, X):
    """Its score may move by rounding from batch to batch; the threshold lies a millionth of the scores' range below."""
    held_out = X[several._split_.held_out[share_of(several) :]]
    scores = np.sort(several.score_samples(held_out))
    below = scores - several.calibrator_.scores_
    assert (below > 0).all()
    assert below.max() < 1e-4 * np.ptp(scores)
    alone = np.concatenate([several.predict(held_out[i : i + 1]) for i in range(len(held_out))])
    assert_array_equal(alone, several.predict(held_out))


# ----------------------------------------------------------------------- recipes


def paper(backbone=None, **changes):
    few = unfitted().get_params(deep=False)
    names = ("classifier_trainer", "dense_trainer", "mask_generator", "device", "alpha", "random_state")
    return DFBDetector.paper(backbone or tiny_backbone(), **{name: few[name] for name in names} | changes)


def unfitted(**changes):
    trainer = Trainer(max_steps=4, batch_size=16, learning_rate=0.1)
    parameters = {
        "backbone": tiny_backbone(),
        "classifier_trainer": trainer,
        "dense_trainer": trainer,
        "mask_generator": CAMMaskGenerator(scales=(1.0,)),
        "device": "cpu",
        "alpha": 0.2,
        "calibration_fraction": 0.3,
        "random_state": 0,
    }
    return DFBDetector(**parameters | changes)


@pytest.mark.filterwarnings("ignore:alpha_ is:UserWarning")  # few steps
def test_the_default_recipe(X, y):
    detector = unfitted(image_size=SIDE).fit(X, y)
    assert isinstance(detector.fusion_, TailProbabilityFusion)
    assert list(detector.part_scorers_) == ["foreground", "background_logit", "background_mahalanobis"]
    assert len(detector.calibrator_.scores_) == len(detector._split_.held_out) - share_of(detector)


@pytest.mark.filterwarnings("ignore:alpha_ is:UserWarning")  # few steps
def test_the_papers_recipe(X, y, X_new):
    detector = paper().fit(X, y)
    assert isinstance(detector.fusion_, TemperatureFusion)
    assert detector.fusion_.temperature == 2.5
    assert list(detector.score_parts(X_new)) == ["foreground", "background"]
    assert isinstance(detector.part_scorers_["background"], BackgroundLogit)
    assert detector.dense_network_.preprocessor.image_size == 128
    assert len(detector.calibrator_.scores_) == len(detector._split_.held_out)


def test_the_papers_trainers():
    detector = DFBDetector.paper()
    classifier, dense = detector.classifier_trainer, detector.dense_trainer
    for trainer in (classifier, dense):
        assert trainer.max_steps == 20_000
        assert trainer.warmup_steps == 500
        assert trainer.batch_size == 128
        assert trainer.learning_rate == 0.003
        assert trainer.momentum == 0.9
        assert trainer.schedule == "step"
    assert classifier.mixup == 0.1
    assert (classifier.flip, dense.flip) == (False, True)  # the paper names mirrored images for the dense stage alone
    assert (classifier.scale_range, dense.scale_range) == ((1.25, 1.25), (0.5, 2.0))
    assert dense.classification_weight == 0
    assert dense.dense_start == "classifier"


def test_given_parameters_count_in_the_papers_recipe(X, y):
    detector = paper(image_size=SIDE, scorer=MSP(), fusion=TailProbabilityFusion()).fit(X, y)
    assert isinstance(detector.scorer_, MSP)
    assert isinstance(detector.fusion_, TailProbabilityFusion)
    assert detector.dense_network_.preprocessor.image_size == SIDE


def test_the_papers_size_is_not_asked_of_a_trained_classifier(fitted, X, y):
    detector = paper(fitted.classifier_, scorer=Energy()).fit(X, y)
    assert detector.dense_network_.preprocessor.image_size == SIDE


# ------------------------------------------------------------------------- refit


def test_refit_changes_the_parts_without_the_images(fitted, several, X_new):
    other = several.refit_scorer(background_scorer=KNN(n_neighbors=5), fusion=TailProbabilityFusion("stouffer"))
    assert list(other.score_parts(X_new)) == ["foreground", "background"]
    assert list(several.score_parts(X_new)) == ["foreground", "background_logit", "background_mahalanobis"]
    assert list(fitted.score_parts(X_new)) == ["foreground", "background"]


@pytest.mark.parametrize("scorer", [on_both(Energy()), on("foreground", Energy()), on("dense", ODIN())], ids=str)
def test_refit_needs_the_images_for_other_views(fitted, X, y, scorer):
    changes = {"fusion": TailProbabilityFusion(), "alpha": 0.2}
    with pytest.raises(ValueError, match=r"X is None.*were not kept: expected the X and y of fit"):
        fitted.refit_scorer(scorer, **changes)
    fitted.refit_scorer(scorer, X, y, **changes)


def test_refit_with_too_few_held_out_images(fitted, X_new):
    """Each remedy that can be taken without another fit is tried."""
    fusion = TailProbabilityFusion()
    message = (
        r"21 of 60 images are held out, but with alpha=0\.05 .* at least 29\. Pass a larger alpha, call with_alpha"
    )
    with pytest.raises(ValueError, match=message):
        fitted.refit_scorer(fusion=fusion)
    assert np.isfinite(fitted.refit_scorer(fusion=fusion, alpha=0.1).offset_)
    assert fitted.with_alpha(None).refit_scorer(fusion=fusion).offset_ == -np.inf


def test_scores_do_not_depend_on_the_batches(both, several, X_new):
    for detector in (both, several):
        whole = detector.score_samples(X_new)
        one_by_one = np.concatenate([detector.score_samples(X_new[i : i + 1]) for i in range(6)])
        assert_allclose(one_by_one, whole[:6], rtol=1e-3)


def test_strange_images_score_lower(several):
    known = several.score_samples(make_images(30, seed=7)[0])
    white = several.score_samples(np.full((3, SIDE, SIDE, 3), 255, np.uint8))
    assert white.max() < np.median(known)


# --------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"background_scorer": "knn"}, TypeError, "scorer of part 'background' is 'knn', a str without fit"),
        ({"background_scorer": [KNN(), "knn"]}, TypeError, r"scorer of part 'background_str' is 'knn', a str without"),
        ({"background_scorer": [(KNN(), "knn")]}, ValueError, "expected scorers, or tuples \\(name, scorer\\)"),
        ({"background_scorer": [("a", KNN()), ("a", KNN())]}, ValueError, "not unique"),
        ({"background_scorer": [KNN(), ODIN()]}, ValueError, "part 'background_odin' is ODIN.*needs perturbed images"),
        ({"background_scorer": [Mahalanobis(shrinkage=2.0)]}, ValueError, "part 'background_mahalanobis': The 'shr"),
        ({"background_scorer": [("background__a", KNN())]}, ValueError, "must not contain __"),
        ({"scorer": []}, ValueError, "one part whose name starts with 'foreground'"),
        ({"scorer": [KNN()]}, ValueError, r"scorer holds KNN\(\): expected tuples \(name, view, scorer\)"),
        ({"scorer": [("a", KNN())]}, ValueError, r"expected tuples \(name, view, scorer\)"),
        ({"scorer": on("plain", KNN())}, ValueError, "part 'foreground' is on the view 'plain': expected one of"),
        ({"scorer": [("backbone", "dense", KNN())]}, ValueError, "conflict with constructor arguments"),
        # The paper's fusion takes one part of each kind; the default background has two.
        ({"background_scorer": None}, ValueError, "Eq. 7 joins one part"),
        ({"background_scorer": BACKGROUND}, ValueError, "Eq. 7 joins one part"),
    ],
)
def test_bad_parts_are_refused_before_training(X, y, changes, error, message):
    with pytest.raises(error, match=message):
        make_detector(**changes | {"classifier_trainer": NoTrainer(), "dense_trainer": NoTrainer()}).fit(X, y)


class NoTrainer(Trainer):
    def train(self, *arguments, **options):
        pytest.fail("training began")


def test_the_papers_fusion_takes_two_parts(fitted):
    with pytest.raises(ValueError, match=r"Eq\. 7 joins one part"):
        fitted.refit_scorer(background_scorer=BACKGROUND)
