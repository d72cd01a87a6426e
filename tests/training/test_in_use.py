"""A folder is marked while a training runs in it, as far as the system can tell."""

import pytest

from skdfb.training import _in_use
from skdfb.training._in_use import in_use, is_in_use

needs_locks = pytest.mark.skipif(_in_use.fcntl is None, reason="this system has no such locks")


@needs_locks
def test_a_folder_is_in_use_inside_of_the_block(tmp_path):
    assert not is_in_use(tmp_path)
    with in_use(tmp_path), in_use(tmp_path):
        assert is_in_use(tmp_path)
    assert not is_in_use(tmp_path)
    assert list(tmp_path.iterdir()) == []


@needs_locks
def test_the_mark_goes_with_an_error(tmp_path):
    def fail():
        with in_use(tmp_path):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as kept:
        fail()
    # The traceback still holds everything of the failed call.
    assert kept.value.__traceback__ is not None
    assert not is_in_use(tmp_path)


def test_without_a_folder_or_locks_nothing_fails(tmp_path, monkeypatch):
    with in_use(tmp_path / "missing"):
        assert is_in_use(tmp_path / "missing")
    monkeypatch.setattr(_in_use, "fcntl", None)
    with in_use(tmp_path):
        assert is_in_use(tmp_path)
