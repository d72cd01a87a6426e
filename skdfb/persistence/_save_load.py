"""One file per model: safetensors with JSON in the metadata.

Not pickle: unpickling runs any code that the file names. Tensors and JSON are data only.
"""

import importlib.metadata
import json
import os
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from skdfb.exceptions import InvalidModelError
from skdfb.persistence._classes import customs_by_name
from skdfb.persistence._decode import Decoder
from skdfb.persistence._encode import Encoder
from skdfb.persistence._format import FORMAT, OLDEST_FORMAT
from skdfb.persistence._probe import TrialOutputs, same_outputs, trial_outputs
from skdfb.utils import isolated_rng, own_torch_modes, read_file, resolve_device, write_file

__all__ = ["check_document", "check_is_file", "invalid_file", "load", "save"]

_ROOT = "model"  # the path of the model itself, with which all paths begin
# Recorded for the error message of a file that is too new; loading does not depend on them.
_PACKAGES = ("skdfb", "torch", "timm", "scikit-learn", "numpy")


def save(model: Any, path: str | os.PathLike[str]) -> None:
    """Save a detector, scorer, fusion, mask generator or trainer in a file, fitted or not.

    Parameters
    ----------
    model : estimator
        An estimator of the library. The scorers, fusions and backbones in it may be of any class.
    path : path
        The file, usually ``*.safetensors``. An existing file is replaced in one step at the end, so it is never half
        written.

    Raises
    ------
    TypeError
        If the model holds something that cannot be saved, such as a function.
    OSError
        If the file cannot be written. An existing file is left unchanged.

    See Also
    --------
    load : Load such a file.

    Notes
    -----
    The file is a safetensors file. It holds weights, features and statistics as tensors, and everything else as JSON in
    its metadata. It holds no pickle. timm backbones are stored by name and options. User-defined modules and scorers
    are stored as the name of their class and their state.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import skdfb
    >>> from skdfb.fusion import TailProbabilityFusion
    >>> fusion = TailProbabilityFusion().fit({"foreground": np.arange(30.0), "background": np.arange(30.0) % 7})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     skdfb.save(fusion, Path(folder) / "fusion.safetensors")
    ...     loaded = skdfb.load(Path(folder) / "fusion.safetensors")
    >>> bool(loaded.combine({"foreground": [3.0], "background": [1.0]}) < 0)
    True
    """
    folder = Path(path).parent
    if Path(path).is_dir():
        raise IsADirectoryError(
            f"path={str(path)!r} is a folder: expected a file, such as {str(Path(path) / 'model.safetensors')!r}."
        )
    if not folder.is_dir():
        raise FileNotFoundError(
            f"path={str(path)!r}: there is no folder {str(folder)!r}: expected one; create it by "
            f"Path({str(folder)!r}).mkdir(parents=True)."
        )
    encoder = Encoder()
    document = {
        "format": FORMAT,
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "model": encoder.encode(model, _ROOT),
        "trial": _trial(model),
    }
    text = json.dumps(document, allow_nan=False)
    write_file(Path(path), text, encoder.tensors)


def _trial(model: Any) -> TrialOutputs | None:
    """Return the outputs of a model for noise, or None if it has none to compare with."""
    # An unfitted model raises, and so does a third-party scorer that needs more than noise. Both can be saved.
    try:
        outputs = trial_outputs(model)
    except Exception:
        return None
    # JSON has no NaN and no infinity.
    finite = outputs is not None and all(np.isfinite(values).all() for values in outputs.values())
    return outputs if finite else None


@own_torch_modes()
def load(
    path: str | os.PathLike[str],
    *,
    customs: Iterable[Any] | Mapping[str, Any] = (),
    device: str | torch.device = "auto",
) -> Any:
    """Load a model that :func:`save` wrote, without running code from the file or downloading anything.

    Parameters
    ----------
    path : path
        The file.
    customs : iterable of classes, or mapping of str to class or function, default=()
        Third-party and user-defined classes that the model may hold: scorers, fusions and modules. The class of a
        module is called without arguments. If it takes arguments, pass a mapping from its qualified name to a function
        that makes the module. The error message for a missing class gives this name.
    device : str, default="auto"
        Device of the networks; "auto" is the GPU if there is one. It need not be the device of ``fit``.

    Returns
    -------
    model : estimator
        The model, of the class that was saved, with equal parameters and fitted attributes.

    Raises
    ------
    skdfb.exceptions.InvalidModelError
        If the file is incomplete, was changed, is not a saved model, has a later format, or holds classes that are not
        in `customs`.
    FileNotFoundError
        If there is no such file.

    See Also
    --------
    save : Save a model in a file.

    Notes
    -----
    The file holds a digest of its content, which is compared first: a damaged file is never loaded. The loaded model
    then scores random noise, and its scores must equal those of the saved model up to rounding.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import skdfb
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     skdfb.save(skdfb.Trainer(max_epochs=3), Path(folder) / "trainer.safetensors")
    ...     skdfb.load(Path(folder) / "trainer.safetensors")
    Trainer(max_epochs=3)
    """
    # Errors of the caller come first: they say nothing about the file.
    path, by_name = Path(path), customs_by_name(customs)
    target = resolve_device(device)
    check_is_file(path)
    with invalid_file(path):
        # 1. Read the file and compare its digest. The digest finds damage but no attack, since anyone can compute it:
        # the steps below do not trust the content.
        text, tensors = read_file(path)
        document = json.loads(text, parse_constant=_no_constant)
        check_document(document)
        # 2. Build the model. A new network draws random weights, which are then replaced: the caller's random state
        # must not change.
        decoder = Decoder(tensors, by_name, document["format"])
        with isolated_rng(0):
            model = decoder.decode(document["model"], _ROOT)
        if decoder.unread:
            raise InvalidModelError(f"the tensors {sorted(decoder.unread)[:3]} are not part of the model")
        # 3. Move the networks to the device, then compare the outputs there.
        for network in decoder.networks:
            network.to(target)
        _compare(model, document["trial"])
    return model


def check_is_file(path: Path) -> None:
    """Refuse the path of a model that is no file, or of an empty one."""
    if path.is_dir():
        raise IsADirectoryError(f"{str(path)!r} is a folder: expected the file of a model.")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}.")
    if path.stat().st_size == 0:
        raise InvalidModelError(f"{str(path)!r} is empty (0 bytes): expected the file of a model.")


@contextmanager
def invalid_file(path: Path) -> Generator[None]:
    """Turn any error in the block into an InvalidModelError that names the file."""
    # A changed file can lead to any error: KeyError, TypeError, errors of torch and timm.
    try:
        yield
    except Exception as error:
        reason = str(error) if isinstance(error, InvalidModelError) else f"{type(error).__name__}: {error}"
        raise InvalidModelError(f"{str(path)!r} cannot be loaded: {reason}.") from error


def _no_constant(name: str) -> Any:
    # Python's parser accepts NaN and Infinity, which JSON does not have and the encoder does not write.
    raise InvalidModelError(f"its JSON holds {name}: expected finite numbers")


def check_document(document: Any) -> None:
    if not isinstance(document, dict) or set(document) != {"format", "versions", "model", "trial"}:
        raise InvalidModelError("the entries of its JSON are not exactly format, versions, model and trial")
    number = document["format"]
    # type() and not isinstance(): True is an int, too.
    if type(number) is not int or number > FORMAT:
        raise InvalidModelError(
            f"its format is {number!r}, but this version reads formats up to {FORMAT}: it was saved with "
            f"{document['versions']}, update skdfb"
        )
    if number < OLDEST_FORMAT:
        raise InvalidModelError(f"its format is {number}, but this version reads formats from {OLDEST_FORMAT} on")


def _compare(model: Any, expected: Any) -> None:
    """Refuse a model whose outputs differ from those of the saved model."""
    if expected is None:
        return
    outputs = trial_outputs(model)
    if outputs is None or not same_outputs(outputs, expected):
        raise InvalidModelError(
            "the outputs of the loaded model for random noise differ from those of the saved model: check that "
            "customs gives the classes with which the model was saved"
        )
