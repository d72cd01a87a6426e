import numpy as np
import pytest

from skdfb.scorers import MSP, ODIN, Energy, ForegroundScorer, InputPerturbingScorer, check_scorer, scorer_output
from tests.scorers.helpers import SCORERS


class FirstLogit:
    """The least a scorer can be."""

    def fit(self, representation, y):
        return self

    def score_samples(self, representation):
        return representation.logits[:, 0].numpy()


@pytest.mark.parametrize("scorer", [*SCORERS, FirstLogit()], ids=lambda scorer: type(scorer).__name__)
def test_keep_the_protocol(scorer):
    assert isinstance(scorer, ForegroundScorer)
    check_scorer(scorer)


def test_only_odin_asks_for_perturbed_images():
    assert [type(scorer) for scorer in SCORERS if isinstance(scorer, InputPerturbingScorer)] == [ODIN]


def test_outputs():
    assert [scorer_output(scorer) for scorer in (MSP(), ODIN(), Energy(), FirstLogit())] == [
        "log_probability",
        "log_probability",
        "logit",
        "logit",
    ]


@pytest.mark.parametrize("output", ["logits", None, 1])
def test_wrong_output(output):
    scorer = FirstLogit()
    scorer.output = output
    with pytest.raises(ValueError, match=r"^FirstLogit\.output is"):
        scorer_output(scorer)


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        (Energy, r"^background_scorer is the class Energy: .* pass Energy\(\)"),
        (None, "^background_scorer is None, a NoneType without fit and score_samples: "),
        ("vim", r"^background_scorer is 'vim', .*: expected an object; pass ViM\(\) of skdfb\.scorers\.$"),
        ("max-logit", r"pass MaxLogit\(\) of"),
        ("scorerensemble", r"pass ScorerEnsemble\(scorers\) of"),
        ("no such", "^background_scorer is 'no such', .*: expected a scorer with fit"),
        ("foregroundscorer", ": expected a scorer with fit"),
        ("check_scorer", ": expected a scorer with fit"),
        (np.zeros(3), "^background_scorer"),
        (type("NoScore", (), {"fit": lambda self, representation, y: self})(), "without score_samples:"),
        (type("NoMethod", (FirstLogit,), {"fit": 3})(), "without fit:"),
    ],
    ids=[
        "class",
        "none",
        "str",
        "dash",
        "arguments",
        "no-scorer",
        "protocol",
        "function",
        "array",
        "no-score",
        "no-method",
    ],
)
def test_check_scorer_refuses(scorer, message):
    with pytest.raises(TypeError, match=message):
        check_scorer(scorer, name="background_scorer")


def test_check_scorer_names_scorer_by_default():
    with pytest.raises(TypeError, match=r"^scorer is 3"):
        check_scorer(3)
