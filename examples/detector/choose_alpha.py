"""
Choose alpha
============

``alpha`` is the largest share of in-distribution images that a detector may reject. Change it after the fit with
:meth:`~skdfb.FeatureDetector.with_alpha`, which trains nothing, and compare what it costs with what it gains.
"""

# %%
# Fit once
# --------
#
# The rows are the 64 pixels of scikit-learn's digits. The digits 0 to 7 are known, 8 and 9 are OOD. A small ``alpha`` needs
# many held-out images: at least ``1 / alpha - 1`` for one scorer. So a quarter is held out here.

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skdfb import FeatureDetector

X, y = load_digits(return_X_y=True)
X, known = X / 16, y < 8
X_train, X_test, y_train, y_test = train_test_split(
    X[known], y[known], test_size=0.4, stratify=y[known], random_state=0
)
detector = FeatureDetector(calibration_fraction=0.25, random_state=0).fit(X_train, y_train)

# %%
# Change it
# ---------
#
# Scores stay as they are; only the threshold moves.

alphas = np.array([0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3])
rejected = {"known digits": [], "unknown digits": []}
print("alpha  threshold  known rejected  unknown rejected")
for alpha in alphas:
    stricter = detector.with_alpha(float(alpha))
    for name, rows in (("known digits", X_test), ("unknown digits", X[~known])):
        rejected[name].append(np.mean(stricter.predict(rows) == -1))
    print(
        f"{alpha:5.2f} {stricter.offset_:10.3f} {rejected['known digits'][-1]:15.1%} {rejected['unknown digits'][-1]:17.1%}"
    )

# %%
# p-values instead of a threshold
# -------------------------------
#
# ``p_values`` keeps the choice open: a row is rejected if its p-value is at most ``alpha``. Store p-values, and decide
# later.

p_values = detector.p_values(X_test)
print(
    f"share of known digits with p <= 0.05: {np.mean(p_values <= 0.05):.1%}, rejected: {rejected['known digits'][2]:.1%}"
)

# %%
# What the promise means
# ----------------------
#
# The promise holds on average over the images that are held out. One draw of them can be unlucky: below, the same fit is
# repeated with 50 draws. Each dot is the share of known test rows that are rejected. Their mean is close to ``alpha``
# or below it; single dots are not. With more held-out images the dots are closer together.

draws = []
for seed in range(50):
    candidate = FeatureDetector(calibration_fraction=0.25, random_state=seed).fit(X_train, y_train)
    draws.append([np.mean(candidate.with_alpha(float(alpha)).predict(X_test) == -1) for alpha in alphas])
draws = np.array(draws)
print("mean share of rejected known digits:", draws.mean(axis=0).round(3))

import matplotlib.pyplot as plt

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for name, shares in rejected.items():
    left.plot(alphas, shares, "o-", label=name)
left.set(xlabel="alpha", ylabel="share rejected", title="What alpha costs and gains")
left.legend()
right.plot(np.tile(alphas, (len(draws), 1)), draws, ".", color="C0", alpha=0.25)
right.plot(alphas, draws.mean(axis=0), "o-", color="C0", label="mean of 50 draws")
right.plot([0, 0.3], [0, 0.3], "--", color="0.5", label="alpha")
right.set(xlabel="alpha", ylabel="share of known digits rejected", title="Each dot is one draw")
right.legend()
plt.show()
