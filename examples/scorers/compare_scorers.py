"""
Compare scorers on a fitted detector
====================================

:func:`~skdfb.evaluation.compare_scorers` puts scorers side by side, each on the plain classifier and joined with the
background scores of DFB. No network is trained again.
"""

# %%
# A detector
# ----------
#
# A tiny network from random weights learns digits on photographs. Both trainings are far too short for good figures; the
# measured results have longer ones.

from skdfb import DFBDetector, Trainer
from skdfb.datasets import load_digits_on_photos
from skdfb.networks import create_backbone

data = load_digits_on_photos(n_train=600, n_test=200, n_ood=200, random_state=0)
recipe = {"max_steps": 200, "batch_size": 32, "schedule": "cosine", "flip": False, "mixup": None}
detector = DFBDetector(
    create_backbone("test_resnet", pretrained=False, output_stride=8, random_state=0),
    classifier_trainer=Trainer(learning_rate=0.3, **recipe),
    dense_trainer=Trainer(learning_rate=0.1, **recipe),
    image_size=32,
    random_state=0,
)
detector.fit(data.images, data.target)

# %%
# Loss and learning rate of both stages: a loss that still falls at the end needs more steps.

from skdfb.displays import TrainingDisplay

TrainingDisplay.from_estimator(detector)

# %%
# The table
# ---------
#
# The number on the left of each arrow is the scorer on the classifier alone (*plain*), the number on the right is the joint
# score of DFB with this scorer. The dense network has been trained for the steps of both stages, the classifier for those
# of the first: part of each gain is due to that.

from skdfb.evaluation import compare_scorers, format_comparison
from skdfb.scorers import KNN, MSP, Energy, ViM

table = compare_scorers(
    detector,
    data.images_test,
    data.ood_images,
    X=data.images,
    y=data.target,
    scorers=[MSP(), Energy(), KNN(), ViM()],
)
print(format_comparison(table))

# %%
# Keep one
# --------
#
# ``refit_scorer`` returns a detector with another scorer, on the same networks and with a new threshold.

chosen = detector.refit_scorer(KNN())
print(chosen.part_scorers_)

# %%
# A picture
# ---------
#
# One dot per scorer and OOD set: no scorer is the best on all sets.

import matplotlib.pyplot as plt
import numpy as np

ood_sets, scorers = list(data.ood_images), list(dict.fromkeys(table.scorer))
figure, axes = plt.subplots(2, 2, figsize=(8, 5), sharey=True, sharex=True, layout="constrained")
for ax, ood in zip(axes.flat, ood_sets, strict=True):
    for method, marker in (("plain", "o"), ("dfb", "s")):
        rows = (table.ood == ood) & (table.method == method)
        ax.plot(table.auroc[rows], np.arange(len(scorers)), marker, label=method)
    ax.set(title=ood.replace("_", " "), xlabel="AUROC", yticks=range(len(scorers)), yticklabels=scorers)
    ax.axvline(0.5, color="0.8", linewidth=1, zorder=0)
    ax.margins(y=0.15)
    ax.label_outer()
axes[0, 0].legend(fontsize="small")
plt.show()
