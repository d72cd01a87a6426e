"""Bad input is refused before any training, by a message that says what was given and what is wanted."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.exceptions import NotFittedError
from torch import nn
from torch.utils.data import Dataset

from skdfb import CAMMaskGenerator, Trainer
from skdfb.fusion import TemperatureFusion
from skdfb.networks import DenseClassifier
from skdfb.scorers import MSP, ODIN, BackgroundLogit, Energy, ViM
from tests.detector.conftest import SIDE, make_detector, make_images, tiny_backbone

N = 60


class NoTrainer(Trainer):
    """Fails the test where the training begins."""

    def train(self, *args, **kwargs):
        pytest.fail("training began")


def fit(X=None, y=None, **changes):
    """Fit a detector on good data with some of it, or some parameters, replaced."""
    good_X, good_y = make_images(N)
    unchanged = {"classifier_trainer": NoTrainer(), "dense_trainer": NoTrainer()}
    make_detector(**unchanged | changes).fit(good_X if X is None else X, good_y if y is None else y)


def with_pixel(value, dtype=np.float32):
    images = (make_images(N)[0] / 255).astype(dtype)
    images[7, 2, 3, 1] = value
    return images


def images_of_shape(*shape, dtype=np.uint8):
    return np.zeros(shape, dtype)


def labels(*counts):
    return np.repeat(np.arange(len(counts)), counts)


class Pooled(nn.Module):
    """Gives no map."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 8)

    def forward(self, images):
        return self.linear(images.mean((2, 3)))


class OnlyFit:
    def fit(self, representation, y):
        return self


class OnlyScore:
    def score_samples(self, representation):
        return np.zeros(len(representation))


class FitWithoutLabels:
    def fit(self, representation):
        return self

    def score_samples(self, representation):
        return np.zeros(len(representation))


class OddOutput(Energy):
    output = "odds"


class Items(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield from ()


CASES = {
    # Images; what is none is in tests/bad_images.py.
    "NaN in a table": (
        lambda: fit(np.full((N, 5), np.nan)),
        ValueError,
        "Input X contains NaN",
    ),
    "no paths": (lambda: fit(np.array([], dtype=str), []), ValueError, "X has 0 images: expected at least 1"),
    "an empty list": (lambda: fit([], []), ValueError, "X has 0 images: expected at least 1"),
    "items that are no images": (
        lambda: fit(Items(["there", "is", "none"]), [0, 1, 1]),
        ValueError,
        "image 0 is missing: there is no file 'there'",
    ),
    "NaN in a dataset": (
        lambda: fit(Items([*torch.rand(5, 3, 16, 16), torch.full((3, 16, 16), torch.nan)]), [0, 1, 0, 1, 0, 1]),
        ValueError,
        "image 5 contains NaN or infinity",
    ),
    # Labels.
    "fewer labels": (
        lambda: fit(y=labels(30, 29)),
        ValueError,
        "X has 60 images and y has 59 labels: expected one label per image",
    ),
    "more labels": (
        lambda: fit(y=labels(30, 31)),
        ValueError,
        "X has 60 images and y has 61 labels: expected one label per image",
    ),
    "one class": (lambda: fit(y=labels(60)), ValueError, "y has one class, .*0.*: expected at least 2 classes"),
    "class of one image": (
        lambda: fit(y=labels(30, 29, 1)),
        ValueError,
        r"y: class 2 has 1 image\(s\): expected at least 2",
    ),
    "continuous labels": (lambda: fit(y=np.linspace(0, 1, N)), ValueError, "Unknown label type: continuous"),
    "two columns": (lambda: fit(y=np.zeros((N, 2))), ValueError, "y should be a 1d array, got an array of shape"),
    "NaN label": (lambda: fit(y=np.where(np.arange(N) == 3, np.nan, 1.0)), ValueError, "Input y contains NaN"),
    "class of one image in a dataset": (
        lambda: make_detector(classifier_trainer=NoTrainer()).fit(
            Items([(image, i > 0) for i, image in enumerate(torch.rand(9, 3, 16, 16))])
        ),
        ValueError,
        r"class False has 1 image\(s\): expected at least 2",
    ),
    "no labels, few images": (
        lambda: make_detector(classifier_trainer=NoTrainer()).fit(make_images(3)[0]),
        ValueError,
        "X has 3 images and y is None: expected at least 4 images",
    ),
    # Calibration.
    "calibration_fraction 0": (
        lambda: fit(calibration_fraction=0),
        ValueError,
        r"'calibration_fraction' parameter .* range \(0\.0, 0\.5\] or a str among {'auto'}\. Got 0",
    ),
    "calibration_fraction 0.6": (
        lambda: fit(calibration_fraction=0.6),
        ValueError,
        "'calibration_fraction' parameter .*Got 0.6",
    ),
    "calibration_fraction too small": (
        lambda: fit(calibration_fraction=0.01),
        ValueError,
        r"calibration_fraction=0\.01 of 60 images is less than one held-out image: use .* at least 0\.017",
    ),
    "alpha 0": (
        lambda: fit(alpha=0),
        ValueError,
        r"'alpha' parameter of DFBDetector must be .* range \(0\.0, 1\.0\) or None\. Got 0",
    ),
    "alpha 1": (lambda: fit(alpha=1.0), ValueError, r"'alpha' parameter of DFBDetector must be"),
    "too few held-out images": (
        lambda: fit(calibration_fraction=0.1),
        ValueError,
        r"6 of 60 images are held out, but alpha=0\.05 needs at least 19: .*calibration_fraction=0\.317",
    ),
    "a scorer whose fit takes no labels": (
        lambda: fit(scorer=FitWithoutLabels()),
        TypeError,
        r"scorer of part 'foreground' is .*, whose fit cannot be called with 2 argument\(s\)",
    ),
    # Scorers that do not fit the network: TinyBackbone has 8 features.
    "ViM with too many components": (
        lambda: fit(scorer=ViM(n_components=8)),
        ValueError,
        r"part 'foreground', ViM\(n_components=8\): n_components=8 leaves no residual of the 8 feature\(s\)",
    ),
    "MSP of a single logit": (
        lambda: fit(background_scorer=MSP()),
        ValueError,
        r"part 'background', MSP\(\): representation has logits of 1 class\(es\); MSP needs at least 2",
    ),
    # Backbones.
    "image_size beside a trained classifier": (
        lambda: fit(backbone=DenseClassifier(tiny_backbone(), 2, image_size=16), image_size=32),
        ValueError,
        "image_size=32 is given beside a DenseClassifier as backbone, which takes images of 16 pixels",
    ),
    "unknown backbone": (
        lambda: fit(backbone="resnet5"),
        ValueError,
        r"backbone='resnet5' is no timm model\. Near names: .*resnet5",
    ),
    "unknown tag": (
        lambda: fit(backbone="resnet50.no_such"),
        ValueError,
        r"timm has no weights tagged 'no_such' for resnet50; its tags:.*a1_in1k",
    ),
    "backbone class": (lambda: fit(backbone=nn.Identity), ValueError, "'backbone' parameter of DFBDetector must be"),
    "backbone None": (lambda: fit(backbone=None), ValueError, "'backbone' parameter of DFBDetector must be"),
    "map too small": (
        lambda: fit(image_size=12),
        ValueError,
        r"backbone TinyBackbone gives a 3 x 3 feature map for image_size=12: expected at least 4 x 4,.*output_stride",
    ),
    "no map": (
        lambda: fit(backbone=Pooled()),
        ValueError,
        r"backbone Pooled gives no spatial feature map .*its output is of shape \(1, 8\)",
    ),
    "the start before a training of which nothing is known": (
        lambda: make_detector(
            backbone=DenseClassifier(tiny_backbone(), 2, image_size=16),
            dense_trainer=NoTrainer(dense_start="pretrained"),
            calibration_fraction=0.35,
        ).fit(make_images(N)[0], np.arange(N) % 2),
        ValueError,
        "dense_trainer has dense_start='pretrained', but backbone is a DenseClassifier",
    ),
    "other classes": (
        lambda: fit(backbone=DenseClassifier(tiny_backbone(), 5, image_size=SIDE)),
        ValueError,
        "backbone is a DenseClassifier with 5 outputs.* y has 3 classes",
    ),
    # Scorers, fusion, masks.
    "scorer class": (
        lambda: fit(scorer=Energy),
        TypeError,
        r"scorer of part 'foreground' is the class Energy: expected an instance, pass Energy\(\)",
    ),
    "scorer without score_samples": (
        lambda: fit(scorer=OnlyFit()),
        TypeError,
        r"scorer of part 'foreground' is .*, a OnlyFit without score_samples: expected a scorer with fit",
    ),
    "scorer without fit": (
        lambda: fit(scorer=OnlyScore()),
        TypeError,
        "scorer of part 'foreground' is .*, a OnlyScore without fit: expected",
    ),
    "scorer name": (
        lambda: fit(scorer="vim"),
        TypeError,
        "scorer of part 'foreground' is 'vim', a str without fit and score_samples: expected",
    ),
    "scorer output": (
        lambda: fit(scorer=OddOutput()),
        ValueError,
        "OddOutput.output is 'odds': expected one of 'logit'",
    ),
    "scorer parameter": (
        lambda: fit(scorer=ViM(n_components=0)),
        ValueError,
        "part 'foreground': The 'n_components' parameter of ViM must be",
    ),
    "background scorer class": (
        lambda: fit(background_scorer=BackgroundLogit),
        TypeError,
        "scorer of part 'background' is the class BackgroundLogit",
    ),
    "background scorer without fit": (
        lambda: fit(background_scorer=OnlyScore()),
        TypeError,
        "scorer of part 'background' is .* without fit",
    ),
    "background scorer that perturbs": (
        lambda: fit(background_scorer=ODIN()),
        ValueError,
        r"part 'background' is ODIN\(\), which needs perturbed images",
    ),
    "fusion class": (
        lambda: fit(fusion=TemperatureFusion),
        TypeError,
        "fusion=.*: expected an object with the methods fit and combine",
    ),
    "fusion without combine": (
        lambda: fit(fusion=Energy()),
        TypeError,
        "fusion=Energy.*: expected an object with the methods fit and combine",
    ),
    "fusion parameter": (
        lambda: fit(fusion=TemperatureFusion(temperature=0)),
        ValueError,
        "fusion: The 'temperature' parameter",
    ),
    "mask generator class": (
        lambda: fit(mask_generator=CAMMaskGenerator),
        TypeError,
        "mask_generator=.*: expected an object with the method fit_transform",
    ),
    "mask generator name": (
        lambda: fit(mask_generator="cam"),
        TypeError,
        "mask_generator='cam': expected an object with the method fit_transform",
    ),
    "mask generator parameter": (
        lambda: fit(mask_generator=CAMMaskGenerator(threshold=2)),
        ValueError,
        "mask_generator: The 'threshold' parameter",
    ),
    "mask generator scales": (
        lambda: fit(mask_generator=CAMMaskGenerator(scales=(1.0, 0.0))),
        ValueError,
        r"mask_generator: scales=\(1\.0, 0\.0\): expected a sequence of at least one finite factor above 0",
    ),
    # Trainers.
    "trainer name": (
        lambda: fit(classifier_trainer="sgd"),
        ValueError,
        "'classifier_trainer' parameter of DFBDetector must be",
    ),
    "trainer class": (
        lambda: fit(dense_trainer=Trainer),
        ValueError,
        "'dense_trainer' parameter of DFBDetector must be",
    ),
    "trainer parameter": (
        lambda: fit(classifier_trainer=NoTrainer(learning_rate=-1)),
        ValueError,
        "classifier_trainer: The 'learning_rate' parameter",
    ),
    "dense trainer parameter": (
        lambda: fit(dense_trainer=NoTrainer(optimizer="adam")),
        ValueError,
        "dense_trainer: The 'optimizer' parameter",
    ),
    "steps and epochs": (
        lambda: fit(dense_trainer=NoTrainer(max_steps=3, max_epochs=1)),
        ValueError,
        "dense_trainer: max_steps=3 and max_epochs=1 are both given",
    ),
    # The rest.
    "batch_size 0": (
        lambda: fit(batch_size=0),
        ValueError,
        "'batch_size' parameter of DFBDetector must be an int in the range .1, inf",
    ),
    "image_size 0": (lambda: fit(image_size=0), ValueError, "'image_size' parameter of DFBDetector must be"),
    "n_jobs 0": (lambda: fit(n_jobs=0), ValueError, "'n_jobs' parameter of DFBDetector must be"),
    "random_state": (lambda: fit(random_state="seed"), ValueError, "'random_state' parameter of DFBDetector must be"),
    "verbose": (lambda: fit(verbose="loud"), ValueError, "'verbose' parameter of DFBDetector must be"),
    "floats cast to integers": (
        lambda: fit((make_images(N)[0] / 255).round().astype(np.uint8)),
        ValueError,
        r"X holds no integer above 1: .* black.*pass them as floats; for binary images, pass X.astype\(bool\)",
    ),
    "unknown device": (lambda: fit(device="gpu"), ValueError, "device='gpu' is not a device: expected 'auto', 'cpu'"),
    "absent device": (
        lambda: fit(device="cuda:99"),
        ValueError,
        "device='cuda:99' is not available: torch finds .* CUDA devices; use",
    ),
    "device None": (lambda: fit(device=None), ValueError, "'device' parameter of DFBDetector must be"),
    "image_shape of another size": (
        lambda: fit(images_of_shape(N, 768), image_shape=(8, 8, 3)),
        ValueError,
        r"X has 768 features: expected 192, the values of an image of image_shape=\(8, 8, 3\)",
    ),
    "image_shape of 4 channels": (
        lambda: fit(images_of_shape(N, 1024), image_shape=(16, 16, 4)),
        ValueError,
        r"image_shape=\(16, 16, 4\): expected \(H, W\), \(H, W, 1\) or \(H, W, 3\)",
    ),
    "image_shape of floats": (
        lambda: fit(images_of_shape(N, 768), image_shape=(16.0, 16, 3)),
        ValueError,
        r"image_shape=\(16\.0, 16, 3\): expected",
    ),
    "image_shape a number": (
        lambda: fit(images_of_shape(N, 768), image_shape=16),
        ValueError,
        "'image_shape' parameter of DFBDetector must be",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_fit_refuses(case):
    call, error, message = CASES[case]
    with pytest.raises((ValueError, TypeError)) as raised:
        call()
    assert isinstance(raised.value, error)
    assert re.search(message, str(raised.value).replace("\n", " ")), str(raised.value)


@pytest.mark.filterwarnings("ignore::skdfb.exceptions.DuplicateImagesWarning")
def test_images_of_two_values():
    binary = make_images(N)[0] > 128
    with pytest.raises(pytest.fail.Exception, match="training began"):
        fit(binary)


def test_no_trainer_fails_where_training_begins():
    """The cases above could not pass unseen."""
    for name in ("classifier_trainer", "dense_trainer"):
        with pytest.raises(pytest.fail.Exception, match="training began"):
            fit(
                **{"classifier_trainer": Trainer(max_steps=1), "dense_trainer": Trainer(max_steps=1), name: NoTrainer()}
            )


# --------------------------------------------------------------------- files


@pytest.fixture
def paths(tmp_path):
    images, _ = make_images(12)
    found = [tmp_path / f"{index}.png" for index in range(12)]
    for image, path in zip(images, found, strict=True):
        Image.fromarray(image).save(path)
    return found


def spoil(path, how):
    if how == "missing":
        path.unlink()
    elif how == "text":
        path.write_text("no image")
    elif how == "empty":
        path.write_bytes(b"")
    else:  # the header is whole
        noise = np.random.default_rng(0).integers(0, 256, size=(64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize("n_jobs", [None, 2])
@pytest.mark.parametrize("how", ["missing", "text", "empty", "cut"])
def test_unreadable_file_is_named(paths, how, n_jobs):
    spoil(paths[5], how)
    said = "is missing: there is no file" if how == "missing" else "cannot be read: file"
    with pytest.raises(ValueError, match=rf"image 5 {said} '{re.escape(str(paths[5]))}'"):
        fit(paths, labels(6, 6), image_size=SIDE, n_jobs=n_jobs)


@pytest.mark.parametrize("how", ["missing", "text", "cut"])
def test_unreadable_file_is_named_when_scoring(fitted, paths, how):
    spoil(paths[5], how)
    with pytest.raises(ValueError, match=rf"image 5 .* file '{re.escape(str(paths[5]))}'"):
        fitted.predict(paths)


# -------------------------------------------------------------------- offline


def test_weights_that_cannot_be_downloaded(monkeypatch, tmp_path):
    """Both ways round are named."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        ValueError, match=r"the pre-trained weights of backbone='resnet10t.c3_in1k' cannot be loaded"
    ) as raised:
        fit(backbone="resnet10t.c3_in1k")
    assert "create_backbone('resnet10t.c3_in1k', checkpoint_path=" in str(raised.value)
    assert "pretrained=False" in str(raised.value)


# -------------------------------------------------------------------- scoring


@pytest.mark.parametrize("method", ["predict", "score_samples", "predict_proba", "segment", "transform", "p_values"])
@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (images_of_shape(2, 16, 16, 4), ValueError, "Drop the alpha channel"),
        (images_of_shape(0, 16, 16, 3), ValueError, "so no pixels"),
        (np.full((2, 16, 16, 3), np.nan), ValueError, r"X contains NaN or infinity \(first in image 0\)"),
        (np.full((2, 16, 16, 3), 7.0), ValueError, r"X has float pixels in 7\.\.7: expected floats in 0\.\.1"),
        (images_of_shape(2, 768), ValueError, "X holds rows of numbers .*, but fit was given images"),
        ("cat.png", TypeError, "wrap it in a list"),
    ],
)
def test_scoring_refuses(fitted, method, images, error, message):
    with pytest.raises(error, match=message):
        getattr(fitted, method)(images)


@pytest.fixture(scope="module")
def table():
    X, y = make_images(N)
    return X.reshape(N, -1) / 255, y


def test_table_of_another_width(table):
    X, y = table
    detector = make_detector(image_shape=(SIDE, SIDE, 3)).fit(X, y)
    with pytest.raises(ValueError, match="X has 767 features, but DFBDetector is expecting 768 features"):
        detector.predict(X[:, :-1])


def test_images_where_rows_were_fitted(table):
    X, y = table
    trainer = Trainer(max_steps=1)
    detector = make_detector(scorer=MSP(), classifier_trainer=trainer, dense_trainer=trainer, image_size=SIDE).fit(X, y)
    assert detector.predict(X).shape == (N,)
    np.testing.assert_allclose(detector.score_samples(torch.from_numpy(X)), detector.score_samples(X), atol=1e-6)
    with pytest.raises(ValueError, match=r"X holds images, but fit was given rows of numbers"):
        detector.predict(X.reshape(N, SIDE, SIDE, 3))


def test_labels_of_score(fitted, X, y):
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        fitted.score(X, y[:-1])


def test_not_fitted_comes_before_the_images():
    with pytest.raises(NotFittedError, match="DFBDetector instance is not fitted yet"):
        make_detector().predict("no images")
