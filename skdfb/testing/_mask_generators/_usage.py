"""How the checks use a mask generator, and the images that they pass to it."""

from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skdfb.images import Images, Indices, as_images
from skdfb.testing._shared._demands import Array
from skdfb.testing._shared._usage import Usage

SIDE, N_TRAIN, N_NEW, N_CLASSES = 32, 12, 8, 3


class RecordedImages(Images):
    """Images that keep a copy of the pixels that they returned: `read` may return views of the user's own arrays."""

    def __init__(self, images: Images) -> None:
        self.images, self.size, self.pixel_formats = images, images.size, images.pixel_formats
        self.returned: list[tuple[Tensor, Tensor]] = []

    def __len__(self) -> int:
        return len(self.images)

    def read(self, indices: Indices) -> list[Tensor] | Tensor:
        """Read some images, and keep a copy of them."""
        pixels = self.images.read(indices)
        each = [pixels] if isinstance(pixels, Tensor) else pixels
        self.returned += [(tensor, tensor.clone()) for tensor in each]
        return pixels

    def are_unchanged(self) -> bool:
        """Tell whether nobody wrote to the pixels."""
        return all(torch.equal(tensor, copy) for tensor, copy in self.returned)


class Data(NamedTuple):
    """The arguments of `fit_transform`."""

    X: RecordedImages
    y: NDArray[np.intp]


def pixels(n: int, n_classes: int = N_CLASSES, seed: int = 0) -> NDArray[np.uint8]:
    """Return dark images (n, H, W, 3) with a bright square, whose size depends on the class, at a random place."""
    rng = np.random.default_rng([seed, n])
    # Sums stay below 256: bytes would overflow.
    images = rng.integers(0, 100, (n, SIDE, SIDE, 3), dtype=np.uint8)
    for image, label in zip(images, labels(n, n_classes), strict=True):
        side = 6 + 4 * int(label)
        row, column = rng.integers(0, SIDE - side, 2)
        image[row : row + side, column : column + side] += 120
    return images


def labels(n: int, n_classes: int = N_CLASSES) -> NDArray[np.intp]:
    """Return class indices, the same number of images for each class."""
    return np.arange(n, dtype=np.intp) % n_classes


class MaskGeneratorUsage(Usage):
    """Generators return masks of the training images from `fit_transform`, and some of new images from `transform`."""

    noun: ClassVar[str] = "masks"
    fit_method: ClassVar[str] = "fit_transform"
    result_method: ClassVar[str] = "transform"

    def training_data(self, instance: Any, seed: int = 0) -> Data:
        """Return 12 images of 3 classes."""
        return Data(RecordedImages(as_images(pixels(N_TRAIN, seed=seed))), labels(N_TRAIN))

    def new_data(self, instance: Any, seed: int = 1) -> RecordedImages:
        """Return 8 images of the same classes."""
        return RecordedImages(as_images(pixels(N_NEW, seed=seed)))

    def contents(self, data: Data | RecordedImages) -> dict[str, bytes]:
        """Return the bytes of the labels, and whether the pixels are unchanged."""
        images, y = data if isinstance(data, Data) else (data, None)
        # A single byte is enough: the images hold their own copies to compare with.
        found = {"the pixels that X.read returned": bytes([images.are_unchanged()])}
        return found if y is None else found | {"y": y.tobytes()}

    def fit(self, instance: Any, data: Data) -> Any:
        """Return the masks of the training images."""
        return instance.fit_transform(*data)

    def result(self, fitted: Any, data: RecordedImages) -> Array:
        """Return the masks of new images."""
        return np.asarray(fitted.transform(data)).astype(np.float64)

    def run(self, instance: Any, seed: int = 0) -> Array:
        """Return the masks of the training images: not every generator has `transform`."""
        return np.asarray(self.fit(instance, self.training_data(instance, seed))).astype(np.float64)


USAGE = MaskGeneratorUsage()
