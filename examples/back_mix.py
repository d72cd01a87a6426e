"""
BackMix
=======

Keep a classifier from learning the background of a class: :class:`~skdfb.augmentation.BackMix` pastes patches of the
backgrounds of other images into the training images. Nothing is downloaded; on two CPU cores this takes half a minute.
"""

# %%
# In training
# -----------
#
# Pass it to a trainer as ``augmentation``, for either stage of a detector:
# ``DFBDetector(classifier_trainer=Trainer(augmentation=BackMix()), dense_trainer=Trainer(augmentation=BackMix()))``.
# In this example a mask generator trains a classifier with it.

import torch

from skdfb import CAMMaskGenerator, Trainer
from skdfb.augmentation import BackMix, Batch
from skdfb.datasets import load_digits_on_photos
from skdfb.networks import create_backbone

data = load_digits_on_photos(n_train=1000, random_state=0)
trainer = Trainer(
    max_steps=250, batch_size=32, learning_rate=0.3, flip=False, mixup=None, schedule="cosine", augmentation=BackMix()
)
backbone = create_backbone("test_resnet", pretrained=False, output_stride=8, random_state=0)
generator = CAMMaskGenerator(backbone, trainer=trainer, image_size=32, random_state=0).fit(data.images, data.target)

# %%
# The mixed images
# ----------------
#
# To paste only backgrounds, BackMix needs to know where the foreground is. In the training of a classifier it takes the
# class activation maps of the network itself, averaged over the epochs. In the training of a dense network it takes the
# masks. The picture has both: the maps of the classifier above, and the true masks, which are known because the digits
# were pasted into the images. Pixels are grey where the other image has its foreground.

first = slice(0, 10)
pixels = torch.from_numpy(data.images[first]).movedim(-1, 1) / 255 - 0.5  # in a batch, 0 is the mean pixel
classes = torch.eye(data.n_classes)[torch.from_numpy(data.target[first])]
attention = torch.from_numpy(generator.attention_maps(data.images[first], data.target[first]))
masks = torch.from_numpy(data.masks[first])


def mixed(batch):
    return BackMix(patch_size=0.5).augment(batch, torch.Generator().manual_seed(0)).images


rows = {
    "images": pixels,
    "by attention": mixed(Batch(pixels, classes, attention_maps=attention)),
    "by masks": mixed(Batch(pixels, classes, masks)),
}

# %%
# The classes do not change.

import matplotlib.pyplot as plt

figure, axes = plt.subplots(len(rows), 10, figsize=(10.5, 3.3), layout="constrained")
for row, (name, images) in zip(axes, rows.items(), strict=True):
    for axis, image in zip(row, images, strict=True):
        axis.imshow((image + 0.5).movedim(0, -1))
        axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(name)
figure.savefig("back_mix.png", dpi=120)
