"""The record of a network's outputs for n images, which every scorer reads."""

import math
import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from skdfb.utils import own_torch_modes

# Numbers per batch of features: few enough for a processor's cache, and for memory that the next batch can reuse.
_NUMBERS_PER_BATCH = 2**20


@dataclass(frozen=True, eq=False, kw_only=True)
class Representation:
    """Outputs of a network for n images: features, logits and the linear head between them.

    All tensors are on one device. They are only read, never written, so `features` and `logits` may be views of
    memory-mapped or read-only arrays. For NumPy arrays, use :meth:`from_numpy`.

    Parameters
    ----------
    features : Tensor of shape (n, C)
        Pooled features of any floating-point type. The type is not changed.
    logits : Tensor of shape (n, K)
        Logits, one column per class.
    weight : Tensor of shape (K, C)
        Weight of the linear head.
    bias : Tensor of shape (K,)
        Bias of the linear head.
    activations : mapping of str to Tensor of shape (n, ...), default=None
        Further tensors by the name of the layer, for scorers that need them.
    input_perturbation : float, default=0.0
        Size of the perturbation that was added to the images before the forward pass, for pixel values in 0..1; 0 for
        unperturbed images. See :class:`InputPerturbingScorer`.

    Raises
    ------
    TypeError
        If a tensor is not a floating-point torch tensor.
    ValueError
        If shapes or devices do not match, or `input_perturbation` is negative or not finite.

    Notes
    -----
    The *background representation* has the same fields. Its features are pooled with the background probability as
    weights. Its only logit is the background logit, so K = 1.

    Examples
    --------
    >>> import torch
    >>> from skdfb.scorers import Representation
    >>> features, weight, bias = torch.rand(5, 3), torch.rand(2, 3), torch.zeros(2)
    >>> representation = Representation(
    ...     features=features, logits=features @ weight.T + bias, weight=weight, bias=bias
    ... )
    >>> len(representation), representation.n_features, representation.n_classes
    (5, 3, 2)
    >>> [len(batch) for batch in representation.batches(batch_size=2)]
    [2, 2, 1]
    >>> len(representation[[0, 4]])
    2
    """

    features: Tensor
    logits: Tensor
    weight: Tensor
    bias: Tensor
    activations: Mapping[str, Tensor] | None = None
    input_perturbation: float = 0.0
    _mapped_files: ClassVar[tuple[mmap.mmap, ...]] = ()

    def __post_init__(self) -> None:
        # Types and numbers of dimensions first, since the checks of shapes below rely on them.
        for name, n_dimensions in (("features", 2), ("logits", 2), ("weight", 2), ("bias", 1)):
            _check_tensor(name, getattr(self, name), n_dimensions)
        n, C = self.features.shape
        K = self.weight.shape[0]
        if C == 0 or K == 0:
            raise ValueError(
                f"features has {C} columns and weight has {K} rows: expected at least one feature and one class."
            )
        self._check_shape("weight", (K, C), "one column per column of features; pass the head of these features")
        self._check_shape("bias", (K,), "one value per row of weight; pass zeros for a head without bias")
        self._check_shape("logits", (n, K), "one row per row of features, one column per row of weight")
        for name in ("logits", "weight", "bias"):
            _check_device(name, getattr(self, name), self.features.device)
        self._check_activations()
        if not (math.isfinite(self.input_perturbation) and self.input_perturbation >= 0):
            raise ValueError(
                f"input_perturbation is {self.input_perturbation!r}: expected a finite number >= 0 for pixel values in "
                "0..1, and 0 for unperturbed images."
            )

    def _check_shape(self, name: str, expected: tuple[int, ...], meaning: str) -> None:
        shape = tuple(getattr(self, name).shape)
        if shape != expected:
            raise ValueError(f"{name} has shape {shape}: expected {expected}, {meaning}.")

    def _check_activations(self) -> None:
        if self.activations is None:
            return
        if not isinstance(self.activations, Mapping):
            raise TypeError(
                f"activations is a {type(self.activations).__name__}: "
                "expected None or a mapping of layer names to tensors."
            )
        for layer, tensor in self.activations.items():
            name = f"activations[{layer!r}]"
            _check_tensor(name, tensor, None)
            if tensor.ndim == 0 or tensor.shape[0] != len(self):
                raise ValueError(
                    f"{name} has shape {tuple(tensor.shape)}: expected {len(self)} rows, one per row of features."
                )
            _check_device(name, tensor, self.features.device)

    def __len__(self) -> int:
        return int(self.features.shape[0])

    @property
    def n_features(self) -> int:
        """Number of features C."""
        return int(self.features.shape[1])

    @property
    def n_classes(self) -> int:
        """Number of columns K of the logits; 1 for a background representation."""
        return int(self.logits.shape[1])

    @property
    def device(self) -> torch.device:
        """The device that all tensors are on."""
        return self.features.device

    def batches(self, batch_size: int | None = None) -> Iterator[Self]:
        """Iterate over the images in batches, in order.

        Parameters
        ----------
        batch_size : int, default=None
            Number of images in a batch; the last batch may hold fewer. None chooses a number that is fast to compute
            with for the width of the features, for example 512 for 2048 features.

        Returns
        -------
        iterator of Representation
            Batches as views: nothing is copied and types are not changed. After each batch, the pages that were read
            from memory-mapped files are released, so that large files never fill the memory.

        Raises
        ------
        ValueError
            If `batch_size` is less than 1.
        """
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}: expected an integer >= 1, or None.")
        # A separate generator, so that the check above runs before the first batch is requested.
        return self._batches(batch_size or images_per_batch(self.n_features))

    def _batches(self, batch_size: int) -> Iterator[Self]:
        for start in range(0, len(self), batch_size):
            yield self[start : start + batch_size]
            _release(self._mapped_files)

    def __getstate__(self) -> dict[str, Any]:
        # The mapping of a file cannot be pickled. The tensors are pickled with their numbers.
        return {name: value for name, value in self.__dict__.items() if name != "_mapped_files"}

    def __getitem__(self, index: slice | ArrayLike | Tensor) -> Self:
        rows = _row_index(index, len(self), self.device)
        activations = None
        if self.activations is not None:
            activations = {layer: tensor[rows] for layer, tensor in self.activations.items()}
        return replace(self, features=self.features[rows], logits=self.logits[rows], activations=activations)

    def to(self, device: torch.device | str) -> Self:
        """Return this representation with all tensors on a device.

        Parameters
        ----------
        device : torch.device or str
            The target device. Tensors that are already on it are not copied.

        Returns
        -------
        Representation
            The same images, in the same order.
        """
        activations = None
        if self.activations is not None:
            activations = {layer: tensor.to(device) for layer, tensor in self.activations.items()}
        tensors = {name: getattr(self, name).to(device) for name in ("features", "logits", "weight", "bias")}
        return replace(self, **tensors, activations=activations)

    @classmethod
    @own_torch_modes()
    def from_numpy(
        cls,
        *,
        features: ArrayLike,
        weight: ArrayLike,
        bias: ArrayLike,
        logits: ArrayLike | None = None,
        activations: Mapping[str, ArrayLike] | None = None,
    ) -> Self:
        """Build a representation on the CPU from NumPy arrays.

        Parameters
        ----------
        features : array-like of shape (n, C)
            Pooled features of any floating-point type; may be read-only or an `np.memmap`.
        weight : array-like of shape (K, C)
            Weight of the linear head.
        bias : array-like of shape (K,)
            Bias of the linear head.
        logits : array-like of shape (n, K), default=None
            Logits; may be read-only or an `np.memmap`. None computes ``features @ weight.T + bias`` in float64, in
            batches, and keeps the result in memory: as float64 if an input is float64, else as float32.
        activations : mapping of str to array-like of shape (n, ...), default=None
            Further arrays by the name of the layer.

        Returns
        -------
        Representation
            The tensors share memory with the arrays if the type and the strides of the array allow it. Never write to
            the tensors: torch has no read-only memory.

        Raises
        ------
        TypeError
            If an array does not hold floating-point numbers.
        ValueError
            If shapes do not match, or `features`, `logits`, `weight` or `bias` hold NaN or infinity.

        Examples
        --------
        >>> import numpy as np
        >>> from skdfb.scorers import Representation
        >>> features = np.array([[1.0, 2.0], [0.0, -1.0]])
        >>> representation = Representation.from_numpy(features=features, weight=np.eye(2), bias=np.ones(2))
        >>> representation.logits.numpy()
        array([[2., 3.],
               [1., 0.]])
        """
        feature_view = tensor_view("features", features)
        weight_view = tensor_view("weight", weight)
        bias_view = tensor_view("bias", bias)
        # Collected from the arrays, since a tensor does not keep the file that its memory is mapped to.
        mapped_files = _mapped_files(features, logits, *(activations or {}).values())
        if logits is None:
            logits_view = _linear(feature_view, weight_view, bias_view, mapped_files)
        else:
            logits_view = tensor_view("logits", logits)
        activation_views = None
        if activations is not None:
            activation_views = {layer: tensor_view(f"activations[{layer!r}]", a) for layer, a in activations.items()}
        representation = cls(
            features=feature_view,
            logits=logits_view,
            weight=weight_view,
            bias=bias_view,
            activations=activation_views,
        )
        for name in ("features", "logits", "weight", "bias"):
            _check_finite(name, getattr(representation, name), mapped_files)
        # The class is frozen, so normal assignment fails.
        object.__setattr__(representation, "_mapped_files", mapped_files)
        return representation


def _check_tensor(name: str, value: Any, n_dimensions: int | None) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name} is a {type(value).__name__}: expected a torch tensor. "
            "For NumPy arrays use Representation.from_numpy(...)."
        )
    if not value.is_floating_point():
        raise TypeError(
            f"{name} has dtype {value.dtype}: expected floating-point numbers; convert with {name}.float()."
        )
    if n_dimensions is not None and value.ndim != n_dimensions:
        raise ValueError(
            f"{name} has shape {tuple(value.shape)}: expected {n_dimensions} dimension(s), as in "
            "features (n, C), logits (n, K), weight (K, C), bias (K,). Pool feature maps over their places first."
        )


def _check_device(name: str, tensor: Tensor, expected: torch.device) -> None:
    if tensor.device != expected:
        raise ValueError(
            f"{name} is on {tensor.device} and features on {expected}: expected one device; move it with "
            f"{name}.to({str(expected)!r})."
        )


def images_per_batch(width: int) -> int:
    """Return the number of images in a batch of rows with `width` numbers per image."""
    return min(max(_NUMBERS_PER_BATCH // width, 128), 4096)


def _mapped_files(*arrays: Any) -> tuple[mmap.mmap, ...]:
    """Return the files that arrays are mapped to, if their pages can be released and read again."""
    # Copy-on-write arrays ("c") may hold changes that are not in the file, so their pages must stay.
    mapped = [array for array in arrays if isinstance(array, np.memmap) and array.mode != "c"]
    # Not every system has `madvise`.
    files = (getattr(array, "_mmap", None) for array in mapped)
    return tuple(file for file in files if isinstance(file, mmap.mmap) and hasattr(file, "madvise"))


def _release(mapped_files: tuple[mmap.mmap, ...]) -> None:
    """Release the memory of the pages that were read from files, so that a large file never fills the memory."""
    for file in mapped_files:
        file.madvise(mmap.MADV_DONTNEED)


def _check_finite(name: str, tensor: Tensor, mapped_files: tuple[mmap.mmap, ...]) -> None:
    # In batches, so that a large file is never in memory as a whole.
    step = images_per_batch(tensor[0].numel()) if len(tensor) else 1
    for start in range(0, len(tensor), step):
        finite = torch.isfinite(tensor[start : start + step])
        if not finite.all():
            row = start + int((~finite).nonzero()[0, 0])
            raise ValueError(
                f"{name} holds NaN or infinity, first in row {row}: expected finite numbers; leave out such rows, "
                "or compute them in a wider floating-point type."
            )
        _release(mapped_files)


def _row_index(index: slice | ArrayLike | Tensor, n: int, device: torch.device) -> slice | Tensor:
    """Return a slice or an index array as an index for a torch tensor."""
    if isinstance(index, slice):
        if index.step is None or index.step > 0:
            return index
        # torch does not support negative steps.
        index = np.arange(*index.indices(n))
    # A copy, since torch warns about read-only arrays.
    rows = index.cpu().numpy() if isinstance(index, Tensor) else np.array(index)
    # NumPy makes an empty list an array of floats.
    if rows.size == 0 and rows.dtype.kind != "b":
        rows = rows.astype(np.int64)
    if rows.ndim != 1 or rows.dtype.kind not in "iub":
        raise TypeError(
            f"index is {index!r}: expected a slice or a 1-d array of integers or booleans; "
            "take one image with [i : i + 1], and iterate with batches()."
        )
    # torch does not index with every unsigned type.
    if rows.dtype.kind == "u":
        rows = rows.astype(np.int64)
    return torch.from_numpy(rows).to(device)


class _Writeable:
    """A view of an array that NumPy's array interface reports as writeable, without a copy.

    `torch.from_numpy` warns about read-only arrays because torch cannot forbid writing to them. This module never
    writes to them. Silencing the warning instead would change the warning filters of the whole process.
    """

    def __init__(self, array: NDArray[Any]) -> None:
        # This reference keeps the memory alive as long as the view.
        self.array = array
        address, _ = array.__array_interface__["data"]
        self.__array_interface__ = {**array.__array_interface__, "data": (address, False)}


def tensor_view(name: str, value: ArrayLike) -> Tensor:
    """View an array as a tensor; copy only what torch cannot view."""
    array = np.asarray(value)
    if array.dtype.kind != "f":
        raise TypeError(
            f"{name} has dtype {array.dtype}: expected floating-point numbers; convert with {name}.astype(np.float32)."
        )
    # torch has no long double, no foreign byte order and no negative or uneven strides.
    if array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if any(stride < 0 or stride % array.itemsize for stride in array.strides):
        array = np.ascontiguousarray(array)
    if not array.flags.writeable:
        array = np.asarray(_Writeable(array))
    return torch.from_numpy(array)


def _linear(features: Tensor, weight: Tensor, bias: Tensor, mapped_files: tuple[mmap.mmap, ...]) -> Tensor:
    """Return features @ weight.T + bias, computed in float64 in batches."""
    for name, tensor, n_dimensions in (("features", features, 2), ("weight", weight, 2), ("bias", bias, 1)):
        _check_tensor(name, tensor, n_dimensions)
    n, C = features.shape
    if weight.shape[1] != C or bias.shape != weight.shape[:1]:
        raise ValueError(
            f"weight has shape {tuple(weight.shape)} and bias {tuple(bias.shape)}: expected (K, {C}) and (K,), "
            "the head of these features."
        )
    # Float32 inputs do not justify logits in float64, which take twice the memory.
    double = torch.float64 in (features.dtype, weight.dtype, bias.dtype)
    logits = torch.empty(n, len(weight), dtype=torch.float64 if double else torch.float32)
    W, b = weight.double(), bias.double()
    step = images_per_batch(C)
    for start in range(0, n, step):
        rows = slice(start, start + step)
        logits[rows] = features[rows].double() @ W.T + b
        _release(mapped_files)
    return logits
