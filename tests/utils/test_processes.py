"""Three launched processes that share rows, masks and values; and one process alone."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed

from skdfb.utils import PackedMasks, agreed, gathered, launched_processes, share_of, shared_work

SCRIPT = """
import json, os, sys
import numpy as np
import torch
from skdfb.utils import PackedMasks, _processes, agreed, gathered, own_work, share_of, shared_work, take_weights
from tests.utils.test_processes import CASES, masks_of

rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
torch.distributed.init_process_group("gloo", f"file://{sys.argv[1]}/connection", rank=rank, world_size=size)
_processes._PIECE = 100  # bytes: several pieces per process
found = {"outside": share_of(10).rows.tolist()}
with shared_work():
    found["few"] = share_of(2).rows.tolist()
    found["agreed"], found["gathered"] = agreed({"seed": rank}), gathered(rank)
    with own_work():
        found["own"] = share_of(10).rows.tolist()
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    network.to(memory_format=torch.channels_last)
    torch.nn.init.constant_(network[0].weight, rank + 1)
    network[1].num_batches_tracked.fill_(rank + 5)
    take_weights(network)
    found["weights"] = [network[0].weight.mean().item(), network[1].num_batches_tracked.item()]
    for name, (n, dtype) in CASES.items():
        share, wanted = share_of(n), np.arange(n * 7).reshape(n, 7).astype(dtype)
        array = np.zeros_like(wanted)
        array[share.rows] = wanted[share.rows]
        share.complete(array)
        found[name] = [share.rows.tolist(), bool((array == wanted).all())]
    for name in ("bits", "mixed", "wide"):
        masks = masks_of(name)
        share = share_of(len(masks))
        batches = [([row], masks[[row]]) for row in share.rows]
        packed = PackedMasks.from_batches(batches, len(masks), 300, share)
        alone = PackedMasks.pack(masks, 300)
        found[name] = [bool((packed[:] == masks).all()), packed.nbytes == alone.nbytes, packed.dtype == alone.dtype]
with open(f"{sys.argv[1]}/{rank}.json", "w") as file:
    json.dump(found, file)
torch.distributed.destroy_process_group()
"""
N_PROCESSES = 3
CASES = {"float32": (10, np.float32), "float64": (7, np.float64), "uint16": (3, np.uint16), "bytes": (100, np.uint8)}


def masks_of(name):
    """Masks of more than 256 classes; "mixed" has one, of the last process, with two classes, "wide" one of 70,000."""
    masks = np.full((8, 5, 3), 300)
    masks[np.arange(8), np.arange(8) % 5] = np.arange(8)[:, None] * 40
    masks[-1, 0, 0] = {"bits": 300, "mixed": 299, "wide": 70_000}[name]
    return masks


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    # As torchrun does it, which takes longer to import than this to run.
    launched = {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": str(N_PROCESSES), "OMP_NUM_THREADS": "1"}
    environment = os.environ | launched | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", SCRIPT, str(folder)]
    processes = [subprocess.Popen(command, env=environment | {"RANK": str(rank)}) for rank in range(N_PROCESSES)]
    assert [process.wait(timeout=300) for process in processes] == [0] * N_PROCESSES
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(N_PROCESSES)]


@pytest.mark.parametrize("name", CASES)
def test_each_process_has_some_rows_and_ends_with_all(launched, name):
    rows = [found[name][0] for found in launched]
    assert [row for own in rows for row in own] == list(range(CASES[name][0]))
    lengths = [len(own) for own in rows]
    assert min(lengths) > 0
    assert max(lengths) - min(lengths) <= 1
    assert all(found[name][1] for found in launched)


@pytest.mark.parametrize("name", ["bits", "mixed", "wide"])
def test_masks_are_those_of_one_process(launched, name):
    assert [found[name] for found in launched] == [[True, True, True]] * N_PROCESSES


def test_the_first_process_decides(launched):
    assert [found["agreed"] for found in launched] == [{"seed": 0}] * N_PROCESSES
    assert [found["weights"] for found in launched] == [[1.0, 5]] * N_PROCESSES
    assert [found["gathered"] for found in launched] == [[0, 1, 2]] * N_PROCESSES


@pytest.mark.parametrize(("case", "n"), [("outside", 10), ("own", 10), ("few", 2)])
def test_all_rows_in_each_process(launched, case, n):
    """Outside of the shared block, and where there is not a row for each."""
    assert [found[case] for found in launched] == [list(range(n))] * N_PROCESSES


def test_one_process_alone():
    with shared_work():
        share, array = share_of(5), np.arange(5)
        share.complete(array)
        assert share.is_whole
        assert share.rows.tolist() == array.tolist() == list(range(5))
        assert share.gather("a") == ["a"]
        assert agreed(3) == 3
        assert gathered(3) == [3]


@pytest.fixture
def launched_alone(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")


def test_one_fit_at_a_time(launched_alone):
    """What two threads send would be mixed."""

    def fit_beside():
        with shared_work():
            pass

    with ThreadPoolExecutor(1) as pool:
        with shared_work(), shared_work(), pytest.raises(RuntimeError, match="expected one fit at a time"):
            pool.submit(fit_beside).result()
        pool.submit(fit_beside).result()


def test_workers_of_joblib_were_not_launched(launched_alone):
    """They inherit the variables of their parent."""
    assert launched_processes() == 4
    assert Parallel(n_jobs=2)(delayed(launched_processes)() for _ in range(2)) == [1, 1]
    assert Parallel(n_jobs=2, backend="threading")(delayed(launched_processes)() for _ in range(2)) == [4, 4]


def test_torch_without_distributed(launched_alone, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_available", lambda: False)
    assert launched_processes() == 1


def test_masks_packed_inside_of_shared_work_are_whole():
    with shared_work():
        np.testing.assert_array_equal(PackedMasks.pack(masks_of("mixed"), 300)[:], masks_of("mixed"))
