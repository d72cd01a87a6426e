"""What a training says of itself, with a clock of the test."""

import logging

import pytest
import torch
from PIL import Image

from skdfb import DFBDetector
from skdfb._progress import LaterWork, progress
from skdfb.datasets import load_digits_on_photos
from skdfb.detector._masks import work_after_classifier
from skdfb.masks import AffinityMaskGenerator, CAMMaskGenerator
from skdfb.networks import DenseClassifier, create_backbone
from skdfb.scorers import Energy
from skdfb.training import Trainer, _pace
from skdfb.training._pace import Pace, duration, round_down
from tests.helpers import TinyBackbone


class Clock:
    """Every look at it takes so many seconds."""

    def __init__(self, seconds):
        self.seconds, self.now = seconds, 0.0

    def __call__(self):
        self.now += self.seconds
        return self.now


@pytest.fixture
def slow(monkeypatch):
    """Set what a training step seems to take; the four measured steps lie between two looks."""
    return lambda seconds: monkeypatch.setattr(_pace, "clock", Clock(4 * seconds))


class Loss:
    """Counts how often it is read: each time waits for the device."""

    n_read = 0

    def __float__(self):
        self.n_read += 1
        return 0.5


def network(image_size=224, pretrained=False, trunk=False):
    backbone = create_backbone("test_resnet", pretrained=False, output_stride=8)
    if pretrained:
        backbone.state_dict()["layer1.0.bn1.running_mean"].fill_(1.0)
    if trunk:
        backbone.conv1.requires_grad_(False)
    return DenseClassifier(backbone, 3, image_size=image_size)


def said(caplog, n_steps, later=None, n_images=1000, is_first=True, **options):
    """Run all steps, and return what was logged; and how often a loss was read."""
    caplog.clear()
    pace = Pace("training the classifier", n_steps, 10, n_images, network(**options), torch.device("cpu"), is_first)
    loss = Loss()
    with (
        caplog.at_level(logging.INFO, logger="skdfb"),
        progress(later=None if later is None else lambda n, network: later),
        pace.shown(0),
    ):
        for _ in range(n_steps):
            pace.step_done(loss)
    return caplog.messages, loss.n_read


class TestPace:
    def test_what_is_about_to_be_done_and_how_long_it_takes(self, caplog, slow):
        slow(1)
        messages, n_read = said(caplog, 605)
        assert messages == [
            "training the classifier: 605 steps of 10 images at 224 px on cpu",
            "training the classifier: about 10 min",
        ]
        assert n_read == 2  # at both looks at the clock, and in no other step

    @pytest.mark.parametrize(("trunk", "minutes"), [(False, 40), (True, 50)])
    def test_all_stages(self, caplog, slow, trunk, minutes):
        """10 min, the same for the dense network, and 10 min of training for the forward passes of the masks."""
        slow(1)
        messages, _ = said(caplog, 605, LaterWork(12000, 3 * 6000), trunk=trunk)
        assert messages[1] == (
            f"training the classifier: about 10 min; with the masks and the dense network about {minutes} min"
        )

    @pytest.mark.parametrize("n_steps", [1, 5])
    def test_short_trainings_are_not_measured(self, caplog, n_steps):
        messages, n_read = said(caplog, n_steps)
        assert len(messages) == 1
        assert n_read == 0

    def test_less_than_an_hour_is_no_warning(self, caplog, slow):
        slow(1)
        said(caplog, 3500)
        assert {record.levelname for record in caplog.records} == {"INFO"}

    def test_a_fit_of_hours_names_what_is_faster(self, caplog, slow):
        slow(10)
        messages, _ = said(caplog, 1005, LaterWork(10000, 0), pretrained=True)
        assert caplog.records[-1].levelname == "WARNING"
        # The smallest size that is tried, 96 px, would take 62 min.
        assert messages[-1] == (
            "fit will take about 5.6 h on cpu. Faster: FrozenDetector, which trains no network (about 6 min)."
        )

    def test_only_what_helps_is_named(self, caplog, slow):
        def advice(**options):
            return said(caplog, 1005, **options)[0][-1]

        slow(4)  # 67 min
        assert "image_size=160 (about 34 min)" in advice()
        assert "Trainer(max_steps=900) (about 60 min)" in advice()
        assert "FrozenDetector" not in advice()  # no detector
        slow(4)
        assert "image_size=" not in advice(image_size=96)
        slow(4)
        assert "FrozenDetector" not in advice(later=LaterWork(10000, 0))  # random weights: nothing to freeze
        slow(4)
        assert "FrozenDetector" not in advice(later=LaterWork(10000, 0), pretrained=True, n_images=10**6)
        slow(100)  # 36 steps in an hour train nothing
        assert "max_steps" not in advice()
        slow(4)
        assert "image_size=" not in advice(is_first=False)
        slow(10000)
        assert advice(image_size=64).endswith("Faster: fewer images, or a faster device.")

    def test_masks_that_take_an_hour_leave_no_steps(self, caplog, slow):
        slow(1)
        message = said(caplog, 605, LaterWork(6000, 300000))[0][-1]
        assert message.startswith("fit will take")
        assert "max_steps" not in message

    def test_an_error_of_the_estimate_ends_no_training(self, caplog, slow, monkeypatch):
        slow(1)
        monkeypatch.setattr(_pace, "duration", None)
        messages, _ = said(caplog, 605)
        assert len(messages) == 1


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "about 1 s"),
        (40, "about 40 s"),
        (100, "about 2 min"),
        (21 * 60 + 5, "about 21 min"),
        (5400, "about 1.5 h"),
        (100 * 3600, "about 100 h"),
    ],
)
def test_duration(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(("number", "rounded"), [(-3, 0), (0.5, 0), (7.9, 7), (87.2, 87), (999, 990), (12345, 12000)])
def test_round_down(number, rounded):
    assert round_down(number) == rounded


def test_work_after_the_classifier():
    trainer = Trainer(max_steps=30, batch_size=8)
    given = DFBDetector(dense_trainer=trainer, mask_generator=CAMMaskGenerator(scales=(1, 2), flip=False))
    assert work_after_classifier(given, 100, network()) == LaterWork(30 * 8, 100 * 5)
    assert work_after_classifier(given, 4, network()) == LaterWork(30 * 4, 4 * 5)
    default = DFBDetector(dense_trainer=trainer)
    assert work_after_classifier(default, 100, network()) == LaterWork(30 * 8, 100 * 2 * (1 + 0.25 + 2.25 + 4))
    unknown = DFBDetector(dense_trainer=trainer, mask_generator=AffinityMaskGenerator())
    assert work_after_classifier(unknown, 100, network()) == LaterWork(30 * 8, 0)


BACKBONE = TinyBackbone()


def detector(**options):
    trainer = Trainer(max_steps=8, batch_size=8)
    options = {
        "classifier_trainer": trainer,
        "dense_trainer": trainer,
        "scorer": Energy(),
        "alpha": None,
        "batch_size": 8,
    } | options
    return DFBDetector(BACKBONE, image_size=32, random_state=0, device="cpu", **options)


DATA = load_digits_on_photos(n_train=120, n_test=6, n_ood=6, random_state=0)
X, Y = DATA.images[:60], DATA.target[:60]


def test_a_fit_says_what_it_does(caplog, slow):
    slow(600)
    with caplog.at_level(logging.INFO, logger="skdfb"):
        detector().fit(X, Y)
    stages = [message.partition(":")[0] for message in caplog.messages]
    assert stages[:2] == ["training the classifier"] * 2
    assert "fit will take" in caplog.messages[2]
    # Once: the dense network takes less than what was said already.
    assert stages[3:] == ["training the dense network"] * 2


def test_a_fit_that_goes_on_counts_the_rest(caplog, slow, tmp_path, monkeypatch):
    trainer = Trainer(max_steps=20, batch_size=8, checkpoint_every=5)
    kept = {"checkpoint_dir": tmp_path, "classifier_trainer": trainer, "dense_trainer": trainer}
    steps = []

    def interrupt(self, loss):
        steps.append(loss)
        if len(steps) == 12:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Pace, "step_done", interrupt)
        with pytest.raises(KeyboardInterrupt):
            detector(**kept).fit(X, Y)
    slow(1)
    with caplog.at_level(logging.INFO, logger="skdfb"):
        detector(**kept).fit(X, Y)
    assert caplog.messages[0] == "training the classifier: 10 steps of 8 images at 32 px on cpu"
    assert caplog.messages[1].startswith("training the classifier: about 5 s;")


def test_a_quiet_fit_prints_nothing(caplog, capfd):
    detector().fit(X, Y).predict(X)
    assert caplog.messages == []
    assert capfd.readouterr() == ("", "")


def test_bars_of_all_long_phases(capfd):
    images = [Image.fromarray(image) for image in DATA.images]
    fitted = detector(verbose=1).fit(images, DATA.target)
    shown = capfd.readouterr().err
    for label in (
        "reading the images",
        "training the classifier",
        "making the masks",
        "training the dense network",
        "computing features",
    ):
        assert f"{label}: 100%" in shown
    assert "loss=" in shown
    assert "lr=" in shown
    assert "8 steps of 8 images at 32 px on cpu" in shown  # pytest's logging shows warnings only
    fitted.score_samples(images[:8])
    assert capfd.readouterr().err == ""  # one batch is not long
    fitted.score_samples(images)
    assert "scoring the images" in capfd.readouterr().err


@pytest.mark.parametrize("generator", [CAMMaskGenerator, AffinityMaskGenerator])
def test_bars_of_masks(generator, capfd):
    cam = CAMMaskGenerator(
        TinyBackbone(), image_size=32, batch_size=8, device="cpu", trainer=Trainer(max_steps=2), verbose=1
    )
    made = cam if generator is CAMMaskGenerator else AffinityMaskGenerator(cam, batch_size=8, verbose=1)
    made.fit(X, Y)
    capfd.readouterr()
    made.transform(X)
    assert capfd.readouterr().err.count("\n") == 1  # one bar
