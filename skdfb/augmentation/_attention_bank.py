"""Attention maps of a training set, kept while a classifier learns."""

import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["AttentionBank"]


class AttentionBank:
    r"""One attention map for each training image: a moving average over the maps of each time that it is seen.

    .. math:: A_i \leftarrow (1 - \mu) A_i + \mu M_i, \qquad A_i = \tfrac12 \text{ before the first time}

    :math:`M_i` is the new map of image i, in [0, 1], and :math:`\mu` the momentum.

    Parameters
    ----------
    n_images : int
        Number of training images.
    map_size : int, default=8
        Side of the maps; 64 numbers an image by default, whatever the size of the images.
    momentum : float, default=0.1
        Weight of the new map, as in batch normalisation.

    Attributes
    ----------
    maps : Tensor of shape (n_images, map_size, map_size)
        The averages, float32.

    See Also
    --------
    BackMix : Reads one.

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
        self.maps = torch.full((n_images, map_size, map_size), 0.5)

    def __getitem__(self, indices: npt.ArrayLike | Tensor) -> Tensor:
        """Return the averages of some images, of shape (len(indices), map_size, map_size)."""
        return self.maps[self._rows(indices)]

    @torch.no_grad()
    def update(self, indices: npt.ArrayLike | Tensor, maps: Tensor) -> None:
        """Move the averages of some images, each named once, towards new maps.

        Parameters
        ----------
        indices : array-like of int of shape (m,)
            Which images.
        maps : Tensor of shape (m, map_size, map_size)
            In [0, 1].

        Raises
        ------
        ValueError
            If the maps have another shape.
        """
        rows = self._rows(indices)
        wanted = (len(rows), *self.maps.shape[1:])
        if tuple(maps.shape) != wanted:
            raise ValueError(f"maps has shape {tuple(maps.shape)} for {len(rows)} images; {wanted} is wanted.")
        self.maps[rows] = torch.lerp(self.maps[rows], maps.to(self.maps), self.momentum)

    def _rows(self, indices: npt.ArrayLike | Tensor) -> Tensor:
        return torch.as_tensor(indices, dtype=torch.long, device=self.maps.device)
