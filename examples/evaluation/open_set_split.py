"""
Known and unknown classes of one data set
=========================================

Make an open-set experiment of any labelled data set: :class:`~skdfb.evaluation.OpenSetSplit` draws known and unknown
classes, and the detector is measured on both. The figures of one split depend on its classes, so report several.
"""

# %%
# The splits
# ----------
#
# Six of scikit-learn's ten digits are known, four are unknown, five times.

import numpy as np
from sklearn.datasets import load_digits

from skdfb.evaluation import OpenSetSplit

X, y = load_digits(return_X_y=True)
X = X / 16
splitter = OpenSetSplit(n_known=6, n_unknown=4, n_splits=5, random_state=0)
for known, unknown in splitter.class_splits(y):
    print("known:", *known, " unknown:", *unknown)

# %%
# Fit and measure
# ---------------
#
# OSCR is AUROC in which a known image counts only if its label is right. The F1 score is that of the labels, with all
# unknown images as one more class; it depends on the threshold.

from skdfb import FeatureDetector
from skdfb.evaluation import evaluate
from skdfb.metrics import open_set_f1_score
from skdfb.scorers import KNN, MSP, ViM

scores, rows = {}, {}
for scorer in (MSP(), KNN(), ViM(n_components=16)):
    name = type(scorer).__name__
    rows[name] = []
    for train, test in splitter.split(X, y):
        detector = FeatureDetector(scorer, random_state=0).fit(X[train], y[train])
        is_known = np.isin(y[test], detector.classes_)
        X_known, X_unknown = X[test][is_known], X[test][~is_known]
        table = evaluate(detector, X_known, {"unknown": X_unknown}, y[test][is_known], n_bootstrap=0)
        f1 = open_set_f1_score(y[test], detector.predict_open_set(X[test]), detector.classes_)
        rows[name].append((table.auroc[0], table.oscr[0], f1))
    # The last split is plotted below.
    scores[name] = detector.score_samples(X_known), detector.score_samples(X_unknown)

print("scorer  AUROC          OSCR           F1")
for name, figures in rows.items():
    mean, spread = np.mean(figures, axis=0), np.std(figures, axis=0)
    print(f"{name:6}", *(f" {m:.3f} +- {s:.3f}" for m, s in zip(mean, spread, strict=True)))

# %%
# The spread is that over the five splits. It is larger than some of the differences between scorers: compare scorers on the
# same splits, and do not read much into the third digit.
#
# One split as a picture
# ----------------------
#
# The ROC curves of the last split.

import matplotlib.pyplot as plt

from skdfb.displays import OODCurveDisplay

figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
for ax, (name, (known, unknown)) in zip(axes, scores.items(), strict=True):
    OODCurveDisplay.from_predictions(known, {"unknown digits": unknown}, ax=ax)
    ax.set_title(name)
plt.show()
