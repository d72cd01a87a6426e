"""Tests on a device that does not exist: ``SKDFB_PRETENDED_DEVICE=1 pytest tests/devices``.

The device changes what PyTorch finds in the whole process, so that no other tests should run in it. Without the
variable nothing is collected here; ``tests/test_devices.py`` starts the processes.
"""

import os
from collections.abc import Iterator

import pytest

from tests.devices.pretend import Counts, make_known_to_torch, pretended_device

if os.environ.get("SKDFB_PRETENDED_DEVICE"):
    make_known_to_torch()
else:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture
def crossings() -> Iterator[Counts]:
    """The device is there during the test; what crosses."""
    with pretended_device() as counts:
        yield counts
