"""The scores of a fitted detector against plain NumPy, written from the paper."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.special import log_softmax, logsumexp, softmax

from skdfb.fusion import TemperatureFusion
from skdfb.scorers import MSP, ODIN, BackgroundLogit, Energy, MaxLogit, ViM
from tests.detector.conftest import CLASSES, SIDE

K, TOLERANCE = CLASSES, 1e-5
# ImageNet's, which modules get that name none of their own.
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def normalised(X):
    """Pixels (n, H, W, 3) to network inputs (n, 3, H, W)."""
    return np.moveaxis((X / 255.0 - MEAN) / STD, -1, 1)


def feature_maps(detector, inputs):
    """F(x) of normalised inputs, shape (n, C, h, w)."""
    dtype = detector.dense_network_.dtype
    with torch.no_grad():
        return detector.dense_network_.feature_map(torch.from_numpy(inputs).to(dtype)).numpy().astype(np.float64)


def head(detector):
    """W' (K + 1, C) and b' (K + 1,) of the dense network."""
    layer = detector.dense_network_.head
    return (layer.weight.detach().numpy().astype(np.float64), layer.bias.detach().numpy().astype(np.float64))


def logits_of(detector, inputs):
    """All K + 1 logits by Eq. 5: W' GAP(F) + b'."""
    W, b = head(detector)
    n_images, C, h, w = (F := feature_maps(detector, inputs)).shape
    logits = np.zeros((n_images, K + 1))
    for i in range(n_images):
        pooled = np.array([sum(F[i, c, r, s] for r in range(h) for s in range(w)) / (h * w) for c in range(C)])
        logits[i] = W @ pooled + b
    return logits


def background_features_of(detector, inputs):
    """Features pooled with the weight p(K | place)."""
    W, b = head(detector)
    F = feature_maps(detector, inputs)
    pooled = np.zeros(F.shape[:2])
    for i, feature_map in enumerate(F):
        total = 0.0
        for r in range(F.shape[2]):
            for s in range(F.shape[3]):
                probability = softmax(W @ feature_map[:, r, s] + b)[K]
                pooled[i] += probability * feature_map[:, r, s]
                total += probability
        pooled[i] /= total
    return pooled


def log_softplus(scores):
    return np.log(np.log(1 + np.exp(scores)))


class RecordingScorer:
    """Keeps what it was given to score."""

    seen: list = []  # noqa: RUF012 - shared with the clones, on purpose

    def fit(self, representation, y):
        return self

    def score_samples(self, representation):
        type(self).seen.append(representation)
        return np.zeros(len(representation))


def test_background_score_is_logit_k(fitted, X_new):
    """Eq. 6."""
    oracle = logits_of(fitted, normalised(X_new))[:, K]
    assert np.ptp(oracle) > 0.01
    assert_allclose(fitted.score_background(X_new), oracle, atol=TOLERANCE)
    assert isinstance(fitted.part_scorers_["background"], BackgroundLogit)


def test_background_score_is_the_mean_of_the_logit_map(fitted, X_new):
    """Eq. 5 and 6: before and after the conversion."""
    W, b = head(fitted)
    logit_map = np.einsum("kc,nchw->nkhw", W, feature_maps(fitted, normalised(X_new))) + b[:, None, None]
    assert_allclose(fitted.score_background(X_new), logit_map[:, K].mean((1, 2)), atol=TOLERANCE)


def test_background_representation(fitted, X_new):
    """Features are pooled over the probability of the background; the only logit is S_b."""
    detector = fitted.refit_scorer(background_scorer=RecordingScorer())
    RecordingScorer.seen.clear()
    detector.score_samples(X_new)
    (representation,) = RecordingScorer.seen
    W, b = head(fitted)
    assert_allclose(representation.features, background_features_of(fitted, normalised(X_new)), atol=TOLERANCE)
    assert_allclose(representation.logits, logits_of(fitted, normalised(X_new))[:, K:], atol=TOLERANCE)
    assert_allclose(representation.weight, W[K:])
    assert_allclose(representation.bias, b[K:])


def test_foreground_representation(fitted, X_new):
    """Features are GAP(F), logits the first K."""
    detector = fitted.refit_scorer(RecordingScorer())
    RecordingScorer.seen.clear()
    detector.score_samples(X_new)
    (representation,) = RecordingScorer.seen
    W, b = head(fitted)
    inputs = normalised(X_new)
    assert_allclose(representation.features, feature_maps(fitted, inputs).mean((2, 3)), atol=TOLERANCE)
    assert_allclose(representation.logits, logits_of(fitted, inputs)[:, :K], atol=TOLERANCE)
    assert_allclose(representation.weight, W[:K])
    assert_allclose(representation.bias, b[:K])
    assert_allclose(fitted.transform(X_new), representation.features, atol=TOLERANCE)
    assert_allclose(fitted.predict_proba(X_new), softmax(logits_of(fitted, inputs)[:, :K], axis=1), atol=TOLERANCE)


@pytest.mark.parametrize("temperature", [2.5, 0.7])
@pytest.mark.parametrize(
    ("scorer", "oracle"),
    [(Energy(), lambda z: logsumexp(z, axis=1)), (MaxLogit(), lambda z: z.max(1))],
    ids=["Energy", "MaxLogit"],
)
def test_joint_score_of_logits(fitted, X_new, scorer, oracle, temperature):
    """Eq. 7, S = S_f + S_b / T."""
    detector = fitted.refit_scorer(scorer, fusion=TemperatureFusion(temperature=temperature))
    logits = logits_of(fitted, normalised(X_new))
    foreground = oracle(logits[:, :K])
    assert_allclose(detector.score_foreground(X_new), foreground, atol=TOLERANCE)
    assert_allclose(detector.score_samples(X_new), foreground + logits[:, K] / temperature, atol=TOLERANCE)


def test_joint_score_of_vim(fitted64, X, X_new):
    """Eq. 7 with ViM, which also learns from the training images alone, not from those held out.

    In float64: ViM multiplies the rounding of its residual by alpha, which is about 60 here.
    """
    fitted = fitted64
    W, b = (array[:K] for array in head(fitted))
    D = fitted.scorer_.n_components_
    origin = -np.linalg.pinv(W) @ b
    train = X[fitted._split_.train]
    centred = feature_maps(fitted, normalised(train)).mean((2, 3)) - origin
    _, vectors = np.linalg.eigh(centred.T @ centred)
    residual_basis = vectors[:, : len(origin) - D]
    train_logits = logits_of(fitted, normalised(train))[:, :K]
    alpha = train_logits.max(1).sum() / np.linalg.norm(centred @ residual_basis, axis=1).sum()

    logits = logits_of(fitted, normalised(X_new))
    features = feature_maps(fitted, normalised(X_new)).mean((2, 3))
    residual = np.linalg.norm((features - origin) @ residual_basis, axis=1)
    oracle = logsumexp(logits[:, :K], axis=1) - alpha * residual + logits[:, K] / 2.5
    assert isinstance(fitted.scorer_, ViM)
    assert_allclose(fitted.score_samples(X_new), oracle, atol=TOLERANCE)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_joint_score_of_probabilities(fitted, X_new, temperature):
    """Eq. 7, S = S_f + log S_b, with softplus about S_b and a divisor."""
    detector = fitted.refit_scorer(MSP(), fusion=TemperatureFusion(probability_temperature=temperature))
    logits = logits_of(fitted, normalised(X_new))
    log_probability = log_softmax(logits[:, :K], axis=1).max(1)
    assert_allclose(detector.score_foreground(X_new), log_probability, atol=TOLERANCE)
    joint = np.exp(log_probability) + log_softplus(logits[:, K]) / temperature
    assert_allclose(detector.score_samples(X_new), joint, atol=TOLERANCE)


@pytest.mark.parametrize("scorer", [ODIN(temperature=2.0, input_perturbation=0.05), ODIN()], ids=["strong", "default"])
def test_odin_perturbs_by_the_sign_of_the_gradient(fitted64, X, y, X_new, scorer):
    """x' = x + eps sign(grad) / std, the gradient by finite differences of the pixels."""
    T, epsilon = scorer.temperature, scorer.input_perturbation
    detector = fitted64.refit_scorer(scorer, X, y)

    def objective(inputs):
        return log_softmax(logits_of_all(inputs) / T, axis=1).max(1)

    def logits_of_all(inputs):
        W, b = head(detector)
        return feature_maps(detector, inputs).mean((2, 3)) @ W[:K].T + b[:K]

    images = normalised(X_new[:3])
    perturbed = np.empty_like(images)
    n_pixels, step = 3 * SIDE * SIDE, 1e-5
    for i, image in enumerate(images):
        moves = step * np.eye(n_pixels).reshape(n_pixels, *image.shape)
        gradient = (objective(image + moves) - objective(image - moves)) / (2 * step)
        # A pixel that reaches no active unit has gradient 0, and is not moved; the differences show rounding there.
        sign = np.where(np.abs(gradient) > 1e-9 / T, np.sign(gradient), 0.0)
        perturbed[i] = image + epsilon * sign.reshape(image.shape) / STD[:, None, None]

    foreground, logits = objective(perturbed), logits_of(detector, images)
    if epsilon > 0.01:
        assert np.abs(foreground - objective(images)).min() > 1e-2
        assert (foreground > objective(images)).all()
    assert_allclose(detector.score_foreground(X_new[:3]), foreground, atol=TOLERANCE / T)
    # The background sees the images as they are.
    assert_allclose(detector.score_background(X_new[:3]), logits[:, K], atol=TOLERANCE)
    joint = np.exp(foreground) + log_softplus(logits[:, K])
    assert_allclose(detector.score_samples(X_new[:3]), joint, atol=TOLERANCE)


def test_threshold_is_that_of_the_held_out_images(fitted, X):
    """offset_ is the k-th smallest score of images that trained nothing, k = floor(alpha (n + 1))."""
    train, held_out = fitted._split_.train, fitted._split_.held_out
    assert sorted([*train, *held_out]) == list(range(len(X)))
    scores = np.sort(fitted.score_samples(X[held_out]))
    assert_allclose(fitted.calibrator_.scores_, scores, atol=TOLERANCE)
    k = int(np.floor(0.05 * (len(held_out) + 1)))
    assert k == 1
    assert_allclose(fitted.offset_, scores[k - 1], atol=TOLERANCE)


def test_p_values(fitted, X, X_new):
    """p = (1 + #{held-out scores <= s}) / (n + 1)."""
    held_out = fitted.calibrator_.scores_
    oracle = [
        (1 + sum(other <= score for other in held_out)) / (len(held_out) + 1) for score in fitted.score_samples(X_new)
    ]
    assert_allclose(fitted.p_values(X_new), oracle)


def bilinear(image, height, width):
    """Resize (h, w) to (height, width), pixel centres at half-integers, edges continued."""
    h, w = image.shape
    rows = np.clip((np.arange(height) + 0.5) * h / height - 0.5, 0, h - 1)
    columns = np.clip((np.arange(width) + 0.5) * w / width - 0.5, 0, w - 1)
    out = np.zeros((height, width))
    for i, r in enumerate(rows):
        for j, c in enumerate(columns):
            top, left = int(r), int(c)
            bottom, right = min(top + 1, h - 1), min(left + 1, w - 1)
            a, b = r - top, c - left
            out[i, j] = (
                (1 - a) * (1 - b) * image[top, left] + (1 - a) * b * image[top, right]
                + a * (1 - b) * image[bottom, left] + a * b * image[bottom, right]
            )  # fmt: skip
    return out


def test_segmentation_is_the_softmax_of_the_enlarged_logit_map(fitted, X_new):
    """Eq. 3: softmax(up(W' F + b'))."""
    W, b = head(fitted)
    logit_maps = np.einsum("kc,nchw->nkhw", W, feature_maps(fitted, normalised(X_new[:2]))) + b[:, None, None]
    oracle = [softmax([bilinear(logits, SIDE, SIDE) for logits in maps], axis=0) for maps in logit_maps]
    assert_allclose(fitted.segment(X_new[:2]), np.moveaxis(oracle, 1, -1), atol=TOLERANCE)
