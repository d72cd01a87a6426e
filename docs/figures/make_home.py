"""Draw ``docs/_static/home.png``: new images with the answer of a detector and its reason.

The detector and the images are those of the tutorial. Shown are the first new image of each known class and the first
of each OOD set, whatever the answer. Run it in the root of the repository: ``python docs/figures/make_home.py``.
"""

import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from skdfb import FrozenDetector
from skdfb.datasets import load_photo_crops

PATH = Path(__file__).parents[1] / "_static" / "home.png"
CHARACTERS = 27  # of a line below a picture
COLORS = {False: "tab:green", True: "tab:red"}


def draw(path: Path) -> None:
    """Fit the detector and save the picture. Its ground is white, which dark pages show as a card."""
    data = load_photo_crops(n_train=300, n_test=60, n_ood=40)
    detector = FrozenDetector("tf_efficientnet_lite0", random_state=0).fit(data.images, data.target)
    known = [data.images_test[data.target_test == label][0] for label in data.target_names]
    images = np.stack([*known, *(ood[0] for ood in data.ood_images.values())])
    labels, why = detector.predict_open_set(images), detector.explain(images)
    figure, axes = plt.subplots(2, 3, figsize=(8, 8.6))
    for axis, image, label, rejected, reason in zip(
        axes.flat, images, labels, why.rejected, why.sentences, strict=True
    ):
        axis.imshow(image)
        axis.set(xticks=[], yticks=[])
        axis.set_title(label, color=COLORS[bool(rejected)], fontsize=18, weight="bold")
        axis.text(0.5, -0.04, textwrap.fill(reason, CHARACTERS), transform=axis.transAxes, ha="center", va="top")
        for spine in axis.spines.values():
            spine.set(color=COLORS[bool(rejected)], linewidth=4)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.95, bottom=0.19, wspace=0.06, hspace=0.42)
    figure.savefig(path, dpi=100, facecolor="white")
    plt.close(figure)


if __name__ == "__main__":
    plt.rcParams.update({"font.size": 13})
    draw(PATH)
