"""compare_scorers must report exactly the scores of the detector, and of scorers on the classifier."""

import numpy as np
import pytest
import torch

from skdfb import DFBDetector, Trainer, evaluation
from skdfb.evaluation import class_accuracy, format_comparison
from skdfb.metrics import auroc_score, fpr_at_tpr, oscr_score
from skdfb.scorers import MSP, ODIN, Energy, Representation, ViM
from tests.evaluation.helpers import framed
from tests.helpers import TinyBackbone

compare_scorers = framed(evaluation.compare_scorers)

COLUMNS = ["scorer", "method", "ood", "auroc", "aupr_in", "aupr_out", "fpr95"]


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return {name: rng.integers(0, 256, (n, 16, 16, 3), dtype=np.uint8) for name, n in (("fit", 260), ("id", 30))} | {
        "dark": rng.integers(0, 100, (25, 16, 16, 3), dtype=np.uint8),
        "grey": rng.integers(0, 256, (20, 16, 16, 1), dtype=np.uint8).repeat(3, axis=-1),
    }


@pytest.fixture(scope="module")
def labels():
    return np.asarray(["b", "a"])[np.arange(260) % 2]


@pytest.fixture(scope="module")
def detector(images, labels):
    torch.manual_seed(0)
    trainer = Trainer(max_steps=5, batch_size=32, learning_rate=0.1, schedule="step", mixup=0.1)
    detector = DFBDetector(
        TinyBackbone(),
        classifier_trainer=trainer,
        dense_trainer=trainer,
        image_size=16,
        calibration_fraction=0.2,
        random_state=0,
        device="cpu",
    )
    return detector.fit(images["fit"], labels)


@pytest.fixture(scope="module")
def table(detector, images, labels):
    ood = {name: images[name] for name in ("dark", "grey")}
    scorers = [MSP(), ODIN(input_perturbation=0.01), ViM(n_components=3)]
    return compare_scorers(detector, images["id"], ood, X=images["fit"], y=labels, scorers=scorers)


def cell(table, column, **key):
    rows = np.ones(len(table), dtype=bool)
    for name, value in key.items():
        rows &= (table[name] == value).to_numpy()
    (value,) = table[column][rows]
    return value


def test_long_form(table):
    assert list(table.columns) == COLUMNS
    assert len(table) == 3 * 3 * 2
    assert table[COLUMNS[3:]].to_numpy().min() >= 0
    assert table[COLUMNS[3:]].to_numpy().max() <= 1


@pytest.mark.parametrize("scorer", [MSP(), ODIN(input_perturbation=0.01), ViM(n_components=3)], ids=repr)
def test_dfb_rows_are_those_of_a_refitted_detector(detector, table, images, labels, scorer):
    refitted = detector.refit_scorer(scorer, images["fit"], labels)
    key = {"scorer": type(scorer).__name__, "ood": "dark"}
    joint = refitted.score_samples(images["id"]), refitted.score_samples(images["dark"])
    assert cell(table, "auroc", method="dfb", **key) == pytest.approx(auroc_score(*joint))
    assert cell(table, "fpr95", method="dfb", **key) == pytest.approx(fpr_at_tpr(*joint))
    background = refitted.score_background(images["id"]), refitted.score_background(images["dark"])
    assert cell(table, "auroc", method="background", **key) == pytest.approx(auroc_score(*background))


def test_dfb_rows_have_the_scorer_on_all_foreground_views(detector, images, labels):
    views = {"foreground_dense": "dense", "foreground_classifier": "classifier", "pooled": "foreground"}

    def on_all_views(scorer):
        return [(name, view, scorer) for name, view in views.items()]

    several = detector.refit_scorer(on_all_views(MSP()), images["fit"], labels, background_scorer=[])
    ood = {"dark": images["dark"]}
    table = compare_scorers(several, images["id"], ood, X=images["fit"], y=labels, scorers=[Energy()])
    assert table["method"].tolist() == ["plain", "dfb"]  # there is no background part
    refitted = several.refit_scorer(on_all_views(Energy()), images["fit"], labels)
    expected = auroc_score(refitted.score_samples(images["id"]), refitted.score_samples(images["dark"]))
    assert cell(table, "auroc", method="dfb") == expected
    parts = [refitted.score_parts(images[name])["foreground_classifier"] for name in ("id", "dark")]
    assert cell(table, "auroc", method="plain") == auroc_score(*parts)


def test_plain_rows_are_the_scorer_on_the_classifier(detector, table, images):
    classifier = detector.classifier_
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def representation(X):
        X = X[..., None].repeat(3, axis=-1) if X.ndim == 3 else X
        inputs = (torch.from_numpy(X).permute(0, 3, 1, 2) / 255 - mean) / std
        with torch.no_grad():
            features = classifier.features(inputs).numpy()
        head = {name: value.numpy(force=True) for name, value in classifier.head.named_parameters()}
        return Representation.from_numpy(features=features, **head)

    training = images["fit"][np.setdiff1d(np.arange(260), detector._split_.held_out)]
    fitted = ViM(n_components=3).fit(representation(training), None)
    scores = [fitted.score_samples(representation(images[name])) for name in ("id", "grey")]
    assert cell(table, "auroc", scorer="ViM", method="plain", ood="grey") == pytest.approx(auroc_score(*scores))


def test_scorers_of_one_class_are_named_by_their_parameters(detector, images, labels):
    scorers = [Energy(), ViM(n_components=2), ViM(n_components=3)]
    table = compare_scorers(
        detector, images["id"], {"dark": images["dark"]}, X=images["fit"], y=labels, scorers=scorers
    )
    assert list(table["scorer"].unique()) == ["Energy", "ViM(n_components=2)", "ViM(n_components=3)"]


def test_equal_scorers_are_numbered(detector, images, labels):
    fit, shown = images["fit"], {"dark": images["dark"]}
    table = compare_scorers(detector, images["id"], shown, X=fit, y=labels, scorers=[MSP(), MSP(), Energy()])
    assert list(dict.fromkeys(table["scorer"])) == ["MSP() #1", "MSP() #2", "Energy"]


@pytest.mark.parametrize("change", [lambda label: f"{label}?", lambda label: 100])
def test_accuracy_refuses_labels_that_were_not_in_fit(detector, images, labels, change):
    with pytest.raises(ValueError, match=r"y: expected labels .* of fit, 'a', 'b', but 260 of 260 labels are not: "):
        class_accuracy(detector, images["fit"], [change(label) for label in labels.tolist()])


def test_a_scorer_whose_fit_returns_nothing(detector, images, labels):
    class FirstFeature:
        def fit(self, representation, y):
            self.sign = 1

        def score_samples(self, representation):
            return self.sign * representation.features[:, 0]

    table = compare_scorers(
        detector, images["id"], {"dark": images["dark"]}, X=images["fit"], y=labels, scorers=[FirstFeature()]
    )
    assert list(table["method"]) == ["plain", "dfb", "background"]


def test_labels_add_accuracy_and_oscr(detector, table, images, labels):
    ood, y_id = {name: images[name] for name in ("dark", "grey")}, np.asarray(["a", "b", "b"] * 10)
    arguments = {"X": images["fit"], "y": labels, "scorers": [MSP(), ViM(n_components=3)]}
    labelled = compare_scorers(detector, images["id"], ood, **arguments, y_id=y_id)
    assert list(labelled.columns) == [*COLUMNS, "oscr", "accuracy"]
    assert labelled[COLUMNS].equals(table[table["scorer"] != "ODIN"].reset_index(drop=True))
    accuracy = class_accuracy(detector, images["id"], y_id)
    for method, expected in accuracy.items():
        assert set(labelled["accuracy"][labelled["method"] == method]) == {expected}
    assert (labelled["oscr"] <= labelled[["auroc", "accuracy"]].min(axis=1)).all()
    refitted = detector.refit_scorer(MSP(), images["fit"], labels)
    hits, key = refitted.classify(images["id"]) == y_id, {"scorer": "MSP", "ood": "dark"}
    joint = refitted.score_samples(images["id"]), refitted.score_samples(images["dark"])
    assert cell(labelled, "oscr", method="dfb", **key) == pytest.approx(oscr_score(*joint, hits))
    background = refitted.score_background(images["id"]), refitted.score_background(images["dark"])
    assert cell(labelled, "oscr", method="background", **key) == pytest.approx(oscr_score(*background, hits))
    views = [detector.represent(images[name], ["classifier"])["classifier"] for name in ("id", "dark")]
    plain = [view.logits.softmax(1).amax(1).numpy() for view in views]
    hits = detector.classes_[views[0].logits.argmax(1).numpy()] == y_id
    assert cell(labelled, "oscr", method="plain", **key) == pytest.approx(oscr_score(*plain, hits))
    assert "OSCR [%]" in format_comparison(labelled, metrics=["oscr"])


@pytest.mark.parametrize(
    ("y_id", "match"), [(["a"] * 3, "X_id has 30 images and y_id has 3 labels"), (["?"] * 30, "y_id: expected labels")]
)
def test_labels_of_test_images_are_checked(detector, images, labels, y_id, match):
    with pytest.raises(ValueError, match=match):
        compare_scorers(detector, images["id"], {"dark": images["dark"]}, X=images["fit"], y=labels, y_id=y_id)


def test_other_training_images_are_refused(detector, images, labels):
    ood = {"dark": images["dark"]}
    with pytest.raises(ValueError, match="X has 30 images: expected the 260 of fit"):
        compare_scorers(detector, images["id"], ood, X=images["id"], y=labels[:30])
    with pytest.raises(ValueError, match="y differs from the labels of fit"):
        compare_scorers(detector, images["id"], ood, X=images["fit"], y=labels[::-1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ood": np.zeros((2, 16, 16, 3))}, "ood is a ndarray: expected OOD images by name"),
        ({"ood": {}}, "ood is empty: expected OOD images by name"),
        ({"scorers": MSP()}, r"scorers=MSP\(\): expected a list of scorers"),
        ({"scorers": ["MSP"]}, r"scorers\[0\] is 'MSP', a str without fit"),
        ({"scorers": [Energy(), MSP]}, r"scorers\[1\] is the class MSP"),
    ],
)
def test_bad_arguments_are_named(detector, images, labels, changes, message):
    good = {"ood": {"dark": images["dark"]}, "X": images["fit"], "y": labels}
    with pytest.raises(TypeError, match=message):
        compare_scorers(detector, images["id"], **good | changes)


@pytest.mark.parametrize("metrics", [["auc"], "auroc"])
def test_unknown_metrics_are_named(table, metrics):
    with pytest.raises(ValueError, match=r"metrics=.*: expected some of the table's columns \['auroc', 'aupr_in'"):
        format_comparison(table, metrics)


def test_five_scorers_by_default(detector, images, labels):
    table = compare_scorers(detector, images["id"], {"dark": images["dark"]}, X=images["fit"], y=labels)
    assert list(table["scorer"].unique()) == ["MSP", "MaxLogit", "ODIN", "Energy", "ViM"]


def test_the_detector_stays_as_it_is(detector, images, table):
    assert isinstance(detector.scorer_, ViM)
    assert detector.scorer is None
    assert detector.scorer_.n_components is None


def test_class_accuracy(detector, images, labels):
    accuracy = class_accuracy(detector, images["fit"], labels)
    assert accuracy["dfb"] == detector.score(images["fit"], labels)
    views = detector.represent(images["fit"], ["classifier"])
    predicted = detector.classes_[views["classifier"].logits.argmax(1).numpy()]
    assert accuracy["plain"] == np.mean(predicted == labels)


def test_wide_print(table):
    text = format_comparison(table)
    lines = text.splitlines()
    assert len(lines) == 2 * (1 + 3)
    assert lines[0].split() == ["AUROC", "[%]", "dark", "grey", "mean"]
    plain, dfb = (100 * cell(table, "auroc", scorer="ViM", method=method, ood="dark") for method in ("plain", "dfb"))
    assert f"{plain:.1f} -> {dfb:.1f}" in lines[3]
