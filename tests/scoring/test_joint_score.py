"""The joint score against its definition: parts, fusion and threshold, without any network."""

import copy
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import skdfb
from skdfb.fusion import TailProbabilityFusion, TemperatureFusion
from skdfb.scorers import (
    KNN,
    MSP,
    ODIN,
    BackgroundLogit,
    Energy,
    Mahalanobis,
    RelativeMahalanobis,
    Representation,
    ScorerEnsemble,
    TemperatureScaled,
    ViM,
)
from skdfb.scoring import JointScore
from skdfb.utils import TailProbability

K, C = 3, 8
HEAD = np.random.default_rng(7).normal(size=(K + 1, C))
PARTS = [
    ("foreground", "dense", Energy()),
    ("background_logit", "background", BackgroundLogit()),
    ("background_mahalanobis", "background", Mahalanobis(shrinkage=0.1)),
]


def views(n, seed=0, shift=0.0, labels=None):
    """Views as a detector supplies them, and class indices, of random images."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, K, n) if labels is None else labels
    features = HEAD[y] + rng.normal(size=(n, C)) + shift
    background = rng.normal(size=(n, C)) + 2 * shift
    return {
        "dense": Representation.from_numpy(features=features, weight=HEAD[:K], bias=np.zeros(K)),
        "classifier": Representation.from_numpy(features=features[:, ::-1], weight=HEAD[:K], bias=np.ones(K)),
        "background": Representation.from_numpy(features=background, weight=HEAD[K:], bias=np.zeros(1)),
    }, y


TRAIN, HELD_OUT, (NEW, _) = views(200), views(100, seed=1), views(40, seed=2)


def fitted(parts=PARTS, **options):
    return JointScore(parts, **options).fit(*TRAIN, held_out=HELD_OUT)


# ------------------------------------------------------------------- definition


def test_by_hand():
    """Scorers on the training images, tails on the first half of the held-out ones, the threshold on the other."""
    joint_score = fitted(fusion=TailProbabilityFusion("fisher"))
    scorers = [
        Energy().fit(TRAIN[0]["dense"], TRAIN[1]),
        BackgroundLogit().fit(TRAIN[0]["background"], None),
        Mahalanobis(shrinkage=0.1).fit(TRAIN[0]["background"], np.zeros(200, int)),
    ]

    def parts(images):
        return [s.score_samples(images[view]) for s, (_, view, _) in zip(scorers, PARTS, strict=True)]

    tails = [TailProbability.fit(scores[:50]) for scores in parts(HELD_OUT[0])]

    def log_p(images):
        return sum(tail.log_p(scores) for tail, scores in zip(tails, parts(images), strict=True))

    joint = TailProbability.fit(log_p(HELD_OUT[0])[:50])
    assert_allclose(joint_score.score_samples(NEW), joint.log_p(log_p(NEW)), rtol=1e-9)
    threshold = np.sort(joint.log_p(log_p(HELD_OUT[0])[50:]))
    assert_allclose(joint_score.calibrator_.scores_, threshold, atol=1e-5)
    assert_allclose(joint_score.offset_, threshold[int(0.05 * 51) - 1], atol=1e-5)
    for (name, _, _), scores in zip(PARTS, parts(NEW), strict=True):
        assert_array_equal(joint_score.score_parts(NEW)[name], scores)


def test_eq_7():
    parts = [PARTS[0], ("background", "background", BackgroundLogit())]
    joint_score = fitted(parts, fusion=TemperatureFusion(2.5))
    found = joint_score.score_parts(NEW)
    assert_allclose(joint_score.score_samples(NEW), found["foreground"] + found["background"] / 2.5)
    assert len(joint_score.calibrator_.scores_) == 100, "a fusion that learns nothing leaves all to the threshold"
    probability = fitted([("foreground", "dense", MSP()), parts[1]], fusion=TemperatureFusion())
    found = probability.score_parts(NEW)
    expected = np.exp(found["foreground"]) + np.log(np.logaddexp(0, found["background"]))
    assert_allclose(probability.score_samples(NEW), expected)


def test_a_single_part_is_the_joint_score():
    joint_score = fitted([("foreground", "classifier", Energy())])
    assert joint_score.fusion_ is None
    assert_array_equal(
        joint_score.score_samples(NEW), Energy().fit(TRAIN[0]["classifier"]).score_samples(NEW["classifier"])
    )
    assert len(joint_score.calibrator_.scores_) == 100


def test_groups():
    joint_score = fitted()
    parts = joint_score.score_parts(NEW)
    assert_array_equal(joint_score.combine_group("foreground", parts), parts["foreground"])
    background = {name: parts[name] for name in ("background_logit", "background_mahalanobis")}
    learned = {name: scores[:50] for name, scores in joint_score.score_parts(HELD_OUT[0]).items() if name in background}
    expected = TailProbabilityFusion().fit(learned).combine(background)
    assert_allclose(joint_score.combine_group("background", parts), expected)
    with pytest.raises(ValueError, match="there is no background part"):
        fitted(PARTS[:1]).combine_group("background", parts)


def test_the_background_is_one_class():
    class Noting(Energy):
        def fit(self, representation, y):
            self.y_ = y
            return super().fit(representation, y)

    joint_score = fitted([("foreground", "dense", Noting()), ("background", "background", Noting())])
    labels = [scorer.y_ for _, _, scorer in joint_score.parts_]
    assert_array_equal(labels[0], TRAIN[1])
    assert_array_equal(labels[1], np.zeros(200))


def test_scorers_that_learn_from_held_out_images_get_the_first_of_them():
    joint_score = fitted([("foreground", "dense", TemperatureScaled(MSP()))])
    first = HELD_OUT[0]["dense"][:50], HELD_OUT[1][:50]
    expected = TemperatureScaled(MSP()).fit(TRAIN[0]["dense"], TRAIN[1], held_out=first)
    assert joint_score.parts_[0][2].temperature_ == expected.temperature_
    assert len(joint_score.calibrator_.scores_) == 50


def test_far_images_are_rejected():
    far, _ = views(40, seed=3, shift=6.0)
    joint_score = fitted([("foreground", "dense", KNN()), *PARTS[1:]])
    assert (joint_score.score_samples(far) < joint_score.offset_).mean() > 0.9
    assert (joint_score.score_samples(NEW) >= joint_score.offset_).mean() > 0.8


# As a pre-trained backbone has them. The views of one image depend on each other.
NORMALISED = {"shrinkage": "auto", "normalize": True}
PRETRAINED = [
    ("foreground", "dense", Energy()),
    ("foreground_classifier", "classifier", Energy()),
    ("pretrained_relative", "classifier", RelativeMahalanobis(**NORMALISED)),
    ("pretrained", "classifier", Mahalanobis(**NORMALISED)),
    ("stage", "dense", Mahalanobis(**NORMALISED)),
]


@pytest.mark.parametrize(
    ("parts", "fusion"),
    [(PARTS, None), (PARTS, TailProbabilityFusion("fisher")), (PRETRAINED, None)],
    ids=["default", "Fisher", "pre-trained"],
)
def test_the_promise_of_alpha(parts, fusion):
    """Over 200 draws of held-out and new images, at most alpha of the new ones are rejected."""
    rejected = []
    for seed in range(200):
        pool, y = views(120, seed=1000 + seed)
        held_out = {name: view[:80] for name, view in pool.items()}
        new = {name: view[80:] for name, view in pool.items()}
        joint_score = JointScore(parts, fusion=fusion, alpha=0.1).fit(*TRAIN, held_out=(held_out, y[:80]))
        rejected.append((joint_score.score_samples(new) < joint_score.offset_).mean())
    error = np.std(rejected) / np.sqrt(len(rejected))
    assert np.mean(rejected) <= 0.1 + 2 * error
    assert np.mean(rejected) >= 0.1 - 1 / 41 - 2 * error


# -------------------------------------------------------------------- threshold


def test_with_alpha_changes_the_threshold_alone():
    joint_score = fitted()
    for alpha in (0.02, 0.1, 0.5):
        other = joint_score.with_alpha(alpha)
        expected = fitted(alpha=alpha)
        if len(expected.calibrator_.scores_) == 50:  # as many images set the threshold
            assert_allclose(other.offset_, expected.offset_, rtol=1e-5)
        assert other.alpha == other.get_params()["alpha"] == alpha
        assert_array_equal(other.score_samples(NEW), joint_score.score_samples(NEW))
        rejected = other.score_samples(NEW) < other.offset_
        assert_array_equal(rejected, other.p_values(other.score_samples(NEW)) <= alpha)
    assert joint_score.alpha == 0.05
    assert joint_score.with_alpha(None).offset_ == -np.inf
    assert joint_score.with_alpha(None).with_alpha(0.05).offset_ == pytest.approx(joint_score.offset_)
    with pytest.raises(ValueError, match=r"50 held-out scores are too few for alpha=0\.01: expected at least 99"):
        joint_score.with_alpha(0.01)
    with pytest.raises(ValueError, match="'alpha' parameter of JointScore"):
        joint_score.with_alpha(2)


def test_unreadable_images_are_nan():
    joint_score = fitted()
    parts = {
        name: np.where(np.arange(40) == 3, np.nan, scores) for name, scores in joint_score.score_parts(NEW).items()
    }
    scores = joint_score.combine(parts)
    assert np.isnan(scores[3])
    assert_array_equal(np.delete(scores, 3), np.delete(joint_score.score_samples(NEW), 3))
    p_values = joint_score.p_values(scores)
    assert_array_equal(np.isnan(p_values), np.arange(40) == 3)
    assert np.isnan(joint_score.p_values([np.nan])).all()


# -------------------------------------------------------------------- estimator


def test_nested_parameters():
    joint_score = JointScore(PARTS, fusion=TailProbabilityFusion())
    assert joint_score.get_params()["background_mahalanobis__shrinkage"] == 0.1
    changed = clone(joint_score).set_params(
        background_mahalanobis__shrinkage=0.5, fusion__rule="fisher", foreground=MSP(), alpha=0.2
    )
    assert changed.parts[2][2].shrinkage == 0.5
    assert changed.fusion.rule == "fisher"
    assert isinstance(changed.parts[0][2], MSP)
    assert [part[:2] for part in changed.parts] == [part[:2] for part in PARTS]
    assert joint_score.parts is PARTS
    assert PARTS[2][2].shrinkage == 0.1


def test_clone_is_exact():
    joint_score = fitted()
    copied = clone(joint_score)
    assert not hasattr(copied, "offset_")
    assert str(copied.get_params()) == str(joint_score.get_params())
    assert all(new[2] is not old[2] for new, old in zip(copied.parts, PARTS, strict=True))
    assert not any(hasattr(scorer, "n_features_in_") for _, _, scorer in PARTS), (
        "the scorers that were given stay unfitted"
    )
    with pytest.raises(NotFittedError):
        copied.score_samples(NEW)


def test_save_pickle_and_copy(tmp_path):
    joint_score = fitted([("foreground", "dense", ScorerEnsemble([Energy(), KNN()], random_state=0)), *PARTS[1:]])
    skdfb.save(joint_score, tmp_path / "score.safetensors")
    loaded = skdfb.load(tmp_path / "score.safetensors")
    for other in (loaded, pickle.loads(pickle.dumps(joint_score)), copy.deepcopy(joint_score)):
        assert_array_equal(other.score_samples(NEW), joint_score.score_samples(NEW))
        assert other.offset_ == joint_score.offset_
        assert other.with_alpha(0.2).offset_ == joint_score.with_alpha(0.2).offset_


def test_another_foreground():
    other = fitted().with_foreground(KNN(n_neighbors=3))
    assert [part[:2] for part in other.parts] == [part[:2] for part in PARTS]
    assert isinstance(other.parts[0][2], KNN)
    assert isinstance(other.parts[2][2], Mahalanobis)
    assert not hasattr(other, "offset_")


def test_needs_of_views():
    joint_score = JointScore([("a", "dense", ODIN(input_perturbation=0.1)), ("b", "classifier", Energy())])
    needs = joint_score.view_needs()
    assert (needs["dense"].perturbation, bool(needs["classifier"])) == (0.1, False)
    assert not any(joint_score.view_needs(training=True).values()), "ODIN learns nothing of training images"


# -------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"parts": []}, ValueError, "parts is empty: expected a list of tuples"),
        ({"parts": "dense"}, TypeError, r"parts='dense': expected a list of tuples \(name, view, scorer\)"),
        ({"parts": [("a", Energy())]}, TypeError, "parts holds .*: expected a list of tuples"),
        ({"parts": [PARTS[0], PARTS[0]]}, ValueError, "not unique|a different name for each part"),
        ({"parts": [("a__b", "dense", Energy())]}, ValueError, "must not contain __"),
        ({"parts": [("alpha", "dense", Energy())]}, ValueError, "conflict with constructor arguments"),
        ({"parts": [("background", "dense", Energy())]}, ValueError, "part 'background' is on the view 'dense'"),
        (
            {"parts": [("foreground", "background", BackgroundLogit())]},
            ValueError,
            "part 'foreground' is on the view 'background': expected a name that does not contradict the view",
        ),
        ({"parts": [("a", "dense", Energy)]}, TypeError, "scorer of part 'a' is the class Energy"),
        ({"parts": [("a", "background", ODIN())]}, ValueError, "part 'a' is ODIN.*, but the background view has none"),
        ({"parts": [("a", "dense", ViM(n_components=0))]}, ValueError, "part 'a': The 'n_components' parameter"),
        ({"fusion": TemperatureFusion()}, ValueError, r"Eq\. 7 joins one part"),
        ({"fusion": TemperatureFusion}, TypeError, "fusion=.*: expected an object with the methods fit and combine"),
        ({"fusion": TailProbabilityFusion("mean")}, ValueError, "fusion: The 'rule' parameter"),
        ({"alpha": 0}, ValueError, "'alpha' parameter of JointScore"),
        (
            {"parts": [("a", "dense", KNN(n_neighbors=500))]},
            ValueError,
            r"'a', KNN\(n_neighbors=500\): n_neighbors=500",
        ),
        (
            {"parts": [("a", "dense", ViM(n_components=C))]},
            ValueError,
            "'a', ViM.*n_components=8 leaves no residual",
        ),
        ({"parts": [("a", "background", MSP())]}, ValueError, r"part 'a', MSP\(\): .* 1 class\(es\)"),
        ({"alpha": 0.001}, ValueError, "100 of 300 images are held out.*alpha=0.001 needs at least 1009"),
    ],
)
def test_check_refuses_before_any_fit(changes, error, message):
    joint_score = JointScore(**{"parts": PARTS} | changes)
    with pytest.raises(error, match=message):
        joint_score.check(C, K, 200, 100)


def test_check_accepts():
    JointScore(PARTS).check(C, K, 200, 100)


@pytest.mark.parametrize(
    ("train", "held_out", "message"),
    [
        ({"dense": TRAIN[0]["dense"]}, HELD_OUT[0], r"views holds the views \['dense'\]: expected \['background'\]"),
        (TRAIN[0], {"background": HELD_OUT[0]["background"]}, "held_out holds the views"),
        (TRAIN[0] | {"dense": TRAIN[0]["dense"][:9]}, HELD_OUT[0], "views of the same images"),
    ],
)
def test_views_that_do_not_fit(train, held_out, message):
    with pytest.raises(ValueError, match=message):
        JointScore(PARTS).fit(train, TRAIN[1], held_out=(held_out, HELD_OUT[1]))


def test_too_few_held_out_images():
    few = {name: view[:28] for name, view in HELD_OUT[0].items()}
    with pytest.raises(ValueError, match=r"28 of 228 images are held out, .* alpha=0\.05 needs at least 29"):
        JointScore(PARTS).fit(*TRAIN, held_out=(few, HELD_OUT[1][:28]))
    assert JointScore(PARTS, alpha=None).fit(*TRAIN, held_out=(few, HELD_OUT[1][:28])).offset_ == -np.inf


class Warmer(ODIN):
    """Perturbs as ODIN does, with an objective of its own."""

    def perturbation_objective(self, logits):
        return logits.sum(1)


@pytest.mark.parametrize(
    "other",
    [ODIN(input_perturbation=0.2), ODIN(temperature=1, input_perturbation=0.1), Warmer(input_perturbation=0.1), KNN()],
    ids=["magnitude", "temperature", "objective", "none"],
)
def test_a_view_has_one_perturbation(other):
    """Otherwise a scorer would get images that were perturbed for another one."""
    scorer = ODIN(input_perturbation=0.1)
    with pytest.raises(ValueError, match="'a' and 'b' share the view 'dense', but need different input perturbations"):
        JointScore([("a", "dense", scorer), ("b", "dense", other)]).check_parameters()
    JointScore([("a", "dense", scorer), ("b", "dense", clone(scorer))]).check_parameters()
    JointScore([("a", "dense", scorer), ("b", "classifier", other)]).check_parameters()


# ----------------------------------------------------------- third-party fusions


class OfAllParts:
    """A third-party fusion that knows all its parts by name."""

    learns_from_scores = False

    def fit(self, parts):
        self.names = [parts[name] for name, _, _ in PARTS]

    def combine(self, parts):
        return sum(parts.values())


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda parts: np.float64(1.0), r"combine returned shape \(\) for 100 images: expected \(n,\)"),
        (lambda parts: np.ones((1, 100)), r"combine returned shape \(1, 100\) for 100 images"),
        (lambda parts: np.where(np.arange(100) < 3, np.nan, 1.0), "combine returned NaN for 3 of 100 images"),
    ],
    ids=["a number", "a row", "NaN"],
)
def test_what_a_fusion_returns_is_checked(result, message):
    fusion = OfAllParts()
    fusion.combine = result
    with pytest.raises(ValueError, match=message):
        fitted(fusion=fusion, alpha=None)


def test_a_fusion_of_all_parts_alone():
    """It fits, since only the scores of groups need a fusion of fewer parts."""
    joint_score = fitted(fusion=OfAllParts())
    parts = joint_score.score_parts(NEW)
    assert_array_equal(joint_score.score_samples(NEW), sum(parts.values()))
    assert_array_equal(joint_score.combine_group("foreground", parts), parts["foreground"])
    with pytest.raises(ValueError, match=r"cannot be fitted on the background parts .* alone: .* score_parts"):
        joint_score.combine_group("background", parts)


# ------------------------------------------------------------------ failed calls


def test_a_failed_fit_changes_nothing():
    joint_score = fitted(fusion=OfAllParts())
    before, offset = joint_score.score_samples(NEW), joint_score.offset_
    joint_score.fusion.combine = lambda parts: np.full(100, np.nan)
    with pytest.raises(ValueError, match="combine returned NaN"):
        joint_score.fit(views(200, seed=9)[0], TRAIN[1], held_out=HELD_OUT)
    assert_array_equal(joint_score.score_samples(NEW), before)
    assert joint_score.offset_ == offset


@pytest.mark.parametrize(
    ("train", "held_out", "error", "message"),
    [
        (
            (TRAIN[0], TRAIN[1][:9]),
            HELD_OUT,
            ValueError,
            r"^y has shape \(9,\): expected \(200,\), one class per image",
        ),
        (TRAIN, (HELD_OUT[0], HELD_OUT[1][:9]), ValueError, r"^y of held_out has shape \(9,\): expected \(100,\)"),
        (TRAIN, HELD_OUT[0], TypeError, r"held_out is a dict: expected a tuple \(views, y\)"),
        ((TRAIN[0]["dense"], TRAIN[1]), HELD_OUT, TypeError, "views holds a Representation: expected a dict"),
    ],
)
def test_labels_and_views_of_another_form(train, held_out, error, message):
    with pytest.raises(error, match=message):
        JointScore(PARTS).fit(*train, held_out=held_out)


def test_combine_takes_the_parts_by_name():
    joint_score = fitted(PARTS[:1])
    with pytest.raises(ValueError, match=r"parts has the names \['background'\]: expected \['foreground'\]"):
        joint_score.combine({"background": np.zeros(3)})
    with pytest.raises(NotFittedError):
        JointScore(PARTS).combine({"foreground": np.zeros(3)})


@pytest.mark.parametrize("parts", [Energy(), "dense", [("a", Energy())], None], ids=str)
def test_parameters_of_malformed_parts_are_returned(parts):
    assert JointScore(parts).get_params()["parts"] is parts


# --------------------------------------------------------------------- groups


def grouped_views(rng, n_groups, size, shift=0.0):
    """Features of groups whose images are nearly the same, as the frames of a video are."""
    features = np.repeat(rng.normal(3, 1, (n_groups, 4)), size, axis=0) + rng.normal(0, 0.05, (n_groups * size, 4))
    head = {"weight": np.eye(2, 4), "bias": np.zeros(2)}
    return {"dense": Representation.from_numpy(features=features - shift, **head)}, np.repeat(np.arange(n_groups), size)


@pytest.mark.parametrize(
    "scorers", [[Energy()], [Energy(), KNN(n_neighbors=3)]], ids=["one part", "a fusion that learns"]
)
def test_at_most_alpha_of_images_of_new_groups_are_rejected(scorers):
    """What the fusion learns from and what sets the threshold is divided by group."""
    rng = np.random.default_rng(0)
    train = grouped_views(rng, 40, 5)[0]
    new = grouped_views(rng, 1000, 1)[0]
    parts = [(f"part{place}", "dense", scorer) for place, scorer in enumerate(scorers)]
    rejected = {True: [], False: []}
    for _ in range(200):
        views, groups = grouped_views(rng, 30, 12)
        order = rng.permutation(30)[groups]
        rows = np.argsort(order, kind="stable")
        held_out = ({"dense": views["dense"][rows]}, None)
        for with_groups in (True, False):
            more = (order[rows],) if with_groups else ()
            joint_score = JointScore(parts, alpha=0.1).fit(train, np.zeros(200, int), held_out=(*held_out, *more))
            rejected[with_groups].append(np.mean(joint_score.score_samples(new) < joint_score.offset_))
    error = np.std(rejected[True]) / np.sqrt(200)
    assert 0.04 <= np.mean(rejected[True]) <= 0.1 + 2 * error
    assert np.mean(rejected[False]) > np.mean(rejected[True])


def test_no_group_is_both_learned_from_and_sets_the_threshold():
    rng = np.random.default_rng(0)
    train = grouped_views(rng, 20, 5)[0]
    views, groups = grouped_views(rng, 24, 5)
    mixed = rng.permutation(len(groups))  # not one group after the other
    parts = [("first", "dense", Energy()), ("second", "dense", KNN(n_neighbors=3))]
    joint_score = JointScore(parts, alpha=0.1)
    assert joint_score.number_needed(groups) == 11
    fitted = joint_score.fit(train, held_out=({"dense": views["dense"][mixed]}, None, groups[mixed]))
    assert len(set(fitted.calibrator_.groups_)) == 12
    assert len(fitted.calibrator_.scores_) == 60
    # The groups that occur first are learned from.
    first = list(dict.fromkeys(groups[mixed].tolist()))[:12]
    joint = fitted.score_samples({"dense": views["dense"][~np.isin(groups, first)]})
    assert_allclose(fitted.calibrator_.scores_, np.sort(joint), rtol=1e-4, atol=1e-4)
    other = fitted.with_alpha(0.2)
    assert other.offset_ > fitted.offset_
    assert_array_equal(other.p_values(joint), fitted.p_values(joint))
    with pytest.raises(ValueError, match=r"12 groups of held-out scores are too few for alpha=0\.05"):
        fitted.with_alpha(0.05)


def test_too_few_groups_are_refused():
    rng = np.random.default_rng(0)
    views, groups = grouped_views(rng, 10, 20)
    joint_score = JointScore([("first", "dense", Energy())])
    with pytest.raises(ValueError, match=r"^10 groups are held out, but alpha=0.05 needs at least 19"):
        joint_score.fit(views, held_out=(views, None, groups))
    with pytest.raises(ValueError, match="groups of held_out has 3 labels for 200 images"):
        joint_score.fit(views, held_out=(views, None, groups[:3]))
    with pytest.raises(TypeError, match=r"expected a tuple \(views, y\) or \(views, y, groups\)"):
        joint_score.fit(views, held_out=(views,))
