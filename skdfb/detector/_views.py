"""The views of an image that scorers are shown: representations by name, from one pass over the images."""

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from skdfb.detector._forward import ForwardPass, NetworkBatch, represent_background
from skdfb.images import Images, Indices
from skdfb.scorers import Representation

__all__ = ["BACKGROUND", "FOREGROUND", "PLAIN", "VIEWS", "ViewBatch", "Views", "to_cpu"]

# The foreground by the dense network and by the plain classifier, and the background by the dense network.
FOREGROUND, PLAIN, BACKGROUND = VIEWS = ("foreground", "plain", "background")


Result = TypeVar("Result")


@dataclass(frozen=True)
class ViewBatch:
    """A batch of images as the networks saw it, each of them only where it was asked for."""

    indices: Indices
    dense: NetworkBatch | None
    plain: NetworkBatch | None


@dataclass(frozen=True)
class Views:
    """How representations are made of images, by the dense network and, where it is asked for, the plain classifier.

    Both take the same inputs, so an image is read once for all views.
    """

    dense: ForwardPass
    plain: ForwardPass

    def over(
        self,
        images: Images,
        wanted: Collection[str],
        process: Callable[[ViewBatch], Result],
        scorer: Any = None,
        *,
        maps: bool = False,
    ) -> Iterator[Result]:
        """Yield ``process`` of what the networks say that the ``wanted`` views are of, a batch at a time.

        The foreground ``scorer`` may ask for layers. With ``maps`` the dense network is run whatever views are wanted.
        """
        looks: dict[str, Callable[[Tensor], NetworkBatch]] = {}

        def look(indices: Indices, inputs: Tensor) -> Result:
            seen = {name: look_by(inputs) for name, look_by in looks.items()}
            return process(ViewBatch(indices, seen.get("dense"), seen.get("plain")))

        with ExitStack() as stack:
            if maps or {FOREGROUND, BACKGROUND} & set(wanted):
                looks["dense"] = stack.enter_context(self.dense.ready(scorer if FOREGROUND in wanted else None))
            if PLAIN in wanted:
                looks["plain"] = stack.enter_context(self.plain.ready(scorer))
            yield from self.dense.over_inputs(images, look)

    def represent(self, batch: ViewBatch, view: str, scorer: Any = None) -> Representation:
        """Return one view of a batch on the CPU, with what the foreground ``scorer`` asks for.

        On the CPU, because a scorer may be anybody's, written in NumPy.
        """
        seen = batch.plain if view == PLAIN else batch.dense
        assert seen is not None, "batches() was asked for this view"
        if view == BACKGROUND:
            return to_cpu(represent_background(self.dense.network, seen))
        return to_cpu((self.plain if view == PLAIN else self.dense).foreground(seen, scorer))

    def stream(self, images: Images, view: str, scorer: Any) -> Iterator[Representation]:
        """Yield one view of all images, a batch at a time."""
        return self.over(images, (view,), lambda batch: self.represent(batch, view, scorer), scorer)


def to_cpu(part: Representation) -> Representation:
    """Return a representation on the CPU, in at least float32: NumPy knows no bfloat16."""
    wide = torch.promote_types(part.features.dtype, torch.float32)
    activations = part.activations
    if activations is not None:
        activations = {name: tensor.to("cpu", wide) for name, tensor in activations.items()}
    return Representation(
        features=part.features.to("cpu", wide),
        logits=part.logits.to("cpu", wide),
        weight=part.weight.to("cpu", wide),
        bias=part.bias.to("cpu", wide),
        activations=activations,
        input_perturbation=part.input_perturbation,
    )
