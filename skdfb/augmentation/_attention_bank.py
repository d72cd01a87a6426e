"""Attention maps of a training set, kept while a classifier is trained."""

import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["AttentionBank"]


class AttentionBank:
    r"""Moving averages of attention maps, one per training image.

    .. math:: A_i \leftarrow (1 - \mu) A_i + \mu M_i, \qquad A_i = \tfrac12 \text{ before the first update}

    :math:`M_i` is the new map of image i, with numbers in [0, 1], and :math:`\mu` is the momentum.

    Parameters
    ----------
    n_images : int
        Number of training images.
    map_size : int, default=8
        Side of the maps. The default takes 64 numbers per image, independent of the size of the images.
    momentum : float, default=0.1
        Weight of the new map, in (0, 1], as in batch normalisation.

    Attributes
    ----------
    maps : Tensor of shape (n_images, map_size, map_size)
        The averages, in float32.

    See Also
    --------
    BackMix : Finds foregrounds with the maps of a bank.

    References
    ----------
    Wang et al., "BackMix: Regularizing Open Set Recognition by Removing Underlying Fore-Background Priors", TPAMI 2025,
    :arxiv:`2503.17717`, and the authors' code.

    Examples
    --------
    >>> import torch
    >>> from skdfb.augmentation import AttentionBank
    >>> bank = AttentionBank(100, map_size=2)
    >>> bank.update([3, 7], torch.ones(2, 2, 2))
    >>> bank[[7]]
    tensor([[[0.5500, 0.5500],
             [0.5500, 0.5500]]])
    """

    def __init__(self, n_images: int, map_size: int = 8, momentum: float = 0.1) -> None:
        self.momentum = momentum
        # Constant maps: before the first update no place is more foreground than another.
        self.maps = torch.full((n_images, map_size, map_size), 0.5)

    def __getitem__(self, indices: npt.ArrayLike | Tensor) -> Tensor:
        """Return copies of the averages of some images, of shape (len(indices), map_size, map_size)."""
        return self.maps[self._rows(indices)]

    @torch.no_grad()
    def update(self, indices: npt.ArrayLike | Tensor, maps: Tensor) -> None:
        """Move the averages of some images towards new maps.

        Parameters
        ----------
        indices : array-like of int of shape (m,)
            The images, each at most once.
        maps : Tensor of shape (m, map_size, map_size)
            Their new maps, with numbers in [0, 1].

        Raises
        ------
        ValueError
            If the maps have another shape.
        """
        rows = self._rows(indices)
        expected = (len(rows), *self.maps.shape[1:])
        if tuple(maps.shape) != expected:
            raise ValueError(f"maps has shape {tuple(maps.shape)} for {len(rows)} images: expected {expected}.")
        # lerp(A, M, mu) = (1 - mu) A + mu M.
        self.maps[rows] = torch.lerp(self.maps[rows], maps.to(self.maps), self.momentum)

    def _rows(self, indices: npt.ArrayLike | Tensor) -> Tensor:
        return torch.as_tensor(indices, dtype=torch.long, device=self.maps.device)
