"""Compares the errors of `check_sizes` with those that `fit` would raise without it."""

from sklearn.base import clone

ENOUGH = 10**6


def message_of(function, *arguments):
    """The message of the ValueError that a call raises, or None."""
    try:
        function(*arguments)
    except ValueError as error:
        return str(error)
    return None


def early_error(scorer, representation):
    """The message of `check_sizes` for the sizes of a representation, or None."""
    return message_of(scorer.check_sizes, representation.n_features, representation.n_classes, len(representation))


def late_error(monkeypatch, scorer, representation, y=None):
    """The message of a `fit` in which `check_sizes` does not know that there are few images, or None."""
    check_sizes = type(scorer).check_sizes
    with monkeypatch.context() as patch:
        patch.setattr(type(scorer), "check_sizes", lambda self, C, K, n: check_sizes(self, C, K, max(n, ENOUGH)))
        return message_of(clone(scorer).fit, representation, y)


def assert_same_error_early(monkeypatch, scorer, representation, y=None):
    """`check_sizes` and `fit` refuse the same sizes, with the same message."""
    early = early_error(scorer, representation)
    assert early == late_error(monkeypatch, scorer, representation, y)
    assert early == message_of(clone(scorer).fit, representation, y)
