"""Random representations for the tests of scorers."""

import inspect

import numpy as np
from hypothesis import settings

import skdfb.scorers
from skdfb.scorers import Energy, KernelPCA, Mahalanobis, RelativeMahalanobis, Representation
from skdfb.scorers._base import BaseScorer

# The same examples in each run.
quick = settings(max_examples=30, deadline=None, derandomize=True)

BUILT_IN = [
    value
    for value in vars(skdfb.scorers).values()
    if inspect.isclass(value) and issubclass(value, BaseScorer) and not inspect.isabstract(value)
]


def default_instance(scorer_class):
    """An instance able to score unperturbed images, on few training images, the same way each time."""
    scorer = scorer_class()
    known = {"input_perturbation": 0, "n_neighbors": 5, "random_state": 0}
    return scorer.set_params(**{name: known[name] for name in known if name in scorer.get_params()})


# One of each built-in scorer that needs nothing but features, logits and head.
SCORERS = [scorer for scorer in map(default_instance, BUILT_IN) if not scorer.needs_activations]
# Options that change what a scorer computes.
VARIANTS = [
    KernelPCA("cosine-gaussian", n_random_features=40),
    Mahalanobis(normalize=True, use_classes=False),
    RelativeMahalanobis("auto", normalize=True),
]
SCORERS += [Energy(temperature=2.5), *VARIANTS]


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


def cyclic_labels(representation):
    """Classes 0, 1, .., K-1, 0, 1, .. for the images."""
    return np.arange(len(representation)) % representation.n_classes


def fit(scorer, representation):
    return scorer.fit(representation, cyclic_labels(representation))


def fit_and_score(scorer, representation):
    return fit(scorer, representation).score_samples(representation)
