"""Softmax in long decimals, from its definition, for the oracles of scorers made of probabilities."""

import contextlib
from decimal import Decimal, localcontext

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

logit_rows = arrays(
    np.float64, st.tuples(st.integers(1, 4), st.integers(2, 5)), elements=st.floats(-300, 300, allow_subnormal=False)
)


@contextlib.contextmanager
def long_decimals(digits=400):
    with localcontext() as context:
        context.prec = digits
        yield


def decimal_softmax(row, temperature=1.0):
    """The probabilities of one row of logits as decimals; call it within `long_decimals`."""
    largest = Decimal(float(max(row)))
    exponentials = [((Decimal(float(z)) - largest) / Decimal(temperature)).exp() for z in row]
    return [e / sum(exponentials) for e in exponentials]
