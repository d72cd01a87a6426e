"""Models in a folder or on the Hugging Face hub, as timm publishes them: a configuration beside the weights."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from skdfb.networks._hub import cached_file, first_line, hub_address, why_unreachable

__all__ = ["WEIGHT_FILES", "PublishedModel", "is_published", "published_model"]

_FOLDER, _HUB = ("local-dir:",), ("hf-hub:", "hf_hub:")
_CONFIGURATION = "config.json"
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


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
    weights = find(place, WEIGHT_FILES, name) if with_weights else None
    return PublishedModel(architecture, dict(content.get("model_args") or {}), dict(configuration), weights)


def _in_folder(folder: str, names: tuple[str, ...], name: str) -> Path:
    found = [Path(folder) / file for file in names if (Path(folder) / file).is_file()]
    if not found:
        raise ValueError(f"backbone={name!r}: there is no {' or '.join(names)} in the folder {folder!r}.")
    return found[0]


def _on_hub(repository: str, names: tuple[str, ...], name: str) -> Path:
    import huggingface_hub  # a requirement of timm
    from huggingface_hub.errors import EntryNotFoundError

    unreachable = why_unreachable(hub_address())
    if unreachable is not None:
        if (path := cached_file(repository, names)) is not None:
            return path
        raise ValueError(_not_on_hub(name, unreachable))
    error: Exception | None = None
    repository, _, revision = repository.partition("@")
    for file in names:
        try:
            return Path(huggingface_hub.hf_hub_download(repository, file, revision=revision or None))
        except EntryNotFoundError as missing:  # weights of the other kind
            error = missing
        except Exception as other:
            error = other
            break
    assert error is not None, "there is at least one name"
    raise ValueError(_not_on_hub(name, first_line(error))) from error


def _not_on_hub(name: str, reason: str) -> str:
    return (
        f"backbone={name!r} cannot be read from the Hugging Face hub ({reason}). Without a connection, pass the "
        "model's own name in timm, or a folder with its files, as 'local-dir:folder'."
    )
