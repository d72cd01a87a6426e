"""The checks of fusions, in the order they run."""

from collections.abc import Mapping
from typing import Any

from skdfb.testing._fusions import _checks
from skdfb.testing._fusions._usage import USAGE, takes_outputs
from skdfb.testing._shared import _parameters, _scores, _state
from skdfb.testing._shared._suite import OnFail, Suite, always, has_parameters, shared_checks

KIND = "fusion"

SUITE = Suite(
    KIND,
    {
        _checks.check_fusion_protocol: always,
        **shared_checks(KIND, USAGE, _state.check_inputs_unchanged, _state.check_fit_returns_self, *_scores.CHECKS),
        _checks.check_fusion_monotone: always,
        _checks.check_fusion_direction: always,
        _checks.check_fusion_part_order: always,
        _checks.check_fusion_other_names: always,
        _checks.check_fusion_nan: always,
        # What is optional in the protocol.
        _checks.check_fusion_names: lambda fusion: callable(getattr(fusion, "check_names", None)),
        _checks.check_fusion_outputs: takes_outputs,
        _checks.check_fusion_learns_nothing: lambda fusion: getattr(fusion, "learns_from_scores", True) is False,
        # A fusion is part of a detector, so it must keep the rules of estimators if it has parameters.
        **shared_checks(
            KIND, USAGE, *_parameters.CHECKS, _parameters.check_set_params_after_fit, applies=has_parameters
        ),
        **shared_checks(KIND, USAGE, *_state.CHECKS),
    },
)


def check_fusion(
    fusion: Any,
    *,
    expected_failed_checks: Mapping[str, str] | None = None,
    on_fail: OnFail = "raise",
) -> list[dict[str, Any]]:
    """Check a fusion against the protocol that detectors use.

    A class with the methods `fit` and `combine` is enough. It is checked on random scores of two parts, named
    "foreground" and "background". The fusion itself is not changed.

    Parameters
    ----------
    fusion : object
        An instance; see :class:`skdfb.fusion.Fusion`. It must be able to learn from the scores of 200 images.
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
        For each check that was run, in order: "fusion", "check_name", "exception" (or None), "status" ("passed",
        "failed" or "xfail" for an expected failure), "expected_to_fail" and "expected_to_fail_reason".

    Raises
    ------
    Exception
        That of the first failing check, an AssertionError where the fusion itself raised none. Only with
        ``on_fail="raise"``.
    TypeError
        If `fusion` is a class.
    ValueError
        If `expected_failed_checks` holds an unknown name, or `on_fail` another value.

    See Also
    --------
    parametrize_with_checks : The same checks as separate tests of pytest.
    check_foreground_scorer : Checks of scorers.

    Notes
    -----
    The names of the checks are in the result. They check the following.

    - Joint scores: one finite floating-point number per image. It does not depend on the order of the images, on the
      batches or on the order of the parts, to 1e-5 of the largest joint score.
    - Direction: where one part rises, the joint score never falls. Images with low scores in all parts have a lower
      joint score than typical images.
    - Refused with a ValueError that has a message: in `combine`, parts with other names than those of `fit`; in both
      methods, NaN.
    - `fit` returns the fusion. A second `fit` forgets the first. The same scores give the same results, with
      `random_state` set if it is a parameter. Pickle and joblib keep the results.
    - Nothing else is changed: not the parts, not the global random states, and `combine` does not change the fusion.
    - Only with `get_params`: `clone`, `get_params` and `set_params`; ``__init__`` only stores; `fit` does not change
      parameters; `set_params` after `fit` changes no result before the next `fit`.
    - Only with `check_names`: it accepts the names that `fit` accepts, and no others.
    - Only with `outputs` in `fit`: each output kind is accepted.
    - Only with ``learns_from_scores = False``: the scores of `fit` do not change the results.

    Examples
    --------
    >>> from skdfb.fusion import TemperatureFusion
    >>> from skdfb.testing import check_fusion
    >>> {result["status"] for result in check_fusion(TemperatureFusion())}
    {'passed'}

    A fusion with a bug:

    >>> class Difference:
    ...     def fit(self, parts):
    ...         return self
    ...
    ...     def combine(self, parts):
    ...         return parts["foreground"] - parts["background"]
    >>> check_fusion(Difference())
    Traceback (most recent call last):
    ...
    AssertionError: Difference.combine: expected joint scores that never fall where a part rises, got lower ones for
    60 of 60 images, given a background raised by 0.1 standard deviations.
    """
    return SUITE.run(fusion, expected_failed_checks, on_fail)
