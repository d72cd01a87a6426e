"""What a saved model is, read from its file: nothing is built and nothing is run."""

import json
import os
from pathlib import Path
from typing import Any

from torch import Tensor

from skdfb.exceptions import InvalidModelError
from skdfb.persistence._save_load import check_document, check_is_file, invalid_file
from skdfb.utils import read_file

__all__ = ["describe"]


def describe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what the file of a saved model says of it.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    description : dict
        With the keys

        - ``class``: the name of the model's class;
        - ``format``, ``versions``: the format of the file, and the versions of the packages that wrote it;
        - ``parameters``: those of the constructor by name; objects are the name of their class;
        - ``classes``: the labels of a fitted detector, else None;
        - ``image_size``: the side of the network's input in pixels, None if it has none;
        - ``parts``: (name, view, class of the scorer) of each part of the joint score;
        - ``offset``: the threshold, None if the model has none;
        - ``n_images``, ``n_held_out``: number of images of ``fit``, and of those that set the threshold, or None;
        - ``n_numbers``: how many numbers the file holds.

    Raises
    ------
    skdfb.exceptions.InvalidModelError
        If the file is incomplete, was changed, or is not a saved model.
    FileNotFoundError
        If there is no such file.
    """
    path = Path(path)
    check_is_file(path)
    with invalid_file(path):
        text, tensors = read_file(path)
        document = json.loads(text)
        check_document(document)
        model = document["model"]
        if not isinstance(model, dict) or model.get("is") != "instance":
            raise InvalidModelError("it does not hold an estimator")
        state = model["state"]
        # Models of format 1 hold no joint score, but its results themselves.
        joint_score = state.get("joint_score_", {"state": state})["state"]
        labels = tensors.get("model._labels_")
        held_out = tensors.get("model.joint_score_.calibrator_.scores_")
        return {
            "class": _plain(model),
            "format": document["format"],
            "versions": document["versions"],
            "parameters": {name: _plain(node) for name, node in state.items() if name[0] != "_" != name[-1]},
            "image_size": _image_size(state.get("classifier_")),
            "parts": [tuple(_plain(part)) for part in joint_score.get("parts_", [])],
            "classes": _labels(state.get("classes_"), tensors.get("model.classes_")),
            "offset": _plain(joint_score.get("offset_")),
            "n_images": None if labels is None else len(labels),
            "n_held_out": None if held_out is None else len(held_out),
            "n_numbers": sum(tensor.numel() for tensor in tensors.values()),
        }


def _labels(node: Any, tensor: Tensor | None) -> list[Any] | None:
    """Return class labels; numbers are stored as a tensor, all others in the node."""
    if node is None:
        return None
    labels: list[Any] = tensor.tolist() if tensor is not None else _plain(node)
    return labels


def _image_size(network: Any) -> int | None:
    return None if network is None else _plain(network["preprocessor"]["state"]["image_size"])


def _plain(node: Any) -> Any:
    """Return a node as numbers, texts and lists; of objects, the name of their class."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    kind = node["is"]
    if "items" in node:  # a tuple, or an array of texts
        return [_plain(item) for item in node["items"]]
    if kind == "map":
        return dict(zip(map(str, map(_plain, node["keys"])), map(_plain, node["values"]), strict=True))
    if kind == "float":
        return float(node["value"])
    if kind == "enum":
        return node["name"]
    if kind == "instance":
        return node["class"] if "class" in node else node["custom"]
    if kind == "module":
        return _plain(node["arguments"])["name"] if "arguments" in node else node["class"]
    if kind == "network":
        return _plain(node["backbone"])
    return node.get("value", kind)
