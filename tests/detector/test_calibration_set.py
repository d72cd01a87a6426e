"""Which images set the threshold: whole groups of the training images, or images of the caller's own."""

import pickle
import re
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GroupKFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from torch.utils.data import TensorDataset

import skdfb
from skdfb import Trainer
from skdfb.detector import FeatureDetector
from skdfb.evaluation import compare_scorers
from skdfb.exceptions import DuplicateImagesWarning
from skdfb.fusion import TailProbabilityFusion
from skdfb.scorers import MSP, Energy, TemperatureScaled
from skdfb.scoring import JointScore
from tests.detector.conftest import make_detector, make_images
from tests.helpers import TinyBackbone

X, y = make_images()
X_OWN, y_own = make_images(30, seed=5)
X_NEW = make_images(24, seed=1)[0]
SHORT = Trainer(max_steps=2, batch_size=16)


def short_detector(**changes):
    trainers = {"classifier_trainer": SHORT, "dense_trainer": SHORT}
    return make_detector(**trainers | {"scorer": Energy()} | changes)


class Counting(Trainer):
    """Counts the trainings that began."""

    began = 0

    def train(self, *arguments, **options):
        type(self).began += 1
        return super().train(*arguments, **options)


def videos(n_videos, n_frames, seed):
    """Frames that differ from each other by very little, beside what tells the videos apart."""
    rng = np.random.default_rng(seed)
    labels, frames = np.arange(n_videos) % 3, []
    for label in labels:
        base = rng.integers(0, 90, (16, 16, 3)) * rng.uniform(0.3, 1)
        base[4:12, 4:12, label] += rng.uniform(20, 150)
        frames += [np.clip(base + rng.integers(-2, 3, base.shape), 0, 255).astype(np.uint8) for _ in range(n_frames)]
    return np.stack(frames), np.repeat(labels, n_frames), np.repeat(np.arange(n_videos), n_frames)


# --------------------------------------------------------------------- groups


def test_groups_bring_the_rejected_share_down_to_alpha():
    images, labels, groups = videos(60, 8, seed=0)
    new = videos(300, 1, seed=1)[0]
    rejected = {True: [], False: []}
    for seed in range(3):
        trainer = Trainer(max_steps=60, batch_size=32, learning_rate=0.1)
        detector = make_detector(
            classifier_trainer=trainer, dense_trainer=trainer, alpha=0.1, calibration_fraction=0.4, random_state=seed
        )
        for with_groups in (True, False):
            # Frames of one video on both sides are warned of, and groups leave none.
            expected = nullcontext() if with_groups else pytest.warns(DuplicateImagesWarning, match="groups=")
            with expected:
                fitted = clone(detector).fit(images, labels, groups=groups if with_groups else None)
            rejected[with_groups].append((fitted.predict(new) == -1).mean())
    assert np.mean(rejected[True]) < 0.13
    assert np.mean(rejected[False]) > np.mean(rejected[True])


def test_whole_groups_are_held_out():
    groups = pd.Series([f"patient {row // 2}" for row in range(60)])
    detector = short_detector(alpha=0.2, fusion=TailProbabilityFusion()).fit(X, y, groups=groups)
    train, held_out = detector._split_
    assert not set(groups[train]) & set(groups[held_out])
    assert len(set(groups[held_out])) == round(0.35 * 30)
    assert detector.calibration_fraction_ == len(held_out) / 60
    assert len(detector.calibrator_.scores_) == len(detector.calibrator_.groups_)
    again = short_detector(alpha=0.2, fusion=TailProbabilityFusion()).fit(X, y, groups=list(groups))
    assert_array_equal(again.score_samples(X_NEW), detector.score_samples(X_NEW))


def test_a_detector_with_groups_is_refitted_saved_and_given_another_alpha(tmp_path):
    groups = np.arange(60) // 2
    detector = short_detector(alpha=0.1).fit(X, y, groups=groups)
    assert detector.with_alpha(0.2).offset_ >= detector.offset_
    refitted = detector.refit_scorer(MSP())
    assert_array_equal(detector.refit_scorer(MSP(), X, y).p_values(X_NEW), refitted.p_values(X_NEW))
    assert refitted.calibrator_.groups_ is not None
    with pytest.raises(ValueError, match=r"^10 groups are held out, but with alpha=0.05 .* at least 19\. Pass"):
        detector.refit_scorer(alpha=0.05)
    assert np.isfinite(detector.refit_scorer(alpha=0.2).offset_)
    assert detector.with_alpha(None).refit_scorer(MSP()).offset_ == -np.inf
    detector.save(tmp_path / "detector.safetensors")
    for copy in (
        skdfb.load(tmp_path / "detector.safetensors", customs=[TinyBackbone]),
        pickle.loads(pickle.dumps(detector)),
    ):
        assert_allclose(copy.p_values(X_NEW), detector.p_values(X_NEW))
        assert_allclose(copy.with_alpha(0.2).offset_, detector.with_alpha(0.2).offset_)
        assert copy.refit_scorer(MSP(), X, y).offset_ == pytest.approx(refitted.offset_)
    table = compare_scorers(detector, X_NEW, {"noise": X[::-1]}, X=X, y=y, scorers=[MSP()])
    assert len(table["auroc"]) == 3


def test_too_few_groups_cost_no_step():
    images, labels, groups = videos(20, 3, seed=0)
    trainer = Counting(max_steps=2, batch_size=16)
    detector = short_detector(classifier_trainer=trainer, dense_trainer=trainer, calibration_fraction="auto")
    with pytest.raises(ValueError, match=r"^10 of 20 groups are held out, but alpha=0.05 needs at least 19") as raised:
        detector.fit(images, labels, groups=groups)
    assert Counting.began == 0
    alpha, more, own = re.search(
        r"Pass alpha=([\d.]+), or alpha=None, .*, or at least (\d+) groups with calibration_fraction='auto', or an "
        r"X_calibration of at least (\d+) groups",
        str(raised.value),
    ).groups()
    assert np.isfinite(clone(detector).set_params(alpha=float(alpha)).fit(images, labels, groups=groups).offset_)
    assert clone(detector).set_params(alpha=None).fit(images, labels, groups=groups).offset_ == -np.inf
    images_more, labels_more, groups_more = videos(int(more), 3, seed=0)
    assert np.isfinite(clone(detector).fit(images_more, labels_more, groups=groups_more).offset_)
    images_own, _, groups_own = videos(int(own), 3, seed=1)
    fitted = clone(detector).fit(images, labels, X_calibration=images_own, groups_calibration=groups_own)
    assert np.isfinite(fitted.offset_)
    assert len(set(fitted.calibrator_.groups_)) == int(own)


# -------------------------------------------------------- images of the caller


@pytest.fixture(scope="module")
def fitted():
    return short_detector().fit(X, y, X_calibration=X_OWN, y_calibration=y_own)


def test_own_images_set_the_threshold_and_all_others_train(fitted):
    assert_array_equal(fitted._split_.train, np.arange(60))
    assert_array_equal(np.sort(fitted._split_.held_out), np.arange(60, 90))
    assert_allclose(fitted.calibrator_.scores_, np.sort(fitted.score_samples(X_OWN)), rtol=1e-5, atol=1e-5)
    assert fitted.calibration_fraction_ == 30 / 90
    # The networks do not depend on the images that set the threshold.
    other = short_detector().fit(X, y, X_calibration=X_OWN[:20])
    assert_array_equal(other.transform(X_NEW), fitted.transform(X_NEW))
    assert_allclose(other.score_samples(X_NEW), fitted.score_samples(X_NEW), rtol=1e-5)
    unlabelled = short_detector().fit(X, X_calibration=X_OWN)
    assert len(unlabelled.calibrator_.scores_) == 30
    # The clusters do not depend on them either.
    fewer = short_detector().fit(X, X_calibration=X_OWN[:20])
    assert_array_equal(fewer.transform(X_NEW), unlabelled.transform(X_NEW))


@pytest.mark.parametrize(
    "own",
    [
        [Image.fromarray(image) for image in X_OWN],
        list(X_OWN),
        torch.from_numpy(X_OWN),
        TensorDataset(torch.from_numpy(X_OWN).permute(0, 3, 1, 2), torch.from_numpy(y_own)),
    ],
    ids=["PIL images", "list", "tensor", "dataset"],
)
def test_own_images_come_in_any_form(fitted, own):
    detector = short_detector().fit(X, y, X_calibration=own)
    assert detector.offset_ == pytest.approx(fitted.offset_)


def test_a_dataset_brings_the_labels_of_own_images():
    dataset = TensorDataset(torch.from_numpy(X_OWN).permute(0, 3, 1, 2), torch.from_numpy(y_own))
    scorer = TemperatureScaled(Energy())
    detector = short_detector(scorer=scorer, alpha=0.2).fit(X, y, X_calibration=dataset)
    other = short_detector(scorer=scorer, alpha=0.2).fit(X, y, X_calibration=X_OWN, y_calibration=list(y_own))
    assert detector.scorer_.temperature_ == pytest.approx(other.scorer_.temperature_)


def test_a_detector_with_own_images_is_refitted_saved_and_given_another_alpha(fitted, tmp_path):
    assert fitted.with_alpha(0.2).offset_ >= fitted.offset_
    refitted = fitted.refit_scorer(MSP())
    again = fitted.refit_scorer(MSP(), X, y, X_calibration=X_OWN)
    assert_allclose(again.p_values(X_NEW), refitted.p_values(X_NEW))
    assert refitted.refit_scorer(TemperatureScaled(MSP()), alpha=0.2).scorer_.temperature_ > 0
    fitted.save(tmp_path / "detector.safetensors")
    loaded = skdfb.load(tmp_path / "detector.safetensors", customs=[TinyBackbone])
    assert_allclose(loaded.refit_scorer(MSP(), X, y, X_calibration=X_OWN).p_values(X_NEW), refitted.p_values(X_NEW))
    joint_score = JointScore([("foreground", "dense", Energy())])
    train, held_out = fitted.represent_training_images(X, y, joint_score, X_calibration=X_OWN)
    assert [len(part[1]) for part in (train, held_out)] == [60, 30]
    joint_score.fit(*train, held_out=held_out)
    table = compare_scorers(fitted, X_NEW, {"noise": X[::-1]}, X=X, y=y, scorers=[MSP()], X_calibration=X_OWN)
    assert len(table["auroc"]) == 3


def test_a_refit_needs_the_own_images(fitted):
    with pytest.raises(ValueError, match=r"^X_calibration has 0 images: expected the 30 of fit"):
        fitted.refit_scorer(MSP(), X, y)
    with pytest.raises(ValueError, match=r"^X_calibration has 0 images: expected the 30 of fit"):
        compare_scorers(fitted, X_NEW, {"noise": X[::-1]}, X=X, y=y, scorers=[MSP()])
    with pytest.raises(ValueError, match=r"^X has 90 images: expected the 60 of fit"):
        fitted.refit_scorer(MSP(), np.concatenate([X, X_OWN]))
    without = short_detector().fit(X, y, X_calibration=X_OWN)
    with pytest.raises(ValueError, match=r"part 'foreground', .*learns from images that set the threshold.*y_calib"):
        without.refit_scorer(TemperatureScaled(MSP()))


OWN_GROUPS = np.arange(30) // 2
FLOATS = X_OWN.astype(np.float32) / 255
BAD = [
    ({"X_calibration": FLOATS}, "X_calibration: X holds colour images of floats .*but fit was given .*integers"),
    ({"X_calibration": X_OWN[..., :2]}, "X_calibration: "),
    ({"X_calibration": ["no such file.png"]}, "X_calibration: image 0 is missing"),
    (
        {"X_calibration": X_OWN[:10]},
        r"10 images are held out, but alpha=0.05 needs .*Pass alpha=0.091, .*least 19 images",
    ),
    ({"X_calibration": X_OWN, "y_calibration": y_own[:5]}, "X_calibration has 30 images and y_calibration has 5"),
    ({"X_calibration": X_OWN, "y_calibration": y_own + 1}, r"y_calibration holds \[3\], which are not classes of y"),
    ({"X_calibration": X_OWN, "y_calibration": y_own, "y": None}, "y_calibration is given, but y is None"),
    ({"y_calibration": y_own}, "y_calibration is given, but X_calibration is None"),
    ({"groups_calibration": OWN_GROUPS}, "groups_calibration is given, but X_calibration is None"),
    (
        {"X_calibration": X_OWN, "groups_calibration": OWN_GROUPS[:3]},
        "groups_calibration has 3 labels for 30 images of X_c",
    ),
    (
        {"X_calibration": X_OWN, "groups": np.arange(60)},
        "groups are those of X, but .*expected groups_calibration as well",
    ),
    (
        {"X_calibration": X_OWN, "groups": np.arange(60), "groups_calibration": torch.from_numpy(OWN_GROUPS + 50)},
        r"share 10 group\(s\): expected none",
    ),
    (
        {"X_calibration": X_OWN, "groups_calibration": OWN_GROUPS},
        "15 groups are held out, but alpha=0.05 needs at least 19",
    ),
    ({"groups": np.arange(50)}, "groups has 50 labels for 60 images of X"),
    ({"groups": y}, r"class 0 has images of one group only: .*pass an X_calibration"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=range(len(BAD)))
def test_what_does_not_belong_together_costs_no_step(arguments, message):
    Counting.began = 0
    trainer = Counting(max_steps=2)
    detector = short_detector(classifier_trainer=trainer, dense_trainer=trainer)
    with pytest.raises((TypeError, ValueError), match=message):
        detector.fit(X, **{"y": y} | arguments)
    assert Counting.began == 0
    assert not hasattr(detector, "classes_")


def test_the_remedies_for_groups_of_x_beside_own_images():
    groups = np.arange(60)
    for arguments in ({"groups": groups, "groups_calibration": np.arange(60, 90)}, {"groups": None}):
        detector = short_detector().fit(X, y, X_calibration=X_OWN, **arguments)
        assert np.isfinite(detector.offset_)
        assert (detector.calibrator_.groups_ is None) == (arguments["groups"] is None)


def test_a_scorer_of_held_out_classes_needs_the_labels_of_own_images():
    Counting.began = 0
    trainer = Counting(max_steps=2)
    scorer = TemperatureScaled(Energy())
    detector = short_detector(classifier_trainer=trainer, dense_trainer=trainer, scorer=scorer, alpha=0.2)
    with pytest.raises(ValueError, match="expected y, and y_calibration beside X_calibration"):
        detector.fit(X, y, X_calibration=X_OWN)
    assert Counting.began == 0
    detector.fit(X, y, X_calibration=X_OWN, y_calibration=y_own)


# ------------------------------------------------------------------- features


def test_groups_and_own_rows_of_features():
    rng = np.random.default_rng(0)
    labels, groups = np.repeat(np.arange(60) % 2, 5), np.repeat(np.arange(60), 5)
    rows = np.repeat(rng.normal(size=(60, 6)), 5, axis=0) + labels[:, None] + 0.01 * rng.normal(size=(300, 6))
    detector = FeatureDetector(alpha=0.1, random_state=0).fit(rows, labels, groups=groups)
    assert len(set(detector.calibrator_.groups_)) == 9
    assert len(detector.calibrator_.scores_) == 45
    own = rng.normal(size=(40, 6)) + 0.5
    detector = FeatureDetector(random_state=0).fit(rows, labels, X_calibration=own)
    assert_allclose(detector.calibrator_.scores_, np.sort(detector.score_samples(own)), atol=1e-4)
    detector = FeatureDetector(TemperatureScaled(Energy()), alpha=0.2, random_state=0)
    detector.fit(rows, labels, X_calibration=own, y_calibration=np.arange(40) % 2, groups_calibration=np.arange(40))
    with pytest.raises(ValueError, match="expected y, and y_calibration beside X_calibration"):
        detector.fit(rows, labels, X_calibration=own)
    with pytest.raises(ValueError, match="X_calibration: X has 5 features"):
        detector.fit(rows, labels, X_calibration=own[:, :5])
    with pytest.raises(ValueError, match=r"^6 of 60 groups are held out, but alpha=0.05 needs"):
        FeatureDetector(calibration_fraction=0.1).fit(rows, labels, groups=groups)
    FeatureDetector().fit(rows, X_calibration=own)


# ------------------------------------------------------------------- metadata


@pytest.mark.parametrize("in_pipeline", [False, True])
def test_groups_are_routed(in_pipeline):
    rng = np.random.default_rng(0)
    labels, groups = np.repeat(np.arange(60) % 2, 5), np.repeat(np.arange(60), 5)
    rows = rng.normal(size=(300, 6)) + labels[:, None]
    with sklearn.config_context(enable_metadata_routing=True):
        detector = FeatureDetector(alpha=0.2, random_state=0).set_fit_request(groups=True)
        assert clone(detector).get_metadata_routing().fit.requests["groups"] is True
        estimator = make_pipeline(FunctionTransformer(), detector) if in_pipeline else detector
        found = cross_validate(
            estimator,
            rows,
            labels,
            cv=GroupKFold(3),
            params={"groups": groups},
            scoring=lambda fitted, X, y: (fitted.predict(X) == 1).mean(),
            return_estimator=True,
            error_score="raise",
        )
        last = [fitted[-1] if in_pipeline else fitted for fitted in found["estimator"]]
        assert all(fitted.calibrator_.groups_ is not None for fitted in last)


def test_groups_of_images_are_routed():
    groups = np.arange(60) // 2
    with sklearn.config_context(enable_metadata_routing=True):
        detector = short_detector(alpha=0.2).set_fit_request(groups=True)
        assert clone(detector).get_metadata_routing().fit.requests["groups"] is True
        found = cross_validate(
            detector, X, y, cv=GroupKFold(2), params={"groups": groups}, return_estimator=True, error_score="raise"
        )
        assert all(fitted.calibrator_.groups_ is not None for fitted in found["estimator"])
