"""
Quickstart
==========

Fit a detector on small photographs of three classes, and let it find photographs of other things. The network is
pre-trained, and nothing is downloaded. This takes about half a minute on two CPU cores.
"""

# %%
# The images
# ----------
#
# The known classes are "building", "flower" and "trees". The detector never gets an image of a lake, of leaves or of the
# sky: these are out-of-distribution (OOD). All images are crops of two photographs.

from skdfb.datasets import load_photo_crops

data = load_photo_crops(random_state=0)
X, y = data.images, data.target
print(X.shape, X.dtype, data.target_names, {name: len(images) for name, images in data.ood_images.items()})

# %%
# Fit
# ---
#
# ``DFBDetector("tf_efficientnet_lite0")`` is enough for your own photographs. These are few and small, so here the feature
# map is finer (``output_stride``), both trainings are short, and a larger share of the images is held out. ``fit`` trains
# a classifier and then a dense network, which separates foreground from background. It sets the threshold on the images
# that it holds out.

from skdfb import DFBDetector, Trainer
from skdfb.networks import create_backbone

short = Trainer(max_steps=20, batch_size=16)
detector = DFBDetector(
    create_backbone("tf_efficientnet_lite0", output_stride=16),
    classifier_trainer=short,
    dense_trainer=short,
    image_size=64,
    calibration_fraction=0.3,
    random_state=0,
)
detector.fit(X, y)

# %%
# Ask
# ---
#
# ``predict`` returns +1 for in-distribution and -1 for OOD. ``predict_open_set`` returns the label, or "unknown" for OOD.

X_new, y_new = data.images_test, data.target_test
print("known: ", *detector.predict_open_set(X_new[:6]))
for name, images in data.ood_images.items():
    print(f"{name:7}", *detector.predict_open_set(images[:6]))

# %%
# ``explain`` returns the reasons: one sentence per image, and the numbers behind it.

import numpy as np

print(detector.explain(np.stack([X_new[0], *(images[0] for images in data.ood_images.values())])))

# %%
# Measure
# -------
#
# An image of a known class is rejected with probability at most ``alpha``, which is 5 % by default. This holds on average
# over training sets, so the share on one test set may be larger. Crops of two photographs are an easy task: expect less
# on your own images.

from skdfb.evaluation import evaluate

print(f"accuracy: {detector.score(X_new, y_new):.1%}")
table = evaluate(detector, X_new, data.ood_images, y_new, random_state=0)
print(f"known images: {table.id_rejected[0]:.1%} rejected")
for name, auroc, rejected in zip(table.ood, table.auroc, table.ood_rejected, strict=True):
    print(f"{name:7} AUROC {auroc:.3f}, {rejected:.1%} rejected")

# %%
# Plot
# ----
#
# Scores are higher for in-distribution images. Images to the left of the threshold are rejected.

import matplotlib.pyplot as plt

from skdfb.displays import ScoreHistogramDisplay

figure, ax = plt.subplots(figsize=(8, 4), layout="constrained")
ScoreHistogramDisplay.from_estimator(detector, {"known classes": X_new, **data.ood_images}, ax=ax)
figure.savefig("quickstart.png", dpi=120)
