"""Image sets: small ones for examples and tests, and images that are decoded and resized once."""

from skdfb.datasets._digits_on_photos import load_digits_on_photos
from skdfb.datasets._photo_crops import load_photo_crops
from skdfb.datasets._resized import load_resized_images

__all__ = ["load_digits_on_photos", "load_photo_crops", "load_resized_images"]
