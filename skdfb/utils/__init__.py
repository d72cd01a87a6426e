"""Devices, processes, random states, files, packed masks, groups and score arrays: helpers of the lowest layer."""

from skdfb.utils._arrays import temporary_array
from skdfb.utils._devices import (
    available_device,
    evaluation_mode,
    is_compiled,
    own_torch_modes,
    resolve_device,
    supports_float64,
)
from skdfb.utils._estimators import NestedByName, last_step, numbered, scoring_method, shallow_copy
from skdfb.utils._files import digest_of, read_file, write_file, write_text
from skdfb.utils._groups import check_groups, group_labels
from skdfb.utils._packed_masks import PackedMasks
from skdfb.utils._processes import (
    Share,
    agreed,
    gathered,
    is_first_process,
    launched_processes,
    own_work,
    share_of,
    shared_work,
    take_weights,
)
from skdfb.utils._random import NetworkDraws, isolated_rng, spawn_seeds
from skdfb.utils._scores import check_scores
from skdfb.utils._tail_probability import TAIL_RULES, TailProbability, joined_tails

__all__ = [
    "TAIL_RULES",
    "NestedByName",
    "NetworkDraws",
    "PackedMasks",
    "Share",
    "TailProbability",
    "agreed",
    "available_device",
    "check_groups",
    "check_scores",
    "digest_of",
    "evaluation_mode",
    "gathered",
    "group_labels",
    "is_compiled",
    "is_first_process",
    "isolated_rng",
    "joined_tails",
    "last_step",
    "launched_processes",
    "numbered",
    "own_torch_modes",
    "own_work",
    "read_file",
    "resolve_device",
    "scoring_method",
    "shallow_copy",
    "share_of",
    "shared_work",
    "spawn_seeds",
    "supports_float64",
    "take_weights",
    "temporary_array",
    "write_file",
    "write_text",
]
