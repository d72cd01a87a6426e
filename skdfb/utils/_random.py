"""Random numbers of torch that follow from a seed, in one thread, without its global generators."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from skdfb.utils._devices import is_compiled

__all__ = ["NetworkDraws", "isolated_rng", "spawn_seeds"]

_GLOBAL_STATES = threading.RLock()


def spawn_seeds(random_state: int | np.random.RandomState | None, n_seeds: int) -> list[int]:
    """Draw independent seeds, one for each random part of a computation.

    Parameters
    ----------
    random_state : int, RandomState or None
        As in scikit-learn. A RandomState moves on.
    n_seeds : int
        How many.

    Returns
    -------
    seeds : list of int
        Seeds in 0..2**31 - 2.
    """
    return [int(seed) for seed in check_random_state(random_state).randint(2**31 - 1, size=n_seeds)]


@contextmanager
def isolated_rng(seed: int) -> Iterator[None]:
    """Let all that torch draws in this thread in the block follow from ``seed``.

    The numbers are those that torch's global generators would give after ``torch.manual_seed(seed)``, on each device.
    But these generators belong to all threads, so they are neither seeded nor moved: each operation of the block gets
    a generator of its own instead. A generator that the caller passes to an operation is kept.
    """
    with _OwnGenerators(seed):
        yield


class NetworkDraws:
    """Seeds what a network draws in the steps of its training, as for dropout and stochastic depth.

    Most networks draw nothing, and watching each operation takes time: a network that drew nothing in the first step
    is not watched any more.
    """

    def __init__(self, network: nn.Module, *, compiled: bool = False) -> None:
        self._needed = True
        # Checkpointing and compiled code know the global generators alone.
        self.is_global = compiled or any(
            is_compiled(part)
            or getattr(part, "grad_checkpointing", False)
            or getattr(part, "gradient_checkpointing", False)
            for part in network.modules()
        )

    @contextmanager
    def seeded(self, seed: int, device: torch.device) -> Iterator[None]:
        """Let all that the network draws in the block follow from ``seed``."""
        if self.is_global:
            with _seeded_globally(seed, device):
                yield
        elif self._needed:
            with _OwnGenerators(seed) as own:
                yield
            self._needed = bool(own.generators)  # not after an error: the step may have ended before the draws
        else:
            yield


class _OwnGenerators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Passes own generators to the operations that draw random numbers; active in one thread."""

    supports_higher_order_operators = True

    def __init__(self, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._seed = seed
        self.generators: dict[torch.device, torch.Generator] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not _is_random(func) or _has_generator(args, kwargs) or _drops_nothing(func, args, kwargs):
            return func(*args, **kwargs)
        if torch._C._current_graph_task_id() != -1:
            raise RuntimeError(
                "the network draws random numbers again in the backward pass, as activation checkpointing does with "
                "dropout, and they would differ from those of the forward pass: set grad_checkpointing = True as an "
                "attribute of the module that does so, or switch its checkpointing off."
            )
        device = _device_of(args, kwargs)
        if device.type == "meta":
            return func(*args, **kwargs)
        if device not in self.generators:
            self.generators[device] = torch.Generator(device).manual_seed(self._seed)
        generator = self.generators[device]
        if (seeded := _with_generator(func)) is not None:
            return seeded(*args, **{**kwargs, "generator": generator})
        if func is torch.ops.aten.native_dropout.default:
            return _dropout(generator, *args, **kwargs)
        return _with_global_state(generator, lambda: func(*args, **kwargs))


@cache
def _is_random(func: Any) -> bool:
    # The backward operations of fused attention have the tag, too, but get the state of the forward pass as arguments.
    return torch.Tag.nondeterministic_seeded in getattr(func, "tags", ()) and "_backward" not in str(func)


def _drops_nothing(func: Any, args: Any, kwargs: Any) -> bool:
    """Tell whether this is fused attention without dropout, as in evaluation and in most vision transformers."""
    place, default = _dropout_argument(func)
    if place is None:
        return False
    return not (args[place] if place < len(args) else kwargs.get("dropout_p", default))


@cache
def _dropout_argument(func: Any) -> tuple[int | None, float]:
    """Return the place and the default of the argument ``dropout_p``; no place if there is none."""
    for place, argument in enumerate(func._schema.arguments):
        if argument.name == "dropout_p":
            return place, argument.default_value or 0.0
    return None, 0.0


@cache
def _with_generator(func: Any) -> Any:
    """Return the form of an operation that takes a generator; None if there is none."""
    arguments = _arguments(func)
    if "generator" in arguments:
        return func
    forms = (getattr(func.overloadpacket, name) for name in func.overloadpacket.overloads())
    return next((form for form in forms if _arguments(form) == arguments | {"generator": "Optional[Generator]"}), None)


def _arguments(func: Any) -> dict[str, str]:
    return {argument.name: str(argument.type) for argument in func._schema.arguments}


def _has_generator(args: Any, kwargs: Any) -> bool:
    return kwargs.get("generator") is not None or any(isinstance(value, torch.Generator) for value in args)


def _device_of(args: Any, kwargs: Any) -> torch.device:
    tensors = [value.device for value in args if isinstance(value, Tensor)]
    return tensors[0] if tensors else torch.empty(0, device=kwargs.get("device")).device


def _dropout(generator: torch.Generator, values: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
    """Compute ``native_dropout``, dropout on GPUs, which takes no generator."""
    if train is False:
        return torch.ops.aten.native_dropout.default(values, p, train)  # type: ignore[no-any-return]
    mask = torch.empty_like(values, dtype=torch.bool).bernoulli_(1 - p, generator=generator)
    return values * mask * (0.0 if p == 1 else 1 / (1 - p)), mask


def _with_global_state(generator: torch.Generator, compute: Callable[[], Any]) -> Any:
    """Compute an operation that takes no generator, as fused attention, from the state of ``generator``."""
    if generator.device.type != "cuda":
        return compute()
    # Only for this one operation, and one thread at a time.
    shared = torch.cuda.default_generators[generator.device.index or 0]
    with _GLOBAL_STATES:
        before = shared.get_state()
        try:
            shared.set_state(generator.get_state())
            result = compute()
            generator.set_state(shared.get_state())
        finally:
            shared.set_state(before)
    return result


@contextmanager
def _seeded_globally(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's generators of the CPU and of ``device`` in the block; restore their states after it.

    Activation checkpointing draws the numbers of the forward pass again in the backward pass, by the state of these
    generators. One thread at a time, but other threads see the states: use :func:`isolated_rng` for all else.
    """
    cuda = [torch.cuda.current_device() if device.index is None else device.index] if device.type == "cuda" else []
    # fork_rng restores the states, of no more GPUs than needed: each costs a transfer.
    with _GLOBAL_STATES, torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU
        for index in cuda:
            torch.cuda.default_generators[index].manual_seed(seed)
        yield
