"""Out-of-distribution image detection with disentangled foreground and background features.

The names below are loaded on first use, so that ``import skdfb`` loads neither torch nor timm.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "DFBDetector": "skdfb.detector",
    "FeatureDetector": "skdfb.detector",
    "FrozenDetector": "skdfb.detector",
    "CAMMaskGenerator": "skdfb.masks",
    "Trainer": "skdfb.training",
    "load": "skdfb.persistence",
    "save": "skdfb.persistence",
}

__all__ = [
    "CAMMaskGenerator",
    "DFBDetector",
    "FeatureDetector",
    "FrozenDetector",
    "Trainer",
    "__version__",
    "load",
    "save",
]


def __getattr__(name: str) -> Any:
    if name == "load":
        import_module("skdfb.detector")  # registers all classes that a file may hold
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'skdfb' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
