"""Augmentations of whole batches of training images, on their device."""

from skdfb._registry import register_classes
from skdfb.augmentation._attention_bank import AttentionBank
from skdfb.augmentation._back_mix import BackMix
from skdfb.augmentation._batch import Augmentation, Batch

__all__ = ["AttentionBank", "Augmentation", "BackMix", "Batch"]

register_classes(__name__)
