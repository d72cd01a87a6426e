"""The linear head in closed form, against a plain oracle and scikit-learn."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.covariance import oas
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from skdfb.scorers import Representation
from skdfb.scorers._discriminant import discriminant_head


def problem(n=120, C=5, K=3, seed=0):
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(K), rng.integers(0, K, n - K)])
    X = rng.normal(size=(n, C)) @ rng.normal(size=(C, C)) + 4 + 3 * rng.normal(size=(K, C))[y]
    return X, y


def head_of(X, y, K=3):
    representation = Representation.from_numpy(features=X, weight=np.zeros((K, X.shape[1])), bias=np.zeros(K))
    return discriminant_head(representation, y)


def oracle(X, y, K):
    """Equation by equation, class by class."""
    means = [X[y == k].mean(0) for k in range(K)]
    centred = np.concatenate([X[y == k] - means[k] for k in range(K)])
    covariance = centred.T @ centred / len(X)
    n, C = len(X) - K, X.shape[1]
    spread = (n + 1) * ((covariance**2).mean() - (np.trace(covariance) / C) ** 2 / C)
    s = min(1.0, ((covariance**2).mean() + (np.trace(covariance) / C) ** 2) / spread)
    inverse = np.linalg.inv((1 - s) * covariance + s * np.trace(covariance) / C * np.eye(C))
    centre = X.mean(0)
    weight = np.stack([inverse @ (mean - centre) for mean in means])
    bias = [
        np.log(np.mean(y == k)) - (means[k] - centre) @ inverse @ (means[k] - centre) / 2 - weight[k] @ centre
        for k in range(K)
    ]
    return weight, np.array(bias)


def test_oracle():
    X, y = problem()
    weight, bias = head_of(X, y)
    expected_weight, expected_bias = oracle(X, y, 3)
    assert_allclose(weight, expected_weight, rtol=1e-9)
    assert_allclose(bias, expected_bias, rtol=1e-9)


def test_probabilities_are_those_of_scikit_learn():
    X, y = problem(n=4000)  # so many that shrinkage is next to nothing in both
    weight, bias = head_of(X, y)
    logits = X @ weight.T + bias
    probabilities = np.exp(logits - logits.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    expected = LinearDiscriminantAnalysis(solver="lsqr").fit(X, y).predict_proba(X)
    assert oas(X)[1] < 0.01
    assert_allclose(probabilities, expected, atol=0.01)


def test_a_class_without_images_never_wins_where_classes_are():
    X, y = problem()
    weight, bias = head_of(X, np.where(y == 1, 2, y), K=4)
    assert not weight[[1, 3]].any()
    logits = X @ weight.T + bias
    assert set(logits.argmax(1)) == {0, 2}


def test_features_that_do_not_vary_are_refused():
    with pytest.raises(ValueError, match="do not vary within a class"):
        head_of(np.ones((6, 4)), np.arange(6) % 3)
