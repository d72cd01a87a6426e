"""The checks of augmentations, in the order they run."""

from collections.abc import Mapping
from typing import Any

from skdfb.testing._augmentations import _checks
from skdfb.testing._augmentations._usage import USAGE
from skdfb.testing._shared import _parameters, _state
from skdfb.testing._shared._suite import OnFail, Suite, always, has_parameters, shared_checks

KIND = "augmentation"

SUITE = Suite(
    KIND,
    {
        # First, because the batches of all others hold maps of the bank.
        _checks.check_augmentation_attention_bank: lambda augmentation: hasattr(augmentation, "attention_bank"),
        _checks.check_augmentation_protocol: always,
        **shared_checks(KIND, USAGE, _state.check_inputs_unchanged),
        _checks.check_augmentation_batch: always,
        _checks.check_augmentation_images: always,
        _checks.check_augmentation_targets: always,
        _checks.check_augmentation_masks: always,
        _checks.check_augmentation_one_image: always,
        _checks.check_augmentation_other_sizes: always,
        _checks.check_augmentation_dtypes: always,
        _checks.check_augmentation_no_gradient: always,
        **shared_checks(KIND, USAGE, *_parameters.CHECKS, applies=has_parameters),
        **shared_checks(
            KIND,
            USAGE,
            _state.check_global_random_state,
            _state.check_deterministic,
            _state.check_result_keeps_state,
            _state.check_pickle,
            _state.check_joblib,
        ),
    },
)


def check_augmentation(
    augmentation: Any,
    *,
    expected_failed_checks: Mapping[str, str] | None = None,
    on_fail: OnFail = "raise",
) -> list[dict[str, Any]]:
    """Check an augmentation against the protocol that trainers use.

    A class with the method ``augment(batch, generator)`` is enough. It is checked on random batches of 6 images, with
    masks as in the dense stage and without masks as in the classifier stage, where `attention_bank` supplies attention
    maps if it exists. If `needs_donors` is true, the batches have donors. The batches of one stage may be refused by a
    ValueError. The augmentation itself is not changed.

    Parameters
    ----------
    augmentation : object
        An instance; see :class:`skdfb.augmentation.Augmentation`.
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
        For each check that was run, in order: "augmentation", "check_name", "exception" (or None), "status" ("passed",
        "failed" or "xfail" for an expected failure), "expected_to_fail" and "expected_to_fail_reason".

    Raises
    ------
    Exception
        That of the first failing check, an AssertionError where the augmentation itself raised none. Only with
        ``on_fail="raise"``.
    TypeError
        If `augmentation` is a class.
    ValueError
        If `expected_failed_checks` holds an unknown name, or `on_fail` another value.

    See Also
    --------
    parametrize_with_checks : The same checks as separate tests of pytest.
    skdfb.training.Trainer : Calls the augmentation in each step.

    Notes
    -----
    The names of the checks are in the result. They check the following.

    - Images: as many as before, finite, of the same channels, type and device.
    - Targets: the same shape, type and device; not negative, and each row has the sum of before.
    - Masks: None stays None; else integers of shape (n, H, W) with classes, the background or -1 for ignored pixels.
    - Batches of one image, images that are not square, masks of another size than their images, float64 and bfloat16
      are accepted.
    - No tensor of the result requires a gradient, and the tensors of the batch are not changed.
    - The result depends on the batch and on the generator alone: not on the global random states, which stay as they
      are, and not on earlier calls. Pickle and joblib keep it.
    - Only with `get_params`: `clone`, `get_params` and `set_params`; ``__init__`` only stores; `augment` does not
      change parameters.
    - Only with `attention_bank`: it returns a new :class:`skdfb.augmentation.AttentionBank` with one map per image.

    Examples
    --------
    >>> from skdfb.augmentation import BackMix
    >>> from skdfb.testing import check_augmentation
    >>> {result["status"] for result in check_augmentation(BackMix())}
    {'passed'}

    An augmentation with a bug:

    >>> class Darker:
    ...     def augment(self, batch, generator):
    ...         batch.images.mul_(0.5)
    ...         return batch
    >>> check_augmentation(Darker())
    Traceback (most recent call last):
    ...
    AssertionError: Darker.augment: expected arguments with the same bytes as before, got changes in images (classifier
    stage) and images (dense stage); work on a copy, such as x.clone() or np.array(x, dtype=np.float64).
    """
    return SUITE.run(augmentation, expected_failed_checks, on_fail)
