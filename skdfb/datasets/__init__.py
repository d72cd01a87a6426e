"""Image sets: a small one for examples and tests, sets that are downloaded, and images that are resized once."""

from skdfb.datasets._digits_on_photos import load_digits_on_photos
from skdfb.datasets._fetch_arrays import fetch_cifar10, fetch_cifar100, fetch_svhn
from skdfb.datasets._fetch_photographs import fetch_flower_photos, fetch_places365_ood, fetch_textures
from skdfb.datasets._resized import load_resized_images

__all__ = [
    "fetch_cifar10",
    "fetch_cifar100",
    "fetch_flower_photos",
    "fetch_places365_ood",
    "fetch_svhn",
    "fetch_textures",
    "load_digits_on_photos",
    "load_resized_images",
]
