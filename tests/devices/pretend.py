"""A device that does not exist: its tensors lie in the CPU's memory, but PyTorch takes them for an accelerator's.

Mistakes with devices show on it without hardware: an operation that mixes it with the CPU is refused, as CUDA refuses
it, and all that crosses between the two is counted. The numbers are those of the CPU, to the last bit. What it cannot
show is what the hardware itself does: its rounding, its memory, its speed, and operations that are still running.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"

# CUDA copies between devices in these.
_COPIES = {"copy_", "_to_copy"}
# CUDA takes indices of the CPU, and uploads them.
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
# What comes next needs the numbers, so the CPU waits for them.
_WAITS = {
    "_local_scalar_dense",
    "_unique2",
    "bincount",
    "equal",
    "is_nonzero",
    "linalg_eigh",
    "masked_select",
    "nonzero",
    "unique_consecutive",
    "unique_dim",
}


class Counts:
    """What crossed to the device and back, and where the CPU waited for a number: how often, at which line."""

    def __init__(self) -> None:
        self.uploads: Counter[str] = Counter()
        self.downloads: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()

    def __repr__(self) -> str:
        kinds = {"uploads": self.uploads, "downloads": self.downloads, "waits": self.waits}
        lines = [
            f"  {n:4} at {line}" if line else f"{kind}: {sum(places.values())}"
            for kind, places in kinds.items()
            for line, n in [("", 0), *places.most_common()]
        ]
        return "\n".join(lines)


class PretendTensor(Tensor):
    """A tensor of the CPU that says it is elsewhere."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "PretendTensor":
        return Tensor._make_wrapper_subclass(  # type: ignore[attr-defined, no-any-return]
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            requires_grad=inner.requires_grad,
            device=torch.device(NAME, 0),
        )

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"PretendTensor({self.inner!r})"

    def numpy(self, *, force: bool = False) -> Any:
        if not force:
            raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy. Use Tensor.cpu() first.")
        return self.detach().cpu().numpy()

    def tolist(self) -> Any:
        return self.detach().cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {}, Counts())


class _PretendMode(TorchDispatchMode):
    """Lets PyTorch make tensors of the device, and counts."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts = counts

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {}, self.counts)


def _compute(func: Any, args: Any, kwargs: Any, counts: Counts) -> Any:
    """Compute an operation on the CPU; its result is on the device if an argument is, or if it should be there."""
    name = func.overloadpacket.__name__
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, PretendTensor)]
    here = [tensor for tensor in tensors if not isinstance(tensor, PretendTensor)]
    device = kwargs.get("device")
    result_is_there = bool(there) if device is None else torch.device(device).type == NAME
    if name == "copy_":
        result_is_there = isinstance(args[0], PretendTensor)
    if there:
        _refuse_mixtures(name, args, here)
    _refuse_foreign_generator(args, kwargs, result_is_there)
    _count(name, args, there, result_is_there, counts)

    result = func(*tree_map(_on_cpu, args), **tree_map(_on_cpu, kwargs))
    for tensor in there:
        if tensor.shape != tensor.inner.shape:
            raise NotImplementedError(f"{name} changes the shape of a tensor in place: the pretended device cannot.")
    if not result_is_there:
        return result
    in_place = {id(tensor.inner): tensor for tensor in there}

    def wrapped(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return in_place[id(value)] if id(value) in in_place else PretendTensor(value)

    return tree_map(wrapped, result)


def _on_cpu(value: Any) -> Any:
    if isinstance(value, torch.device):
        return torch.device("cpu")
    return value.inner if isinstance(value, PretendTensor) else value


def _refuse_mixtures(name: str, args: Any, here: list[Tensor]) -> None:
    """Raise an error if tensors of the CPU take part that CUDA would refuse: those with dimensions."""
    if name in _COPIES:
        return
    if name in _INDEXING and isinstance(args[0], PretendTensor):
        here = [tensor for tensor in tree_leaves((args[0], args[2:])) if any(tensor is other for other in here)]
    if any(tensor.dim() for tensor in here):
        raise RuntimeError(f"{name}: expected all tensors to be on the same device, found {NAME}:0 and cpu")


def _refuse_foreign_generator(args: Any, kwargs: Any, result_is_there: bool) -> None:
    for leaf in (*args, *kwargs.values()):
        if isinstance(leaf, _TorchGenerator) and (leaf._cdata in _GENERATORS) != result_is_there:
            expected, found = (NAME, "cpu") if result_is_there else ("cpu", NAME)
            raise RuntimeError(f"Expected a '{expected}' device type for generator but found '{found}'")


def _count(name: str, args: Any, there: list[PretendTensor], result_is_there: bool, counts: Counts) -> None:
    if name in _COPIES:
        from_there = isinstance(args[1 if name == "copy_" else 0], PretendTensor)
        counts.uploads.update([_line()] * (result_is_there and not from_there))
        counts.downloads.update([_line()] * (from_there and not result_is_there))
    elif name in _INDEXING and there:
        indices = [index for index in tree_leaves(args[1]) if isinstance(index, Tensor)]
        counts.uploads.update([_line()] * sum(not isinstance(index, PretendTensor) for index in indices))
        # How many rows are chosen?
        counts.waits.update([_line()] * any(index.dtype in (torch.bool, torch.uint8) for index in indices))
    elif name in _WAITS and there:
        counts.waits.update([_line()])


def _line() -> str:
    """Return the line of the library, or of the test, that runs."""
    frame = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path != Path(__file__) and {"skdfb", "tests"} & set(path.parts) and "site-packages" not in path.parts:
            return f"{path.parent.name}/{path.name}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "elsewhere"


_TorchGenerator = torch.Generator
# Operations get another Python object for the same generator, so it is known by its address.
_GENERATORS: WeakValueDictionary[int, torch.Generator] = WeakValueDictionary()


class _GeneratorType(type(torch.Generator)):  # type: ignore[misc]
    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, _TorchGenerator)


class _Generator(torch.Generator, metaclass=_GeneratorType):
    """Stands for ``torch.Generator``, which cannot make one for a device written in Python."""

    def __new__(cls, device: Any = "cpu") -> torch.Generator:  # type: ignore[misc]
        if torch.device(device).type != NAME:
            return _TorchGenerator(device)
        generator = _PretendGenerator()
        _GENERATORS[generator._cdata] = generator
        return generator


class _PretendGenerator(_TorchGenerator):
    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device(NAME, 0)


def _uploading(factory: Any) -> Any:
    """Let a factory such as ``torch.tensor``, which looks for a kernel of the device, upload a tensor of the CPU."""

    def make(*args: Any, device: Any = None, **kwargs: Any) -> Tensor:
        if device is None or torch.device(device).type != NAME:
            return factory(*args, device=device, **kwargs)
        return factory(*args, **kwargs).to(device)

    return make


class _Module:
    """What ``torch.pretend`` is, as ``torch.cuda`` for CUDA."""

    def is_initialized(self) -> bool:
        return True

    is_available = is_initialized

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def manual_seed_all(self, seed: int) -> None:
        pass

    def _is_in_bad_fork(self) -> bool:
        return False

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


_KEPT: list[torch.library.Library] = []  # registered as long as it exists


@cache
def make_known_to_torch() -> None:
    """Register the device; only before the first backward pass of a process, and until it ends."""
    _setup_privateuseone_for_python_backend(NAME, _Module())
    # Autocast has no list of operations for it: these have 16 bits, all others keep what they get.
    _KEPT.append(torch.library.Library("_", "IMPL", "AutocastPrivateUse1"))
    _KEPT[0].fallback(torch.library.fallthrough_kernel)
    _KEPT.append(torch.library.Library("aten", "IMPL", "AutocastPrivateUse1"))
    for name in ("conv2d", "linear"):
        _KEPT[1].impl(name, _in_16_bits(getattr(torch.ops.aten, name).default))


def _in_16_bits(operation: Any) -> Any:
    def kernel(*args: Any) -> Any:
        dtype = torch.get_autocast_dtype(NAME)
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)):
            return operation(*(arg.to(dtype) if isinstance(arg, Tensor) else arg for arg in args))

    return kernel


@contextmanager
def pretended_device() -> Iterator[Counts]:
    """Make ``torch.device("pretend")`` usable in the block, in this thread; yield what crosses."""
    make_known_to_torch()
    swap = torch.__future__.get_swap_module_params_on_conversion()
    names = {"Generator": _Generator, "tensor": _uploading(torch.tensor), "as_tensor": _uploading(torch.as_tensor)}
    before = {name: getattr(torch, name) for name in names}
    torch.__future__.set_swap_module_params_on_conversion(True)  # Module.to must exchange parameters, not their data
    for name, value in names.items():
        setattr(torch, name, value)
    counts = Counts()
    try:
        with _PretendMode(counts):
            yield counts
    finally:
        for name, value in before.items():
            setattr(torch, name, value)
        torch.__future__.set_swap_module_params_on_conversion(swap)
