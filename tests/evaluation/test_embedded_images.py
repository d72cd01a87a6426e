"""DFB on the embedded images keeps the accuracy and improves every scorer, as the documentation claims."""

import math

import numpy as np
import pytest
import torch

from skdfb import CAMMaskGenerator, DFBDetector, Trainer
from skdfb.calibration import ConformalCalibrator
from skdfb.datasets import load_digits_on_photos
from skdfb.evaluation import class_accuracy, compare_scorers
from skdfb.fusion import TailProbabilityFusion, TemperatureFusion
from skdfb.networks import create_backbone
from skdfb.scorers import BackgroundLogit, Mahalanobis

pytestmark = pytest.mark.slow

RECIPE = {"max_steps": 700, "batch_size": 32, "weight_decay": 5e-4, "schedule": "cosine", "flip": False, "mixup": None}


@pytest.fixture(scope="module")
def data():
    return load_digits_on_photos(random_state=0)


@pytest.fixture(scope="module")
def detector(data):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = create_backbone("test_resnet", pretrained=False, output_stride=8)
    detector = DFBDetector(
        backbone,
        classifier_trainer=Trainer(learning_rate=0.3, **RECIPE),
        dense_trainer=Trainer(learning_rate=0.1, **RECIPE),
        image_size=64,
        random_state=0,
    )
    return detector.fit(data.images, data.target)


def test_accuracy_is_kept(detector, data):
    accuracy = class_accuracy(detector, data.images_test, data.target_test)
    assert accuracy["dfb"] >= accuracy["plain"] - 0.01


def test_no_scorer_is_worse_on_the_mean(detector, data):
    table = compare_scorers(detector, data.images_test, data.ood_images, X=data.images, y=data.target)
    means = table.to_frame().groupby(["scorer", "method"])["auroc"].mean().unstack()
    assert set(means.index) == {"MSP", "MaxLogit", "ODIN", "Energy", "ViM"}
    assert (means["dfb"] >= means["plain"]).all(), means


@pytest.mark.parametrize(
    ("fusion", "background_scorer"),
    [
        (TailProbabilityFusion("stouffer"), [BackgroundLogit(), Mahalanobis(shrinkage="auto")]),
        (TailProbabilityFusion("fisher"), [BackgroundLogit(), Mahalanobis()]),
        (TemperatureFusion(), BackgroundLogit()),
    ],
    ids=["stouffer", "fisher", "temperature"],
)
def test_no_more_than_alpha_is_rejected_over_200_splits(detector, fusion, background_scorer):
    """The conformal guarantee on images that trained nothing: some fit the fusion, some set the threshold."""
    n_learn, n_threshold, alpha = 100, 100, 0.05
    images = load_digits_on_photos(n_train=6, n_test=1000, n_ood=1, random_state=7).images_test
    parts = detector.refit_scorer(background_scorer=background_scorer, fusion=fusion).score_parts(images)
    rejected = []
    for split in range(200):
        order = np.random.default_rng(split).permutation(len(images))
        learning, setting, testing = (
            {name: scores[rows] for name, scores in parts.items()}
            for rows in np.split(order, [n_learn, n_learn + n_threshold])
        )
        fusion.fit(learning)
        calibrator = ConformalCalibrator(alpha).fit(fusion.combine(setting))
        rejected.append(np.mean(fusion.combine(testing) < calibrator.offset_))
    standard_error = np.std(rejected, ddof=1) / math.sqrt(len(rejected))
    assert np.mean(rejected) <= alpha + 2 * standard_error
    assert np.mean(rejected) >= math.floor(alpha * 101) / 101 - 3 * standard_error


def test_masks_find_the_digits(detector, data):
    masks = CAMMaskGenerator(detector.classifier_).fit_transform(data.images_test, data.target_test)
    found, true = masks < 6, data.masks_test < 6
    iou = (found & true).sum((1, 2)) / (found | true).sum((1, 2)).clip(1)
    by_chance = np.mean(found) * np.mean(true) / (np.mean(found) + np.mean(true) - np.mean(found) * np.mean(true))
    assert iou.mean() > 3 * by_chance
