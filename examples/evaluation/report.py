"""
A report as one HTML file
=========================

Write all about a fitted detector on one page for others: numbers with intervals, plots, and images with the reason why they
were accepted or rejected. The file needs no network connection and runs no scripts.
"""

# %%
# A detector and test images
# --------------------------
#
# The images are crops of two photographs: three known classes, and three sets of other things. Use test images that the
# detector was not fitted on.

from skdfb import FrozenDetector
from skdfb.datasets import load_photo_crops

data = load_photo_crops(n_test=60, n_ood=30, random_state=0)
detector = FrozenDetector("tf_efficientnet_lite0", image_size=128, calibration_fraction=0.2, random_state=0).fit(
    data.images, data.target
)

# %%
# Write it
# --------
#
# Sets of images are arrays here. Folders work as well: ``write_report(detector, "test/", {"other": "other/"}, "report.html")``.

import tempfile
from pathlib import Path

from skdfb.reports import write_report

with tempfile.TemporaryDirectory() as folder:
    path = write_report(
        detector,
        data.images_test,
        data.ood_images,
        Path(folder, "report.html"),
        y_id=data.target_test,
        n_examples=3,
        random_state=0,
    )
    print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")

# %%
# The numbers alone
# -----------------
#
# The numbers of the page are those of :func:`~skdfb.evaluation.evaluate`. An AUROC of 1 is due to this easy set of images.

from skdfb.evaluation import evaluate

table = evaluate(detector, data.images_test, data.ood_images, data.target_test, random_state=0)
print(table.to_frame()[["ood", "auroc", "fpr95", "oscr", "accuracy", "id_rejected", "ood_rejected"]].round(3))

# %%
# One of its plots
# ----------------

import matplotlib.pyplot as plt

from skdfb.displays import ScoreHistogramDisplay

figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ScoreHistogramDisplay.from_estimator(detector, {"known classes": data.images_test, **data.ood_images}, ax=ax)
plt.show()
