"""What the detector's methods want of a forward pass."""

from typing import Any

import numpy as np
import torch.nn.functional as F

from skdfb.detector._collect import to_cpu
from skdfb.detector._forward import ForwardPass, NetworkBatch, represent_background
from skdfb.detector._parts import PartScorers
from skdfb.utils import Images

__all__ = ["run"]


def run(forward: ForwardPass, images: Images, wanted: tuple[str, ...], scorers: PartScorers) -> list[Any]:
    """Run the network over images once and return all that is wanted of it.

    ``wanted`` are ``"parts"``, ``"logits"``, ``"features"`` or ``"segments"``. One batch at a time is on
    the device.
    """
    size = images.size or (forward.preprocessor.image_size,) * 2
    outputs: dict[str, list[Any]] = {name: [] for name in wanted}
    scorer = scorers.foreground if "parts" in wanted else None
    for batch in forward.batches(images, scorer):
        for name in wanted:
            outputs[name].append(_output(name, forward, batch, scorers, size))
    return [_join(outputs[name]) for name in wanted]


def _output(name: str, forward: ForwardPass, batch: NetworkBatch, scorers: PartScorers, size: tuple[int, int]) -> Any:
    if name == "parts":
        foreground = forward.foreground(batch, scorers.foreground)
        background = represent_background(forward.network, batch)
        # On the CPU, as in fit: a scorer may be anybody's, written in NumPy.
        return scorers.score((to_cpu(foreground), to_cpu(background)))
    if name == "segments":
        logits = F.interpolate(batch.logit_map, size, mode="bilinear")  # (b, K + 1, H, W)
        return logits.softmax(1).permute(0, 2, 3, 1).float().cpu().numpy()
    return getattr(to_cpu(forward.foreground(batch)), name).numpy()


def _join(pieces: list[Any]) -> Any:
    """Join the outputs of batches: arrays, or dicts of arrays."""
    if isinstance(pieces[0], dict):
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    return np.concatenate(pieces)
