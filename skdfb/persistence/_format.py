"""The number of the file format.

Raise it by one when the code could not read the files of the version before. `load` reads older files from
OLDEST_FORMAT on, with the upgrades that packages register for their classes. A file of each number is in
``tests/data``.

2: detectors hold a joint score; paths inside of mappings go by place.
"""

FORMAT = 2
OLDEST_FORMAT = 1
