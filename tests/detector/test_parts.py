"""Parts of the score: both networks, several background scorers, pooling, fusions and recipes."""

import copy

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from skdfb.detector._forward import ForwardPass, represent_background, represent_foreground
from skdfb.detector._parts import (
    learning_share,
    lowered_by_rounding,
    make_parts,
    named_background_scorers,
    number_to_hold_out,
)

from skdfb import CAMMaskGenerator, DFBDetector, Trainer
from skdfb.fusion import TailProbabilityFusion, TemperatureFusion
from skdfb.images import BatchSize, as_images
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
from skdfb.utils import TailProbability
from tests.detector.conftest import CLASSES, SIDE, make_detector, make_images, tiny_backbone
from tests.detector.test_equations import feature_maps, head, normalised

BACKGROUND = [BackgroundLogit(), Mahalanobis()]


@pytest.fixture(scope="module")
def several(fitted):
    """The default recipe's parts, on enough held-out images for alpha=0.2."""
    return fitted.refit_scorer(
        Energy(), background_scorer=BACKGROUND, fusion=TailProbabilityFusion("fisher"), alpha=0.2
    )


@pytest.fixture(scope="module")
def both(fitted, X, y):
    return fitted.refit_scorer(Energy(), X, y, foreground_network="both", fusion=TailProbabilityFusion(), alpha=0.2)


# ------------------------------------------------------------------------ names


def test_a_part_each(several, X_new):
    parts = several.score_parts(X_new)
    assert list(parts) == ["foreground", "background_logit", "background_mahalanobis"]
    assert list(several.part_scorers_) == list(parts)
    assert isinstance(several.background_scorer_, list)
    assert [type(scorer) for scorer in several.background_scorer_] == [BackgroundLogit, Mahalanobis]
    assert_array_equal(several.score_samples(X_new), several.fusion_.combine(parts))
    assert_array_equal(several.score_foreground(X_new), parts["foreground"])


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (Mahalanobis(), ["background"]),
        ([Mahalanobis()], ["background_mahalanobis"]),
        ([BackgroundLogit(), KNN()], ["background_logit", "background_knn"]),
        ([("far", KNN()), ("background_near", KNN())], ["background_far", "background_near"]),
        ([KNN(), Residual(), KNN()], ["background_knn_1", "background_residual", "background_knn_2"]),
        ([ScorerEnsemble([KNN()])], ["background_scorer_ensemble"]),
    ],
)
def test_names_of_background_parts(given, names):
    assert list(named_background_scorers(given)) == names


@pytest.mark.parametrize(
    ("network", "names"),
    [
        ("dense", ["foreground"]),
        ("plain", ["foreground"]),
        ("both", ["foreground_dense", "foreground_plain"]),
    ],
)
def test_names_of_foreground_parts(network, names):
    parts = make_parts(Energy(), BackgroundLogit(), network)
    assert list(parts.parts) == [*names, "background"]
    assert parts.groups == {"foreground": names, "background": ["background"]}


# ------------------------------------------------------------------ their values


def test_background_parts_are_those_of_single_scorers(fitted, several, X_new):
    parts = several.score_parts(X_new)
    for scorer, name in zip(BACKGROUND, ["background_logit", "background_mahalanobis"], strict=True):
        alone = fitted.refit_scorer(Energy(), background_scorer=scorer)
        assert_allclose(parts[name], alone.score_background(X_new), rtol=1e-6)


def test_the_group_of_several_parts_is_joined_by_the_fusion(fitted, several, X, X_new):
    held_out = fitted._split_.held_out
    share = several._learning_share()
    names = ["background_logit", "background_mahalanobis"]
    learned = several.score_parts(X[held_out[:share]])
    expected = TailProbabilityFusion("fisher").fit({name: learned[name] for name in names})
    parts = several.score_parts(X_new)
    assert_allclose(several.score_background(X_new), expected.combine({name: parts[name] for name in names}), rtol=1e-4)


def test_the_joint_score_by_hand(fitted, several, X, X_new):
    """Tail probabilities of the first held-out images, the threshold from the others."""
    held_out = fitted._split_.held_out
    share = several._learning_share()
    assert 0 < share < len(held_out)
    learned, new = several.score_parts(X[held_out[:share]]), several.score_parts(X_new)
    tails = {name: TailProbability.fit(scores) for name, scores in learned.items()}

    def joined(parts):
        return sum(tails[name].log_p(scores) for name, scores in parts.items())

    joint = TailProbability.fit(joined(learned))
    assert_allclose(several.score_samples(X_new), joint.log_p(joined(new)), rtol=1e-3)
    threshold = joint.log_p(joined(several.score_parts(X[held_out[share:]])))
    assert_allclose(several.calibrator_.scores_, np.sort(threshold), rtol=1e-3)


def test_the_plain_classifiers_foreground(fitted, both, X, y, X_new):
    plain = fitted.refit_scorer(MaxLogit(), X, y, foreground_network="plain")
    with torch.no_grad():
        logits = fitted.classifier_(torch.from_numpy(normalised(X_new)).float()).numpy()
    assert_allclose(plain.score_foreground(X_new), logits.max(1), atol=1e-5)
    assert_allclose(plain.score_background(X_new), fitted.score_background(X_new), atol=1e-6)
    # Classes, features and maps stay those of the dense network.
    assert_array_equal(plain.predict_proba(X_new), fitted.predict_proba(X_new))

    parts = both.score_parts(X_new)
    assert list(parts) == ["foreground_dense", "foreground_plain", "background"]
    energy = np.log(np.exp(logits.astype(np.float64)).sum(1))
    assert_allclose(parts["foreground_plain"], energy, atol=1e-5)
    assert_allclose(parts["foreground_dense"], fitted.refit_scorer(Energy()).score_foreground(X_new), atol=1e-5)
    assert both.score_foreground(X_new).shape == (len(X_new),)


def test_perturbed_images_on_both_networks(fitted, X, y, X_new):
    scorer = ODIN(temperature=10.0, input_perturbation=0.02)
    both = fitted.refit_scorer(scorer, X, y, foreground_network="both", fusion=TailProbabilityFusion(), alpha=0.2)
    parts = both.score_parts(X_new)
    for network in ("dense", "plain"):
        alone = fitted.refit_scorer(scorer, X, y, foreground_network=network).score_foreground(X_new)
        assert_allclose(parts[f"foreground_{network}"], alone, rtol=1e-5)
    assert not np.allclose(parts["foreground_dense"], parts["foreground_plain"])


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
    both = fitted.refit_scorer(
        LayerMaxima(), X, y, foreground_network="both", fusion=TailProbabilityFusion(), alpha=0.2
    )
    parts = both.score_parts(X_new)
    for network in ("dense", "plain"):
        alone = fitted.refit_scorer(LayerMaxima(), X, y, foreground_network=network).score_foreground(X_new)
        assert_allclose(parts[f"foreground_{network}"], alone, rtol=1e-5)
    assert not np.allclose(parts["foreground_dense"], parts["foreground_plain"])


def test_features_pooled_over_the_foreground(fitted, X, y, X_new):
    detector = fitted.refit_scorer(FirstFeature(), X, y, foreground_pooling="foreground")
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
    logits = fitted.refit_scorer(MaxLogit(), X, y, foreground_pooling="foreground").score_foreground(X_new)
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
        look = ForwardPass(network, CLASSES, BatchSize(len(X_new)))
        (batch,) = look.over(as_images(X_new), lambda batch: batch)
        if pooling == "background":
            pooled = represent_background(network, batch).features
        else:
            pooled = represent_foreground(network, batch.feature_map, CLASSES, pooling="foreground").features
        logits = batch.logit_map.double().flatten(2)  # (b, K + 1, h * w)
        log_p = logits.log_softmax(1)
        log_p = log_p[:, -1] if pooling == "background" else log_p[:, :-1].logsumexp(1)
        expected = torch.einsum("bcp,bp->bc", batch.feature_map.double().flatten(2), log_p.softmax(1))
    assert_allclose(pooled, expected, rtol=1e-4, atol=1e-6)


# --------------------------------------------------------------- held-out images


def test_one_held_out_outlier_does_not_move_the_threshold():
    scores = np.random.default_rng(0).normal(size=200)
    lowered = lowered_by_rounding(np.append(scores, -1e9))
    assert (lowered[:-1] < scores).all()
    assert_allclose(lowered[:-1], scores, atol=1e-5)


@pytest.mark.parametrize(
    ("n_held_out", "n_needed", "share"),
    [(100, 19, 50), (38, 19, 19), (37, 19, 18), (36, 19, 17), (29, 19, 10), (28, 19, 10), (20, 19, 10), (12, 19, 6)],
)
def test_share_that_is_learned_from(n_held_out, n_needed, share):
    assert learning_share(n_held_out, n_needed) == share


@pytest.mark.parametrize(("n_needed", "total"), [(19, 29), (9, 17), (1, 2), (99, 109)])
def test_number_to_hold_out(n_needed, total):
    assert number_to_hold_out(n_needed) == total
    assert total - learning_share(total, n_needed) >= n_needed
    assert total == 2 or total - 1 - learning_share(total - 1, n_needed) < n_needed


def test_too_few_held_out_images_are_told_with_the_number_that_would_do(fitted):
    with pytest.warns(
        UserWarning, match=r"21 held-out images, 10 of which are learned from, .* At least 29 are needed"
    ):
        fitted.refit_scorer(fusion=TailProbabilityFusion(), alpha=0.05)


def test_one_held_out_image_is_not_both_learned_from_and_the_threshold():
    with pytest.raises(ValueError, match=r"1 image is held out, but .* at least 2 are wanted"):
        learning_share(1, 1)


def test_a_threshold_from_few_held_out_images(X, y, X_new):
    """With 30 held-out images, the fusion takes 11 and leaves the 19 that alpha=0.05 needs."""
    detector = make_detector(calibration_fraction=0.5, fusion=TailProbabilityFusion()).fit(X, y)
    assert len(detector._split_.held_out) == 30
    assert len(detector.calibrator_.scores_) == 19
    assert np.isfinite(detector.offset_)


def test_the_image_that_sets_the_threshold_is_accepted_in_any_batch(several, X):
    """Its score may move by rounding from batch to batch; the threshold lies a millionth of the scores' range below."""
    held_out = X[several._split_.held_out[several._learning_share() :]]
    scores = np.sort(several.score_samples(held_out))
    below = scores - several.calibrator_.scores_
    assert (below > 0).all()
    assert below.max() < 1e-4 * np.ptp(scores)
    alone = np.concatenate([several.predict(held_out[i : i + 1]) for i in range(len(held_out))])
    assert_array_equal(alone, several.predict(held_out))


# ----------------------------------------------------------------------- recipes


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
    assert len(detector.calibrator_.scores_) == len(detector._split_.held_out) - detector._learning_share()


@pytest.mark.filterwarnings("ignore:alpha_ is:UserWarning")  # few steps
def test_the_papers_recipe(X, y, X_new):
    detector = unfitted(recipe="paper").fit(X, y)
    assert isinstance(detector.fusion_, TemperatureFusion)
    assert detector.fusion_.temperature == 2.5
    assert list(detector.score_parts(X_new)) == ["foreground", "background"]
    assert isinstance(detector.background_scorer_, BackgroundLogit)
    assert detector.dense_network_.preprocessor.image_size == 128
    assert len(detector.calibrator_.scores_) == len(detector._split_.held_out)


def test_the_papers_trainers():
    detector = unfitted(recipe="paper", classifier_trainer=None, dense_trainer=None)
    classifier, dense = detector._component("classifier_trainer"), detector._component("dense_trainer")
    for trainer in (classifier, dense):
        assert trainer.max_steps == 20_000
        assert trainer.warmup_steps == 500
        assert trainer.batch_size == 128
        assert trainer.learning_rate == 0.003
        assert trainer.momentum == 0.9
        assert trainer.schedule == "step"
    assert classifier.mixup == 0.1
    assert dense.classification_weight == 0
    assert isinstance(detector._component("mask_generator"), CAMMaskGenerator)


def test_given_parameters_count_in_the_papers_recipe(X, y):
    detector = unfitted(recipe="paper", image_size=SIDE, scorer=MSP(), fusion=TailProbabilityFusion()).fit(X, y)
    assert isinstance(detector.scorer_, MSP)
    assert isinstance(detector.fusion_, TailProbabilityFusion)
    assert detector.dense_network_.preprocessor.image_size == SIDE


def test_the_papers_size_is_not_asked_of_a_trained_classifier(fitted, X, y):
    detector = unfitted(recipe="paper", backbone=fitted.classifier_, scorer=Energy()).fit(X, y)
    assert detector.dense_network_.preprocessor.image_size == SIDE


# ------------------------------------------------------------------------- refit


def test_refit_changes_the_parts_without_the_images(fitted, several, X_new):
    other = several.refit_scorer(background_scorer=KNN(n_neighbors=5), fusion=TailProbabilityFusion("stouffer"))
    assert list(other.score_parts(X_new)) == ["foreground", "background"]
    assert list(several.score_parts(X_new)) == ["foreground", "background_logit", "background_mahalanobis"]
    assert list(fitted.score_parts(X_new)) == ["foreground", "background"]


@pytest.mark.parametrize("changes", [{"foreground_network": "both"}, {"foreground_pooling": "foreground"}])
def test_refit_wants_the_images_where_other_views_are_asked_for(fitted, X, y, changes):
    changes = {"fusion": TailProbabilityFusion(), "alpha": 0.2} | changes
    with pytest.raises(ValueError, match=r"X is None.*network or pooling asks for; pass the X and y of fit"):
        fitted.refit_scorer(Energy(), **changes)
    fitted.refit_scorer(Energy(), X, y, **changes)


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
        ({"background_scorer": []}, ValueError, r"background_scorer=\[\]; a scorer or a list of at least one"),
        ({"background_scorer": "knn"}, ValueError, "background_scorer='knn'; a scorer or a list"),
        ({"background_scorer": [KNN(), "knn"]}, TypeError, r"background_scorer\[1\] is 'knn', a str without fit"),
        ({"background_scorer": [(KNN(), "knn")]}, ValueError, "tuples \\(name, scorer\\), are wanted"),
        ({"background_scorer": [("a_1", KNN()), KNN(), ("a", KNN()), ("a", KNN())]}, ValueError, "one name to several"),
        ({"background_scorer": [KNN(), ODIN()]}, ValueError, r"background_scorer\[1\]=ODIN.*asks for perturbed images"),
        ({"background_scorer": [Mahalanobis(shrinkage=2.0)]}, ValueError, r"background_scorer\[0\]: The 'shrinkage'"),
        ({"recipe": "papers"}, ValueError, "The 'recipe' parameter"),
        ({"foreground_network": "first"}, ValueError, "The 'foreground_network' parameter"),
        ({"foreground_pooling": "max"}, ValueError, "The 'foreground_pooling' parameter"),
        (
            {"foreground_network": "plain", "foreground_pooling": "foreground"},
            ValueError,
            "foreground_pooling='foreground' wants the dense network's background",
        ),
    ],
)
def test_bad_parts_are_refused_before_training(X, y, changes, error, message):
    with pytest.raises(error, match=message):
        make_detector(classifier_trainer=None, **changes).fit(X, y)


def test_the_papers_fusion_takes_two_parts(fitted):
    with pytest.raises(ValueError, match=r"Eq\. 7 joins one part"):
        fitted.refit_scorer(background_scorer=BACKGROUND)
