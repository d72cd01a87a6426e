"""How long a training will take, measured on its first steps."""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from skdfb._progress import LaterWork, later_work, progress_bar, say, warn_once
from skdfb.networks import DenseClassifier
from skdfb.networks._records import frozen_weights
from skdfb.networks._stages import has_trained_weights

__all__ = ["Pace", "duration"]

_HOUR = 3600.0
_N_MEASURED = 5  # steps; the first is left out, since it also prepares the device
_FEWEST_STEPS = 200  # advice to train for fewer is of no use
_SIZES = (160, 128, 96)  # pixels
_LEAST_MAP = 4  # places on a side of a feature map; see FeatureMap
# A step takes as long as about so many forward passes: a backward pass takes two, that of the last stages less.
_PASSES, _PASSES_FROZEN = 3.0, 1.5

clock = time.perf_counter


@dataclass
class Pace:
    """Says what a training is about to do, and after its first steps how long that takes.

    Parameters
    ----------
    label : str
        Names the training.
    n_steps : int
        Steps from here on: after a checkpoint, the rest of them.
    batch_size, n_images : int
        Images in a step, and in the training set.
    network : DenseClassifier
        The network.
    device : torch.device
        Where it is trained.
    is_first : bool
        Whether it is the training of the classifier, which is the first in a detector.
    """

    label: str
    n_steps: int
    batch_size: int
    n_images: int
    network: DenseClassifier
    device: torch.device
    is_first: bool

    bar: Any = None

    def __post_init__(self) -> None:
        # After the first step any network has trained weights.
        self.is_pretrained = has_trained_weights(self.network.feature_map.backbone)
        self.n_done, self.start = 0, 0.0

    @contextmanager
    def shown(self, n_before: int) -> Iterator[Self]:
        """Say what is about to be done, and show a bar in the block; so many steps were done before."""
        size = self.network.preprocessor.image_size
        say(f"{self.label}: {self.n_steps} steps of {self.batch_size} images at {size} px on {self.device}")
        with progress_bar(n_before + self.n_steps, self.label, initial=n_before, unit="step") as self.bar:
            yield self

    def show(self, loss: Tensor, rate: float) -> None:
        """Show loss and learning rate; this waits for the device."""
        if not self.bar.disable:
            self.bar.set_postfix(loss=f"{float(loss):.3g}", lr=f"{rate:.2g}", refresh=False)

    def step_done(self, loss: Tensor) -> None:
        """Count a step, and after the first five of more say how long the training takes."""
        self.bar.update()
        self.n_done += 1
        if self.n_done > _N_MEASURED or self.n_steps <= _N_MEASURED:
            return
        # Reading the loss waits for the device: only where the clock is read.
        if self.n_done == 1:
            float(loss)
            self.start = clock()
        elif self.n_done == _N_MEASURED:
            float(loss)
            self._tell((clock() - self.start) / (_N_MEASURED - 1))

    def _tell(self, seconds_per_step: float) -> None:
        try:
            later = later_work(self.n_images, self.network) if self.is_first else None
            seconds = (self.n_steps - self.n_done) * seconds_per_step
            total = seconds + self._seconds_of(later, seconds_per_step)
            more = f"; with the masks and the dense network {duration(total)}" if later else ""
            say(f"{self.label}: {duration(seconds)}{more}")
            if total > _HOUR:
                choices = "; ".join(self._faster(total, seconds_per_step, later)) or "fewer images, or a faster device"
                task = "fit" if later else self.label
                warn_once(f"{task} will take {duration(total)} on {self.device}. Faster: {choices}.")
        # An estimate is not worth a training.
        except Exception:
            logging.getLogger("skdfb").debug("no estimate", exc_info=True)

    def _faster(self, total: float, seconds_per_step: float, later: LaterWork | None) -> list[str]:
        """Return ways to be done within an hour."""
        found = []
        if later and self.is_pretrained:
            seconds = self._seconds_of(LaterWork(0, self.n_images), seconds_per_step)
            found += [f"FrozenDetector, which trains no network ({duration(seconds)})"] if seconds < _HOUR else []
        # The side of the input, as long as the feature map does not become too small.
        own, places = self.network.preprocessor.image_size, min(self.network.map_size)
        fitting = [
            size
            for size in _SIZES
            if size < own and places * size // own >= _LEAST_MAP and total * (size / own) ** 2 < _HOUR
        ]
        if self.is_first and fitting:
            found.append(f"image_size={fitting[0]} ({duration(total * (fitting[0] / own) ** 2)})")
        left = _HOUR - self._seconds_of(later and later._replace(n_trained=0), seconds_per_step)
        n_steps = round_down(left / seconds_per_step / (2 if later else 1))
        if _FEWEST_STEPS <= n_steps < self.n_steps:
            found.append(f"Trainer(max_steps={n_steps}){' for both networks' if later else ''} ({duration(_HOUR)})")
        return found

    def _seconds_of(self, work: LaterWork | None, seconds_per_step: float) -> float:
        if work is None:
            return 0.0
        passes = _PASSES_FROZEN if frozen_weights(self.network.feature_map.backbone) else _PASSES
        return (work.n_trained + work.n_passed / passes) * seconds_per_step / self.batch_size


def duration(seconds: float) -> str:
    """Return a duration in words, such as "about 21 min"."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"about {round(seconds / 60)} min"
    return f"about {seconds / _HOUR:.1f} h" if seconds < 10 * _HOUR else f"about {round(seconds / _HOUR)} h"


def round_down(number: float) -> int:
    """Return the first two digits of a number; 0 for negative numbers."""
    if number < 1:
        return 0
    unit = 10 ** max(0, math.floor(math.log10(number)) - 1)
    return int(number // unit * unit)
