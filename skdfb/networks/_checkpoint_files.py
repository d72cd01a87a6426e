"""Names of weights in the files that training scripts save."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

__all__ = ["with_counters", "without_prefix"]

_COUNTER = "num_batches_tracked"
# Of DataParallel, torch.compile and the attribute that holds the model. Beyond names that a model may give its layers.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "backbone.")


def without_prefix(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return weights without the prefix that all names of the model have in a file.

    Raises
    ------
    ValueError
        If the file holds the model under several prefixes, such as a teacher and a student.
    """
    keys = [key for key in expected if not key.endswith(_COUNTER)]
    first = keys[0] if keys else ""
    found = [key.removesuffix(first) for key in weights if key == first or key.endswith(f".{first}")]
    fitting = [prefix for prefix in found if all(prefix + key in weights for key in keys)]
    if "" in fitting:
        return dict(weights)
    if len(fitting) > 1:
        raise ValueError(
            f"checkpoint_path: {str(path)!r} holds the weights of {len(fitting)} such models, under the names "
            f"{', '.join(repr(prefix) for prefix in fitting)}: expected one. Save the state_dict() of the one to use."
        )
    if fitting:
        return {key.removeprefix(fitting[0]): value for key, value in weights.items() if key.startswith(fitting[0])}
    return _without_usual_prefixes(dict(weights))


def _without_usual_prefixes(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Strip usual prefixes that all names have; the layers may have other names, which timm then translates."""
    while True:
        shared = [prefix for prefix in _PREFIXES if weights and all(key.startswith(prefix) for key in weights)]
        if not shared:
            return weights
        weights = {key.removeprefix(shared[0]): value for key, value in weights.items()}


def with_counters(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add the model's own counters of batch normalisation, which files of old versions of torch lack."""
    return {key: value for key, value in expected.items() if key.endswith(_COUNTER)} | dict(weights)
