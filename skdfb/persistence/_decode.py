"""From JSON and tensors to objects. Nothing that a file says is trusted, and nothing in it is run."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import Tensor, nn

from skdfb._registry import registered_class, upgraded
from skdfb.exceptions import InvalidModelError
from skdfb.images import Preprocessor
from skdfb.networks import DenseClassifier
from skdfb.networks._records import built_backbone, freeze_weights
from skdfb.persistence._classes import qualified_name
from skdfb.persistence._format import FORMAT

__all__ = ["Decoder"]

_LARGEST_SIDE = 8192  # pixels; a network is tried on one image of its size


class Decoder:
    """Makes the object again that :class:`Encoder` has stored.

    Classes are looked up among the registered ones of the library; others are taken from ``customs``, by their
    qualified name. Each tensor must be read exactly once.
    """

    def __init__(self, tensors: Mapping[str, Tensor], customs: Mapping[str, Any], file_format: int = FORMAT) -> None:
        self.unread = dict(tensors)
        self.file_format = file_format
        self.customs = customs
        self.networks: list[DenseClassifier] = []
        self._made: dict[str, Any] = {}

    def decode(self, node: Any, path: str) -> Any:
        """Return the value of a node.

        Raises
        ------
        InvalidModelError
            If the encoder does not write such nodes.
        """
        if node is None or isinstance(node, bool | int | float | str):
            return node
        if isinstance(node, list):
            return [self.decode(item, f"{path}.{place}") for place, item in enumerate(node)]
        kind = node.get("is") if isinstance(node, dict) else None
        maker = _MAKERS.get(kind) if isinstance(kind, str) else None
        if maker is None:
            raise InvalidModelError(f"{path} is of the unknown kind {kind!r}")
        self._made[path] = made = maker(self, node, path)
        return made

    # Each of these reads one kind of node.

    def _float(self, node: Any, path: str) -> float:
        values = {"inf": float("inf"), "-inf": float("-inf"), "nan": float("nan")}
        return values[_field(node, "value", str, path)]

    def _number(self, node: Any, path: str) -> Any:
        dtype = _dtype(node, path)
        return dtype.type(self.decode(node.get("value"), path))

    def _floats(self, node: Any, path: str) -> Any:
        values = self._tensor_at(path).tolist()
        return tuple(values) if node.get("tuple") is True else values

    def _tuple(self, node: Any, path: str) -> tuple[Any, ...]:
        return tuple(self.decode(_field(node, "items", list, path), path))

    def _map(self, node: Any, path: str) -> dict[Any, Any]:
        keys, values = (_field(node, name, list, path) for name in ("keys", "values"))
        keys = [self.decode(key, f"{path}.key{place}") for place, key in enumerate(keys)]
        by_key = self.file_format == 1  # which had the keys in the paths
        paths = [f"{path}.{key if by_key and isinstance(key, str) else place}" for place, key in enumerate(keys)]
        items = [self.decode(value, at) for value, at in zip(values, paths, strict=True)]
        return dict(zip(keys, items, strict=True))

    def _same(self, node: Any, path: str) -> Any:
        return self._made[_field(node, "as", str, path)]

    def _device(self, node: Any, path: str) -> torch.device:
        return torch.device(_field(node, "value", str, path))

    def _random_state(self, node: Any, path: str) -> np.random.RandomState:
        random_state = np.random.RandomState(0)
        random_state.set_state(self.decode(node.get("state"), f"{path}.state"))
        return random_state

    def _tensor(self, node: Any, path: str) -> Tensor:
        return self._tensor_at(path)

    def _array(self, node: Any, path: str) -> np.ndarray[Any, Any]:
        dtype, shape = _dtype(node, path), tuple(_field(node, "shape", list, path))
        if "items" in node:
            if dtype.kind not in "OUS":
                raise InvalidModelError(f"{path} has items of dtype {dtype}")
            items = self.decode(_field(node, "items", list, path), path)
            flat = np.empty(len(items), dtype=dtype)
            flat[:] = items
            return flat.reshape(shape)
        array: np.ndarray[Any, Any] = self._tensor_at(path).numpy()
        array = array.T if node.get("order") == "F" else array
        if array.dtype != dtype or array.shape != shape:
            raise InvalidModelError(f"{path} is an array {array.shape} of {array.dtype}, not {shape} of {dtype}")
        return array

    def _network(self, node: Any, path: str) -> DenseClassifier:
        backbone = self.decode(node.get("backbone"), f"{path}.backbone")
        preprocessor = self.decode(node.get("preprocessor"), f"{path}.preprocessor")
        weight, bias = self._tensor_at(f"{path}.weight"), self._tensor_at(f"{path}.bias")
        if not isinstance(backbone, nn.Module) or not isinstance(preprocessor, Preprocessor) or weight.ndim != 2:
            raise InvalidModelError(f"{path} is no network")
        if not 0 < preprocessor.image_size <= _LARGEST_SIDE:
            raise InvalidModelError(f"{path} takes images of {preprocessor.image_size} pixels, not 1..{_LARGEST_SIDE}")
        network = DenseClassifier(backbone, len(weight), image_size=preprocessor.image_size)
        network.preprocessor = preprocessor
        network.head.load_state_dict({"weight": weight, "bias": bias}, assign=True)
        _freeze(network.head, node)
        self.networks.append(network.eval())
        return network

    def _module(self, node: Any, path: str) -> nn.Module:
        names = _field(node, "weights", list, path)
        weights = {name: self._tensor_at(f"{path}.{name}") for name in names}
        if "arguments" in node:
            return _freeze(built_backbone(self.decode(node["arguments"], f"{path}.arguments"), weights), node)
        module = self._custom(_field(node, "class", str, path), path)
        module = module() if isinstance(module, type) or not isinstance(module, nn.Module) else module
        if not isinstance(module, nn.Module):
            raise TypeError(f"customs made a {type(module).__name__} for {path}: expected an nn.Module.")
        module.load_state_dict(weights, assign=True)
        return _freeze(module.eval(), node)

    def _instance(self, node: Any, path: str) -> Any:
        state = _field(node, "state", dict, path)
        if "custom" in node:
            cls = self._custom(_field(node, "custom", str, path), path)
        else:
            name = _field(node, "class", str, path)
            cls = registered_class(name)
            if cls is None:
                raise InvalidModelError(
                    f"{path} is of the class {name!r}, which this version does not have, or whose package is not "
                    "imported: use skdfb.load"
                )
        values = {key: self.decode(item, f"{path}.{key}") for key, item in state.items()}
        if "class" in node:
            values = upgraded(name, values, self.file_format, FORMAT)
        return _with_state(cls, values, path)

    def _custom(self, name: str, path: str) -> Any:
        if name not in self.customs:
            raise InvalidModelError(
                f"{path} is of the class {name!r}, which is not the library's; if you trust it, pass "
                f"load(path, customs=[{name.rpartition('.')[2]}]), or a mapping from that name to what makes it"
            )
        return self.customs[name]

    def _tensor_at(self, path: str) -> Tensor:
        if path not in self.unread:
            raise InvalidModelError(f"the tensor {path!r} is missing")
        return self.unread.pop(path)


_MAKERS: dict[str, Callable[[Decoder, Any, str], Any]] = {
    "float": Decoder._float,
    "number": Decoder._number,
    "floats": Decoder._floats,
    "tuple": Decoder._tuple,
    "map": Decoder._map,
    "same": Decoder._same,
    "device": Decoder._device,
    "random state": Decoder._random_state,
    "tensor": Decoder._tensor,
    "array": Decoder._array,
    "network": Decoder._network,
    "module": Decoder._module,
    "instance": Decoder._instance,
}


def _field(node: Any, name: str, kind: type, path: str) -> Any:
    value = node.get(name)
    if not isinstance(value, kind):
        raise InvalidModelError(f"{path} has no {name!r} that is a {kind.__name__}")
    return value


def _freeze(module: nn.Module, node: Any) -> nn.Module:
    """Freeze the weights that were frozen; the first files did not hold which."""
    if "frozen" in node:
        freeze_weights(module, _field(node, "frozen", list, "a module"))
    return module


def _dtype(node: Any, path: str) -> np.dtype[Any]:
    dtype: np.dtype[Any] = np.dtype(_field(node, "dtype", str, path))
    if dtype.kind not in "biufcOUS" or dtype.itemsize > 2**16:
        raise InvalidModelError(f"{path} has the dtype {dtype}")
    return dtype


def _defaults(cls: type[BaseEstimator]) -> dict[str, Any]:
    """Return the defaults of parameters, for those that a file is too old to have: they keep the former behaviour."""
    signature = inspect.signature(cls.__init__)
    return {
        name: parameter.default
        for name in cls._get_param_names()
        if (parameter := signature.parameters[name]).default is not parameter.empty
    }


def _with_state(cls: Any, values: dict[str, Any], path: str) -> Any:
    """Return an instance with these attributes; ``__init__`` and ``__setstate__`` are those of trusted classes."""
    if hasattr(cls, "_fields"):
        return cls(**values)
    if dataclasses.is_dataclass(cls):
        if set(values) != {field.name for field in dataclasses.fields(cls)}:
            raise InvalidModelError(f"{path} has other fields than its class: {sorted(values)}")
        return cast(Any, cls)(**values)
    if issubclass(cls, BaseEstimator):
        values = values | {name: value for name, value in _defaults(cls).items() if name not in values}
        parameters = set(cls._get_param_names())
        strange = [
            name for name in values if name not in parameters and (hasattr(cls, name) or not name.isidentifier())
        ]
        missing = parameters - set(values)
        if strange or missing:
            raise InvalidModelError(
                f"{path}, a {cls.__name__}, lacks the parameters {sorted(missing)} or has the attributes {strange}"
            )
    made: Any = object.__new__(cls)
    if qualified_name(cls).startswith("skdfb.") or not hasattr(cls, "__setstate__"):
        made.__dict__.update(values)
    else:
        made.__setstate__(values)
    return made
