"""Functions that return tables, changed to return data frames, which tests can query."""

from functools import wraps

from skdfb.evaluation import Table


def framed(function):
    """Return the function with its table as a data frame."""

    @wraps(function)
    def call(*arguments, **options):
        table = function(*arguments, **options)
        assert isinstance(table, Table)
        return table.to_frame()

    return call
