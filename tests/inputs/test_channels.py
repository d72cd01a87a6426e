"""Any number of channels: all of them reach a network that takes them, and none is dropped without a word."""

import re
import warnings
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

import skdfb
from skdfb import CAMMaskGenerator, DFBDetector, Trainer
from skdfb.images import as_images
from skdfb.masks import AffinityMaskGenerator, NormalizedCutMaskGenerator
from skdfb.networks import DenseClassifier, create_backbone
from skdfb.networks._channels import input_channels, normalisation_of
from skdfb.persistence._probe import trial_outputs
from skdfb.scorers import MSP, ODIN, ViM
from tests.bad_images import ItemDataset
from tests.detector.conftest import make_detector, make_images
from tests.helpers import TinyBackbone
from tests.inputs.forms import FORMS, HEIGHT, WIDTH, N, can_hold, numbers, png, saved, unit_pixels

pytestmark = pytest.mark.filterwarnings("ignore:alpha_ is:UserWarning")  # of ViM after few steps


# ------------------------------------------------------------------ pixels

# Forms that hold images of any number of channels.
MANY = [
    "array",
    "list of arrays",
    "list of sizes",
    "list of tensors",
    "dataset of arrays",
    "dataset of tensors",
    "npy",
    "pairs",
]
SAME = [(n, form, dtype) for n in (1, 2, 4, 6, 12) for form in MANY for dtype in (np.uint8, np.float32)]
SAME += [(n, "png", dtype) for n in (1, 2, 4) for dtype in (np.uint8, np.uint16)] + [(4, "PIL", np.uint8)]


@pytest.mark.parametrize(("n_channels", "form", "dtype"), SAME)
def test_all_channels_are_read(n_channels: int, form: str, dtype: Any, tmp_path: Any) -> None:
    assert can_hold(form, dtype, n_channels)
    high = {np.uint8: 255, np.uint16: 65_535, np.float32: 1}[dtype]
    array = numbers(dtype, 0, high, n_channels)
    read = unit_pixels(as_images(FORMS[form](array, tmp_path), n_channels=n_channels))
    for image, expected in zip(read, array, strict=True):
        assert image.shape[-1] == n_channels
        assert_allclose(image[:HEIGHT], expected / high, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
@pytest.mark.parametrize("n_channels", [2, 4, 6, 12])
@pytest.mark.parametrize("layout", ["bands", "planes", "pages"])
def test_tiff_files(n_channels: int, layout: str, dtype: Any, tmp_path: Any) -> None:
    high = {np.uint8: 255, np.uint16: 4095, np.int16: 16_383, np.float32: 1}[dtype]
    array = numbers(dtype, 0, high, n_channels)
    for index, image in enumerate(array):
        options = {
            "bands": {"photometric": "minisblack", "planarconfig": "contig"},
            "planes": {"planarconfig": "separate"},
        }
        planes = image if layout == "bands" else np.ascontiguousarray(np.moveaxis(image, -1, 0))
        tifffile.imwrite(tmp_path / f"{index}.tif", planes, **options.get(layout, {}) | {"photometric": "minisblack"})
    images = as_images([tmp_path / f"{index}.tif" for index in range(N)], n_channels=n_channels)
    for image, expected in zip(unit_pixels(images), array, strict=True):
        assert_allclose(image, expected / high, rtol=0, atol=1e-6)


def test_pages_of_their_own(tmp_path: Any) -> None:
    """Each band was written as an image of its own."""
    array = numbers(np.uint16, 0, 4095, 4)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for band in range(4):
            writer.write(array[0, ..., band], metadata=None)
    (read,) = unit_pixels(as_images([tmp_path / "a.tif"], n_channels=4))
    high = 2.0 ** np.ceil(np.log2(array[0].max() + 1)) - 1
    assert_allclose(read, array[0] / high, rtol=0, atol=1e-6)


# PNG files name a fourth channel, or the second one of grey, transparency.
OTHERS = [
    (form, given, expected)
    for form in ["array", "list of arrays", "list of sizes", "dataset of arrays", "npy", "pairs", "tif", "png"]
    for given, expected in [(4, 3), (6, 3), (3, 4), (1, 4), (3, 6), (4, 6), (3, 1), (4, 1), (2, 3)]
    if form != "png" or given in (1, 3)
]


@pytest.mark.parametrize(("form", "given", "expected"), OTHERS)
def test_other_numbers_of_channels_are_refused(form: str, given: int, expected: int, tmp_path: Any) -> None:
    array = numbers(np.uint8, 0, 255, given)
    if form == "tif":
        for index, image in enumerate(array):
            planar = {"planarconfig": "contig"} if given > 1 else {}
            tifffile.imwrite(tmp_path / f"{index}.tif", image, photometric="minisblack", **planar)
        X: Any = [tmp_path / f"{index}.tif" for index in range(N)]
    else:
        X = FORMS[form](array, tmp_path)
    with pytest.raises(ValueError, match=r"channel|expected an image"):
        unit_pixels(as_images(X, n_channels=expected))


def test_grey_images_in_colour_for_a_network_of_one_channel(tmp_path: Any) -> None:
    array = np.repeat(numbers(np.uint8, 0, 255), 3, axis=-1)
    for X in (array, saved(array, tmp_path, "png"), ItemDataset(list(array))):
        assert_allclose(unit_pixels(as_images(X, n_channels=1))[0], array[0, ..., :1] / 255, rtol=0, atol=1e-6)


class TestTransparency:
    def test_of_photographs_is_left_out(self, tmp_path: Any) -> None:
        array = numbers(np.uint8, 0, 255, 4)
        for X in (saved(array, tmp_path, "png"), [Image.fromarray(image) for image in array]):
            assert_allclose(unit_pixels(as_images(X))[0], array[0, ..., :3] / 255, rtol=0, atol=1e-6)

    def test_a_network_of_four_channels_gets_it(self, tmp_path: Any) -> None:
        array = numbers(np.uint8, 0, 255, 4)
        for X in (saved(array, tmp_path, "png"), [Image.fromarray(image) for image in array]):
            assert_allclose(unit_pixels(as_images(X, n_channels=4))[0], array[0] / 255, rtol=0, atol=1e-6)

    @pytest.mark.parametrize("fourth", [200, "varies"])
    def test_in_a_tiff_file_it_may_be_another_band(self, fourth: Any, tmp_path: Any) -> None:
        """PIL and many programs save a band of near infrared as transparency."""
        image = numbers(np.uint8, 0, 255, 4)[0]
        image[..., 3] = image[..., 0] if fourth == "varies" else fourth
        Image.fromarray(image).save(tmp_path / "a.tif")
        with pytest.warns(UserWarning, match=r"TIFF file has a fourth channel .*in_chans=4"):
            (read,) = unit_pixels(as_images([tmp_path / "a.tif"]))
        assert read.shape == (HEIGHT, WIDTH, 3)
        (read,) = unit_pixels(as_images([tmp_path / "a.tif"], n_channels=4))
        assert_allclose(read, image / 255, rtol=0, atol=1e-6)

    def test_an_opaque_tiff_file_gives_no_warning(self, tmp_path: Any) -> None:
        Image.fromarray(np.full((4, 4, 4), 255, np.uint8)).save(tmp_path / "a.tif")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert unit_pixels(as_images([tmp_path / "a.tif"]))[0].shape == (4, 4, 3)

    def test_a_fourth_band_that_is_none_is_refused(self, tmp_path: Any) -> None:
        tifffile.imwrite(
            tmp_path / "a.tif", numbers(np.uint8, 0, 255, 4)[0], photometric="rgb", extrasamples=["unspecified"]
        )
        with pytest.raises(ValueError, match=r"image 0 .*a\.tif': it has 4 channels: expected 3, .*in_chans=4"):
            unit_pixels(as_images([tmp_path / "a.tif"]))

    @pytest.mark.parametrize("n_channels", [3, 4])
    def test_deep_tiff_files(self, n_channels: int, tmp_path: Any) -> None:
        array = numbers(np.uint16, 0, 65_535, 4)
        tifffile.imwrite(tmp_path / "a.tif", array[-1], photometric="rgb", extrasamples=["unassalpha"])
        (read,) = unit_pixels(as_images([tmp_path / "a.tif"], n_channels=n_channels))
        assert_allclose(read, array[-1, ..., :n_channels] / 65_535, rtol=0, atol=1e-6)


def test_without_tifffile(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", numbers(np.uint8, 0, 255, 6)[0], photometric="minisblack", planarconfig="contig"
    )
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    with pytest.raises(ValueError, match=r"a\.tif.*tifffile is needed: pip install skdfb\[tiff\]"):
        unit_pixels(as_images([tmp_path / "a.tif"], n_channels=6))


# ---------------------------------------------------------------- networks


class TestNormalisation:
    def test_three_channels_stay(self) -> None:
        assert normalisation_of((0.1, 0.2, 0.3), 3) == (0.1, 0.2, 0.3)

    def test_one_channel_has_the_average(self) -> None:
        assert normalisation_of((0.1, 0.2, 0.3), 1) == pytest.approx((0.2,))

    def test_more_repeat(self) -> None:
        assert normalisation_of((0.1, 0.2, 0.3), 5) == (0.1, 0.2, 0.3, 0.1, 0.2)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit", "test_convnext", "test_mambaout"])
@pytest.mark.parametrize("n_channels", [1, 3, 4, 7])
def test_backbones_of_timm(name: str, n_channels: int) -> None:
    backbone = create_backbone(name, pretrained=False, in_chans=n_channels, random_state=0)
    assert input_channels(backbone) == n_channels
    network = DenseClassifier(backbone, 3, image_size=160)
    assert network.preprocessor.n_channels == n_channels
    assert network(torch.zeros(1, n_channels, 160, 160)).shape == (1, 3)
    assert network.accepts_size(192) in (True, False)


def test_colours_of_grey_images_and_a_network_of_one_channel_agree() -> None:
    """timm sums the weights of the colours for one channel: the same image gives the same map, up to the edges."""
    colour = create_backbone("test_resnet", pretrained=False, random_state=0)
    grey = create_backbone("test_resnet", pretrained=False, in_chans=1, random_state=0)
    weights = colour.state_dict()
    first = next(iter(weights))
    weights[first] = weights[first].sum(1, keepdim=True)
    grey.load_state_dict(weights)
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    for backbone in (colour, grey):
        backbone.pretrained_cfg = {**backbone.pretrained_cfg, "mean": mean, "std": std}
    networks = [DenseClassifier(backbone, 3, image_size=160).eval() for backbone in (colour, grey)]
    pixels = torch.rand(2, 1, 160, 160, generator=torch.Generator().manual_seed(0))
    first = networks[0].features(networks[0].preprocessor(pixels.expand(-1, 3, -1, -1)))
    second = networks[1].features(networks[1].preprocessor(pixels))
    assert_allclose(first.detach(), second.detach(), atol=1e-5)


# ---------------------------------------------------------------- detector


class ChannelBackbone(TinyBackbone):
    """A tiny backbone of any number of channels."""

    def __init__(self, n_channels: int = 3) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(n_channels, 8, 3, stride=2, padding=1)


NAME = f"{ChannelBackbone.__module__}.{ChannelBackbone.__qualname__}"


def channel_backbone(n_channels: int) -> ChannelBackbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ChannelBackbone(n_channels)


def images_of(n_channels: int) -> tuple[Any, Any]:
    X, y = make_images()
    return np.concatenate([X] * 4, axis=-1)[..., :n_channels], y


@pytest.mark.parametrize("n_channels", [1, 4, 6, 12])
def test_a_detector(n_channels: int, tmp_path: Any) -> None:
    X, y = images_of(n_channels)
    trainer = Trainer(max_steps=4, batch_size=16)
    detector = make_detector(
        backbone=channel_backbone(n_channels), classifier_trainer=trainer, dense_trainer=trainer
    ).fit(X, y)
    scores = detector.score_samples(X)
    assert np.isfinite(scores).all()
    # Other forms, and a saved detector, give the same.
    assert_allclose(detector.score_samples(ItemDataset(list(X))), scores, rtol=1e-5, atol=1e-5)
    assert_allclose(detector.score_samples(saved(X, tmp_path, "npy")), scores, rtol=1e-5, atol=1e-5)
    detector.save(tmp_path / "model.safetensors")
    loaded = skdfb.load(tmp_path / "model.safetensors", customs={NAME: lambda: channel_backbone(n_channels)})
    assert_array_equal(loaded.score_samples(X), scores)
    # Each channel counts.
    for channel in range(n_channels):
        other = X.copy()
        other[..., channel] = 255 - other[..., channel]
        assert np.abs(detector.score_samples(other) - scores).max() > 1e-6
    with pytest.raises(ValueError, match=rf"of {n_channels} channels|expected one channel"):
        detector.score_samples(images_of(2)[0])


@pytest.mark.parametrize("scorer", [ODIN(), [("foreground", "dense.second", ViM())], MSP()])
def test_scorers_that_look_at_inputs_and_layers(scorer: Any) -> None:
    X, y = images_of(4)
    trainer = Trainer(max_steps=2, batch_size=16)
    detector = make_detector(
        backbone=channel_backbone(4),
        scorer=scorer,
        background_scorer=[],
        fusion=None,
        classifier_trainer=trainer,
        dense_trainer=trainer,
        alpha=0.2,
    ).fit(X, y)
    assert np.isfinite(detector.score_samples(X)).all()


def test_a_pretrained_backbone_of_timm_with_four_channels() -> None:
    X, y = images_of(4)
    backbone = create_backbone("test_resnet", pretrained=False, in_chans=4, output_stride=8, random_state=0)
    trainer = Trainer(max_steps=2, batch_size=16)
    detector = DFBDetector(
        backbone,
        image_size=32,
        alpha=0.2,
        calibration_fraction=0.4,
        classifier_trainer=trainer,
        dense_trainer=trainer,
        random_state=0,
    ).fit(X, y)
    assert detector.segment(X[:2]).shape == (2, 16, 16, 4)


@pytest.mark.parametrize("wrapper", [None, AffinityMaskGenerator, NormalizedCutMaskGenerator])
def test_masks_alone(wrapper: Any) -> None:
    X, y = images_of(6)
    network = DenseClassifier(channel_backbone(6), 3, image_size=16)
    generator = CAMMaskGenerator(network, scales=(1.0,))
    if wrapper is AffinityMaskGenerator:
        generator = AffinityMaskGenerator(generator)
    elif wrapper is NormalizedCutMaskGenerator:
        generator = NormalizedCutMaskGenerator(network)
    assert generator.fit_transform(X, y).shape == (60, 16, 16)


def test_rows_of_images_of_four_channels() -> None:
    X, y = images_of(4)
    trainer = Trainer(max_steps=2, batch_size=16)
    shared = {"backbone": channel_backbone(4), "classifier_trainer": trainer, "dense_trainer": trainer}
    rows = X.reshape(60, -1)
    expected = make_detector(**shared).fit(X, y).score_samples(X)
    assert_array_equal(make_detector(**shared, image_shape=(16, 16, 4)).fit(rows, y).score_samples(rows), expected)


def test_bytes_of_a_file_of_four_channels() -> None:
    array = numbers(np.uint8, 0, 255, 4)
    assert_allclose(unit_pixels(as_images([png(array[0])], n_channels=4))[0], array[0] / 255, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["channels", "floats", "deep integers", "rows", "rows of deep integers"])
def test_a_saved_model_is_tried_on_noise_of_its_own_form(kind: str) -> None:
    X, y = images_of(4 if kind == "channels" else 3)
    numbers_of = {"floats": X / 255, "deep integers": X.astype(int) * 16, "rows of deep integers": X.astype(int) * 16}
    X = numbers_of.get(kind, X)
    trainer = Trainer(max_steps=1, batch_size=16)
    shape = {"image_shape": (16, 16, 3)} if "rows" in kind else {}
    detector = make_detector(
        backbone=channel_backbone(X.shape[-1]), scorer=MSP(), classifier_trainer=trainer, dense_trainer=trainer, **shape
    ).fit(X.reshape(60, -1) if shape else X, y)
    outputs = trial_outputs(detector)
    assert outputs is not None
    assert np.isfinite(outputs["scores"]).all()


def test_the_remedies_for_other_channels() -> None:
    """The advice in the messages makes backbones that take the images."""
    for image, n_channels in ((numbers(np.uint8, 0, 255, 4), 3), ([np.zeros((4, 5, 6)), np.zeros((5, 4, 6))], 3)):
        with pytest.raises(ValueError, match="in_chans") as raised:
            as_images(ItemDataset(list(image)), n_channels=n_channels).read(np.array([0]))
        call = re.search(r"create_backbone\(name, (in_chans=\d+)\)", str(raised.value))
        assert call, str(raised.value)
        backbone = create_backbone("test_resnet", pretrained=False, **eval(f"dict({call.group(1)})"))
        assert as_images(image, n_channels=input_channels(backbone)).read(np.array([0]))[0].shape[0] == len(
            image[0][0, 0]
        )
