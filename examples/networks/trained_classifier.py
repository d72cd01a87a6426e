"""
A classifier that you have trained already
==========================================

Use the network and the head of your own classifier: a :class:`~skdfb.networks.DenseClassifier` around it is not trained
again. The module can be anything that gives a feature map.
"""

# %%
# The classifier
# --------------
#
# This stands for your own code: a small network in PyTorch and its training loop.

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn


class SmallBackbone(nn.Module):
    """Grey images (n, 1, H, W) to feature maps (n, 32, H / 2, W / 2)."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x):
        return self.layers(x)


# Grey images of 8 x 8 pixels, floats in 0..1. The digits 0 to 7 are known, 8 and 9 are OOD.
images, y = load_digits(return_X_y=True)
images = (images / 16).reshape(-1, 8, 8)
known = y < 8
X_train, X_test, y_train, y_test = train_test_split(images[known], y[known], test_size=0.4, random_state=0)

torch.manual_seed(0)
backbone, head = SmallBackbone(), nn.Linear(32, 8)
optimizer = torch.optim.Adam([*backbone.parameters(), *head.parameters()], lr=0.01)
inputs, targets = torch.from_numpy(X_train).float()[:, None], torch.from_numpy(y_train)
for _ in range(300):
    rows = torch.randint(len(inputs), (64,))
    logits = head(backbone(inputs[rows] - 0.5).mean((2, 3)))
    loss = nn.functional.cross_entropy(logits, targets[rows])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

# %%
# Hand it over
# ------------
#
# The detector normalises the images. ``pretrained_cfg``, with the keys of timm, holds how your network was trained: here
# 0.5 is subtracted from pixels in 0..1. Then copy the head into a :class:`~skdfb.networks.DenseClassifier`. ``classes``
# names the outputs in their order. (For a whole classifier of timm or torchvision,
# ``DenseClassifier.from_classifier(model)`` is enough.)

from skdfb.networks import DenseClassifier

backbone.pretrained_cfg = {"input_size": (1, 8, 8), "mean": (0.5,), "std": (1.0,)}
network = DenseClassifier(backbone, 8, image_size=8, classes=range(8)).eval()
with torch.no_grad():
    network.head.weight.copy_(head.weight)
    network.head.bias.copy_(head.bias)

# %%
# A detector around it
# --------------------
#
# :class:`~skdfb.FrozenDetector` trains nothing: it fits the scorer and sets the threshold, and ``classify`` returns the
# labels of your classifier. Set the threshold on images that your network was not trained on (``X_calibration``), since a
# network knows its training images too well.

from skdfb import FrozenDetector
from skdfb.scorers import ViM

X_calibration, X_new, y_calibration, y_new = train_test_split(X_test, y_test, test_size=0.5, random_state=0)
detector = FrozenDetector(network, scorer=ViM(), random_state=0)
detector.fit(X_train, y_train, X_calibration=X_calibration)
print(f"accuracy {detector.score(X_new, y_new):.1%}")
turned = np.rot90(X_new, axes=(1, 2)).copy()
for name, X in {"known digits": X_new, "unknown digits": images[~known], "turned digits": turned}.items():
    print(f"{name:14} {np.mean(detector.predict(X) == -1):.1%} rejected")

# %%
# ``DFBDetector(network)`` takes it as well. It skips the training of the classifier and trains the dense network, which
# adds the background.

import matplotlib.pyplot as plt

from skdfb.displays import ScoreHistogramDisplay

figure, ax = plt.subplots(figsize=(7, 3.5), layout="constrained")
ScoreHistogramDisplay.from_estimator(
    detector, {"known digits": X_new, "unknown digits": images[~known], "turned digits": turned}, ax=ax
)
plt.show()
