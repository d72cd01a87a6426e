"""``on_error="nan"``: an image that cannot be read has NaN for a score and is told of; all others are as without it."""

import copy

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from PIL import Image
from sklearn.base import clone

import skdfb
from skdfb.evaluation import class_accuracy, compare_scorers
from skdfb.exceptions import UnreadableImageError, UnreadableImageWarning
from skdfb.scorers import MSP, ODIN
from skdfb.utils import shallow_copy
from tests.helpers import TinyBackbone

BAD = [2, 5, 9]
GOOD = np.setdiff1d(np.arange(12), BAD)


@pytest.fixture(scope="module")
def paths(X_new, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{index}.png" for index in range(12)]
    for path, image in zip(paths, X_new, strict=False):
        Image.fromarray(image).save(path)
    paths[2].unlink()
    paths[5].write_bytes(b"")
    paths[9].write_bytes(paths[8].read_bytes()[:-60])
    return paths


@pytest.fixture(scope="module")
def lenient(fitted):
    """The fitted detector with another ``on_error``, and batches so small that several of them hold bad images."""
    return shallow_copy(fitted, fitted_state=True).set_params(on_error="nan", batch_size=4)


def test_raises_by_default(fitted, paths):
    with pytest.raises(UnreadableImageError, match=r"image 2 is missing: there is no file .*2\.png") as info:
        fitted.score_samples(paths[:5])
    assert (info.value.index, info.value.path) == (2, str(paths[2]))


@pytest.mark.parametrize(
    "method",
    ["score_samples", "decision_function", "score_foreground", "score_background", "p_values", "predict_proba"],
)
@pytest.mark.parametrize("n_jobs", [None, 3])
def test_scores(fitted, lenient, paths, method, n_jobs):
    detector = shallow_copy(lenient, fitted_state=True).set_params(n_jobs=n_jobs)
    with pytest.warns(UnreadableImageWarning, match=r"^3 of 12 images could not be read.*image 2.*image 5.*image 9"):
        scores = getattr(detector, method)(paths)
    assert np.isnan(scores[BAD]).all()
    expected = getattr(fitted, method)([paths[index] for index in GOOD])
    np.testing.assert_allclose(scores[GOOD], expected, rtol=1e-5, atol=1e-5)


def test_parts_features_and_segments(lenient, paths):
    with pytest.warns(UnreadableImageWarning):
        outputs = [*lenient.score_parts(paths).values(), lenient.transform(paths), lenient.segment(paths)]
    for output in outputs:
        assert_array_equal(np.isnan(output).reshape(12, -1).any(1), np.isin(np.arange(12), BAD))


def test_decisions(fitted, lenient, paths):
    good = [paths[index] for index in GOOD]
    with pytest.warns(UnreadableImageWarning):
        decisions, labels = lenient.predict(paths), lenient.predict_open_set(paths)
    assert_array_equal(decisions[BAD], -1)
    assert_array_equal(decisions[GOOD], fitted.predict(good))
    assert_array_equal(labels[BAD], -1)
    assert_array_equal(labels[GOOD], fitted.predict_open_set(good))


def test_there_is_no_label_for_what_cannot_be_read(lenient, paths):
    with pytest.raises(UnreadableImageError, match=r"2 of 12 .*/2\.png': it is missing; .*/5\.png': it is emp") as info:
        lenient.classify(paths)
    assert (info.value.index, info.value.path) == (2, str(paths[2]))


def test_a_network_of_nan_is_no_unreadable_image(fitted, X_new):
    broken = copy.deepcopy(fitted)
    with torch.no_grad():
        broken.dense_network_.head.weight.fill_(torch.nan)
    broken.classify(X_new)
    with pytest.raises(ValueError, match="NaN") as info:
        broken.score_samples(X_new)
    assert not isinstance(info.value, UnreadableImageError)


def test_nothing_is_learned_from_what_cannot_be_read(lenient, paths, X, y, tmp_path):
    """Nor measured on it: only scores can be NaN."""
    training = [tmp_path / f"{index}.png" for index in range(len(X))]
    for path, image in zip(training, X, strict=True):
        Image.fromarray(image).save(path)
    training[7].unlink()
    with pytest.raises(UnreadableImageError, match="image 7 is missing"):
        lenient.refit_scorer(ODIN(), training, y)
    with pytest.raises(UnreadableImageError, match=r"/2\.png': it is missing"):
        compare_scorers(lenient, X, {"bad": paths}, scorers=[MSP()], X=X, y=y)
    with pytest.raises(UnreadableImageError, match=r"/2\.png': it is missing"):
        class_accuracy(lenient, paths, y[: len(paths)])


def test_none_can_be_read(lenient, paths):
    with pytest.warns(UnreadableImageWarning, match="1 of 1"):
        scores = lenient.score_samples([paths[2]])
    with pytest.warns(UnreadableImageWarning, match="1 of 1"):
        p_values = lenient.p_values([paths[2]])
    assert_array_equal([scores, p_values], np.full((2, 1), np.nan))


@pytest.mark.parametrize("method", ["score_samples", "predict", "segment"])
def test_of_several_images_one_must_be_read(lenient, paths, method):
    with pytest.raises(UnreadableImageError, match=r"none of 9 images can be read: image 0 is missing: .*2\.png"):
        getattr(lenient, method)([paths[2]] * 9)


def test_many_are_told_in_short(lenient, paths):
    with pytest.warns(UnreadableImageWarning, match="And 4 more"):
        lenient.score_samples([paths[2]] * 9 + [paths[0]])


def test_nothing_is_told_where_all_can_be_read(lenient, paths):
    assert np.isfinite(lenient.score_samples([paths[index] for index in GOOD])).all()


def test_fit_raises(lenient, paths, y):
    message = r"3 of 12 images cannot be read: .*/2\.png': it is missing; .*/5\.png': it is empty .*/9\.png': image"
    with pytest.raises(UnreadableImageError, match=message):
        clone(lenient).fit(paths, y[:12])


def test_an_array_is_no_file(lenient, X_new):
    images = X_new / 255
    images[3] = np.nan
    with pytest.raises(ValueError, match="X contains NaN"):
        lenient.score_samples(images)


def test_it_is_saved(lenient, tmp_path):
    lenient.save(tmp_path / "model")
    assert skdfb.load(tmp_path / "model", customs=[TinyBackbone]).on_error == "nan"


class TestOtherPixels:
    """Arrays of another kind than those of ``fit`` come from a mistake."""

    def test_floats_for_integers(self, fitted, X_new):
        with pytest.raises(
            ValueError, match=r"X holds colour images of floats in 0\.\.1, but fit was .*np\.round"
        ) as info:
            fitted.score_samples(X_new / 255)
        assert "integers in 0..255" in str(info.value)

    def test_integers_for_floats(self, fitted, X, y, X_new):
        detector = shallow_copy(fitted, fitted_state=True)
        detector.pixel_format_ = ("float", 3)
        with pytest.raises(ValueError, match=r"integers, but fit was given .* pass X / 255"):
            detector.predict(X_new)

    @pytest.mark.parametrize("images", [np.zeros((4, 16, 16), np.uint8), np.zeros((4, 16, 16, 1), int)])
    def test_grey_for_colour(self, fitted, images):
        with pytest.raises(ValueError, match=r"X holds grey images .*pass np\.repeat\(X\.reshape"):
            fitted.score_samples(images)
        remedied = np.repeat(images.reshape(*images.shape[:3], 1), 3, axis=-1)
        assert fitted.score_samples(remedied).shape == (4,)

    @pytest.mark.parametrize("place", [0, 3])
    def test_one_of_a_list(self, fitted, X_new, place):
        images = [*X_new[:4]]
        images[place] = np.zeros((20, 16))
        with pytest.raises(ValueError, match=r"X holds grey images of floats"):
            fitted.score_samples(images)

    def test_colour_for_grey(self, fitted, X_new):
        detector = shallow_copy(fitted, fitted_state=True)
        detector.pixel_format_ = ("integer", 1)
        with pytest.raises(ValueError, match=r"X holds colour images .*pass X\.mean\(axis"):
            detector.score_samples(X_new)
        remedied = X_new.mean(axis=-1, keepdims=True).astype(X_new.dtype)
        assert detector.score_samples(remedied).shape == (len(X_new),)

    def test_an_item_that_is_no_image_is_not_another_kind(self, lenient, X_new):
        with pytest.warns(UnreadableImageWarning, match="1 of 4"):
            scores = lenient.score_samples([np.zeros((16, 16, 4), np.uint8), *X_new[:3]])
        assert_array_equal(np.isnan(scores), [True, False, False, False])

    def test_files_are_scored_in_any_mode(self, fitted, X_new):
        assert np.isfinite(fitted.score_samples([Image.fromarray(X_new[0]).convert("L")])).all()

    def test_what_fit_was_given_is_kept(self, fitted):
        assert fitted.pixel_format_ == ("integer", 3)
