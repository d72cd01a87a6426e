"""The number of channels of the images that a network takes, and their normalisation."""

from typing import Any

from torch import nn

from skdfb.images import Preprocessor

__all__ = ["input_channels", "normalisation_of"]


def input_channels(backbone: Any) -> int:
    """Return the channels of the images that a backbone takes; 3 for a name.

    For a module these are the inputs of its first convolution, or its attribute ``in_chans``.
    """
    preprocessor = getattr(backbone, "preprocessor", None)
    if isinstance(preprocessor, Preprocessor):
        return preprocessor.n_channels
    if not isinstance(backbone, nn.Module):
        return 3
    given = getattr(backbone, "in_chans", None)
    if isinstance(given, int):
        return given
    convolutions = (module for module in backbone.modules() if isinstance(module, nn.Conv2d))
    return next((module.in_channels for module in convolutions), 3)


def normalisation_of(values: tuple[float, ...], n_channels: int) -> tuple[float, ...]:
    """Return means or standard deviations of three colours for another number of channels.

    A single channel has their average; more channels repeat them. timm adapts the pre-trained weights of the first
    convolution in the same way.
    """
    if n_channels == len(values):
        return tuple(values)
    if n_channels == 1:
        return (sum(values) / len(values),)
    return tuple(values[channel % len(values)] for channel in range(n_channels))
