"""What the detector's methods want of a forward pass."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch.nn.functional as F

from skdfb.detector._forward import NetworkBatch, represent_foreground
from skdfb.detector._parts import PartScorers, Scores
from skdfb.detector._views import ViewBatch, Views, to_cpu
from skdfb.exceptions import UnreadableImageError, UnreadableImageWarning
from skdfb.images import Images, LenientImages

__all__ = ["for_readable", "run"]

_N_TOLD = 5  # unreadable images a warning tells of in full


def run(views: Views, images: Images, wanted: tuple[str, ...], scorers: PartScorers) -> list[Any]:
    """Run the networks over images once and return all that is wanted of them.

    ``wanted`` are ``"parts"``, ``"logits"``, ``"features"`` or ``"segments"``. One batch at a time is on
    the device. Images that may be unreadable, and are, have NaN everywhere.
    """
    size = images.size or (views.dense.preprocessor.image_size,) * 2
    shown, scorer = (scorers.views, scorers.foreground) if "parts" in wanted else ([], None)

    def outputs_of(batch: ViewBatch) -> list[Any]:
        return [_output(name, views, batch, scorers, size) for name in wanted]

    batches = views.over(images, shown, outputs_of, scorer, maps=wanted != ("parts",))
    joined = [_join(pieces) for pieces in zip(*batches, strict=True)]
    if isinstance(images, LenientImages) and images.errors:
        _warn_of_unreadable(images.errors, len(images))
        for output in joined:
            for array in output.values() if isinstance(output, dict) else [output]:
                array[list(images.errors)] = np.nan
    return joined


def for_readable(function: Callable[[dict[str, Scores]], Scores], parts: dict[str, Scores]) -> Scores:
    """Return a score an image from its parts, and NaN where all of these are NaN: the image could not be read."""
    readable = ~np.all([np.isnan(part) for part in parts.values()], axis=0)
    if readable.all():
        return function(parts)
    scores = np.full(len(readable), np.nan)
    if readable.any():
        scores[readable] = function({name: part[readable] for name, part in parts.items()})
    return scores


def _warn_of_unreadable(errors: dict[int, UnreadableImageError], n_images: int) -> None:
    told = " ".join(str(errors[index]) for index in sorted(errors)[:_N_TOLD])
    more = f" And {len(errors) - _N_TOLD} more." if len(errors) > _N_TOLD else ""
    warnings.warn(
        f"{len(errors)} of {n_images} images could not be read; their scores are NaN. {told}{more}",
        UnreadableImageWarning,
        stacklevel=5,
    )


def _output(name: str, views: Views, batch: ViewBatch, scorers: PartScorers, size: tuple[int, int]) -> Any:
    if name == "parts":
        return scorers.score({view: views.represent(batch, view, scorers.foreground) for view in scorers.views})
    assert batch.dense is not None, "run() asked for the dense network's maps"
    if name == "segments":
        logits = F.interpolate(batch.dense.logit_map, size, mode="bilinear")  # (b, K + 1, H, W)
        return logits.softmax(1).permute(0, 2, 3, 1).float().cpu().numpy()
    return _of_the_whole_image(name, views, batch.dense)


def _of_the_whole_image(name: str, views: Views, batch: NetworkBatch) -> Any:
    """Return features or logits as Eq. 5 has them, also where scorers are shown features pooled otherwise."""
    whole = represent_foreground(views.dense.network, batch.feature_map, views.dense.n_classes)
    return getattr(to_cpu(whole), name).numpy()


def _join(pieces: tuple[Any, ...]) -> Any:
    """Join the outputs of batches: arrays, or dicts of arrays."""
    if isinstance(pieces[0], dict):
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    return np.concatenate(pieces)
