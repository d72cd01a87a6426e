"""
Explain a rejection
===================

A detector that rejects an image also has the reason: which score was unusual, which class the image resembles, and which
known images are nearest.
"""

# %%
# A detector of two parts
# -----------------------
#
# The images are crops of two photographs: three known classes, and three that are out-of-distribution. They are written to
# files, so that the explanation can name and plot them. The detector has two parts: a score of the last features of a
# pre-trained network, and one of an earlier stage, which knows more of colours and textures.

import tempfile
from pathlib import Path

from PIL import Image

from skdfb import FrozenDetector
from skdfb.datasets import load_photo_crops
from skdfb.scorers import Mahalanobis, RelativeMahalanobis

data = load_photo_crops(n_train=200, image_size=96, random_state=0)
folder = tempfile.TemporaryDirectory()
images = Path(folder.name)
for i, (pixels, name) in enumerate(zip(data.images, data.target, strict=True)):
    (images / name).mkdir(exist_ok=True)
    Image.fromarray(pixels).save(images / name / f"{i:03}.png")

parts = [
    ("content", "classifier", RelativeMahalanobis("auto", normalize=True)),
    ("texture", "classifier.blocks.3", Mahalanobis("auto", normalize=True)),
]
detector = FrozenDetector(
    "tf_efficientnet_lite0", scorer=parts, calibration_fraction=0.4, image_size=128, random_state=0
)
detector.fit(images)

# %%
# The reason in words
# -------------------
#
# One sentence per image: two known images, and one of each OOD set.

import numpy as np

X = np.stack([*data.images_test[:2], *(crops[0] for crops in data.ood_images.values())])
explanation = detector.explain(X, n_neighbors=3)
print(explanation)

# %%
# The numbers
# -----------
#
# ``part_p_values`` has, for each part, the share of in-distribution images that score no higher, as estimated from held-out
# images. The part with the lowest one decides. The p-value of the image is counted on the images that set the threshold:
# with n of them it is at least 1 / (n + 1), so hold out more images for finer ones.

print("p-values:", explanation.p_values.round(3), "alpha:", explanation.alpha)
for name, shares in explanation.part_p_values.items():
    print(f"{name:8}", shares.round(3))
print("nearest known images of the last one:", *explanation.neighbors[-1])

# %%
# The picture
# -----------
#
# The image, its parts against ``alpha``, and the nearest known images. Their names are relative to the folder of ``fit``. A
# :class:`~skdfb.DFBDetector` adds its foreground and its background.

import matplotlib.pyplot as plt

from skdfb.displays import RejectionDisplay

for index in (2, 0):
    nearest = [images / name for name in explanation.neighbors[index]]
    RejectionDisplay.from_explanation(explanation, index, image=X[index], neighbor_images=nearest)
plt.show()

# %%
# The upper image was rejected, the lower one accepted.

folder.cleanup()
