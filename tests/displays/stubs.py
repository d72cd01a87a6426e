"""A detector without networks, and what a detector explains."""

from types import SimpleNamespace

import numpy as np
from sklearn.base import BaseEstimator

from skdfb.scorers import MSP, Energy


class Detector(BaseEstimator):
    """Its score is the mean pixel; the left half of each image is foreground of the class "bee"."""

    offset_ = 0.25
    classes_ = np.array(["ant", "bee"])
    training_history_ = {"dense": {"loss": [2.0, 1.0], "learning_rate": [0.1, 0.2]}}  # noqa: RUF012

    def __init__(self):
        self.joint_score_ = SimpleNamespace(
            parts_=[("foreground", "dense", MSP()), ("background_logit", "background", Energy())]
        )
        self.part_scorers_ = {"foreground": MSP(), "background_logit": Energy()}
        self.n_seen = []

    def fit(self, X, y=None):
        return self

    def score_samples(self, X):
        return np.asarray(X).mean((1, 2, 3))

    def score_parts(self, X):
        mean = self.score_samples(X)
        return {"foreground": np.log(0.5 + mean / 3), "background_logit": 3 - mean**2}

    def segment(self, X):
        self.n_seen.append(len(X))
        probabilities = np.zeros((len(X), 6, 6, 3))
        probabilities[:, :, :3, 1] = 1
        probabilities[:, :, 3:, 2] = 1
        return probabilities

    def transform(self, X):
        return np.asarray(X).reshape(len(X), -1)

    def explain(self, X, *, n_neighbors=3):
        self.n_seen.append(len(X))
        return explanation(len(X), n_neighbors)


def explanation(n=1, n_neighbors=2, **changes):
    """What ``explain`` returns of n images."""
    found = {
        "names": [f"image {index}" for index in range(n)],
        "alpha": 0.05,
        "p_values": np.full(n, 0.004),
        "part_p_values": {"foreground": np.full(n, 0.2), "background_logit": np.full(n, 0.001)},
        "deciding_parts": ["background_logit"] * n,
        "neighbors": [[f"image {place}" for place in range(n_neighbors)]] * n,
        "neighbor_labels": [["bee"] * n_neighbors] * n,
        "neighbor_distances": np.full((n, n_neighbors), 0.25),
        "sentences": ["rejected (p = 0.004): the background is unlike that of 99 % of the known images"] * n,
    }
    return SimpleNamespace(**found | changes)


def images(n=3, side=6, seed=0):
    return np.random.default_rng(seed).random((n, side, side, 3))


def legend_of(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]
