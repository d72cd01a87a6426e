"""From objects to JSON and tensors."""

import math
import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skdfb._registry import registered_name
from skdfb.networks import DenseClassifier
from skdfb.networks._records import backbone_record, frozen_weights
from skdfb.networks._unwrap import unwrapped
from skdfb.persistence._classes import qualified_name

__all__ = ["Encoder"]

Node = Any  # a JSON value

# Number of floats from which a list is stored as a tensor: the losses of a training would make the JSON large.
_LONG = 16


class Encoder:
    """Turns an object into a JSON value. Large parts become tensors, which are stored by name.

    Numbers, strings, None and lists are stored as they are. Everything else is a JSON object with the key ``"is"``,
    which names its kind; the methods below show the entries of each kind. The name of a tensor is the path to its
    node, such as ``"model.classifier_.weight"``. An object that occurs twice is stored once.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._paths: dict[int, str] = {}
        # Encoded objects, kept alive: Python gives the id of a freed object to a new one.
        self._encoded: list[Any] = []
        self._storages: set[int] = set()

    def encode(self, value: Any, path: str) -> Node:
        """Return the node of a value; ``path`` must be unique among all nodes.

        Raises
        ------
        TypeError
            If the value cannot be stored, or holds something that cannot be stored.
        """
        if isinstance(value, Enum):  # first: some members are strings or numbers as well
            return {"is": "enum", "custom": qualified_name(type(value)), "name": value.name}
        # Numbers by type(), not isinstance(): numpy.float64 is a subclass, which JSON would not keep.
        if value is None or isinstance(value, bool | str) or type(value) is int:
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"is": "float", "value": repr(value)}
        if isinstance(value, np.generic):
            return {"is": "number", "dtype": value.dtype.str, "value": self.encode(value.item(), path)}
        if isinstance(value, list | tuple | Mapping) and not hasattr(value, "_fields"):
            return self._container(value, path)
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if id(value) in self._paths:
            return {"is": "same", "as": self._paths[id(value)]}
        self._paths[id(value)] = path
        self._encoded.append(value)
        return self._object(value, path)

    def _add(self, path: str, tensor: Tensor) -> None:
        """Keep a tensor for the file."""
        if path in self.tensors:
            raise TypeError(f"two values have the path {path!r}, so they cannot be saved: rename one of them.")
        tensor = tensor.detach().cpu().contiguous()
        # safetensors refuses tensors that share memory, such as tied weights or two views of one array.
        storage = tensor.untyped_storage().data_ptr()
        self.tensors[path] = tensor.clone() if storage in self._storages else tensor
        self._storages.add(storage)

    def _container(self, value: Any, path: str) -> Node:
        if isinstance(value, Mapping):
            keys = [self.encode(key, f"{path}.key{place}") for place, key in enumerate(value)]
            # By position, not by key: {"a": {"b": x}, "a.b": y} would give two values the same path.
            values = [self.encode(item, f"{path}.{place}") for place, item in enumerate(value.values())]
            return {"is": "map", "keys": keys, "values": values}
        if len(value) >= _LONG and all(type(item) is float for item in value):
            self._add(path, torch.tensor(value, dtype=torch.float64))
            return {"is": "floats", "tuple": isinstance(value, tuple)}
        items = [self.encode(item, f"{path}.{place}") for place, item in enumerate(value)]
        return {"is": "tuple", "items": items} if isinstance(value, tuple) else items

    def _object(self, value: Any, path: str) -> Node:
        """Return the node of an object that is stored once, however often it occurs."""
        if isinstance(value, np.ndarray):
            return self._array(value, path)
        if isinstance(value, Tensor):
            self._add(path, value)
            return {"is": "tensor"}
        if isinstance(value, torch.device):
            return {"is": "device", "value": str(value)}
        if isinstance(value, np.random.RandomState):
            return {"is": "random state", "state": self.encode(value.get_state(legacy=False), f"{path}.state")}
        if isinstance(value, nn.Module):
            value = unwrapped(value)
        # A network is a module, too, but its backbone and its head are stored apart.
        if isinstance(value, DenseClassifier):
            return self._network(value, path)
        if isinstance(value, nn.Module):
            return self._module(value, path)
        return self._instance(value, path)

    def _array(self, array: np.ndarray[Any, Any], path: str) -> Node:
        # Strings and objects: tensors hold numbers only.
        if array.dtype.kind in "OUS":
            items = [self.encode(item, f"{path}.{place}") for place, item in enumerate(array.ravel().tolist())]
            return {"is": "array", "dtype": array.dtype.str, "shape": list(array.shape), "items": items}
        # The memory order is kept: matrix products round differently for arrays that are stored by columns.
        by_columns = array.flags.f_contiguous and not array.flags.c_contiguous
        rows = np.ascontiguousarray(array.T if by_columns else array, dtype=array.dtype.newbyteorder("="))
        # torch warns of arrays that cannot be written to.
        self._add(path, torch.from_numpy(rows if rows.flags.writeable else rows.copy()))
        return {"is": "array", "dtype": rows.dtype.str, "shape": list(array.shape), "order": "F" if by_columns else "C"}

    def _network(self, network: DenseClassifier, path: str) -> Node:
        self._add(f"{path}.weight", network.head.weight)
        self._add(f"{path}.bias", network.head.bias)
        return {
            "is": "network",
            "backbone": self.encode(network.feature_map.backbone, f"{path}.backbone"),
            "preprocessor": self.encode(network.preprocessor, f"{path}.preprocessor"),
            "frozen": frozen_weights(network.head),
        } | ({} if network.classes is None else {"classes": self.encode(network.classes, f"{path}.classes")})

    def _module(self, module: nn.Module, path: str) -> Node:
        # A timm backbone is stored by name and options, so that loading it needs no class from the caller.
        arguments = backbone_record(module)
        node: dict[str, Any] = {"is": "module"}
        if arguments is None:
            node["class"] = qualified_name(type(module))
        else:
            node["arguments"] = self.encode(arguments, f"{path}.arguments")
        names = []
        for name, tensor in module.state_dict().items():
            # get_extra_state() of a module may return any object, which only pickle could store.
            if not isinstance(tensor, Tensor):
                raise TypeError(
                    f"{path} is a {type(module).__name__} with extra state, {name!r}, which cannot be saved."
                )
            self._add(f"{path}.{name}", tensor)
            names.append(name)
        return node | {"weights": names, "frozen": frozen_weights(module)}

    def _instance(self, value: Any, path: str) -> Node:
        """Return the node of an estimator, a dataclass, a named tuple or any other object with attributes."""
        name, state = registered_name(type(value)), _state_of(value)
        if name is not None and state is not None:
            # The state of the library's own classes does not depend on it, and equal models give equal files.
            state.pop("_sklearn_version", None)
        if state is None or (name is None and type(value).__module__ == "builtins"):
            raise TypeError(
                f"{path} is {value!r}, a {type(value).__name__}, which cannot be saved: expected a number, string, "
                "array, tensor, list, tuple, dict, module or instance of a class."
            )
        kind = {"custom": qualified_name(type(value))} if name is None else {"class": name}
        return (
            {"is": "instance"}
            | kind
            | {"state": {key: self.encode(item, f"{path}.{key}") for key, item in state.items()}}
        )


def _state_of(value: Any) -> dict[str, Any] | None:
    """Return the attributes of an instance by name; None for an object that has no such state, like a function."""
    if isinstance(value, type):
        return None
    # Named tuples and dataclasses are made again by their constructor, from their fields alone.
    if hasattr(value, "_fields"):
        return dict(value._asdict())
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    state = value.__getstate__() if hasattr(value, "__dict__") else ()
    if state is None and not callable(value):
        return {}  # an instance without attributes
    return dict(state) if isinstance(state, dict) else None
