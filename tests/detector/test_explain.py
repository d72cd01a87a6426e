"""``explain`` against slow computations: probabilities of parts, neighbours, verdicts, sentences."""

import enum
import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

import skdfb
from skdfb import FrozenDetector
from skdfb.detector import Explanation
from skdfb.detector._reference import ReferenceImages, _chosen, image_names
from skdfb.detector._sentences import Finding, sentence
from skdfb.exceptions import UnreadableImageWarning
from skdfb.fusion import TailProbabilityFusion
from skdfb.images import as_images
from skdfb.scorers import KNN, MSP, ODIN, BackgroundLogit, Energy, ViM
from skdfb.scoring import JointScore
from skdfb.utils import shallow_copy
from tests.detector.conftest import make_detector, make_images, tiny_backbone
from tests.helpers import TinyBackbone

FAR = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)


class Minimum:
    """A third party's fusion, without tails and without a declaration that it learns nothing."""

    def fit(self, parts):
        return self

    def combine(self, parts):
        return np.min(list(parts.values()), axis=0)


class Colour(enum.Enum):
    RED = 1
    GREEN = 2
    BLUE = 3


@pytest.fixture(scope="module", name="X_all")
def new_and_far_images(X_new):
    return np.concatenate([X_new, FAR])


@pytest.fixture(scope="module")
def explanation(fitted, X_all):
    return fitted.explain(X_all)


def assert_explains(detector, X, explanation):
    """All that other methods tell as well is the same."""
    scores = detector.score_samples(X)
    assert isinstance(explanation, Explanation)
    assert len(explanation) == len(X) == len(explanation.sentences) == len(explanation.neighbors)
    assert_allclose(explanation.scores, scores, rtol=1e-5, atol=1e-6)
    assert explanation.offset == detector.offset_
    assert explanation.alpha == detector.alpha
    assert_allclose(explanation.p_values, detector.p_values(X))
    assert_array_equal(explanation.rejected, detector.predict(X) == -1)
    assert_array_equal(explanation.labels, detector.classify(X))
    ordered = np.sort(detector.predict_proba(X), axis=1)[:, ::-1]
    assert_allclose(explanation.probabilities, ordered[:, :2], rtol=1e-4, atol=1e-6)
    expected = detector.joint_score_.part_p_values(detector.score_parts(X))
    if len(expected) == 1:
        expected = dict.fromkeys(expected, detector.p_values(X))
    assert list(explanation.part_p_values) == list(expected)
    for name, values in expected.items():
        assert_allclose(explanation.part_p_values[name], values, rtol=1e-3, atol=1e-6)
    names = list(expected)
    assert explanation.deciding_parts == [names[row] for row in np.argmin(list(expected.values()), axis=0)]


def assert_same(first, second):
    for name, value in vars(first).items():
        other = getattr(second, name)
        if isinstance(value, dict):
            assert list(value) == list(other)
            for key in value:
                assert_allclose(value[key], other[key], rtol=1e-4, atol=1e-6)
        elif isinstance(value, np.ndarray) and value.dtype.kind == "f":
            assert_allclose(value, other, rtol=1e-4, atol=1e-5)
        elif isinstance(value, np.ndarray):
            assert_array_equal(value, other)
        else:
            assert value == other, name


# ------------------------------------------------------------------- numbers


def test_equals_the_other_methods(fitted, X_all, explanation):
    assert_explains(fitted, X_all, explanation)
    assert explanation.names == [f"image {index}" for index in range(len(X_all))]
    assert explanation.rejected[-5:].all()


LAYOUTS = {
    "default": {"background_scorer": None, "fusion": None},
    "single": {"background_scorer": [], "fusion": None},
    "fisher": {"fusion": TailProbabilityFusion("fisher")},
    "third party": {"fusion": Minimum()},
    "no dense part": {"scorer": [("near", "classifier", KNN(n_neighbors=3))], "background_scorer": [], "fusion": None},
    "perturbed": {"scorer": ODIN(input_perturbation=0.01), "fusion": None},
    "views": {
        "scorer": [("foreground", "foreground", Energy()), ("layer", "dense.first", KNN(n_neighbors=3))],
        "background_scorer": BackgroundLogit(),
        "fusion": None,
    },
    "no threshold": {"alpha": None},
}


@pytest.fixture(scope="module", params=LAYOUTS)
def detector(request, X, y):
    return make_detector(**{"alpha": 0.2} | LAYOUTS[request.param]).fit(X, np.array(["red", "green", "blue"])[y])


def test_every_layout(detector, X_all):
    assert_explains(detector, X_all, detector.explain(X_all))


@pytest.mark.parametrize(
    "scorer", [None, [("layer", "classifier.first", KNN(n_neighbors=3))], ODIN(input_perturbation=0.01)]
)
def test_a_frozen_detector(X, y, X_all, scorer, tmp_path):
    detector = FrozenDetector(
        tiny_backbone(), scorer=scorer, alpha=0.2, calibration_fraction=0.35, device="cpu", random_state=0
    ).fit(X, np.array(["red", "green", "blue"])[y])
    assert_explains(detector, X_all, explanation := detector.explain(X_all))
    assert_array_equal(list(explanation.part_p_values.values()), [explanation.p_values])
    assert_allclose(explanation.neighbor_distances, slow_neighbors(detector, X, X_all, 3)[1], atol=1e-3)
    detector.save(tmp_path / "model.safetensors")
    loaded = skdfb.load(tmp_path / "model.safetensors", customs=[TinyBackbone], device="cpu")
    assert_same(loaded.explain(X_all), explanation)


def test_nothing_else_changes(fitted, X, y, X_all):
    # The same pass with and without a view for the reference gives the same scores.
    again = make_detector().fit(X, y)
    assert_array_equal(again.score_samples(X_all), fitted.score_samples(X_all))


# ---------------------------------------------------------------- neighbours


def slow_neighbors(detector, X_known, X, n_neighbors):
    """Indices and distances of the nearest of all training images."""
    rows = np.sort(detector._split_.train)
    known, new = (detector.transform(images).astype(np.float64) for images in (X_known[rows], X))
    found, distances = [], []
    for feature in new:
        own = [1 - feature @ other / (np.linalg.norm(feature) * np.linalg.norm(other)) for other in known]
        order = np.argsort(own)[:n_neighbors]
        found.append(rows[order])
        distances.append(np.array(own)[order])
    return found, distances


def test_neighbors(fitted, X, y, X_all, explanation):
    found, distances = slow_neighbors(fitted, X, X_all, 3)
    # The kept features are rounded to 16 bits.
    assert_allclose(explanation.neighbor_distances, distances, atol=1e-3)
    for row in range(len(X_all)):
        own = [int(name.removeprefix("image ")) for name in explanation.neighbors[row]]
        assert set(own) <= set(fitted._split_.train)
        assert explanation.neighbor_labels[row] == y[own].tolist()
        if distances[row][0] < distances[row][1] - 2e-3:
            assert own[0] == found[row][0]


@pytest.mark.parametrize(("n_neighbors", "n_found"), [(0, 0), (1, 1), (1000, 39)])
def test_number_of_neighbors(fitted, X_new, n_neighbors, n_found):
    explanation = fitted.explain(X_new, n_neighbors=n_neighbors)
    assert len(fitted.reference_.names) == 39
    assert explanation.neighbor_distances.shape == (24, n_found)
    assert {len(own) for own in explanation.neighbors} == {n_found}
    assert (np.diff(explanation.neighbor_distances) >= 0).all()


def test_bad_number_of_neighbors(fitted, X_new):
    for value in (1.5, "3", True, None):
        with pytest.raises(TypeError, match=r"n_neighbors=.*: expected an integer of at least 0\."):
            fitted.explain(X_new, n_neighbors=value)
    with pytest.raises(ValueError, match=r"n_neighbors=-1: expected at least 0\."):
        fitted.explain(X_new, n_neighbors=-1)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=900))
def test_chosen_images(labels):
    labels = np.array(labels)
    rows = _chosen(labels)
    assert_array_equal(rows, np.unique(rows))
    assert_array_equal(np.bincount(labels[rows], minlength=7), np.minimum(np.bincount(labels, minlength=7), 50))


def test_chosen_images_of_many_classes():
    assert len(_chosen(np.arange(30_000) % 15_000)) == 10_000
    rows = _chosen(np.arange(30_000) % 1000)
    assert_array_equal(np.bincount(rows % 1000), 10)


def test_reference(fitted):
    reference = fitted.reference_
    assert (reference.features.dtype, reference.features.shape) == (np.float16, (39, 8))
    assert_allclose(np.linalg.norm(reference.features.astype(float), axis=1), 1, atol=1e-3)
    assert reference.names == [f"image {place}" for place in fitted._split_.train]


def test_features_of_norm_0_have_no_nearest_image_of_nan():
    reference = ReferenceImages.choose(torch.eye(3), np.arange(3), as_images(make_images(3)[0]), np.arange(3))
    distances, _ = reference.nearest(torch.zeros(1, 3), 2)
    assert_array_equal(distances, [[1, 1]])


# --------------------------------------------------------------------- names


@pytest.fixture(scope="module")
def folder(X, y, tmp_path_factory):
    folder = tmp_path_factory.mktemp("secret-place")
    for place, (image, label) in enumerate(zip(X, y, strict=True)):
        (folder / f"class{label}").mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"class{label}" / f"{place}.png")
    return folder


def test_files_are_named_below_their_common_folder(folder, X, y, tmp_path):
    paths = [folder / f"class{label}" / f"{place}.png" for place, label in enumerate(y)]
    detector = make_detector(image_size=16).fit(paths, y)
    explanation = detector.explain([str(path) for path in paths[:4]])
    assert explanation.names == [str(path) for path in paths[:4]]
    assert {name for own in explanation.neighbors for name in own} <= {
        f"class{label}/{place}.png" for place, label in enumerate(y)
    }
    detector.save(tmp_path / "model.safetensors")
    content = (tmp_path / "model.safetensors").read_bytes()
    assert b"class0/" in content
    assert b"secret-place" not in content
    loaded = skdfb.load(tmp_path / "model.safetensors", customs=[TinyBackbone], device="cpu")
    assert_same(loaded.explain(paths[:4]), detector.explain(paths[:4]))


def test_relative_paths_name_no_folder_above(folder, y, monkeypatch):
    (folder / "below").mkdir(exist_ok=True)
    monkeypatch.chdir(folder / "below")
    paths = [f"../class{label}/{place}.png" for place, label in enumerate(y)]
    paths[0] = str(folder / "class0" / "0.png")
    images = as_images(paths)
    reference = ReferenceImages.choose(torch.eye(60), np.asarray(y), images, np.arange(60))
    assert reference.names == [f"class{label}/{place}.png" for place, label in enumerate(y)]
    assert image_names(images) == paths


def test_names_of_subsets(folder):
    paths = [str(folder / "class0" / "0.png"), str(folder / "class1" / "1.png")]
    images = as_images(paths).subset(np.array([1]))
    assert image_names(images) == paths[1:]
    assert image_names(as_images([Image.open(paths[0]).copy()])) == ["image 0"]
    assert image_names(as_images(make_images(2)[0]).subset(np.array([1]))) == ["image 0"]


# --------------------------------------------------- other ways to a detector


def test_saved_and_pickled(fitted, X_all, explanation, tmp_path):
    fitted.save(tmp_path / "model.safetensors")
    loaded = skdfb.load(tmp_path / "model.safetensors", customs=[TinyBackbone], device="cpu")
    assert_same(loaded.explain(X_all), explanation)
    assert_same(pickle.loads(pickle.dumps(fitted)).explain(X_all), explanation)


def test_with_alpha(fitted, X_all, explanation):
    without = fitted.with_alpha(None).explain(X_all)
    assert without.alpha is None
    assert without.offset == -math.inf
    assert not without.rejected.any()
    assert all(text.startswith("no verdict, since alpha is None (p = ") for text in without.sentences)
    other = fitted.with_alpha(0.5)
    assert_explains(other, X_all, other.explain(X_all))
    assert_array_equal(without.scores, explanation.scores)


def test_refit_scorer(fitted, X, y, X_all):
    for other in (fitted.refit_scorer(MSP()), fitted.refit_scorer(ViM(), X, y)):
        assert other.reference_ is fitted.reference_
        assert_explains(other, X_all, other.explain(X_all))


def test_represented_training_images_hold_only_what_was_asked_for(fitted, X, y):
    joint_score = JointScore([("near", "classifier", KNN(n_neighbors=3))])
    (train, _), _ = fitted.represent_training_images(X, y, joint_score)
    assert list(train) == ["classifier"]


def test_a_model_of_an_older_version(fitted, X, y, X_new):
    older = shallow_copy(fitted, fitted_state=True)
    older.reference_ = None
    with pytest.raises(ValueError, match=r"remembers no training images: pass n_neighbors=0, call refit_scorer\(X=X"):
        older.explain(X_new)
    assert_explains(older, X_new, without := older.explain(X_new, n_neighbors=0))
    assert without.neighbors == [[]] * 24
    # The advice of the message.
    assert_same(older.refit_scorer(X=X, y=y).explain(X_new), fitted.explain(X_new))


def test_clusters_and_labels_of_any_kind(X, y, X_new):
    detector = make_detector(alpha=0.3).fit(make_images(120)[0])
    assert_explains(detector, X_new, explanation := detector.explain(X_new))
    assert "resembles class " in explanation.sentences[0]
    detector = make_detector().fit(X, [list(Colour)[label] for label in y])
    explanation = detector.explain(X_new)
    assert set(explanation.labels) <= set(Colour)
    assert set(explanation.neighbor_labels[0]) <= set(Colour)
    assert explanation.sentences[0].endswith(f"; the image resembles {explanation.labels[0].name}")


def test_batches_change_nothing(fitted, X_all, explanation):
    small = shallow_copy(fitted, fitted_state=True).set_params(batch_size=3)
    assert_same(small.explain(X_all), explanation)


def test_images_are_read_once(fitted, X_new):
    class Counting(torch.utils.data.Dataset):
        def __init__(self):
            self.reads = [0] * 6

        def __len__(self):
            return 6

        def __getitem__(self, index):
            self.reads[index] += 1
            return Image.fromarray(X_new[index])

    fitted.score_samples(scored := Counting())
    fitted.explain(explained := Counting())
    assert explained.reads == scored.reads


def test_unreadable_images(fitted, X_new, tmp_path):
    paths = [tmp_path / f"{index}.png" for index in range(4)]
    for path, image in zip(paths, X_new, strict=False):
        Image.fromarray(image).save(path)
    paths[1].write_bytes(b"")
    lenient = shallow_copy(fitted, fitted_state=True).set_params(on_error="nan")
    with pytest.warns(UnreadableImageWarning, match="1 of 4 images could not be read"):
        explanation = lenient.explain(paths)
    assert explanation.sentences[1] == "not scored: the file cannot be read"
    assert (explanation.labels[1], explanation.runners_up[1], explanation.neighbors[1]) == (None, None, [])
    assert (explanation.deciding_parts[1], explanation.neighbor_labels[1], explanation.rejected[1]) == ("", [], True)
    numbers = [explanation.scores, explanation.p_values, explanation.probabilities, explanation.neighbor_distances]
    for values in numbers + list(explanation.part_p_values.values()):
        assert_array_equal(np.isnan(values).reshape(4, -1).all(1), [False, True, False, False])
    good = [0, 2, 3]
    assert_array_equal(explanation.labels[good], fitted.classify([paths[index] for index in good]))


# ----------------------------------------------------------------- the object


def test_indexing(explanation):
    rows = list(explanation)
    assert len(rows) == len(explanation)
    assert [str(row) for row in rows] == explanation.sentences
    for index, row in enumerate(rows):
        assert isinstance(row, Explanation)
        assert (row.names, row.neighbors) == ([explanation.names[index]], [explanation.neighbors[index]])
        assert (row.alpha, row.offset) == (explanation.alpha, explanation.offset)
        assert_array_equal(row.probabilities, explanation.probabilities[[index]])
        assert row.to_frame().equals(explanation.to_frame().iloc[[index]].reset_index(drop=True))
    assert_same(explanation[-1], rows[-1])
    assert_same(explanation[:], explanation)
    rejected = explanation[explanation.rejected]
    assert len(rejected) == explanation.rejected.sum()
    assert rejected.rejected.all()
    assert list(rejected.part_p_values["foreground"]) == list(
        explanation.part_p_values["foreground"][explanation.rejected]
    )
    for key in (len(explanation), "image 0", 1.0, (0, 1)):
        with pytest.raises(IndexError):
            explanation[key]


def test_text_and_table(explanation):
    assert str(explanation).splitlines() == explanation.sentences
    assert repr(explanation) == f"<Explanation of 29 images, {explanation.rejected.sum()} rejected>"
    frame = explanation.to_frame()
    assert len(frame) == 29
    assert_array_equal(frame["p_value_foreground"], explanation.part_p_values["foreground"])
    assert_array_equal(frame["neighbor_distance"], explanation.neighbor_distances[:, 0])
    assert frame["neighbors"].tolist() == explanation.neighbors
    assert frame["sentence"].tolist() == explanation.sentences


def test_table_without_neighbors(fitted, X_new):
    assert fitted.explain(X_new[:2], n_neighbors=0).to_frame()["neighbor_distance"].isna().all()


def test_table_without_pandas(explanation, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(ImportError, match=r"to_frame\(\) needs pandas: run pip install pandas\."):
        explanation.to_frame()


# ------------------------------------------------------------------ sentences

VIEWS = {
    "foreground": "dense",
    "background_logit": "background",
    "pretrained": "pretrained",
    "pretrained_blocks_4": "dense.blocks.4",
    "foreground_classifier": "classifier",
    "near": "dense",
    "other": "elsewhere",
}


def finding(p_value=0.004, rejected=True, alpha=0.05, parts=None, classes=("daisy", "rose"), probabilities=(0.9, 0.1)):
    parts = {"foreground": 0.3, "background_logit": 0.008} if parts is None else parts
    deciding = min(parts, key=parts.get)
    return Finding(p_value, alpha, rejected, parts, VIEWS, deciding, classes, probabilities)


BACKGROUND = "the background is unlike that of the known images (more unusual than 99.2 % of them)"


def test_a_share_is_no_more_than_the_held_out_images_can_show():
    """30 images cannot show that one in a thousand is as unusual."""
    image = finding(parts={"foreground": 0.3, "background_logit": 1e-6})
    assert "more unusual than 99.9 % of them" in sentence(image)
    assert "more unusual than 96.7 % of them" in sentence(replace(image, n_held_out=30))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (finding(), f"rejected (p = 0.004): {BACKGROUND}; the image resembles daisy"),
        (
            finding(0.08, rejected=False),
            f"accepted (p = 0.08): {BACKGROUND}, but the parts together are not unusual enough to reject; the image "
            "resembles daisy",
        ),
        (
            finding(0.2, rejected=False),
            f"accepted (p = 0.2): {BACKGROUND}, but the parts together are usual; the image resembles daisy",
        ),
        (
            finding(0.3, rejected=False, parts={"foreground": 0.3}),
            "accepted (p = 0.3): nothing is unusual; the image resembles daisy",
        ),
        (
            finding(0.1, rejected=False, parts={"foreground": 0.1}),
            "accepted (p = 0.1): not unusual enough to reject; the image resembles daisy",
        ),
        (
            finding(0.1, alpha=None, rejected=False, parts={"foreground": 0.1}),
            "no verdict, since alpha is None (p = 0.1): not clearly unusual; the image resembles daisy",
        ),
        (
            finding(0.62, rejected=False, parts={"foreground": 0.06, "near": 0.4}),
            "accepted (p = 0.62): not unusual enough to reject; the image resembles daisy",
        ),
        (
            finding(0.1, rejected=False, parts={"foreground": 0.3, "near": 0.4}),
            "accepted (p = 0.1): not unusual enough to reject; the image resembles daisy",
        ),
        (
            finding(0.62, rejected=False, parts={"foreground": 0.3, "near": 0.4}),
            "accepted (p = 0.62): no part is unusual; the image resembles daisy",
        ),
        (
            finding(0.04, parts={"foreground": 0.06, "near": 0.07}),
            "rejected (p = 0.04): several parts together are unusual, though none alone is; the lowest is 'foreground' "
            "(p = 0.06); the image resembles daisy",
        ),
        (
            finding(0.05, parts={"foreground": 0.05}),
            "rejected (p = 0.05): the object is unlike the objects of the known classes (more unusual than 95 % of "
            "them); the image resembles daisy",
        ),
        (
            finding(parts={"pretrained": 1e-9, "near": 0.3}),
            "rejected (p = 0.004): the image as a whole is unlike the known images (more unusual than 99.9 % of them); "
            "the image resembles daisy",
        ),
        (
            finding(parts={"pretrained_blocks_4": 0.01, "near": 0.3}),
            "rejected (p = 0.004): the image as a whole is unlike the known images (more unusual than 99 % of them); "
            "the image resembles daisy",
        ),
        (
            finding(parts={"foreground_classifier": 0.01, "near": 0.3}),
            "rejected (p = 0.004): the image is unlike the images of the known classes (more unusual than 99 % of "
            "them); the image resembles daisy",
        ),
        (
            finding(parts={"near": 0.01}),
            "rejected (p = 0.004): part 'near' is lower than for 99 % of the known images; the image resembles daisy",
        ),
        (
            finding(parts={"other": 0.01}),
            "rejected (p = 0.004): part 'other' is lower than for 99 % of the known images; the image resembles daisy",
        ),
        (
            finding(alpha=None, rejected=False),
            f"no verdict, since alpha is None (p = 0.004): {BACKGROUND}; the image resembles daisy",
        ),
        (
            finding(0.3, alpha=None, rejected=False),
            f"no verdict, since alpha is None (p = 0.3): {BACKGROUND}, but the parts together are usual; the image "
            "resembles daisy",
        ),
        (
            finding(0.01, alpha=None, rejected=False, parts={"foreground": 0.06, "near": 0.07}),
            "no verdict, since alpha is None (p = 0.01): several parts together are unusual, though none alone is; the "
            "lowest is 'foreground' (p = 0.06); the image resembles daisy",
        ),
        (
            finding(probabilities=(0.5, 0.4)),
            f"rejected (p = 0.004): {BACKGROUND}; the image resembles daisy, or rose",
        ),
        (
            finding(classes=(3, 5)),
            f"rejected (p = 0.004): {BACKGROUND}; the image resembles class 3",
        ),
        (
            finding(classes=("a\nb", "rose")),
            f"rejected (p = 0.004): {BACKGROUND}; the image resembles 'a\\nb'",
        ),
        (
            finding(classes=(Colour.RED, Colour.BLUE)),
            f"rejected (p = 0.004): {BACKGROUND}; the image resembles RED",
        ),
        (
            finding(0.0502, rejected=False, parts={"near": 0.0502}),
            "accepted (p = 0.0502): not unusual enough to reject; the image resembles daisy",
        ),
        (finding(math.nan), "not scored: the file cannot be read"),
    ],
)
def test_sentences(given, expected):
    assert sentence(given) == expected


@given(st.floats(0, 1), st.floats(1e-4, 0.9), st.floats(1e-6, 1), st.booleans())
def test_sentences_say_no_more_than_the_numbers(part, alpha, p_value, rejected):
    text = sentence(finding(p_value, rejected, alpha, {"near": part, "foreground": 1.0}))
    assert "\n" not in text
    assert text.startswith("rejected" if rejected else "accepted")
    if part <= alpha:
        share = float(text.partition("lower than for ")[2].partition(" %")[0])
        assert share / 100 <= 1 - part + 1e-9
        assert share / 100 > 1 - part - 0.002
    else:
        assert "unusual" in text
