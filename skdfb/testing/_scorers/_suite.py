"""The checks of scorers, in the order they run."""

from collections.abc import Mapping
from typing import Any

from skdfb.scorers import InputPerturbingScorer
from skdfb.scorers._protocol import computes_on_device
from skdfb.testing._scorers import _declared, _memory_mapped, _odd_data, _scores
from skdfb.testing._scorers._usage import USAGE
from skdfb.testing._shared import _parameters, _state
from skdfb.testing._shared import _scores as _shared_scores
from skdfb.testing._shared._suite import OnFail, Suite, always, checks_in, has_parameters, shared_checks

KIND = "scorer"

SUITE = Suite(
    KIND,
    {
        _scores.check_scorer_protocol: always,
        **shared_checks(KIND, USAGE, _state.check_inputs_unchanged),
        **checks_in(_scores, KIND),
        **shared_checks(KIND, USAGE, *_shared_scores.CHECKS),
        **shared_checks(KIND, USAGE, *_parameters.CHECKS, _state.check_fit_returns_self, applies=has_parameters),
        **checks_in(_memory_mapped, KIND),
        **shared_checks(KIND, USAGE, *_state.CHECKS),
        **checks_in(_odd_data, KIND),
        # What a scorer may declare.
        _declared.check_scorer_streamed_activations: lambda scorer: bool(getattr(scorer, "needs_activations", ())),
        _declared.check_scorer_held_out_images: lambda scorer: bool(getattr(scorer, "learns_from_held_out", False)),
        _declared.check_scorer_perturbation_objective: lambda scorer: isinstance(scorer, InputPerturbingScorer),
        _declared.check_scorer_scores_on_device: computes_on_device,
    },
)


def check_foreground_scorer(
    scorer: Any,
    *,
    expected_failed_checks: Mapping[str, str] | None = None,
    on_fail: OnFail = "raise",
) -> list[dict[str, Any]]:
    """Check a scorer against the protocol that detectors and comparisons use.

    A class with the methods `fit` and `score_samples` is enough. It is checked on small random data, as a network might
    output them, with the activations and the input perturbation that the scorer declares. The scorer itself is not
    changed.

    Parameters
    ----------
    scorer : object
        An instance; see :class:`skdfb.scorers.ForegroundScorer`. It must be able to learn from 200 images of 4
        classes with 8 features.
    expected_failed_checks : mapping of str to str, default=None
        Names of checks that may fail, and the reasons.
    on_fail : {"raise", "warn"} or None, default="raise"
        What happens when a check fails that is not expected to fail:

        - "raise": its exception is raised;
        - "warn": a :class:`sklearn.exceptions.EstimatorCheckFailedWarning` is issued, and the checks continue;
        - None: the checks continue. Read the result.

    Returns
    -------
    list of dict
        For each check that was run, in order: "scorer", "check_name", "exception" (or None), "status" ("passed",
        "failed" or "xfail" for an expected failure), "expected_to_fail" and "expected_to_fail_reason".

    Raises
    ------
    Exception
        That of the first failing check, an AssertionError where the scorer itself raised none. Only with
        ``on_fail="raise"``.
    TypeError
        If `scorer` is a class.
    ValueError
        If `expected_failed_checks` holds an unknown name, or `on_fail` another value.

    See Also
    --------
    parametrize_with_checks : The same checks as separate tests of pytest.
    check_fusion : Checks of fusions.

    Notes
    -----
    The names of the checks are in the result. They check the following.

    - Scores: one finite floating-point number per image. It does not depend on the order of the images or on the
      batches, to 1e-5 of the largest score.
    - Precision: float32 ranks as float64 does; float16 features are accepted.
    - Nothing else is changed: not the representation, its arrays or the labels, not the global random states, and
      `score_samples` does not change the scorer. Memory-mapped, read-only features are accepted.
    - A second `fit` forgets the first. The same data give the same scores, with `random_state` set if it is a
      parameter. Pickle and joblib keep the scores.
    - Unusual data (a class without images, constant or signed features, fewer images than features, one image, one
      feature, two classes, the one class of a background representation, all-zero or huge features, no images to
      score) give finite scores, or a ValueError with a message, in `fit` or in `score_samples`. A
      ``numpy.linalg.LinAlgError`` and a ``NotFittedError`` are ValueErrors too, but fail the check.
    - Only with `get_params`: `clone`, `get_params` and `set_params`; ``__init__`` only stores; `fit` returns the scorer
      and does not change its parameters.
    - Only with `needs_activations`: `fit` reads the activations from the batches, where a detector supplies them.
    - Only with `learns_from_held_out`: `fit` accepts ``held_out=(representation, y)``.
    - Only with `input_perturbation`: `perturbation_objective` is one differentiable number per image.
    - Only with `score_on_device`: it returns a tensor with the scores of `score_samples`.

    Examples
    --------
    >>> from skdfb.scorers import Energy
    >>> from skdfb.testing import check_foreground_scorer
    >>> {result["status"] for result in check_foreground_scorer(Energy())}
    {'passed'}

    A scorer with a bug:

    >>> class FirstLogit:
    ...     def fit(self, representation, y):
    ...         return self
    ...
    ...     def score_samples(self, representation):
    ...         return representation.logits[:, :1]
    >>> check_foreground_scorer(FirstLogit())
    Traceback (most recent call last):
    ...
    AssertionError: FirstLogit.score_samples: expected shape (60,), one score per image, got (60, 1), given 60 images.
    """
    return SUITE.run(scorer, expected_failed_checks, on_fail)
