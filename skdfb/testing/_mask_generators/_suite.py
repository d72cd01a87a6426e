"""The checks of mask generators, in the order they run."""

from collections.abc import Mapping
from typing import Any

from skdfb.testing._mask_generators import _checks
from skdfb.testing._mask_generators._usage import USAGE
from skdfb.testing._shared import _parameters, _state
from skdfb.testing._shared._suite import OnFail, Suite, always, has_parameters, shared_checks

KIND = "mask_generator"


def _has_transform(generator: Any) -> bool:
    return callable(getattr(generator, "transform", None))


SUITE = Suite(
    KIND,
    {
        _checks.check_mask_generator_protocol: always,
        **shared_checks(KIND, USAGE, _state.check_inputs_unchanged),
        _checks.check_mask_generator_shape: always,
        _checks.check_mask_generator_dtype: always,
        _checks.check_mask_generator_values: always,
        _checks.check_mask_generator_n_classes: always,
        _checks.check_mask_generator_several_sizes: always,
        _checks.check_mask_generator_float_pixels: always,
        _checks.check_mask_generator_in_detector: always,
        # A detector needs fit_transform alone.
        _checks.check_mask_generator_transform: _has_transform,
        **shared_checks(KIND, USAGE, *_parameters.CHECKS, applies=has_parameters),
        **shared_checks(KIND, USAGE, _state.check_global_random_state, _state.check_refit, _state.check_deterministic),
        # Only masks of new images show what a stored generator has learned.
        **shared_checks(
            KIND,
            USAGE,
            _state.check_result_keeps_state,
            _state.check_pickle,
            _state.check_joblib,
            applies=_has_transform,
        ),
    },
)


def check_mask_generator(
    generator: Any,
    *,
    expected_failed_checks: Mapping[str, str] | None = None,
    on_fail: OnFail = "raise",
) -> list[dict[str, Any]]:
    """Check a mask generator as ``DFBDetector(mask_generator=...)`` uses it.

    A class with the method ``fit_transform(X, y)`` is enough. `X` are n images: ``len(X)`` is n, and
    ``X.read(indices)`` returns pixels of shape (b, 3, H, W), or a list of pixels of shape (3, H, W) if the sizes of the
    images differ, as uint8 in 0..255 or floats in 0..1. `y` of shape (n,) holds class indices 0..K-1, each at least
    once. The result are integer masks of shape (n, H, W): 0..K-1 for the classes, K for the background. The generator
    is checked on 12 small images with bright squares. It is not changed itself.

    Parameters
    ----------
    generator : object
        An instance. It is trained about twenty times: choose a tiny backbone and few training steps.
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
        For each check that was run, in order: "mask_generator", "check_name", "exception" (or None), "status"
        ("passed", "failed" or "xfail" for an expected failure), "expected_to_fail" and "expected_to_fail_reason".

    Raises
    ------
    Exception
        That of the first failing check, an AssertionError where the generator itself raised none. Only with
        ``on_fail="raise"``.
    TypeError
        If `generator` is a class.
    ValueError
        If `expected_failed_checks` holds an unknown name, or `on_fail` another value.

    See Also
    --------
    parametrize_with_checks : The same checks as separate tests of pytest.
    skdfb.masks.CAMMaskGenerator : The default generator of a detector.

    Notes
    -----
    The names of the checks are in the result. They check the following.

    - Masks: integers 0..K of shape (n, H, W), also for other numbers of classes. A mask may hold other classes than
      that of its image; the library's own generators use only the class of the image and the background.
    - Pixels: floats in 0..1 give the masks of the same pixels as integers, and images of several sizes give masks of
      one size. Both may also be refused by a ValueError that has a message.
    - The parameters that a detector sets, if they exist: its classifier as ``backbone``, ``mask_size``, ``device``,
      ``random_state`` and ``n_jobs``.
    - Nothing else is changed: not the pixels or the labels, not the global random states.
    - A second `fit_transform` forgets the first. The same data give the same masks, with `random_state` set if it is
      a parameter.
    - Only with `get_params`: `clone`, `get_params` and `set_params`; ``__init__`` only stores; `fit_transform` does not
      change parameters.
    - Only with `transform`: masks of new images have the same form; `transform` does not change the generator; pickle
      and joblib keep the masks.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.testing import check_mask_generator
    >>> class BrightPixels:
    ...     def fit_transform(self, X, y):
    ...         images = X.read(np.arange(len(X)))
    ...         grey = np.stack([image.numpy().mean(axis=0) for image in images])  # (n, H, W)
    ...         bright = grey > grey.mean(axis=(1, 2), keepdims=True)
    ...         return np.where(bright, y[:, None, None], y.max() + 1)
    >>> {result["status"] for result in check_mask_generator(BrightPixels())}
    {'passed'}

    A generator with a bug:

    >>> class NegativeBackground(BrightPixels):
    ...     def fit_transform(self, X, y):
    ...         masks = super().fit_transform(X, y)
    ...         return np.where(masks > y.max(), -1, masks)
    >>> check_mask_generator(NegativeBackground())
    Traceback (most recent call last):
    ...
    AssertionError: NegativeBackground.fit_transform: expected classes 0..2 and 3 for the background, got values in
    -1..2, given 12 images.
    """
    return SUITE.run(generator, expected_failed_checks, on_fail)
