"""The number of the file format.

Raise FORMAT by one when the code can no longer read the files of the previous version. `load` reads older files from
OLDEST_FORMAT on: it applies the upgrades that packages register for their classes. ``tests/data`` has a file of each
format.

Changes:

- 2: Detectors hold a joint score. The path of a value in a mapping ends with its position instead of its key.
"""

# A newer file is refused, not guessed at: see check_document in _save_load.py.
FORMAT = 2
OLDEST_FORMAT = 1
