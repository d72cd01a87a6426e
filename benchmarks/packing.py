"""Pack as many masks as ImageNet has training images, and read them as a training does.

    python benchmarks/packing.py                       # 1,281,167 masks of 128 pixels
    python benchmarks/packing.py --image-size 224

The masks are discs at random places. "own" is the memory of the process alone; "mapped" is that of the temporary file,
as much as the system keeps in memory while there is room.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from skdfb.utils import PackedMasks

N_CLASSES, BATCH, N_STEPS = 1000, 256, 1000


def batches(n_images: int, side: int) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.uint16]]]:
    """Yield the places and the masks of each batch, as a mask generator does."""
    rng = np.random.default_rng(0)
    rows, columns = np.ogrid[:side, :side]
    centres = rng.integers(side // 4, 3 * side // 4, (BATCH, 2, 1, 1))
    inside = (rows - centres[:, 0]) ** 2 + (columns - centres[:, 1]) ** 2 < (side // 4) ** 2
    for start in range(0, n_images, BATCH):
        indices = np.arange(start, min(start + BATCH, n_images))
        classes = rng.integers(0, N_CLASSES, len(indices))[:, None, None]
        yield indices, np.where(inside[: len(indices)], classes, N_CLASSES).astype(np.uint16)


def memory() -> dict[str, float]:
    """Return the memory of this process in MB: its own, and that of files which are mapped."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(status[key].split()[0]) / 2**10 for name, key in (("own", "RssAnon"), ("mapped", "RssFile"))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_281_167)
    parser.add_argument("--image-size", type=int, default=128)
    arguments = parser.parse_args()
    before, start = memory(), time.process_time()
    masks = PackedMasks.from_batches(batches(arguments.images, arguments.image_size), arguments.images, N_CLASSES)
    packed, rng = time.process_time() - start, np.random.default_rng(1)
    start = time.process_time()
    for _ in range(N_STEPS):
        masks[rng.integers(len(masks), size=128)]
    read = time.process_time() - start
    after = memory()
    print(f"{arguments.images:,} masks of {arguments.image_size} pixels: {masks.nbytes / 1e9:.2f} GB")
    print(f"packed in {packed:.0f} s; a batch of 128 is read in {1000 * read / N_STEPS:.1f} ms")
    print(", ".join(f"{name} {after[name] - before[name]:.0f} MB" for name in before))


if __name__ == "__main__":
    main()
