import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from skdfb.scorers import MSP, Representation
from tests.scorers.helpers import random_arrays, random_representation


def tensors(n=5, C=3, K=2, **changes):
    values = {
        "features": torch.rand(n, C),
        "logits": torch.rand(n, K),
        "weight": torch.rand(K, C),
        "bias": torch.rand(K),
    }
    return {**values, **changes}


def test_sizes():
    representation = Representation(**tensors(n=5, C=3, K=2))
    assert (len(representation), representation.n_features, representation.n_classes) == (5, 3, 2)
    assert representation.device == torch.device("cpu")


def test_frozen():
    representation = Representation(**tensors())
    with pytest.raises(AttributeError):
        representation.features = torch.rand(5, 3)


@pytest.mark.parametrize(
    ("changes", "error", "name"),
    [
        ({"features": np.zeros((5, 3))}, TypeError, "^features.*from_numpy"),
        ({"features": torch.zeros(5, 3, dtype=torch.int64)}, TypeError, "^features.*float"),
        ({"features": torch.zeros(5, 3, 1, 1)}, ValueError, "^features.*Pool"),
        ({"features": torch.zeros(5, 4)}, ValueError, r"^weight has shape \(2, 3\): expected \(2, 4\)"),
        ({"features": torch.zeros(4, 3)}, ValueError, r"^logits has shape \(5, 2\): expected \(4, 2\)"),
        ({"logits": torch.zeros(5, 3)}, ValueError, "^logits"),
        ({"bias": torch.zeros(3)}, ValueError, "^bias"),
        ({"bias": torch.zeros(2, 1)}, ValueError, "^bias"),
        ({"bias": None}, TypeError, "^bias"),
        ({"weight": torch.zeros(2, 3, device="meta")}, ValueError, "^weight is on meta"),
        ({"weight": torch.zeros(0, 3), "bias": torch.zeros(0), "logits": torch.zeros(5, 0)}, ValueError, "weight"),
        ({"activations": [torch.zeros(5)]}, TypeError, "^activations"),
        ({"activations": {"stem": torch.zeros(4, 2)}}, ValueError, r"^activations\['stem'\]"),
        ({"activations": {"stem": np.zeros((5, 2))}}, TypeError, r"^activations\['stem'\]"),
        ({"input_perturbation": -0.1}, ValueError, "^input_perturbation"),
        ({"input_perturbation": float("nan")}, ValueError, "^input_perturbation"),
    ],
)
def test_refuses(changes, error, name):
    with pytest.raises(error, match=name):
        Representation(**tensors(**changes))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_batches_are_views_in_order(dtype, batch_size):
    activations = {"stem": torch.rand(5, 4, 2)}
    representation = Representation(
        **tensors(features=torch.rand(5, 3).to(dtype), activations=activations, input_perturbation=0.25)
    )
    batches = list(representation.batches(batch_size))
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert torch.equal(torch.cat([batch.features for batch in batches]), representation.features)
    assert torch.equal(torch.cat([batch.logits for batch in batches]), representation.logits)
    assert torch.equal(torch.cat([batch.activations["stem"] for batch in batches]), activations["stem"])
    assert all(batch.features.dtype == dtype and batch.input_perturbation == 0.25 for batch in batches)
    assert batches[0].features.data_ptr() == representation.features.data_ptr()
    assert batches[0].weight is representation.weight


def test_batch_size_is_checked_at_once():
    with pytest.raises(ValueError, match="batch_size is 0"):
        Representation(**tensors()).batches(0)


def test_no_images():
    representation = Representation(**tensors(n=0))
    assert len(representation) == 0
    assert list(representation.batches()) == []


@pytest.mark.parametrize(
    "index",
    [
        slice(1, 4),
        slice(None, None, -1),
        slice(4, 1, -2),
        [3, 0, 0, -1],
        [],
        np.array([1, 2], dtype=np.uint16),
        np.array([True, False, True, False, True]),
        torch.tensor([4, 1]),
    ],
)
def test_getitem(index):
    representation = Representation(**tensors(activations={"stem": torch.arange(10.0).reshape(5, 2)}))
    taken = representation[index]
    rows = np.arange(5)[np.asarray(index, dtype=int) if isinstance(index, list) else index]
    assert np.array_equal(taken.features, representation.features.numpy()[rows])
    assert np.array_equal(taken.logits, representation.logits.numpy()[rows])
    assert np.array_equal(taken.activations["stem"], representation.activations["stem"].numpy()[rows])


def test_getitem_takes_read_only_index():
    index = np.array([0, 2])
    index.flags.writeable = False
    assert len(Representation(**tensors())[index]) == 2


@pytest.mark.parametrize("index", [2, [0.5], [[0, 1]], "features"])
def test_getitem_refuses(index):
    with pytest.raises(TypeError, match="index"):
        Representation(**tensors())[index]


def test_error_for_iteration_names_the_remedy():
    with pytest.raises(TypeError, match="batches"):
        list(Representation(**tensors()))


def test_to_moves_every_tensor():
    moved = Representation(**tensors(activations={"stem": torch.rand(5, 2)}, input_perturbation=0.5)).to("meta")
    everything = (moved.features, moved.logits, moved.weight, moved.bias, moved.activations["stem"])
    assert {str(tensor.device) for tensor in everything} == {"meta"}
    assert moved.input_perturbation == 0.5


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_copies(duplicate):
    representation = Representation(**tensors(activations={"stem": torch.rand(5, 2)}))
    assert torch.equal(duplicate(representation).activations["stem"], representation.activations["stem"])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble, ">f4"])
def test_from_numpy_types(dtype):
    arrays = {name: array.astype(dtype) for name, array in random_arrays(n=7).items()}
    representation = Representation.from_numpy(**arrays)
    assert np.array_equal(representation.features.numpy(), arrays["features"].astype(np.float64))
    assert representation.features.element_size() == min(np.dtype(dtype).itemsize, 8)
    expected = arrays["features"].astype(float) @ arrays["weight"].astype(float).T + arrays["bias"].astype(float)
    np.testing.assert_allclose(representation.logits.numpy(), expected, rtol=1e-6, atol=1e-6)
    assert representation.logits.element_size() == (8 if np.dtype(dtype).itemsize >= 8 else 4)


def test_from_numpy_computes_logits_beyond_one_batch():
    arrays = random_arrays(n=2500, C=3, K=2)
    representation = Representation.from_numpy(**arrays)
    expected = [[float(w @ h + b) for w, b in zip(arrays["weight"], arrays["bias"], strict=True)]
                for h in arrays["features"]]  # fmt: skip
    np.testing.assert_allclose(representation.logits.numpy(), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray, lambda a: a[::-1], lambda a: a[:, ::2]])
@pytest.mark.parametrize("writeable", [True, False])
def test_from_numpy_layouts(layout, writeable):
    features = layout(random_arrays()["features"])
    features.flags.writeable = writeable
    C = features.shape[1]
    before = features.copy()
    representation = Representation.from_numpy(features=features, weight=np.ones((2, C)), bias=np.zeros(2))
    assert np.array_equal(representation.features.numpy(), before)
    assert features.flags.writeable is writeable


def test_from_numpy_shares_read_only_memory_and_keeps_it_alive():
    features = random_arrays()["features"]
    expected = features.copy()
    features.flags.writeable = False
    representation = Representation.from_numpy(features=features, weight=np.ones((2, 8)), bias=np.zeros(2))
    assert np.shares_memory(representation.features.numpy(), features)
    del features
    assert np.array_equal(representation.features.numpy(), expected)


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_from_numpy_views_memory_maps(tmp_path, mode):
    arrays = random_arrays(n=50, dtype=np.float16)
    logits = (arrays["features"] @ arrays["weight"].T).astype(np.float32)
    np.save(tmp_path / "features.npy", arrays["features"])
    np.save(tmp_path / "logits.npy", logits)
    mapped = {name: np.load(tmp_path / f"{name}.npy", mmap_mode=mode) for name in ("features", "logits")}
    representation = Representation.from_numpy(**{**arrays, **mapped})
    assert representation.features.dtype == torch.float16
    assert representation.features.data_ptr() == mapped["features"].ctypes.data
    assert representation.logits.data_ptr() == mapped["logits"].ctypes.data
    last = list(representation.batches(20))[-1]
    assert np.shares_memory(last.features.numpy(), mapped["features"])
    in_memory = Representation.from_numpy(**arrays, logits=logits)
    assert np.array_equal(
        MSP().fit(representation).score_samples(representation), MSP().fit(in_memory).score_samples(in_memory)
    )


def test_from_numpy_activations():
    representation = Representation.from_numpy(**random_arrays(n=4), activations={"stem": np.ones((4, 2, 2))})
    assert representation.activations["stem"].shape == (4, 2, 2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["features", "logits", "weight", "bias"])
def test_from_numpy_refuses_non_finite(name, value):
    arrays = random_arrays(n=1030)
    arrays["logits"] = np.zeros((1030, 4))
    arrays[name][-1] = value
    row = len(arrays[name]) - 1
    with pytest.raises(ValueError, match=f"^{name} holds NaN or infinity, first in row {row}:"):
        Representation.from_numpy(**arrays)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("features", np.zeros((30, 8), dtype=int), TypeError),
        ("features", np.zeros((30, 8), dtype=complex), TypeError),
        ("features", [["a"]], TypeError),
        ("features", np.zeros(8), ValueError),
        ("weight", np.zeros((4, 7)), ValueError),
        ("weight", np.zeros(4), ValueError),
        ("bias", np.zeros(5), ValueError),
        ("logits", np.zeros((30, 5)), ValueError),
    ],
)
def test_from_numpy_refuses(name, value, error):
    with pytest.raises(error, match=name):
        Representation.from_numpy(**{**random_arrays(), name: value})


def test_random_representation_is_deterministic():
    assert torch.equal(random_representation(3).features, random_representation(3).features)


def resident_bytes(path):
    """Resident memory of the mappings of a file in this process."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0]:
            inside = line.endswith(str(path))
        elif inside and line.startswith("Rss:"):
            total += 1024 * int(line.split()[1])
    return total


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="resident memory can only be read on Linux")
@pytest.mark.parametrize("mode", ["r", "r+"])
def test_files_are_never_in_memory_as_a_whole(tmp_path, mode):
    arrays = random_arrays(n=200_000, C=64, dtype=np.float32)
    path = tmp_path / "features.npy"
    np.save(path, arrays["features"])
    mapped = np.load(path, mmap_mode=mode)
    representation = Representation.from_numpy(**{**arrays, "features": mapped})
    checked = resident_bytes(path)
    largest = 0
    for batch in representation.batches():
        batch.features.sum()
        largest = max(largest, resident_bytes(path))
    assert max(checked, largest) < mapped.nbytes / 4
    np.testing.assert_array_equal(representation.features, arrays["features"])


def test_changes_to_copy_on_write_arrays_stay(tmp_path):
    arrays = random_arrays(n=3000)
    np.save(tmp_path / "features.npy", arrays["features"])
    mapped = np.load(tmp_path / "features.npy", mmap_mode="c")
    mapped += 1
    representation = Representation.from_numpy(**{**arrays, "features": mapped})
    for _ in range(2):
        whole = torch.cat([batch.features for batch in representation.batches()])
        np.testing.assert_array_equal(whole, arrays["features"] + 1)


def test_mapped_files_are_not_pickled(tmp_path):
    arrays = random_arrays()
    np.save(tmp_path / "features.npy", arrays["features"])
    representation = Representation.from_numpy(
        **{**arrays, "features": np.load(tmp_path / "features.npy", mmap_mode="r")}
    )
    unpickled = pickle.loads(pickle.dumps(representation))
    torch.testing.assert_close(unpickled.features, representation.features)
    assert [len(batch) for batch in unpickled.batches(20)] == [20, 10]
