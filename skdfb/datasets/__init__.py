"""Image sets: a small one for examples and tests; folders and tables of images; images that are resized once."""

from skdfb.datasets._digits_on_photos import load_digits_on_photos
from skdfb.datasets._folder import load_image_folder
from skdfb.datasets._resized import load_resized_images
from skdfb.datasets._table import load_image_table

__all__ = ["load_digits_on_photos", "load_image_folder", "load_image_table", "load_resized_images"]
