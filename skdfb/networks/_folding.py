"""Batch normalisation in evaluation, computed by the convolution before it: the same numbers in less time."""

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from skdfb.networks._dense_classifier import DenseClassifier
from skdfb.utils import evaluation_mode, is_compiled

__all__ = ["FoldedNorms", "folded_norms", "folded_trunk"]

Result = TypeVar("Result")

# What asks for shape or type of a tensor, not for its numbers.
_METADATA = {"__get__", "dim", "size", "stride", "numel", "is_contiguous", "is_floating_point"}
NOT_MEASURED_ON = {"cuda"}  # kinds of devices, on which networks stay as they are
_LEAST_IMAGES = 16  # of fewer images, folding would take longer than it saves


def folded_norms(network: nn.Module, n_images: int) -> "FoldedNorms | None":
    """Return what folds the norms of a network in a pass over images; None where that is not worth it.

    The first batch should be of one image.
    """
    if n_images < _LEAST_IMAGES or next(network.parameters()).device.type in NOT_MEASURED_ON:
        return None
    parts = list(network.modules())
    # Compiled code folds by itself, and calls no functions that could be replaced. A hook of the user at a convolution
    # expects its output.
    as_it_is = any(is_compiled(part) or (isinstance(part, nn.Conv2d) and part._forward_hooks) for part in parts)
    return FoldedNorms() if any(isinstance(part, nn.BatchNorm2d) for part in parts) and not as_it_is else None


def folded_trunk(network: DenseClassifier) -> "FoldedNorms | None":
    """Return what folds the frozen norms of a network in the steps of its training; None if there are none."""
    frozen = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d) and _is_frozen(part)]
    folded = folded_norms(network, _LEAST_IMAGES) if frozen else None
    if folded is None:
        return None
    # Not on the first batch: a training that is continued has another one, and must end with the same bits.
    size = network.preprocessor.image_size
    example = torch.zeros(1, network.preprocessor.n_channels, size, size, device=network.device, dtype=network.dtype)
    with torch.no_grad(), evaluation_mode(network):
        folded.run(lambda: network.feature_map(example))
    folded.keep_only([part.running_mean for part in frozen])
    return folded


def _is_frozen(norm: nn.BatchNorm2d) -> bool:
    return not norm.training and not any(parameter.requires_grad for parameter in norm.parameters())


class FoldedNorms:
    r"""Leaves out batch normalisation that follows a convolution, in the batches of one pass over images.

    In evaluation it is a multiplication and an addition for each channel, which the convolution can do:

    .. math:: s \, (W * x + b - \mu) + \beta = (s W) * x + s \, (b - \mu) + \beta, \qquad
        s = \gamma / \sqrt{\sigma^2 + \epsilon}

    with mean μ and variance σ² of the training. The first batch is computed as usual, and shows which normalisation
    gets the output of which convolution. A convolution stays as it is if anything else reads its output. No module is
    changed, so other threads can use the network at the same time.
    """

    def __init__(self) -> None:
        self._norms: dict[Tensor, _Norm] | None = None  # by the weight of the convolution before
        self._folded: dict[Tensor, tuple[Tensor, Tensor]] = {}  # weight and bias, by the weight

    def run(self, compute: Callable[[], Result]) -> Result:
        """Return ``compute()``, which passes a batch through networks, and may be called twice."""
        if self._norms is None:
            with _Learning() as learning:
                result = compute()
            self._norms = learning.norms()  # not after an error, which may have come before the last layers
            return result
        if self._norms:
            try:
                with _Folding(self._norms, self._folded) as folding:
                    result = compute()
                folding.check_all_normalised()
                return result
            except _OutputReadError:  # the way through the network depends on the images
                self._norms = {}
        return compute()

    def keep_only(self, means: Iterable[Tensor | None]) -> None:
        """Fold only the norms with these running means, and those behind a frozen convolution."""
        wanted = {id(mean) for mean in means}
        self._norms = {
            weight: norm
            for weight, norm in (self._norms or {}).items()
            if id(norm.running_mean) in wanted and not weight.requires_grad
        }


class _Norm(NamedTuple):
    """The arguments of ``F.batch_norm`` after its input."""

    running_mean: Tensor | None
    running_var: Tensor | None
    weight: Tensor | None = None
    bias: Tensor | None = None
    training: bool = False
    momentum: float = 0.1
    eps: float = 1e-5

    def is_same(self, other: "_Norm") -> bool:
        tensors = zip(self[:4], other[:4], strict=True)
        return all(one is two for one, two in tensors) and (self.training, self.eps) == (other.training, other.eps)

    def folded_into(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return weight and bias of a convolution that also normalises."""
        assert self.running_mean is not None
        assert self.running_var is not None
        scale = (self.running_var + self.eps).rsqrt()  # (C,)
        scale = scale if self.weight is None else scale * self.weight
        shift = ((0 if bias is None else bias) - self.running_mean) * scale
        return weight * scale[:, None, None, None], shift if self.bias is None else shift + self.bias


class _Learning(TorchFunctionMode):
    """Notes which normalisation gets the output of which convolution, while all is computed as usual."""

    def __init__(self) -> None:
        super().__init__()
        # Outputs of convolutions by their identity, as long as they exist, with the weight.
        self._outputs: dict[int, tuple[weakref.ref[Tensor], Tensor]] = {}
        self._norms: dict[Tensor, _Norm] = {}
        self._n_computed: Counter[Tensor] = Counter()
        self._n_normalised: Counter[Tensor] = Counter()
        self._others: set[Tensor] = set()  # weights of convolutions whose output is read by something else

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        read = [self._outputs[id(tensor)][1] for tensor in _tensors(args, kwargs) if id(tensor) in self._outputs]
        result = func(*args, **kwargs)
        if read and not _is_metadata(func, result):
            norm = _norm_of(func, args, kwargs) if len(read) == 1 else None
            if norm is not None and norm.is_same(self._norms.setdefault(read[0], norm)):
                self._n_normalised[read[0]] += 1
            else:
                self._others.update(read)
        if func is F.conv2d and (weight := _weight_of(args)) is not None:
            key = id(result)
            self._outputs[key] = weakref.ref(result, lambda _: self._outputs.pop(key, None)), weight
            self._n_computed[weight] += 1
        return result

    def norms(self) -> dict[Tensor, _Norm]:
        """Return the normalisations that can be left out, by the weight of the convolution before."""
        # Each output must be read once. One that is not may be read by compiled code, which calls no function here.
        once = {weight for weight, n in self._n_computed.items() if self._n_normalised[weight] == n}
        return {weight: norm for weight, norm in self._norms.items() if weight in once - self._others}


class _Folding(TorchFunctionMode):
    """Convolves with folded weights, and returns the output itself as that of the normalisation."""

    def __init__(self, norms: Mapping[Tensor, _Norm], folded: dict[Tensor, tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self._norms, self._folded = norms, folded
        self._open: dict[int, tuple[Tensor, _Norm]] = {}  # outputs that are to be normalised, by their identity

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.conv2d and (weight := _weight_of(args)) is not None and weight in self._norms:
            return self._convolved(weight, args, kwargs)
        read = [tensor for tensor in _tensors(args, kwargs) if id(tensor) in self._open] if self._open else []
        if not read:
            return func(*args, **kwargs)
        norm, (output, expected) = _norm_of(func, args, kwargs), self._open[id(read[0])]
        if norm is not None and norm.is_same(expected) and len(read) == 1:
            del self._open[id(output)]
            return output
        result = func(*args, **kwargs)
        if not _is_metadata(func, result):
            raise _OutputReadError
        return result

    def _convolved(self, weight: Tensor, args: Any, kwargs: Any) -> Tensor:
        inputs, _, *rest = args
        bias = rest.pop(0) if rest else kwargs.get("bias")
        if bias is not None and bias.requires_grad and torch.is_grad_enabled():  # it may learn
            return F.conv2d(*args, **kwargs)
        if weight not in self._folded:
            with torch.no_grad():
                self._folded[weight] = self._norms[weight].folded_into(weight, bias)
        options = {name: value for name, value in kwargs.items() if name != "bias"}
        output: Tensor = F.conv2d(inputs, *self._folded[weight], *rest, **options)
        self._open[id(output)] = output, self._norms[weight]
        return output

    def check_all_normalised(self) -> None:
        """Raise an error if an output was returned as it is."""
        if self._open:
            raise _OutputReadError


class _OutputReadError(Exception):
    """The output of a folded convolution is not only normalised."""


def _weight_of(args: Any) -> Tensor | None:
    """Return the weight of a convolution, if folding keeps its precision and it is the same in each batch."""
    weight = args[1] if len(args) > 1 else None
    # Weight standardisation, for one, computes other tensors anew each time.
    is_foldable = isinstance(weight, nn.Parameter) and weight.dtype in (torch.float32, torch.float64)
    return weight if is_foldable else None


def _norm_of(func: Any, args: Any, kwargs: Mapping[str, Any]) -> _Norm | None:
    """Return the normalisation that a function is, if it does not depend on the batch."""
    if func is not F.batch_norm or len(args) < 3:
        return None
    norm = _Norm(*args[1:], **kwargs)
    return None if norm.training or norm.running_mean is None or norm.running_var is None else norm


def _tensors(args: Any, kwargs: Mapping[str, Any]) -> list[Tensor]:
    """Return the tensors among arguments, and in lists of them."""
    values = [*args, *kwargs.values()]
    flat = [item for value in values for item in (value if isinstance(value, list | tuple) else [value])]
    return [item for item in flat if isinstance(item, Tensor)]


def _is_metadata(func: Any, result: Any) -> bool:
    return func.__name__ in _METADATA and not isinstance(result, Tensor)
