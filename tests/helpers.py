"""Tiny networks that the tests share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TinyBackbone(nn.Module):
    """Two strided convolutions: images (n, 3, H, W) to feature maps (n, width, H / 4, W / 4)."""

    def __init__(self, width: int = 8, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, stride=2, padding=1, dtype=dtype)
        self.second = nn.Conv2d(width, width, 3, stride=2, padding=1, dtype=dtype)

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(images))))
