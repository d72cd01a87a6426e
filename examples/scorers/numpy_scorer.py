"""
Your own scorer in NumPy
========================

A scorer is any object with two methods; it inherits nothing and is not registered. Write one in ten lines, check it, and
use it on features from any source and in a detector.
"""

# %%
# Ten lines
# ---------
#
# The score is the negative distance of the features of an image to the nearest class mean. Higher is more
# in-distribution, as for all scores of the library. ``representation`` holds torch tensors on the CPU; ``.numpy()`` views
# them. Compute in float64, since features may be in half precision. The class indices ``y`` are None if there are no
# classes.

import numpy as np


class NearestMean:
    def fit(self, representation, y):
        features = representation.features.numpy().astype(np.float64)
        y = np.zeros(len(features)) if y is None else y
        self.means_ = [features[y == k].mean(axis=0) for k in np.unique(y)]
        return self

    def score_samples(self, representation):
        features = representation.features.numpy().astype(np.float64)
        return -np.min([np.linalg.norm(features - mean, axis=1) for mean in self.means_], axis=0)


# %%
# Check it
# --------
#
# :func:`~skdfb.testing.check_foreground_scorer` checks that detectors can use it: one finite score per image, the same
# score in any order and in any batch, no change of the inputs, no memory of an earlier fit, and unusual data is scored or
# refused. (How well it separates OOD images depends on the data.)

from skdfb.testing import check_foreground_scorer

results = check_foreground_scorer(NearestMean())
print(len(results), "checks:", {result["status"] for result in results})

# %%
# The checks also find errors that are easy to miss. If scores are centred by batch, the score of an image depends on the
# other images:


class CentredByBatch(NearestMean):
    def score_samples(self, representation):
        scores = super().score_samples(representation)
        return scores - scores.mean()


for result in check_foreground_scorer(CentredByBatch(), on_fail=None):
    if result["status"] == "failed":
        print(f"{result['check_name']}: {result['exception']}")

# %%
# In a test suite, ``@parametrize_with_checks(check_foreground_scorer, [NearestMean()])`` makes a test of each check.
#
# On features from any source
# ---------------------------
#
# A scorer needs features and the linear head after them. Here the features are the hidden units of a small scikit-learn
# network. It is trained on the digits 0 to 5 of 8 x 8 pixels; the digits 6 to 9 are OOD.

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from skdfb.metrics import auroc_score
from skdfb.scorers import MSP, Energy, Representation

X, y = load_digits(return_X_y=True)
X, known = X / 16, y < 6
X_train, X_test, y_train, y_test = train_test_split(X[known], y[known], test_size=0.4, random_state=0)
network = MLPClassifier(hidden_layer_sizes=(64,), solver="lbfgs", random_state=0)
network.fit(X_train, y_train)


def represent(X):
    hidden, head = network.coefs_
    features = np.maximum(X @ hidden + network.intercepts_[0], 0)
    return Representation.from_numpy(features=features, weight=head.T, bias=network.intercepts_[1])


train, test, unknown = represent(X_train), represent(X_test), represent(X[~known])
scores = {}
for scorer in (NearestMean(), MSP(), Energy()):
    scorer.fit(train, y_train)
    scores[type(scorer).__name__] = {
        "known digits": scorer.score_samples(test),
        "unknown digits": scorer.score_samples(unknown),
    }
print(f"accuracy {network.score(X_test, y_test):.3f}")
for name, by_set in scores.items():
    print(f"{name:12} AUROC {auroc_score(*by_set.values()):.3f}")

# %%
# The best scorer depends on the network and on the data. Here it is not the one of ten lines.

import matplotlib.pyplot as plt

from skdfb.displays import ScoreHistogramDisplay

figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for ax, name in zip(axes, ("NearestMean", "Energy"), strict=True):
    ScoreHistogramDisplay.from_predictions(scores[name], ax=ax)
    ax.set_title(name)
    ax.set_ylim(top=1.4 * ax.get_ylim()[1])  # room for the legend
plt.show()

# %%
# In a detector
# -------------
#
# A detector of images takes it as ``scorer``. The features are those of a pre-trained network.

from skdfb import FrozenDetector
from skdfb.datasets import load_photo_crops

data = load_photo_crops(random_state=0)
detector = FrozenDetector(
    "tf_efficientnet_lite0", scorer=NearestMean(), image_size=128, calibration_fraction=0.2, random_state=0
)
detector.fit(data.images, data.target)
print("known classes:", detector.predict(data.images_test[:8]))
print("sky:          ", detector.predict(data.ood_images["sky"][:8]))

# %%
# It accepts the sky: a plain distance is a weak score on these features.
# :ref:`sphx_glr_auto_examples_detector_frozen_features.py` has scorers that reject it.
#
# ``DFBDetector(scorer=NearestMean())`` joins it with other scores. To save such a detector and load it again, pass the
# class: ``skdfb.load(path, customs=[NearestMean])``.
