"""Detectors in files of format 1, which had no joint score, as they are now."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.base import clone

from skdfb._registry import register_class, register_upgrade
from skdfb.detector._dfb import DFBDetector
from skdfb.images._checks import IMAGES_BEFORE_RANGES
from skdfb.networks._upgrade import upgrade_backbone
from skdfb.scorers import ViM
from skdfb.scoring import HeldOutSplit, JointScore
from skdfb.scoring._parts import BACKGROUND, CLASSIFIER, DENSE, FOREGROUND

__all__: list[str] = []

State = dict[str, Any]


# What a detector of format 1 was made of.


class _FormerPart(NamedTuple):
    view: str
    scorer: Any


@dataclass(frozen=True)
class _FormerParts:
    parts: Mapping[str, _FormerPart]


class _FormerSplit(NamedTuple):
    train: npt.NDArray[np.intp]
    held_out: npt.NDArray[np.intp]
    labels: npt.NDArray[np.intp]


register_class(_FormerPart, "Part")
register_class(_FormerParts, "PartScorers")
register_class(_FormerSplit, "Split")


def _upgrade_dfb(state: State) -> State:
    # The oldest files lack the youngest parameters of that format.
    views = _views(state.pop("foreground_network", "dense"), state.pop("foreground_pooling", "image"))
    recipe_name, every = state.pop("recipe", "default"), state.pop("checkpoint_every", 500)
    state.pop("deterministic", None)
    # The recipe gave values to parameters that were None, and only to those.
    if recipe_name == "paper":
        recipe = DFBDetector.paper(state["backbone"]).get_params(deep=False)
        names = ("background_scorer", "fusion", "classifier_trainer", "dense_trainer", "image_size")
        state |= {name: recipe[name] for name in names if state[name] is None}
    # It was a parameter of the detector, and is one of its trainers.
    for name in ("classifier_trainer", "dense_trainer"):
        if state[name] is not None:
            state[name].checkpoint_every = every
    upgrade_backbone(state)
    # A single scorer on the dense network is what a scorer without a list still means.
    if list(views) != ["foreground"] or views["foreground"] != DENSE:
        scorer = ViM() if state["scorer"] is None else state["scorer"]
        state["scorer"] = [(name, view, clone(scorer, safe=False)) for name, view in views.items()]
    return _upgrade_fitted_dfb(state, views) if "_parts_" in state else state


def _views(network: str, pooling: str) -> dict[str, str]:
    """Return the views of the foreground parts by their names."""
    dense = FOREGROUND if pooling == "foreground" else DENSE
    if network == "both":
        return {"foreground_dense": dense, "foreground_plain": CLASSIFIER}
    return {"foreground": CLASSIFIER if network == "plain" else dense}


def _upgrade_fitted_dfb(state: State, views: Mapping[str, str]) -> State:
    parts = [(name, views.get(name, BACKGROUND), part.scorer) for name, part in state.pop("_parts_").parts.items()]
    joint_score = _joint_score(parts, state["fusion"], state["alpha"], state.pop("calibrator_"))
    joint_score.fusion_ = state.pop("fusion_")
    joint_score._group_fusions_ = state.pop("_group_fusions_")
    split = state["_split_"]
    # These are properties now, which read the joint score.
    for name in ("offset_", "part_scorers_", "scorer_", "background_scorer_"):
        del state[name]
    return state | {
        "joint_score_": joint_score,
        "dense_network_": state.pop("network_"),
        "_split_": HeldOutSplit(split.train, split.held_out),
        "_labels_": split.labels,
        "_groups_": None,
        "_n_own_": None,
        "calibration_fraction_": len(split.held_out) / len(split.labels),
        "pretrained_network_": None,
        "heads_": {},
        "reference_": None,
        "image_shape_": state["image_shape"],
        **IMAGES_BEFORE_RANGES,
    }


def _upgrade_features(state: State) -> State:
    if "scorer_" in state:
        parts = [("foreground", CLASSIFIER, state.pop("scorer_"))]
        # A single part stays as it is, without a fusion.
        state["joint_score_"] = _joint_score(parts, None, state["alpha"], state.pop("calibrator_"))
        # The number of rows was not kept, so this is the requested share, which rounding may have changed a little.
        state["calibration_fraction_"] = float(state["calibration_fraction"])
        del state["offset_"]
    return state


def _joint_score(parts: list[tuple[str, str, Any]], fusion: Any, alpha: float, calibrator: Any) -> JointScore:
    """Return a fitted joint score without a fitted fusion."""
    # Parameters are unfitted clones, so that clone and refit start anew.
    unfitted = [(name, view, clone(scorer, safe=False)) for name, view, scorer in parts]
    joint_score = JointScore(unfitted, fusion=fusion, alpha=alpha)
    joint_score.parts_, joint_score.fusion_, joint_score._group_fusions_ = parts, None, {}
    joint_score.calibrator_, joint_score.offset_, joint_score.part_tails_ = calibrator, calibrator.offset_, None
    return joint_score


register_upgrade("DFBDetector", 1, _upgrade_dfb)
register_upgrade("FeatureDetector", 1, _upgrade_features)
