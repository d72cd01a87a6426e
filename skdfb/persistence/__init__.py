"""Saved models: files of safetensors and JSON. Loading one never runs code from the file."""

from skdfb.persistence._save_load import load, save

__all__ = ["load", "save"]
