"""Random representations for the tests of scorers."""

import numpy as np
from hypothesis import settings

from skdfb.scorers import MSP, ODIN, BackgroundLogit, Energy, MaxLogit, Representation, ViM

# The same examples in each run.
quick = settings(max_examples=30, deadline=None, derandomize=True)

# One of each built-in scorer, able to score unperturbed images.
SCORERS = [MSP(), MaxLogit(), ODIN(input_perturbation=0), Energy(), Energy(temperature=2.5), ViM(), BackgroundLogit()]


def random_arrays(seed=0, *, n=30, C=8, K=4, rank=None, scale=1.0, dtype=np.float64):
    """Features, weight and bias; features span `rank` dimensions (all by default)."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, rank or C)) + 0.5
    if rank is not None:
        features = features @ rng.normal(size=(rank, C))
    weight, bias = rng.normal(size=(K, C)), rng.normal(size=K)
    return {
        "features": (scale * features).astype(dtype),
        "weight": weight.astype(dtype),
        "bias": (scale * bias).astype(dtype),
    }


def random_representation(seed=0, **options):
    return Representation.from_numpy(**random_arrays(seed, **options))


def representation_of_logits(logits):
    """Representation with the given logits; its features say nothing."""
    logits = np.asarray(logits)
    n, K = logits.shape
    return Representation.from_numpy(
        features=np.zeros((n, 3)), weight=np.zeros((K, 3)), bias=np.zeros(K), logits=logits
    )


def fit_and_score(scorer, representation):
    return scorer.fit(representation).score_samples(representation)
