"""The bars are the probabilities of the explanation, and only the chosen image is passed to the detector."""

import numpy as np
import pytest
from PIL import Image

from skdfb.displays import RejectionDisplay
from tests.displays.stubs import Detector, explanation, images


def bar_ends(ax):
    return [bar.get_x() + bar.get_width() for bar in ax.patches]


def test_bars():
    display = RejectionDisplay.from_explanation(explanation(), image=images(1)[0])
    ax = display.axes_["parts"]
    assert list(display.p_values) == ["all parts together", "background_logit", "foreground"]
    np.testing.assert_allclose(bar_ends(ax), [0.004, 0.001, 0.2])
    assert [bar.get_x() for bar in ax.patches] == [1, 1, 1]
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "all parts together",
        "background logit",
        "foreground",
    ]
    assert ax.get_xscale() == "log"
    assert ax.get_xlim()[0] == 1 > 0.001 > ax.get_xlim()[1]
    assert ax.lines[0].get_xdata() == [0.05, 0.05]
    colors = {bar.get_facecolor() for bar in ax.patches}
    assert len(colors) == 3  # the joint p-value, the deciding part, others


def test_the_line_at_alpha_does_not_run_through_numbers():
    ax = RejectionDisplay.from_explanation(explanation(), image=images(1)[0]).axes_["parts"]
    numbers = [text for text in ax.texts if not text.get_text().startswith("alpha")]
    assert len(numbers) == 3
    for text in numbers:
        assert text.get_bbox_patch().get_facecolor() == ax.get_facecolor()
        assert text.get_zorder() > ax.lines[0].get_zorder()


def test_without_alpha_there_is_no_line():
    display = RejectionDisplay.from_explanation(explanation(alpha=None), image=images(1)[0])
    assert not display.axes_["parts"].lines


def test_probabilities_of_zero_have_a_bar():
    parts = {"foreground": np.array([0.0]), "background_logit": np.array([0.3])}
    display = RejectionDisplay.from_explanation(explanation(part_p_values=parts), image=images(1)[0])
    np.testing.assert_allclose(bar_ends(display.axes_["parts"]), [0.004, 1e-6, 0.3])
    assert "< 1e-06" in [text.get_text() for text in display.axes_["parts"].texts]
    assert display.p_values["foreground"] == 0


def test_a_single_part_has_no_bar_beside_that_of_the_score():
    found = explanation(part_p_values={"foreground": np.array([0.2])}, deciding_parts=["foreground"])
    display = RejectionDisplay.from_explanation(found, image=images(1)[0])
    assert display.p_values == {"score": 0.004}
    np.testing.assert_allclose(bar_ends(display.axes_["parts"]), [0.004])


def test_from_estimator_passes_one_image():
    detector, X = Detector(), images(5)
    display = RejectionDisplay.from_estimator(detector, X, index=3)
    assert detector.n_seen == [1, 1]
    np.testing.assert_allclose(display.axes_["image"].get_images()[0].get_array(), X[3], rtol=1e-6)
    cover = display.axes_["foreground"].get_images()[1].get_array()[..., 3]
    assert (cover[:, :3] == 0).all()
    assert (cover[:, 3:] > 0).all()
    np.testing.assert_array_equal(display.axes_["background"].get_images()[0].get_array()[:, 3:], 1)
    assert display.axes_["neighbors"] == []  # they are no files


def test_an_image_of_a_folder(tmp_path):
    for index in range(3):
        Image.fromarray(np.full((4, 4, 3), index, np.uint8)).save(tmp_path / f"{index}.png")
    detector = Detector()
    display = RejectionDisplay.from_estimator(detector, tmp_path, 2)
    assert (display.picture == 2).all()
    assert detector.n_seen == [1, 1]


def test_detectors_without_segmentation():
    class Frozen:
        explain = Detector().explain

    display = RejectionDisplay.from_estimator(Frozen(), images(2), 1, neighbor_images=images(2))
    assert set(display.axes_) == {"image", "parts", "neighbors"}
    assert len(display.axes_["neighbors"]) == 2


def test_neighbours_that_are_files(tmp_path):
    for name, value in (("a.png", 10), ("c.png", 30)):
        Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(tmp_path / name)
    (tmp_path / "b.png").write_text("no image")
    neighbors = [[str(tmp_path / name) for name in ("a.png", "b.png", "c.png", "gone.png")]]
    found = explanation(
        neighbors=neighbors,
        neighbor_labels=[["ant", "bee", "cat", "dog"]],
        neighbor_distances=np.array([[0.1, 0.2, 0.3, 0.4]]),
        names=[str(tmp_path / "a.png")],
    )
    found.neighbors = [[name.removeprefix(f"{tmp_path}/") for name in neighbors[0]]]
    # As of a detector that was fitted on the folder.
    display = RejectionDisplay.from_explanation(found, neighbor_images=tmp_path)
    assert (display.picture == 10).all()
    assert list(display.neighbor_pictures) == [0, 2]
    titles = [ax.get_title() for ax in display.axes_["neighbors"]]
    assert titles == ["known: ant\ndistance 0.10", "known: cat\ndistance 0.30"]
    assert display.axes_["image"].get_title() == "a.png"
    found.neighbors = neighbors
    assert list(RejectionDisplay.from_explanation(found).neighbor_pictures) == [0, 2]


def test_the_sentence_is_wrapped():
    sentence = "rejected: " + "a very long reason that costs $5 " * 8
    display = RejectionDisplay.from_explanation(explanation(sentences=[sentence]), image=images(1)[0])
    texts = [text.get_text() for ax in display.figure_.axes for text in ax.texts]
    title = next(text for text in texts if text.startswith("rejected"))
    assert max(map(len, title.split("\n"))) <= 84
    assert title.replace("\n", " ").replace("\\", "") == sentence.strip()
    display.figure_.draw_without_rendering()


def test_the_deciding_part_is_marked():
    for deciding in ("foreground", "background_logit"):
        display = RejectionDisplay.from_explanation(explanation(deciding_parts=[deciding]), image=images(1)[0])
        colors = [bar.get_facecolor() for bar in display.axes_["parts"].patches]
        place = list(display.p_values).index(deciding)
        assert colors.count(colors[place]) == 1
        assert display.axes_["parts"].get_yticklabels()[place].get_fontweight() == "bold"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"index": 1}, ValueError, r"index=1: expected an integer in 0\.\.0"),
        ({"index": -1}, ValueError, r"index=-1: expected"),
        ({"image": None}, ValueError, "image is None, and 'image 0' is not a file"),
        ({"image": np.zeros(3)}, TypeError, r"image has shape \(3,\): expected a path"),
        ({"segmentation": np.zeros((4, 4))}, ValueError, r"segmentation\[None\] has shape \(1, 4, 4\)"),
        ({"neighbor_images": images(5)}, ValueError, "neighbor_images has 5 images: expected at most 2"),
        ({"neighbor_images": "no/such"}, ValueError, "neighbor_images='no/such' is not a folder: expected that of fit"),
    ],
)
def test_bad_arguments_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        RejectionDisplay.from_explanation(explanation(), **{"image": images(1)[0]} | options)


def test_images_that_could_not_be_read_are_refused():
    with pytest.raises(ValueError, match="'image 0' has no scores, since it could not be read"):
        RejectionDisplay.from_explanation(explanation(p_values=np.array([np.nan])), image=images(1)[0])


def test_detectors_that_do_not_explain_are_refused():
    with pytest.raises(TypeError, match="has no explain"):
        RejectionDisplay.from_estimator(object(), images())
