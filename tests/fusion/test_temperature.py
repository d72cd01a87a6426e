"""Eq. 7 against the paper's formula, its limits and its properties."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from skdfb.fusion import Fusion, TemperatureFusion
from skdfb.fusion._temperature import _log_softplus

deterministic = settings(derandomize=True, deadline=None)
score_pairs = st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=1, max_size=10)
temperatures = st.floats(0.1, 20)


def oracle(foreground, background, output, temperature=2.5, probability_temperature=1.0):
    joint = []
    for s_f, s_b in zip(foreground, background, strict=True):
        if output == "logit":
            joint.append(s_f + s_b / temperature)
        else:
            s_f = math.exp(s_f) if output == "log_probability" else s_f
            joint.append(s_f + math.log(math.log1p(math.exp(s_b))) / probability_temperature)
    return joint


def combine(foreground, background, output="logit", **params):
    parts = {"foreground": np.array(foreground), "background": np.array(background)}
    return TemperatureFusion(**params).fit(parts, outputs={"foreground": output}).combine(parts)


@deterministic
@given(score_pairs, temperatures, temperatures)
@pytest.mark.parametrize("output", ["logit", "probability", "log_probability"])
def test_follows_the_paper(output, pairs, temperature, probability_temperature):
    foreground, background = zip(*pairs, strict=True)
    if output == "log_probability":
        foreground = [-abs(s) for s in foreground]
    params = {"temperature": temperature, "probability_temperature": probability_temperature}
    expected = oracle(foreground, background, output, **params)
    np.testing.assert_allclose(combine(foreground, background, output, **params), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("output", ["logit", "probability", "log_probability"])
def test_higher_parts_give_a_higher_joint_score(output):
    steps = np.linspace(-60, 60, 241)
    assert np.all(np.diff(combine(np.full(241, -0.5), steps, output)) > 0)
    assert np.all(np.diff(combine(np.linspace(-5, 0, 241), np.full(241, 1.0), output)) > 0)


def test_log_probability_is_the_probability_of_it():
    log_probability, background = np.log([0.2, 0.5, 1.0]), np.array([-3.0, 0.0, 4.0])
    np.testing.assert_allclose(
        combine(log_probability, background, "log_probability"),
        combine(np.exp(log_probability), background, "probability"),
        rtol=1e-14,
    )


def test_a_large_temperature_leaves_the_foreground():
    foreground = np.array([3.0, -1.0])
    np.testing.assert_allclose(combine(foreground, [40.0, -40.0], temperature=1e12), foreground, atol=1e-9)
    joint = combine(foreground, [40.0, -40.0], "probability", probability_temperature=1e12)
    np.testing.assert_allclose(joint, foreground, atol=1e-9)


def test_log_softplus_tends_to_the_papers_logarithm():
    large = np.array([40.0, 1e3, 1e100, 1e308])
    np.testing.assert_allclose(_log_softplus(large), np.log(large), rtol=1e-15)


def test_log_softplus_tends_to_the_score_far_below_zero():
    small = np.array([-1e308, -1e4, -800.0, -745.0, -40.0])
    np.testing.assert_allclose(_log_softplus(small), small, rtol=1e-15)


@deterministic
@given(st.floats(-700, 700))
def test_log_softplus_is_accurate(score):
    # log1p(exp(s)) loses nothing while exp(s) is a normal number; beyond 30 the series of log1p does.
    softplus = math.log1p(math.exp(score)) if score < 30 else score + math.exp(-score)
    assert _log_softplus(np.array([score]))[0] == pytest.approx(math.log(softplus), rel=1e-13, abs=1e-15)


def test_log_softplus_is_smooth_where_its_branches_meet():
    around = -30 + np.linspace(-1e-3, 1e-3, 2001)
    np.testing.assert_allclose(np.diff(_log_softplus(around)), 1e-6, rtol=1e-6)


def test_output_kind_is_logit_by_default():
    parts = {"foreground": np.array([1.0]), "background": np.array([-5.0])}
    assert TemperatureFusion().fit(parts).combine(parts) == [-1.0]
    fusion = TemperatureFusion().fit(parts, outputs={"background": "logit"})
    assert fusion.outputs_ == {"foreground": "logit", "background": "logit"}
    assert fusion.combine(parts) == [-1.0]


def test_part_names_are_prefixes_in_any_order():
    parts = {"background_logit": np.array([5.0]), "foreground_dense": np.array([1.0])}
    fusion = TemperatureFusion().fit(parts)
    assert fusion.part_names_ == ("foreground_dense", "background_logit")
    assert fusion.combine(dict(reversed(parts.items()))) == [3.0]


def test_combine_takes_other_images_than_fit():
    fusion = TemperatureFusion().fit({"foreground": np.zeros(7), "background": np.zeros(7)})
    assert fusion.combine({"foreground": np.ones(2), "background": np.ones(2)}).tolist() == [1.4, 1.4]


@pytest.mark.parametrize(
    "names", [[], ["foreground"], ["background"], ["foreground", "foreground_b"], ["foreground", "back"]]
)
def test_other_parts_are_refused(names):
    message = r"Eq\. 7 joins one part whose name starts with 'foreground'"
    with pytest.raises(ValueError, match=message):
        TemperatureFusion().check_names(names)
    with pytest.raises(ValueError, match=message):
        TemperatureFusion().fit({name: np.zeros(2) for name in names})


def test_a_third_part_is_refused():
    names = ("foreground", "background_logit", "background_knn")
    with pytest.raises(ValueError, match="use a fusion for any number of parts"):
        TemperatureFusion().check_names(names)
    with pytest.raises(ValueError, match="use a fusion for any number of parts"):
        TemperatureFusion().fit({name: np.zeros(2) for name in names})


def test_names_are_checked_before_fit():
    """Any iterable of names is accepted, and the fusion stays unfitted."""
    fusion = TemperatureFusion()
    for names in (
        ["background_logit", "foreground"],
        iter(["foreground_dense", "background"]),
        {"foreground": 0, "background": 1},
    ):
        assert fusion.check_names(names) is None
    assert vars(fusion) == vars(TemperatureFusion())


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros(3), r"got \[2, 3\] scores in the parts \['foreground', 'background'\]"),
        (np.zeros((2, 1)), r"parts\['background'\] has shape \(2, 1\)"),
        (np.zeros(0), r"parts\['background'\] has shape \(0,\)"),
        (np.array(["a", "b"]), "dtype <U1"),
        (np.array([0.0, np.nan]), r"parts\['background'\] holds 1 NaN"),
        (np.array([0.0, -np.inf]), r"parts\['background'\] holds 1 NaN or infinite"),
    ],
)
def test_bad_scores_are_refused_by_name(bad, message):
    good = {"foreground": np.zeros(2), "background": np.zeros(2)}
    with pytest.raises(ValueError, match=message):
        TemperatureFusion().fit({**good, "background": bad})
    with pytest.raises(ValueError, match=message):
        TemperatureFusion().fit(good).combine({**good, "background": bad})


def test_other_names_than_those_of_fit_are_refused():
    fusion = TemperatureFusion().fit({"foreground": np.zeros(2), "background": np.zeros(2)})
    with pytest.raises(ValueError, match=r"the names given to fit, \['foreground', 'background'\], got"):
        fusion.combine({"foreground": np.zeros(2), "background_knn": np.zeros(2)})


def test_bad_outputs_are_refused():
    parts = {"foreground": np.zeros(2), "background": np.zeros(2)}
    with pytest.raises(ValueError, match=r"outputs\['foreground'\] to be one of \['logit', .*\], got 'probs'"):
        TemperatureFusion().fit(parts, outputs={"foreground": "probs"})
    with pytest.raises(ValueError, match=r"parts \['foreground', 'background'\], got outputs for \['fg'\]"):
        TemperatureFusion().fit(parts, outputs={"fg": "logit"})


@pytest.mark.parametrize("bad", [0, -1.0, np.inf, np.nan, "2.5", None])
@pytest.mark.parametrize("name", ["temperature", "probability_temperature"])
def test_bad_temperatures_are_refused(name, bad):
    parts = {"foreground": np.zeros(2), "background": np.zeros(2)}
    with pytest.raises(ValueError, match=f"'{name}' parameter of TemperatureFusion"):
        TemperatureFusion(**{name: bad}).fit(parts)
    fitted = TemperatureFusion().fit(parts).set_params(**{name: bad})
    with pytest.raises(ValueError, match=f"'{name}' parameter of TemperatureFusion"):
        fitted.fit(parts)


@pytest.mark.parametrize("output", ["logit", "probability", "log_probability"])
def test_a_temperature_set_after_fit_waits_for_the_next_fit(output):
    parts = {"foreground": np.array([-1.0, -2.0]), "background": np.array([1.0, -2.0])}
    outputs, others = {"foreground": output}, {"temperature": 5.0, "probability_temperature": 3.0}
    fusion = TemperatureFusion().fit(parts, outputs=outputs)
    assert (fusion.temperature_, fusion.probability_temperature_) == (2.5, 1.0)
    before = fusion.combine(parts)
    np.testing.assert_array_equal(fusion.set_params(**others).combine(parts), before)
    expected = TemperatureFusion(**others).fit(parts, outputs=outputs).combine(parts)
    np.testing.assert_array_equal(fusion.fit(parts, outputs=outputs).combine(parts), expected)
    assert not np.allclose(expected, before)


def test_combine_before_fit_is_refused():
    with pytest.raises(NotFittedError):
        TemperatureFusion().combine({"foreground": np.zeros(2), "background": np.zeros(2)})


def test_is_a_fusion_and_an_estimator():
    fusion = TemperatureFusion(temperature=1.5)
    assert isinstance(fusion, Fusion)
    assert not isinstance(object(), Fusion)
    assert clone(fusion).get_params() == {"temperature": 1.5, "probability_temperature": 1.0}


def test_parts_are_left_as_they_are():
    parts = {"foreground": np.array([-1.0, -2.0]), "background": np.array([1.0, 2.0])}
    TemperatureFusion().fit(parts, outputs={"foreground": "log_probability"}).combine(parts)
    assert parts["foreground"].tolist() == [-1.0, -2.0]
    assert parts["background"].tolist() == [1.0, 2.0]
