"""Two sets of images as one."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from skdfb.images._images import Images, Indices

__all__ = ["JoinedImages"]


class JoinedImages(Images):
    """The images of one set, followed by those of another one; nothing is read or copied.

    Parameters
    ----------
    first, second : Images
        Sets of images in any forms.
    """

    def __init__(self, first: Images, second: Images) -> None:
        self.first, self.second, self.n_channels = first, second, first.n_channels
        self.pixel_formats = first.pixel_formats | second.pixel_formats
        self.runs_user_code = first.runs_user_code or second.runs_user_code
        # With a size, all images are read as one tensor, so as one kind of numbers.
        alike = first.size == second.size and first.pixel_formats == second.pixel_formats
        self.size = first.size if alike else None

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def read(self, indices: Indices) -> list[Tensor] | Tensor:
        indices = np.asarray(indices, dtype=np.intp)
        in_second = indices >= len(self.first)
        images: list[Tensor] = [torch.empty(0)] * len(indices)
        for owner, rows, shift in ((self.first, ~in_second, 0), (self.second, in_second, len(self.first))):
            if rows.any():
                for place, pixels in zip(np.flatnonzero(rows), owner.read(indices[rows] - shift), strict=True):
                    images[place] = pixels
        return images if self.size is None else torch.stack(images)

    def read_one(self, index: int, least_side: int | None = None) -> Tensor:
        owner, first = (self.first, 0) if index < len(self.first) else (self.second, len(self.first))
        return owner.read_one(index - first, least_side)

    def fingerprints(self) -> dict[int, npt.NDArray[np.floating]]:
        second = {len(self.first) + index: found for index, found in self.second.fingerprints().items()}
        return self.first.fingerprints() | second

    @property
    def names(self) -> list[str] | None:
        first, second = self.first.names, self.second.names
        return None if first is None or second is None else first + second
