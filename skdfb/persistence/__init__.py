"""Saved models: safetensors and JSON, from which nothing is ever run."""

from skdfb.persistence._save_load import load, save

__all__ = ["load", "save"]
