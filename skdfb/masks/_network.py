"""Base classes of the mask generators that read masks from a network of their own."""

import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from skdfb._constraints import RANDOM_STATE, Interval
from skdfb._transfers import upload
from skdfb.images import N_JOBS, Images, Indices, batch_size_of
from skdfb.masks._base import BaseMaskGenerator
from skdfb.networks import DenseClassifier
from skdfb.networks._inputs import run_over
from skdfb.training import Trainer
from skdfb.training._class_order import check_order
from skdfb.training._stages import build_classifier, take_over
from skdfb.utils import evaluation_mode, resolve_device

__all__ = ["REFERENCE_SIDE", "MultiScaleMaskGenerator", "NetworkMaskGenerator"]

REFERENCE_SIDE = 128  # side in pixels of the images for which the paper gives sigma

# Inputs (b, 3, S, S), and the class of each or None, to attention maps (b, H, W) and the class of each map.
MapFunction = Callable[[torch.Tensor, torch.Tensor | None], tuple[torch.Tensor, torch.Tensor]]


class NetworkMaskGenerator(BaseMaskGenerator):
    """Masks read from a network.

    The attribute ``network_`` is that network. A subclass defines the attention maps of a batch (``_map_function``).
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "backbone": [str, nn.Module],
        "image_size": [Interval(Integral, 1, None, closed="left"), None],
        "image_shape": ["array-like", None],
        "mask_size": [Interval(Integral, 1, None, closed="left"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "device": [str, torch.device],
        "n_jobs": N_JOBS,
        "verbose": ["verbose"],
    }

    backbone: str | nn.Module
    image_size: int | None
    mask_size: int | None

    network_: DenseClassifier
    classes_: npt.NDArray[Any]

    @abstractmethod
    def _map_function(self, output_size: tuple[int, int]) -> MapFunction:
        """Return the function that computes attention maps of a batch, of height and width ``output_size``."""

    def _stream(
        self, images: Images, labels: npt.NDArray[np.intp] | None
    ) -> Iterator[tuple[Indices, torch.Tensor, torch.Tensor]]:
        network = self.network_
        # Once per call, not per batch: it may take trial passes.
        compute_maps = self._map_function(self._output_size(images))

        def maps_of(indices: Indices, inputs: torch.Tensor) -> tuple[Indices, torch.Tensor, torch.Tensor]:
            targets = None if labels is None else upload(torch.from_numpy(labels[indices]), network.device)
            maps, targets = compute_maps(inputs, targets)
            return indices, maps, targets

        with evaluation_mode(network), batch_size_of(self) as batch_size:
            yield from run_over(network, images, batch_size, self.n_jobs, maps_of)

    def _classify(self, images: Images) -> npt.NDArray[np.intp]:
        network = self.network_

        @torch.no_grad()
        def classes_of(indices: Indices, inputs: torch.Tensor) -> npt.NDArray[np.intp]:
            logits = network(inputs)[:, : len(self.classes_)]  # (b, K): a dense network's background is no class
            predicted: npt.NDArray[np.intp] = logits.argmax(1).cpu().numpy()
            return predicted

        with evaluation_mode(network), batch_size_of(self) as batch_size:
            return np.concatenate(list(run_over(network, images, batch_size, self.n_jobs, classes_of)))

    def _output_size(self, images: Images) -> tuple[int, int]:
        # Masks of the images' own size cannot be stacked if the images have several sizes.
        if self.mask_size is not None:
            return self.mask_size, self.mask_size
        side = self.network_.preprocessor.image_size
        return images.size if images.size is not None else (side, side)


class MultiScaleMaskGenerator(NetworkMaskGenerator):
    """Masks read from a trained network at several scales of the image, each mirrored or not.

    The attribute ``network_`` is that network: the classifier in one subclass, the dense network in the other.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = NetworkMaskGenerator._parameter_constraints | {
        "scales": ["array-like"],
        "flip": ["boolean"],
        "trainer": [Trainer, None],
        "random_state": RANDOM_STATE,
    }

    scales: Sequence[float]
    flip: bool
    trainer: Trainer | None
    random_state: int | np.random.RandomState | None

    @abstractmethod
    def _network_maps(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor | None,
        *,
        input_sizes: Sequence[int],
        output_size: tuple[int, int],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return attention maps (b, H, W) of a batch of inputs, and the class (b,) of each map."""

    def _trained_classifier(
        self, images: Images, labels: npt.NDArray[np.intp], build_seed: int, train_seed: int
    ) -> DenseClassifier:
        """Return the classifier of K classes: trained here, or a copy of the trained one given as ``backbone``."""
        device = resolve_device(self.device)
        if isinstance(self.backbone, DenseClassifier):
            network = take_over(self, self.classes_).to(device).eval()
            check_order(self, network, images, labels)
            return network
        # Two seeds, so that the random weights do not depend on the number of random draws of the training.
        network = build_classifier(
            self.backbone, len(self.classes_), images, image_size=self.image_size, seed=build_seed
        )
        trainer = Trainer() if self.trainer is None else self.trainer
        trainer.train(
            network,
            images,
            labels,
            device=device,
            random_state=train_seed,
            n_jobs=self.n_jobs,
            verbose=self.verbose,
        )
        return network

    def _map_function(self, output_size: tuple[int, int]) -> MapFunction:
        # Trial passes find the sizes of the inputs.
        return partial(self._network_maps, input_sizes=self._input_sizes(), output_size=output_size)

    def _validate_params(self) -> None:
        super()._validate_params()
        # scikit-learn's constraints check neither the items of a sequence nor the parameters of a parameter.
        self._checked_scales()
        if self.trainer is not None:
            self.trainer.validate("trainer")

    def _checked_scales(self) -> list[float]:
        scales = np.asarray(self.scales)
        valid = scales.ndim == 1 and len(scales) > 0 and scales.dtype.kind in "iuf"
        if not valid or not (np.isfinite(scales) & (scales > 0)).all():
            raise ValueError(f"scales={self.scales!r}: expected a sequence of at least one finite factor above 0.")
        return [float(scale) for scale in scales]

    def _input_sizes(self) -> list[int]:
        """Return the side of the network's input at each scale that the network takes."""
        own = self.network_.preprocessor.image_size
        scales = self._checked_scales()
        # The network's own size is known to work. Each other size costs a trial pass of one image.
        sizes = [own if scale == 1 else self._accepted_size(scale) for scale in scales]
        refused = [scale for scale, size in zip(scales, sizes, strict=True) if size is None]
        if refused:
            warnings.warn(
                f"the network takes no inputs at the scales {refused}, which are left out; set scales=(1.0,) to use "
                "only its own size.",
                UserWarning,
                stacklevel=2,
            )
        return [size for size in sizes if size is not None] or [own]

    def _accepted_size(self, scale: float) -> int | None:
        """Return the input side for a scale that the network takes; None if it takes none."""
        own = self.network_.preprocessor.image_size
        stride = max(1, own // self.network_.map_size[0])
        # The exact side first. Networks that split the image into patches take only multiples of the stride.
        for size in (round(own * scale), max(1, round(own * scale / stride)) * stride):
            if self.network_.accepts_size(max(1, size)):
                return max(1, size)
        return None
