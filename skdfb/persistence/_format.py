"""The number of the file format.

It is raised by one whenever a file of the version before could not be read by the code as it is. `load` then brings
older files up to date, from OLDEST_FORMAT on, and a file of each number lies in ``tests/data``.
"""

FORMAT = 1
OLDEST_FORMAT = 1
