"""
BackMix
=======

Keep a classifier from learning the background of a class: :class:`~skdfb.augmentation.BackMix` pastes patches of the
backgrounds of other images into the training images.
"""

# %%
# In training
# -----------
#
# Pass it to a trainer as ``augmentation``, for either stage of a detector:
# ``DFBDetector(classifier_trainer=Trainer(augmentation=BackMix()), dense_trainer=Trainer(augmentation=BackMix()))``.
# In this example a mask generator trains a classifier with it.

from skdfb import CAMMaskGenerator, Trainer
from skdfb.augmentation import BackMix
from skdfb.datasets import load_digits_on_photos
from skdfb.networks import create_backbone

data = load_digits_on_photos(n_train=800, n_test=6, n_ood=1, random_state=0)
trainer = Trainer(
    max_steps=150, batch_size=32, learning_rate=0.3, flip=False, schedule="cosine", augmentation=BackMix()
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
# were pasted into the images. Pixels are grey where the other image has its foreground. ``transform`` works on arrays,
# without a trainer.

images, labels = data.images[:10], data.target[:10]
back_mix = BackMix(patch_size=0.5, random_state=0)
rows = {
    "images": images,
    "by attention": back_mix.transform(images, attention_maps=generator.attention_maps(images, labels)),
    "by masks": back_mix.transform(images, masks=data.masks[:10] != data.n_classes),
}

# %%
# The classes do not change.

import matplotlib.pyplot as plt

figure, axes = plt.subplots(len(rows), 10, figsize=(10.5, 3.3), layout="constrained")
for row, (name, pictures) in zip(axes, rows.items(), strict=True):
    for axis, picture in zip(row, pictures, strict=True):
        axis.imshow(picture)
        axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(name)
plt.show()
