"""
Masks alone
===========

Mask generators are transformers from images to masks and need no detector. Compare two of them with the true masks, which
are known for this image set.
"""

# %%
# Class activation maps
# ---------------------
#
# ``fit`` trains a classifier; no mask is needed for it, only labels. A tiny network from random weights learns the digits
# in a few seconds, so the learning rate is higher than the default, which is for pre-trained networks. A mirror image of a
# digit is another sign: ``flip=False``.

from skdfb import CAMMaskGenerator, Trainer
from skdfb.datasets import load_digits_on_photos
from skdfb.networks import create_backbone

data = load_digits_on_photos(n_train=1000, n_test=60, n_ood=1, random_state=0)
trainer = Trainer(max_steps=200, batch_size=32, learning_rate=0.3, flip=False, mixup=None)
backbone = create_backbone("test_resnet", pretrained=False, output_stride=8, random_state=0)
generator = CAMMaskGenerator(backbone, trainer=trainer, image_size=32, flip=False, random_state=0)
generator.fit(data.images, data.target)

# %%
# ``transform`` makes masks of the predicted classes: integers, the index of the class on the foreground, and the number of
# classes on the background. ``fit_transform`` makes masks of the true classes.

masks = generator.transform(data.images_test)
print(masks.shape, masks.dtype, sorted(set(masks.ravel().tolist())))

# %%
# Masks at the edges of the image
# -------------------------------
#
# :class:`~skdfb.masks.AffinityMaskGenerator` takes the maps of another generator and moves their edges to the edges in the
# image. The classifier is trained already, so a generator around it trains nothing.

from skdfb.masks import AffinityMaskGenerator
from skdfb.metrics import foreground_fraction, mask_iou

refined = AffinityMaskGenerator(CAMMaskGenerator(generator.network_, flip=False)).fit(data.images, data.target)
foreground = {
    "true mask": data.masks_test < data.n_classes,
    "CAM": masks < data.n_classes,
    "CAM, refined": refined.transform(data.images_test) < data.n_classes,
}
for name, mask in foreground.items():
    print(f"{name:13} IoU {mask_iou(mask, foreground['true mask']):.3f}, foreground {foreground_fraction(mask):.1%}")

# %%
# The training is short and the feature map has 4 x 4 places: the maps are coarse, and some of them miss the digit, which no
# refinement mends. Look at masks of your own images before you train on them.

import matplotlib.pyplot as plt

from skdfb.displays import MaskDisplay

MaskDisplay.from_predictions(data.images_test[:9], {name: mask[:9] for name, mask in foreground.items()})
plt.show()
