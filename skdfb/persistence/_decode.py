"""From JSON and tensors to objects. The content of a file is not trusted, and none of it is run.

Classes are never imported by their names in the file, which could name any code that is installed. Values that decide
how much memory is used are checked first.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from enum import Enum
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

# Pixels. A new network is run on one image of its size: a huge number in the file must not fill the memory.
_LARGEST_SIDE = 8192


class Decoder:
    """Builds the object that :class:`Encoder` stored.

    Classes of the library are looked up in its registry, all others in ``customs`` by their qualified name. Each
    tensor is read exactly once: ``unread`` holds the rest.
    """

    def __init__(self, tensors: Mapping[str, Tensor], customs: Mapping[str, Any], file_format: int = FORMAT) -> None:
        self.unread = dict(tensors)
        self.file_format = file_format
        self.customs = customs
        self.networks: list[DenseClassifier] = []
        # Objects by path. A node "same" refers to one of them, so that shared objects are shared again.
        self._decoded: dict[str, Any] = {}

    def decode(self, node: Any, path: str) -> Any:
        """Return the value of a node.

        Raises
        ------
        InvalidModelError
            If the node has a form that the encoder does not write.
        """
        if node is None or isinstance(node, bool | int | float | str):
            return node
        if isinstance(node, list):
            return [self.decode(item, f"{path}.{place}") for place, item in enumerate(node)]
        kind = node.get("is") if isinstance(node, dict) else None
        reader = _READERS.get(kind) if isinstance(kind, str) else None
        if reader is None:
            raise InvalidModelError(f"{path} is of the unknown kind {kind!r}")
        self._decoded[path] = value = reader(self, node, path)
        return value

    # Each method below reads one kind of node. They let KeyError, TypeError and the like pass: `load` turns
    # every error into an InvalidModelError.

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
        # Paths must be those that the encoder used, since tensors are stored by path. Format 1 put keys into them.
        by_key = self.file_format == 1
        paths = [f"{path}.{key if by_key and isinstance(key, str) else place}" for place, key in enumerate(keys)]
        items = [self.decode(value, at) for value, at in zip(values, paths, strict=True)]
        return dict(zip(keys, items, strict=True))

    def _same(self, node: Any, path: str) -> Any:
        return self._decoded[_field(node, "as", str, path)]

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
        # Strings and objects: no tensor can hold them.
        if "items" in node:
            if dtype.kind not in "OUS":
                raise InvalidModelError(
                    f"{path} is a list of items of dtype {dtype}: expected strings or objects, as numbers are tensors"
                )
            items = self.decode(_field(node, "items", list, path), path)
            # As long as the items, not as the shape: the shape in the file may be of any size.
            flat = np.empty(len(items), dtype=dtype)
            flat[:] = items
            return flat.reshape(shape)
        array: np.ndarray[Any, Any] = self._tensor_at(path).numpy()
        array = array.T if node.get("order") == "F" else array
        if array.dtype != dtype or array.shape != shape:
            raise InvalidModelError(
                f"{path} is an array of shape {array.shape} and dtype {array.dtype}: expected {shape} and {dtype}"
            )
        return array

    def _network(self, node: Any, path: str) -> DenseClassifier:
        backbone = self.decode(node.get("backbone"), f"{path}.backbone")
        preprocessor = self.decode(node.get("preprocessor"), f"{path}.preprocessor")
        weight, bias = self._tensor_at(f"{path}.weight"), self._tensor_at(f"{path}.bias")
        if not isinstance(backbone, nn.Module) or not isinstance(preprocessor, Preprocessor) or weight.ndim != 2:
            raise InvalidModelError(
                f"{path} is not a network: expected a backbone, a preprocessor and a matrix of weights"
            )
        if not 0 < preprocessor.image_size <= _LARGEST_SIDE:
            raise InvalidModelError(
                f"{path} takes images of {preprocessor.image_size} pixels: expected 1..{_LARGEST_SIDE}"
            )
        classes = self.decode(node["classes"], f"{path}.classes") if "classes" in node else None
        network = DenseClassifier(backbone, len(weight), image_size=preprocessor.image_size)
        network.classes = classes if isinstance(classes, list) else None
        network.preprocessor = preprocessor
        # assign=True takes the tensors of the file themselves: their dtype stays, and no second copy is made.
        network.head.load_state_dict({"weight": weight, "bias": bias}, assign=True)
        _freeze(network.head, node)
        self.networks.append(network.eval())
        return network

    def _module(self, node: Any, path: str) -> nn.Module:
        names = _field(node, "weights", list, path)
        weights = {name: self._tensor_at(f"{path}.{name}") for name in names}
        # A timm backbone: built from its name and options, on the meta device first. That device takes no memory, so
        # a name of a giant network is refused before it is built.
        if "arguments" in node:
            return _freeze(built_backbone(self.decode(node["arguments"], f"{path}.arguments"), weights), node)
        module = self._custom(_field(node, "class", str, path), path)
        # The caller passes a module, or a class or function that makes one. A module can be callable, too.
        module = module() if isinstance(module, type) or not isinstance(module, nn.Module) else module
        if not isinstance(module, nn.Module):
            raise TypeError(f"customs returned a {type(module).__name__} for {path}: expected an nn.Module.")
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
                    f"{path} is of the class {name!r}, which this version does not have, or the package of this class "
                    "is not imported: use skdfb.load"
                )
        # First decode, then upgrade: the paths of the tensors are those of the file's own format.
        values = {key: self.decode(item, f"{path}.{key}") for key, item in state.items()}
        if "class" in node:
            values = upgraded(name, values, self.file_format, FORMAT)
        return _with_state(cls, values, path)

    def _enum(self, node: Any, path: str) -> Enum:
        enumeration, name = self._custom(_field(node, "custom", str, path), path), _field(node, "name", str, path)
        if not (isinstance(enumeration, type) and issubclass(enumeration, Enum)) or name not in enumeration.__members__:
            raise InvalidModelError(
                f"{path} is the member {name!r} of the enumeration {node['custom']!r}, which the class in customs lacks"
            )
        return enumeration.__members__[name]

    def _custom(self, name: str, path: str) -> Any:
        if name not in self.customs:
            raise InvalidModelError(
                f"{path} is of the class {name!r}, which is not part of skdfb; if you trust it, pass "
                f"load(path, customs=[{name.rpartition('.')[2]}]), or a mapping from that name to a function that "
                "makes the object"
            )
        return self.customs[name]

    def _tensor_at(self, path: str) -> Tensor:
        if path not in self.unread:
            raise InvalidModelError(f"the tensor {path!r} is missing, or is used twice")
        return self.unread.pop(path)


# The values of "is", which the encoder writes.
_READERS: dict[str, Callable[[Decoder, Any, str], Any]] = {
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
    "enum": Decoder._enum,
}


def _field(node: Any, name: str, kind: type, path: str) -> Any:
    """Return an entry of a node if it has the expected type."""
    value = node.get(name)
    if not isinstance(value, kind):
        raise InvalidModelError(f"{path} has no entry {name!r} of type {kind.__name__}")
    return value


def _freeze(module: nn.Module, node: Any) -> nn.Module:
    """Freeze the weights that were frozen when the model was saved. The oldest files have no list of them."""
    if "frozen" in node:
        freeze_weights(module, _field(node, "frozen", list, "a module"))
    return module


def _dtype(node: Any, path: str) -> np.dtype[Any]:
    """Return the dtype of a node; refuse records, and strings of a length that would fill the memory."""
    dtype: np.dtype[Any] = np.dtype(_field(node, "dtype", str, path))
    if dtype.kind not in "biufcOUS" or dtype.itemsize > 2**16:
        raise InvalidModelError(f"{path} has the dtype {dtype}: expected numbers, objects or short strings")
    return dtype


def _defaults(cls: type[BaseEstimator]) -> dict[str, Any]:
    """Return the defaults of parameters. An old file may lack newer parameters: their defaults keep its behaviour."""
    signature = inspect.signature(cls.__init__)
    return {
        name: parameter.default
        for name in cls._get_param_names()
        if (parameter := signature.parameters[name]).default is not parameter.empty
    }


def _with_state(cls: Any, values: dict[str, Any], path: str) -> Any:
    """Return an instance with these attributes.

    ``cls`` is trusted: it belongs to the library, or the caller passed it. ``values`` come from the file and are not.
    """
    if hasattr(cls, "_fields"):
        return cls(**values)
    if dataclasses.is_dataclass(cls):
        if set(values) != {field.name for field in dataclasses.fields(cls)}:
            raise InvalidModelError(f"{path} has the fields {sorted(values)}, which are not those of its class")
        return cast(Any, cls)(**values)
    if issubclass(cls, BaseEstimator):
        values = values | {name: value for name, value in _defaults(cls).items() if name not in values}
        parameters = set(cls._get_param_names())
        # An attribute of the file must not hide a method or property, such as score_samples.
        unexpected = [
            name for name in values if name not in parameters and (hasattr(cls, name) or not name.isidentifier())
        ]
        missing = parameters - set(values)
        if unexpected or missing:
            raise InvalidModelError(
                f"{path}, a {cls.__name__}, lacks the parameters {sorted(missing)} or has the unexpected attributes "
                f"{unexpected}"
            )
    # Without __init__: it would reset what fit had set. scikit-learn's own __setstate__ compares versions, so the
    # library's classes, whose files have no scikit-learn version, do not use it.
    made: Any = object.__new__(cls)
    if qualified_name(cls).startswith("skdfb.") or not hasattr(cls, "__setstate__"):
        made.__dict__.update(values)
    else:
        made.__setstate__(values)
    return made
