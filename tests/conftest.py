"""For all tests."""

import gc


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what exists before the first test: modules, and thousands of tests.

    A full collection takes half a second with them, and there are many in the tests.
    """
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Give all of it back, so that extensions see no leaks at the end."""
    gc.unfreeze()
