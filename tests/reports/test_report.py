"""The page of a detector: its numbers are those of ``evaluate``, and nothing that users name can do harm."""

import pathlib
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from skdfb import FrozenDetector
from skdfb.detector import FeatureDetector
from skdfb.evaluation import evaluate
from skdfb.exceptions import UnreadableImageWarning
from skdfb.metrics import auroc_score
from skdfb.reports import write_report
from skdfb.reports._html import data_uri, element, joined, table
from skdfb.reports._sections import _described
from skdfb.reports._sets import scored
from skdfb.reports._verdict import cautions, percent, verdict
from skdfb.utils import shallow_copy
from tests.detector.conftest import make_detector, make_images, tiny_backbone

X, Y = make_images()
LABELS = np.array(["red", "green", "<b>&blue"])[Y]
X_ID, Y_ID = make_images(30, seed=1)
LABELS_ID = np.array(["red", "green", "<b>&blue"])[Y_ID]
OOD = {
    "noise": np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8),
    "<script>alert(1)</script>": make_images(12, seed=2)[0][:, ::-1] // 2,
}


@pytest.fixture(scope="module")
def detector():
    return make_detector(alpha=0.2, fusion=None, background_scorer=None).fit(X, LABELS)


class Page(HTMLParser):
    """What a browser would see: tags, attributes, and texts by heading."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.texts, self.rows, self._open = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self._open == []
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in ("meta", "img", "source"):
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" in self._open:
            return
        self.texts.append(data)
        if {"td", "th"} & set(self._open[-2:]):
            self.rows[-1][-1] += f" {data}" if self.rows[-1][-1] else data

    def of(self, attribute):
        return [value for _, name, value in self.attributes if name == attribute]


@pytest.fixture(scope="module")
def written(detector, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    assert write_report(detector, X_ID, OOD, path, y_id=LABELS_ID, n_examples=3, random_state=0) == path
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(written):
    return Page(written)


# -------------------------------------------------------------------- safety


def test_nothing_is_loaded_and_nothing_runs(written, page):
    assert not {"script", "iframe", "object", "link", "form", "a"} & set(page.tags)
    links = page.of("src") + page.of("srcset")
    assert links
    assert all(link.startswith("data:image/") for link in links)
    assert not [name for _, name, _ in page.attributes if name.startswith("on") or name in ("href", "style")]
    assert "url(" not in written
    assert "@import" not in written
    assert not re.search(r"https?://", written)
    assert ("meta", "content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in page.attributes


def test_names_and_labels_are_texts(written, page):
    assert "<script" not in written
    assert "<b>&blue" not in written
    assert "<script>alert(1)</script>" in page.text
    assert "<b>&blue" in page.text


def test_names_of_files_are_texts(detector, tmp_path):
    name = '<img src=x onerror="alert(1)">.png'
    paths = [tmp_path / name, tmp_path / "\u202egnp.png", tmp_path / "image'\"&.png"]
    for path, image in zip(paths, OOD["noise"], strict=False):
        Image.fromarray(image).save(path)
    lenient = shallow_copy(detector, fitted_state=True)
    path = write_report(lenient, X_ID, {"files": paths}, tmp_path / "report.html", random_state=0)
    page = Page(path.read_text(encoding="utf-8"))
    assert name in page.text
    assert "image'\"&.png" in page.text
    assert "\u202e" not in page.text
    assert str(tmp_path.parent) not in page.text
    assert not page.of("onerror")


def test_html_escapes_whatever_was_not_made_by_it():
    assert element("p", "<i>", element("b", "a & b")) == "<p>&lt;i&gt;<b>a &amp; b</b></p>"
    assert element("img", alt='"><script>', src=None) == '<img alt="&quot;&gt;&lt;script&gt;">'
    assert joined("<", 3) == "&lt;3"
    assert joined("a\x00b\udcffc\u202ed") == "a\ufffdb\\udcffc\ufffdd"
    assert "&lt;td&gt;" in table(["<td>"], [["x", "<td>"]])
    assert data_uri(b"abc", "png") == "data:image/png;base64,YWJj"


# ------------------------------------------------------------------- content


def as_row(row, name, share):
    """The cells of a set, from a row of evaluate's table."""
    cells = [name, f"{row['n_ood' if share == 'ood_rejected' else 'n_id']:,}"]
    cells.append(f"{percent(row[share])} {percent(row[f'{share}_low'])} to {percent(row[f'{share}_high'])}")
    return cells


def test_numbers_are_those_of_evaluate(detector, page):
    found = evaluate(detector, X_ID, OOD, LABELS_ID, random_state=0)
    rows = [{column: values[place] for column, values in found.items()} for place in range(2)]
    assert page.rows[1] == [*as_row(rows[0], "known images", "id_rejected"), *["–"] * 5]
    for place, row in enumerate(rows):
        numbers = [
            f"{row[metric]:.3f} {row[f'{metric}_low']:.3f} to {row[f'{metric}_high']:.3f}"
            for metric in ("auroc", "fpr95", "aupr_in", "aupr_out", "oscr")
        ]
        assert page.rows[2 + place] == [*as_row(row, row["ood"], "ood_rejected"), *numbers]
    assert f"Of the known images, {percent(rows[0]['accuracy'])}".replace("\xa0", " ") in page.text
    assert verdict(found, 0.2).replace("\xa0", " ") in page.text


def test_parts(detector, page):
    known = detector.score_parts(X_ID)
    for part, scores in known.items():
        aurocs = [f"{auroc_score(scores, detector.score_parts(images)[part]):.3f}" for images in OOD.values()]
        (row,) = [row for row in page.rows if row[0] == part]
        assert row[1:3] == aurocs


def test_images_and_reasons(detector, page):
    explanation = detector.explain(OOD["noise"])
    order = np.argsort(explanation.scores, kind="stable")
    for row in order[explanation.rejected[order]][:3]:
        assert f"image {row} {explanation.sentences[row]}." in page.text
    n_rejected = explanation.rejected.sum()
    assert f"noise: rejected, lowest scores first (3 of {n_rejected})" in page.text
    assert "Most like: image " in page.text
    assert "Its class: " in page.text


def test_settings(detector, page):
    settings = {row[0]: row[1] for row in page.rows if len(row) == 2}
    assert settings["threshold"] == f"{detector.offset_:.6g}"
    assert settings["3 classes"] == ", ".join(detector.classes_)
    assert settings["parameter alpha"] == "0.2"
    assert settings["parameter mask_generator"].startswith("CAMMaskGenerator(")
    assert {"skdfb", "torch", "python", "written at"} <= set(settings)
    assert {f"parameter {name}" for name in detector.get_params(deep=False)} <= set(settings)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (pathlib.Path("/home/somebody/runs/first"), "runs/first"),
        ("/home/somebody/runs", "somebody/runs"),
        ("tf_efficientnet_lite0", "'tf_efficientnet_lite0'"),
        ("x" * 500, f"'{'x' * 398}…"),
        (None, "None"),
    ],
)
def test_parameters_tell_no_folders_and_are_short(value, text):
    assert _described(value) == text


def test_plots_have_a_light_and_a_dark_form(page):
    texts = [text for text in page.of("alt") if text.startswith(("Histograms", "ROC", "Loss"))]
    assert len(texts) == 3
    assert page.tags.count("picture") == page.tags.count("source") == 3


def test_form(page):
    assert page.tags.count("h1") == 1
    assert all(page.of("alt"))
    assert ("html", "lang", "en") in page.attributes


def test_the_same_again_but_for_times(detector, written, tmp_path):
    again = write_report(detector, X_ID, OOD, tmp_path / "a.html", y_id=LABELS_ID, n_examples=3, random_state=0)

    def without_times(text):
        return re.sub(r"\d+\.\d s|\d{4}-\d\d-\d\d \d\d:\d\d UTC", "", text)

    assert without_times(again.read_text(encoding="utf-8")) == without_times(written)


# -------------------------------------------------------------- other inputs


def test_folders_and_unreadable_files(tmp_path):
    for place, (image, label) in enumerate(zip(X_ID, Y_ID, strict=True)):
        (tmp_path / "id" / f"class{label}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "id" / f"class{label}" / f"{place}.png")
    (tmp_path / "ood").mkdir()
    for place, image in enumerate(OOD["noise"]):
        Image.fromarray(image).save(tmp_path / "ood" / f"{place}.png")
    (tmp_path / "ood" / "7.png").write_bytes(b"")
    detector = FrozenDetector(
        tiny_backbone(), alpha=0.2, calibration_fraction=0.35, image_size=16, device="cpu", on_error="nan",
        random_state=0,
    ).fit(tmp_path / "id")  # fmt: skip
    with pytest.warns(UnreadableImageWarning, match="1 of 20 images"):
        path = write_report(detector, tmp_path / "id", {"noise": str(tmp_path / "ood")}, tmp_path / "r.html")
    page = Page(path.read_text(encoding="utf-8"))
    assert page.rows[1][:2] == ["known images", "30"]
    assert page.rows[2][:2] == ["noise", "19"]
    assert "noise: 1 of 20 images could not be read. They are left out of all numbers." in page.text
    assert "get their right class" in page.text
    assert "Loss and learning rate" not in " ".join(page.of("alt"))
    assert "Parts of the score" not in page.text
    found = evaluate(shallow_copy(detector, fitted_state=True), tmp_path / "id", {
        "noise": [tmp_path / "ood" / f"{place}.png" for place in (0, 1, *range(10, 20), *range(2, 7), 8, 9)]
    })  # fmt: skip
    assert page.rows[2][3].startswith(f"{found.auroc[0]:.3f} ")


def test_without_labels_without_a_threshold_and_without_images(detector, tmp_path):
    path = write_report(detector.with_alpha(None), X_ID, OOD, tmp_path / "report.html", n_examples=0, random_state=0)
    page = Page(path.read_text(encoding="utf-8"))
    assert "The detector has no threshold (alpha is None), so it rejects nothing." in page.text
    assert "right class" not in page.text
    assert {row[7] for row in page.rows[1:4]} == {"–"}
    assert "figcaption" not in page.tags


def test_many_sets_and_images_make_no_large_page(detector, tmp_path):
    ood = {f"set {place}": OOD["noise"] for place in range(12)}
    path = write_report(detector, X_ID, ood, tmp_path / "report.html", random_state=0)
    assert path.stat().st_size < 4e6
    page = Page(path.read_text(encoding="utf-8"))
    assert "of the 12 OOD sets" in page.text
    assert page.tags.count("picture") == 7


def test_large_pictures_become_small(detector, tmp_path):
    large = np.repeat(np.repeat(OOD["noise"], 40, axis=1), 40, axis=2)[:3]
    path = write_report(detector, X_ID, {"large": large}, tmp_path / "report.html", random_state=0)
    pictures = [link for link in Page(path.read_text(encoding="utf-8")).of("src") if link.startswith("data:image/jpeg")]
    assert len(pictures) == 3
    assert max(map(len, pictures)) < 40_000


def test_each_set_is_scored_once(detector, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(type(detector), "_run", _counting(type(detector)._run, calls))
    write_report(detector, X_ID, OOD, tmp_path / "report.html", y_id=LABELS_ID)
    assert calls == [30, 20, 12]


def _counting(run, calls):
    def counted(self, images, *args, **options):
        calls.append(len(images))
        return run(self, images, *args, **options)

    return counted


def test_a_detector_of_an_older_version(detector, tmp_path):
    older = shallow_copy(detector, fitted_state=True)
    older.reference_ = None
    path = write_report(older, X_ID, OOD, tmp_path / "report.html", random_state=0)
    assert "Most like" not in path.read_text(encoding="utf-8")


# ------------------------------------------------------------------ refusals


def test_refused_before_images_are_scored(detector, tmp_path, monkeypatch):
    monkeypatch.setattr(type(detector), "explain", None)
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*: expected one; create it by Path\("):
        write_report(detector, X_ID, OOD, tmp_path / "missing" / "report.html")
    with pytest.raises(IsADirectoryError, match="is a folder: expected a file, such as"):
        write_report(detector, X_ID, OOD, tmp_path)
    with pytest.raises(TypeError, match=r"path is a dict: expected the path of a file, .*X_id, ood, path"):
        write_report(detector, X_ID, str(tmp_path / "report.html"), OOD)
    with pytest.raises(ValueError, match=r"report\.pdf': expected a name that ends in \.html, .*'.*report\.html'"):
        write_report(detector, X_ID, OOD, tmp_path / "report.pdf")
    path = tmp_path / "report.html"
    with pytest.raises(TypeError, match="ood is a ndarray: expected OOD images by name"):
        write_report(detector, X_ID, OOD["noise"], path)
    with pytest.raises(ValueError, match="n_examples == 51, must be <= 50"):
        write_report(detector, X_ID, OOD, path, n_examples=51)
    with pytest.raises(ValueError, match="X_id has 30 images and y_id has 29 labels"):
        write_report(detector, X_ID, OOD, path, y_id=LABELS_ID[1:])
    with pytest.raises(TypeError, match="has no explain: expected a fitted DFBDetector or FrozenDetector"):
        write_report(FeatureDetector(), X_ID, OOD, path)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_former_page(detector, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("former")
    with pytest.raises(ValueError, match="expected"):
        write_report(detector, X_ID, {"noise": OOD["noise"][:, :, :, :2]}, path)
    assert path.read_text() == "former"
    assert list(tmp_path.iterdir()) == [path]


# ------------------------------------------------------------------- verdict


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0 %"),
        (1, "100 %"),
        (0.048, "4.8 %"),
        (0.05, "5 %"),
        (0.00001, "less than 0.1 %"),
        (0.99999, "more than 99.9 %"),
        (float("nan"), "–"),
    ],
)
def test_percent(share, text):
    assert percent(share).replace("\xa0", " ") == text


def table_of(**columns):
    names = ["id_rejected", "ood_rejected", "auroc"]
    values = {"id_rejected": [0.048], "ood_rejected": [0.91], "auroc": [0.95]} | columns
    n = len(values["auroc"])
    from skdfb.evaluation import Table

    filled = {name: np.resize(values[name], n) for name in names}
    ends = {f"{name}{end}": filled[name] + shift for name in names for end, shift in (("_low", -0.02), ("_high", 0.02))}
    return Table(ood=columns.get("ood", [f"set{place}" for place in range(n)]), **filled, **ends)


def test_verdict():
    text = verdict(table_of(), 0.05).replace("\xa0", " ")
    assert text.startswith("Of images like these, the detector rejects 4.8 % of the known ones (aimed at: at most 5 %)")
    assert text.endswith(" and 91 % of set0.")
    three = table_of(ood_rejected=[0.91, 0.5, 1.0], auroc=[0.9, 0.8, 0.99])
    assert verdict(three, 0.05).replace("\xa0", " ").endswith(", 91 % of set0, 50 % of set1 and 100 % of set2.")
    assert "AUROC of 0.800, the lowest of all sets." in verdict(three, None)


def test_cautions(detector):
    known, few = scored(detector, X_ID, lambda X: X, "known images"), scored(detector, OOD["noise"], lambda X: X, "few")
    found = cautions(table_of(id_rejected=[0.12], ood_rejected=[0.2]), 0.05, known, [few])
    assert len(found) == 4
    assert (
        found[0]
        .replace("\xa0", " ")
        .startswith("More known images are rejected than aimed at: 12 % (10 % to 14 %) instead of at most 5 %.")
    )
    assert found[1].replace("\xa0", " ") == "set0: most of these images are accepted; 20 % are rejected."
    assert found[2:] == [
        "known images: only 30 images, so that its numbers are rough.",
        "few: only 20 images, so that its numbers are rough.",
    ]
    (chance, *_) = cautions(table_of(auroc=[0.51]), 0.05, known, [few])
    assert chance == "set0: the scores are not shown to be better than chance (AUROC 0.510, 0.490 to 0.530)."
