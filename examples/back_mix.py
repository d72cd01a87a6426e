"""
BackMix
=======

Teach a classifier that a class is not its background: :class:`~skdfb.augmentation.BackMix` pastes patches of other images'
backgrounds into the training images. Nothing is downloaded; on two CPU cores this takes half a minute.
"""

# %%
# In training
# -----------
#
# A trainer takes it as ``augmentation``, for either stage of a detector:
# ``DFBDetector(classifier_trainer=Trainer(augmentation=BackMix()), dense_trainer=Trainer(augmentation=BackMix()))``.
# Here a mask generator trains the classifier that it looks at.

import torch

from skdfb import CAMMaskGenerator, Trainer
from skdfb.augmentation import BackMix, Batch
from skdfb.datasets import load_digits_on_photos
from skdfb.networks import create_backbone

data = load_digits_on_photos(n_train=1000, random_state=0)
torch.manual_seed(0)  # the random weights
trainer = Trainer(
    max_steps=250, batch_size=32, learning_rate=0.3, flip=False, mixup=None, schedule="cosine", augmentation=BackMix()
)
backbone = create_backbone("test_resnet", pretrained=False, output_stride=8)
generator = CAMMaskGenerator(backbone, trainer=trainer, image_size=32, random_state=0).fit(data.images, data.target)

# %%
# What it does to images
# ----------------------
#
# To paste backgrounds alone, BackMix has to know where the foreground is. While a classifier learns, the network's own
# class activation maps say so, averaged over the epochs; while a dense network learns, its masks do. Below are both: the
# maps of the classifier above, and the true masks, which are known since the digits were pasted. Grey are the pixels where
# the other image had its foreground.

shown = slice(0, 10)
pixels = torch.from_numpy(data.images[shown]).movedim(-1, 1) / 255 - 0.5  # in a batch, 0 is the mean pixel
classes = torch.eye(data.n_classes)[torch.from_numpy(data.target[shown])]
attention = torch.from_numpy(generator.attention_maps(data.images[shown], data.target[shown]))
masks = torch.from_numpy(data.masks[shown])


def mixed(batch):
    return BackMix(patch_size=0.5).augment(batch, torch.Generator().manual_seed(0)).images


rows = {
    "images": pixels,
    "by attention": mixed(Batch(pixels, classes, attention_maps=attention)),
    "by masks": mixed(Batch(pixels, classes, masks)),
}

# %%
# The classes stay as they are.

import matplotlib.pyplot as plt

figure, axes = plt.subplots(len(rows), 10, figsize=(10.5, 3.3), layout="constrained")
for row, (name, images) in zip(axes, rows.items(), strict=True):
    for axis, image in zip(row, images, strict=True):
        axis.imshow((image + 0.5).movedim(0, -1))
        axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(name)
figure.savefig("back_mix.png", dpi=120)
