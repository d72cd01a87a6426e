"""Batch normalisation in evaluation, computed by the convolution before it: the same to rounding, in less time."""

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from skdfb.networks._dense_classifier import DenseClassifier
from skdfb.utils import evaluation_mode, is_compiled, isolated_rng

__all__ = ["SLOWER_ON", "FoldedNorms", "folded_norms", "folded_trunk"]

Result = TypeVar("Result")

SLOWER_ON = {"cuda"}  # kinds of devices that add a bias in a kernel of its own: networks stay as they are
# Of fewer or smaller images, folding takes longer than it saves: maps of small ones stay in the cache of the processor.
_LEAST_IMAGES, _LEAST_SIDE = 16, 128

# What asks for shape or type of a tensor, not for its numbers.
_METADATA = {"__get__", "dim", "size", "stride", "numel", "is_contiguous", "is_floating_point"}


def folded_norms(network: DenseClassifier, n_images: int) -> "FoldedNorms | None":
    """Return what folds the norms of a network in a pass over images; None where that is not worth it, or not safe.

    The first batch should be of one image.
    """
    if n_images < _LEAST_IMAGES or network.preprocessor.image_size < _LEAST_SIDE:
        return None
    parts = list(network.modules())
    has_norms = any(isinstance(part, nn.BatchNorm2d) for part in parts)
    as_it_is = network.device.type in SLOWER_ON or any(map(_must_stay, parts))
    return FoldedNorms() if has_norms and not as_it_is else None


def _must_stay(part: nn.Module) -> bool:
    """Tell whether a module could read the output of a convolution where no function of torch is called."""
    # Compiled code, which folds by itself; and hooks of the user, who would see normalised outputs.
    is_code = isinstance(part, torch.jit.ScriptModule) or is_compiled(part) or "forward" in vars(part)
    hooks = [*part._forward_hooks.values(), *part._forward_pre_hooks.values()]
    return is_code or not all(getattr(hook, "__module__", "").startswith("skdfb.") for hook in hooks)


def folded_trunk(network: DenseClassifier) -> "FoldedNorms | None":
    """Return what folds the frozen norms of a network in the steps of its training; None if there are none."""
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d) and not part.training]
    frozen = [norm for norm in norms if not any(parameter.requires_grad for parameter in norm.parameters())]
    folded = folded_norms(network, _LEAST_IMAGES) if frozen else None
    if folded is None:
        return None
    # A black image, not the first batch: a training that is continued has another first batch, and must end with the
    # bits of one without interruption.
    size = network.preprocessor.image_size
    example = torch.zeros(1, network.preprocessor.n_channels, size, size, device=network.device, dtype=network.dtype)
    with torch.no_grad(), isolated_rng(0), evaluation_mode(network):
        folded.run(lambda: network.feature_map(example))
    folded.keep_only([norm.running_mean for norm in frozen])
    return folded


class FoldedNorms:
    r"""Leaves out batch normalisation that follows a convolution, in the batches of one pass over images.

    In evaluation it is a multiplication and an addition for each channel, which the convolution can do:

    .. math:: s \, (W * x + b - \mu) + \beta = (s W) * x + s \, (b - \mu) + \beta, \qquad
        s = \gamma / \sqrt{\sigma^2 + \epsilon}

    with mean μ and variance σ² of the training. The first batch is computed as usual, and shows which normalisation
    gets the output of which convolution. A convolution stays as it is if another function of torch reads its output.
    What reads it without such a function, such as code in C++, would get the normalised output.

    No module is changed, so other threads can use the network at the same time. Weights are folded anew in each batch,
    since a network may change its own.
    """

    def __init__(self) -> None:
        self._norms: dict[_Key, _Norm] | None = None

    def run(self, compute: Callable[[], Result]) -> Result:
        """Return ``compute()``, which passes a batch through networks.

        It is called again, with all that it does beside, if a convolution turns out to be read by something else.
        """
        if self._norms is None:
            with _Learning() as learning:
                result = compute()
            self._norms = learning.norms()  # not after an error, which may have come before the last layers
            return result
        if self._norms:
            try:
                with _Folding(self._norms) as folding:
                    result = compute()
                folding.check_all_normalised()
                return result
            except _OutputReadError:  # the way through the network depends on the images
                self._norms = {}
        return compute()

    def keep_only(self, means: Iterable[Tensor | None]) -> None:
        """Fold only the norms that have these running means."""
        kept = {id(mean) for mean in means}
        self._norms = {key: norm for key, norm in (self._norms or {}).items() if id(norm.running_mean) in kept}


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


class _Key:
    """Weight and bias of a convolution, by their identity."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.tensors = weight, bias  # kept, so that no other tensors get their identity

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and all(one is two for one, two in zip(self.tensors, other.tensors, strict=True))

    def __hash__(self) -> int:
        return hash(tuple(map(id, self.tensors)))


class _Learning(TorchFunctionMode):
    """Notes which normalisation gets the output of which convolution, while all is computed as usual."""

    def __init__(self) -> None:
        super().__init__()
        # Outputs of convolutions by their identity, as long as they exist.
        self._outputs: dict[int, tuple[weakref.ref[Tensor], _Key]] = {}
        self._norms: dict[_Key, _Norm] = {}
        self._n_computed: Counter[_Key] = Counter()
        self._n_normalised: Counter[_Key] = Counter()
        self._others: set[_Key] = set()  # convolutions whose output is read by something else

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        read = [self._outputs[id(tensor)][1] for tensor in _tensors(args, kwargs) if id(tensor) in self._outputs]
        result = func(*args, **kwargs)
        if read and not (func.__name__ in _METADATA and not isinstance(result, Tensor)):
            norm = _norm_of(func, args, kwargs) if len(read) == 1 else None
            if norm is not None and norm.is_same(self._norms.setdefault(read[0], norm)):
                self._n_normalised[read[0]] += 1
            else:
                self._others.update(read)
        if func is F.conv2d and (key := _key_of(args, kwargs)) is not None:
            place = id(result)
            self._outputs[place] = weakref.ref(result, lambda _: self._outputs.pop(place, None)), key
            self._n_computed[key] += 1
        return result

    def norms(self) -> dict[_Key, _Norm]:
        """Return the normalisations that can be left out, by the convolution before."""
        # Each output must be normalised once, by the same norm.
        once = {key for key, n in self._n_computed.items() if self._n_normalised[key] == n}
        return {key: norm for key, norm in self._norms.items() if key in once - self._others}


class _Folding(TorchFunctionMode):
    """Convolves with folded weights, and returns the output as that of the normalisation."""

    def __init__(self, norms: Mapping[_Key, _Norm]) -> None:
        super().__init__()
        self._norms = norms
        self._folded: dict[_Key, tuple[Tensor, Tensor]] = {}
        # Outputs of folded convolutions by their identity: those to be normalised, and those that were.
        self._open: dict[int, tuple[Tensor, _Norm]] = {}
        self._done: dict[int, weakref.ref[Tensor]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        key = _key_of(args, kwargs) if func is F.conv2d else None
        if key is not None and key in self._norms and not self._may_learn(key):
            return self._convolved(key, args, kwargs)
        read = [id(tensor) for tensor in _tensors(args, kwargs) if id(tensor) in self._open or id(tensor) in self._done]
        if not read:
            return func(*args, **kwargs)
        norm = _norm_of(func, args, kwargs)
        if norm is not None and len(read) == 1 and read[0] in self._open:
            output, expected = self._open[read[0]]
            if norm.is_same(expected):
                return self._normalised(output)
        if func.__name__ in _METADATA:
            result = func(*args, **kwargs)
            if not isinstance(result, Tensor):
                return result
        raise _OutputReadError

    def _may_learn(self, key: _Key) -> bool:
        """Tell whether a gradient of the convolution or of its norm may be asked for, which folding would lose."""
        tensors = (*key.tensors, self._norms[key].weight, self._norms[key].bias)
        return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)

    def _convolved(self, key: _Key, args: Any, kwargs: Mapping[str, Any]) -> Tensor:
        norm = self._norms[key]
        if key not in self._folded:
            with torch.inference_mode(False), torch.no_grad():
                self._folded[key] = norm.folded_into(*key.tensors)
        options = {name: value for name, value in kwargs.items() if name != "bias"}
        output: Tensor = F.conv2d(args[0], *self._folded[key], *args[3:], **options)
        self._open[id(output)] = output, norm
        return output

    def _normalised(self, output: Tensor) -> Tensor:
        """Return the output as another tensor: from now on, nothing may read the one of the convolution."""
        place = id(output)
        del self._open[place]
        self._done[place] = weakref.ref(output, lambda _: self._done.pop(place, None))
        return output.view_as(output)

    def check_all_normalised(self) -> None:
        """Raise an error if an output was returned as it is."""
        if self._open:
            raise _OutputReadError


class _OutputReadError(Exception):
    """The output of a folded convolution is not only normalised."""


def _key_of(args: Any, kwargs: Mapping[str, Any]) -> _Key | None:
    """Return the convolution; None if its weight or bias is computed anew each time, or has few bits."""
    if len(args) < 2:
        return None
    weight, bias = args[1], args[2] if len(args) > 2 else kwargs.get("bias")
    # Tensors that are no parameters are computed, as by weight standardisation.
    is_fixed = isinstance(weight, nn.Parameter) and (bias is None or isinstance(bias, nn.Parameter))
    return _Key(weight, bias) if is_fixed and weight.dtype in (torch.float32, torch.float64) else None


def _norm_of(func: Any, args: Any, kwargs: Mapping[str, Any]) -> _Norm | None:
    """Return the normalisation of a map that a function is, if it does not depend on the batch."""
    if func is not F.batch_norm or len(args) < 3 or args[0].dim() != 4:
        return None
    norm = _Norm(*args[1:], **kwargs)
    return None if norm.training or norm.running_mean is None or norm.running_var is None else norm


def _tensors(args: Any, kwargs: Mapping[str, Any]) -> list[Tensor]:
    """Return the tensors among arguments, and in lists of them."""
    values = [*args, *kwargs.values()]
    flat = [item for value in values for item in (value if isinstance(value, list | tuple) else [value])]
    return [item for item in flat if isinstance(item, Tensor)]
