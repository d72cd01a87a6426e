"""Image sets: small ones for examples and tests, folders and tables of images, and sets that are downloaded."""

from skdfb.datasets._digits_on_photos import load_digits_on_photos
from skdfb.datasets._fetch_arrays import fetch_cifar10, fetch_cifar100, fetch_svhn
from skdfb.datasets._fetch_photographs import fetch_flower_photos, fetch_places365_ood, fetch_textures
from skdfb.datasets._folder import load_image_folder
from skdfb.datasets._parquet import iter_parquet
from skdfb.datasets._photo_crops import load_photo_crops
from skdfb.datasets._resized import load_resized_images
from skdfb.datasets._table import load_image_table

__all__ = [
    "fetch_cifar10",
    "fetch_cifar100",
    "fetch_flower_photos",
    "fetch_places365_ood",
    "fetch_svhn",
    "fetch_textures",
    "iter_parquet",
    "load_digits_on_photos",
    "load_image_folder",
    "load_image_table",
    "load_photo_crops",
    "load_resized_images",
]
