"""
Pipelines and parameter searches
================================

Detectors are scikit-learn estimators: put them into pipelines, clone them, and search over their parameters and those of
their scorers.
"""

# %%
# A pipeline
# ----------
#
# The rows are scikit-learn's digits; 0 to 7 are known. The pipeline has the methods of its last step.

from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from skdfb import FeatureDetector
from skdfb.scorers import KNN, ViM

X, y = load_digits(return_X_y=True)
X, known = X / 16, y < 8
X_train, X_test, y_train, y_test = train_test_split(
    X[known], y[known], test_size=0.3, stratify=y[known], random_state=0
)
pipeline = make_pipeline(PCA(32, random_state=0), FeatureDetector(KNN(), random_state=0))
pipeline.fit(X_train, y_train)
print("known digits:  ", pipeline.predict(X_test[:10]))
print("unknown digits:", pipeline.predict(X[~known][:10]))

# %%
# The labels of known images come from ``classify`` of the last step. ``score`` is the accuracy of these labels.

print(f"accuracy: {pipeline.score(X_test, y_test):.3f}")

# %%
# Cross-validation
# ----------------
#
# scikit-learn does not treat outlier detectors as classifiers, so ``cv=5`` does not stratify by class. Pass a splitter.

from sklearn.model_selection import StratifiedKFold, cross_val_score

folds = StratifiedKFold(5, shuffle=True, random_state=0)
print("accuracies:", cross_val_score(pipeline, X_train, y_train, cv=folds).round(3))

# %%
# A search
# --------
#
# The accuracy does not depend on the scorer. To compare scorers without OOD data, leave classes out:
# :class:`~skdfb.evaluation.LeaveClassesOut` makes the splits and :func:`~skdfb.evaluation.left_out_auroc` is the measure.
# Two underscores lead to the parameters of a step and of its scorer.

from sklearn.model_selection import GridSearchCV

from skdfb.evaluation import LeaveClassesOut, left_out_auroc

search = GridSearchCV(
    pipeline,
    [
        {"featuredetector__scorer": [KNN()], "featuredetector__scorer__n_neighbors": [1, 5, 20]},
        {"featuredetector__scorer": [ViM()], "featuredetector__scorer__n_components": [8, 16, 24]},
    ],
    cv=LeaveClassesOut(n_splits=4, random_state=0),
    scoring=left_out_auroc,
)
search.fit(X_train, y_train)
for parameters, auroc in zip(search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True):
    print(f"{auroc:.3f}", *parameters.values())

# %%
# The best estimator has been fitted again on all known classes. A search is an estimator, too, and displays take it.

import matplotlib.pyplot as plt

from skdfb.displays import ScoreHistogramDisplay

figure, ax = plt.subplots(figsize=(7, 3.5), layout="constrained")
best = search.best_estimator_
scores = {"known digits": best.score_samples(X_test), "unknown digits": best.score_samples(X[~known])}
ScoreHistogramDisplay.from_predictions(scores, threshold=best[-1].offset_, ax=ax)
plt.show()
