"""Networks that share their first stages: one of them runs these stages, the others go on from their output."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from skdfb.networks._dense_classifier import DenseClassifier
from skdfb.networks._stages import last_modules, stages_of
from skdfb.utils import evaluation_mode

__all__ = ["SharedTrunk"]


class SharedTrunk:
    """The first stages that a network has in common with others, which then need not run them again.

    Parameters
    ----------
    source : DenseClassifier
        The network that runs first, all of it.
    others : iterable of DenseClassifier
        Networks for the same inputs. Those whose first stages have other weights, and those that cannot be entered
        after these stages, run from their beginning.
    """

    def __init__(self, source: DenseClassifier, others: Iterable[DenseClassifier]) -> None:
        self._source, self._outputs = source, list[Any]()
        self._stages: tuple[str, ...] = ()
        self._followers: list[DenseClassifier] = []
        shared = {network: n_equal_stages(source, network) for network in others}
        sharing = [network for network, n in shared.items() if n > 1]
        # The stem runs in each network: it is cheap, and often it is no single module.
        n_stages = min((shared[network] for network in sharing), default=1)
        stages = _known(source).modules[: n_stages - 1]
        # The last stages of some families are no single module either.
        while stages and not self._followers:
            self._followers = [network for network in sharing if _can_be_entered_after(network, stages)]
            self._stages, stages = stages, stages[:-1]

    def forward_pass(self, network: DenseClassifier) -> AbstractContextManager[Any]:
        """Return a context for the forward pass of a network over the next inputs; the source comes first."""
        backbone = network.feature_map.backbone
        if network is self._source and self._followers:
            self._outputs.clear()
            return _kept_output(backbone, self._stages[-1], self._outputs)
        if network in self._followers and self._outputs:
            return _entered_after(backbone, self._stages, self._outputs[-1])
        return nullcontext()


def n_equal_stages(network: DenseClassifier, other: DenseClassifier) -> int:
    """Return how many first stages, the stem included, have equal weights and buffers in two networks."""
    first, second = (_tensors(module.feature_map.backbone) for module in (network, other))
    known = _known(network)
    for index, stage in enumerate(known.tensors):
        if not all(name in second for name in stage) or not _all_equal([(first[name], second[name]) for name in stage]):
            return index
    return len(known.tensors)


def _all_equal(pairs: list[tuple[Tensor, Tensor]]) -> bool:
    if any(a.shape != b.shape or a.device != b.device for a, b in pairs):
        return False
    if all(a.device.type == "cpu" for a, _ in pairs):
        return all(torch.equal(a, b) for a, b in pairs)  # ends at the first difference
    # Each number that is read waits for the device, so it is one for all tensors.
    return bool(torch.stack([(a == b).all() for a, b in pairs]).all())


def _tensors(backbone: nn.Module) -> dict[str, Tensor]:
    return dict(chain(backbone.named_parameters(), backbone.named_buffers()))


class _Known:
    """What the architecture of a network tells, found once: it does not change."""

    def __init__(self, backbone: nn.Module) -> None:
        self.modules = last_modules(backbone)
        # Buffers, such as batch statistics, belong to the modules of the weights.
        owners = [{name.rpartition(".")[0] for name in stage} for stage in stages_of(backbone)] or [set()]
        self.tensors = [[name for name in _tensors(backbone) if name.rpartition(".")[0] in stage] for stage in owners]
        # Modules may have buffers alone: where these are in the forward pass is not known, so they count as the stem.
        owned = set(chain.from_iterable(self.tensors))
        self.tensors[0] += [name for name in _tensors(backbone) if name not in owned]
        self.entered: dict[tuple[str, ...], bool] = {}


_KNOWN: "WeakKeyDictionary[nn.Module, _Known]" = WeakKeyDictionary()


def _known(network: DenseClassifier) -> _Known:
    if network not in _KNOWN:
        _KNOWN[network] = _Known(network.feature_map.backbone)
    return _KNOWN[network]


def _can_be_entered_after(network: DenseClassifier, stages: tuple[str, ...]) -> bool:
    """Return whether a trial image has the same feature map if the network goes on after the stages."""
    entered = _known(network).entered
    if stages not in entered:
        entered[stages] = _gives_the_same(network, stages)
    return entered[stages]


@torch.no_grad()
def _gives_the_same(network: DenseClassifier, stages: tuple[str, ...]) -> bool:
    size, backbone, outputs = network.preprocessor.image_size, network.feature_map.backbone, list[Any]()
    # Not constant, so that places and channels differ.
    shape = (1, network.preprocessor.n_channels, size, size)
    trial = torch.linspace(-1, 1, shape[1] * size * size, dtype=network.dtype, device=network.device).view(shape)
    with evaluation_mode(network), _kept_output(backbone, stages[-1], outputs):
        expected = network.feature_map(trial)
    try:
        with evaluation_mode(network), _entered_after(backbone, stages, outputs[-1]):
            found = network.feature_map(trial)
    except Exception:  # each family has its own reasons, and its own kind of error
        return False
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-4, atol=1e-5)


@contextmanager
def _kept_output(backbone: nn.Module, stage: str, outputs: list[Any]) -> Iterator[None]:
    """Append each output of a stage to a list; forward passes in other threads are left alone."""
    thread = threading.get_ident()

    def keep(module: nn.Module, inputs: object, output: Any) -> None:
        if threading.get_ident() == thread:
            outputs.append(output)

    hook = backbone.get_submodule(stage).register_forward_hook(keep)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _entered_after(backbone: nn.Module, stages: Sequence[str], output: Tensor) -> Iterator[None]:
    """Skip the stages: the last of them returns ``output``, the others what they are given."""
    with ExitStack() as stack:
        for stage in stages[:-1]:
            stack.enter_context(_skipped(backbone.get_submodule(stage), None))
        stack.enter_context(_skipped(backbone.get_submodule(stages[-1]), output))
        yield


class _Switch:
    """Stands in for the method ``forward`` of a module, which is skipped in some threads."""

    lock = threading.Lock()

    def __init__(self, module: nn.Module) -> None:
        self.module, self.forward = module, module.forward
        self.own = "forward" in vars(module)  # somebody else's replacement
        self.outputs: dict[int, Any] = {}  # by thread; None stands for the input

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        thread = threading.get_ident()
        if thread not in self.outputs:
            return self.forward(*inputs, **options)
        output = self.outputs[thread]
        return inputs[0] if output is None else output

    def remove(self) -> None:
        """Give the module its own method back."""
        if self.own:
            self.module.forward = self.forward
        else:
            del self.module.forward


@contextmanager
def _skipped(module: nn.Module, output: Any) -> Iterator[None]:
    """Let a module return ``output``, or its first input for None, in this thread."""
    thread = threading.get_ident()
    with _Switch.lock:
        switch: Any = vars(module).get("forward")
        if not isinstance(switch, _Switch):
            switch = module.forward = _Switch(module)
        switch.outputs[thread] = output
    try:
        yield
    finally:
        with _Switch.lock:
            del switch.outputs[thread]
            if not switch.outputs:
                switch.remove()
