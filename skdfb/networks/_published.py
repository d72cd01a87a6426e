"""Models in a folder or on the Hugging Face hub, as timm publishes them: a configuration beside the weights."""

import json
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["PublishedModel", "is_published", "published_model"]

_FOLDER, _HUB = ("local-dir:",), ("hf-hub:", "hf_hub:")
_CONFIGURATION = "config.json"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


class PublishedModel(NamedTuple):
    """What a published model is made of."""

    architecture: str
    options: dict[str, Any]
    configuration: dict[str, Any]  # size and normalisation of the images
    weights: Path | None


def is_published(name: str) -> bool:
    """Tell whether a name is that of a folder or of a model on the hub."""
    return name.startswith(_FOLDER + _HUB)


def published_model(name: str, *, with_weights: bool) -> PublishedModel:
    """Read the configuration of a model, and find its weights if they are asked for.

    Raises
    ------
    ValueError
        If there is no such model, or no connection to the hub.
    """
    scheme, _, place = name.partition(":")
    find = _in_folder if f"{scheme}:" in _FOLDER else _on_hub
    path = find(place, (_CONFIGURATION,), name)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        architecture = content["architecture"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"backbone={name!r}: its {_CONFIGURATION} names no architecture of timm.") from error
    # Older files have the configuration of the images at the top.
    configuration = content.get("pretrained_cfg", content)
    weights = find(place, _WEIGHTS, name) if with_weights else None
    return PublishedModel(architecture, dict(content.get("model_args") or {}), dict(configuration), weights)


def _in_folder(folder: str, names: tuple[str, ...], name: str) -> Path:
    found = [Path(folder) / file for file in names if (Path(folder) / file).is_file()]
    if not found:
        raise ValueError(f"backbone={name!r}: there is no {' or '.join(names)} in the folder {folder!r}.")
    return found[0]


def _on_hub(repository: str, names: tuple[str, ...], name: str) -> Path:
    from huggingface_hub import hf_hub_download  # a requirement of timm
    from huggingface_hub.errors import EntryNotFoundError

    error: Exception | None = None
    repository, _, revision = repository.partition("@")
    for file in names:
        try:
            return Path(hf_hub_download(repository, file, revision=revision or None))
        except EntryNotFoundError as missing:  # weights of the other kind
            error = missing
        except Exception as other:
            error = other
            break
    reason = (str(error).strip().splitlines() or ["no reason given"])[0]
    raise ValueError(
        f"backbone={name!r} cannot be read from the Hugging Face hub ({type(error).__name__}: {reason}). Without a "
        "connection, pass the model's own name in timm, or a folder with its files, as 'local-dir:folder'."
    ) from error
