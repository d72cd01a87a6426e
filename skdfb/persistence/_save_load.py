"""One file a model: safetensors whose metadata are JSON."""

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
from skdfb.persistence._probe import Answers, same_answers, trial_answers
from skdfb.utils import isolated_rng, read_file, resolve_device, write_file

__all__ = ["load", "save"]

_ROOT = "model"
_PACKAGES = ("skdfb", "torch", "timm", "scikit-learn", "numpy")


def save(model: Any, path: str | os.PathLike[str]) -> None:
    """Write a detector, scorer, fusion, mask generator or trainer to a file, fitted or not.

    Parameters
    ----------
    model : estimator
        One of the library's, with whatever scorers, fusions and backbones are in it.
    path : path
        The file, usually ``*.safetensors``. An older one is replaced at the end, in one step: it is never half written.

    Raises
    ------
    TypeError
        If the model holds something that cannot be saved, such as a function.
    OSError
        If the file cannot be written; an older one is left as it was.

    See Also
    --------
    load : The way back.

    Notes
    -----
    The file is one of safetensors: weights, features and statistics as tensors, all else as JSON in its metadata. There
    is no pickle in it. timm backbones are stored by name and options, modules and scorers of your own by the name of
    their class and their state.

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
    encoder = Encoder()
    document = {
        "format": FORMAT,
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "model": encoder.encode(model, _ROOT),
        "trial": _trial(model),
    }
    text = json.dumps(document, allow_nan=False)
    write_file(Path(path), text, encoder.tensors)


def _trial(model: Any) -> Answers | None:
    try:
        answers = trial_answers(model)
    except Exception:  # unfitted, or it asks for more than a trial has: then there is nothing to compare
        return None
    finite = answers is not None and all(np.isfinite(values).all() for values in answers.values())
    return answers if finite else None


def load(
    path: str | os.PathLike[str],
    *,
    customs: Iterable[Any] | Mapping[str, Any] = (),
    device: str | torch.device = "auto",
) -> Any:
    """Read what :func:`save` wrote. Nothing in the file is run, and no network is asked.

    Parameters
    ----------
    path : path
        The file.
    customs : iterable of classes, or mapping of str to class or function, default=()
        Classes that are not the library's and that the model may hold: scorers, fusions and modules of your own. A
        module's class is called without arguments; where it takes some, pass a mapping from its qualified name, which
        the error without it tells, to a function that makes one.
    device : str, default="auto"
        Where networks go; "auto" is the GPU where there is one. It need not be the device of ``fit``.

    Returns
    -------
    model : estimator

    Raises
    ------
    skdfb.exceptions.InvalidModelError
        If the file is cut, changed, no saved model, of a later format, or holds classes that are not in `customs`.
    FileNotFoundError
        If there is no such file.

    See Also
    --------
    save : Writes such files.

    Notes
    -----
    A digest of all that was written is compared first, so a damaged file is never loaded. The loaded model then
    scores a little noise, and has to say what the saved one said.

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
    path, made_by = Path(path), customs_by_name(customs)
    target = resolve_device(device)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}.")
    with _refused(path):
        text, tensors = read_file(path)
        document = json.loads(text, parse_constant=_no_constant)
        _check_document(document)
        decoder = Decoder(tensors, made_by, document["format"])
        with isolated_rng(0, torch.device("cpu")):  # a network that is built draws weights, which are then replaced
            model = decoder.decode(document["model"], _ROOT)
        if decoder.unread:
            raise InvalidModelError(f"the tensors {sorted(decoder.unread)[:3]} belong to nothing")
        for network in decoder.networks:
            network.to(target)
        _compare(model, document["trial"])
    return model


@contextmanager
def _refused(path: Path) -> Generator[None]:
    """Turn whatever a bad file leads to into one error that names it."""
    try:
        yield
    except Exception as error:  # what a changed file breaks can be anything
        reason = str(error) if isinstance(error, InvalidModelError) else f"{type(error).__name__}: {error}"
        raise InvalidModelError(f"{str(path)!r} cannot be loaded: {reason}.") from error


def _no_constant(name: str) -> Any:
    raise InvalidModelError(f"its JSON holds {name}")


def _check_document(document: Any) -> None:
    if not isinstance(document, dict) or set(document) != {"format", "versions", "model", "trial"}:
        raise InvalidModelError("its JSON is none that this version writes")
    number = document["format"]
    if type(number) is not int or number > FORMAT:
        raise InvalidModelError(
            f"its format is {number!r}, and this version reads up to {FORMAT}: it was saved by {document['versions']}, "
            "update skdfb"
        )
    if number < OLDEST_FORMAT:
        raise InvalidModelError(f"its format is {number}, and this version reads from {OLDEST_FORMAT} on")


def _compare(model: Any, answers: Any) -> None:
    """Refuse a model that says something else than the one that was saved."""
    if answers is None:
        return
    said = trial_answers(model)
    if said is None or not same_answers(said, answers):
        raise InvalidModelError("the loaded model scores a trial otherwise than the saved one did")
