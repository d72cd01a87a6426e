"""Masks of foreground and background as transformers, usable without a detector."""

from skdfb.masks._cam import CAMMaskGenerator

__all__ = ["CAMMaskGenerator"]
