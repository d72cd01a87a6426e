"""Measure how large photographs are read: peak memory and time, beside decoding all of them to floats.

    python benchmarks/reading.py                    # a photograph of 88 megapixels
    python benchmarks/reading.py --megapixels 24

The photograph is a mosaic of noise that was enlarged, as JPEG and as PNG file, and is read for a network of 224 pixels.
"MB" is the largest resident memory above that of the process before, which is the reason for a process per row.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from peak_memory import peak_megabytes
from PIL import Image

from skdfb.images import Preprocessor, as_images

SIZE = 224
WAYS = ("skdfb", "all as floats")
COLUMNS = (("seconds", 8, 2), ("megabytes", 8, 0), ("mean difference", 24, 2), ("largest", 10, 1))


def write_photograph(path: Path, megapixels: float) -> None:
    """Write a photograph of 11 to 9 with detail at each scale."""
    height = round((megapixels * 1e6 * 9 / 11) ** 0.5)
    small = np.random.RandomState(0).randint(0, 255, (height // 10, height * 11 // 90, 3)).astype(np.uint8)
    Image.fromarray(small).resize((height * 11 // 9, height)).save(path, compress_level=1)


def read(path: Path, way: str) -> torch.Tensor:
    """Return the resized photograph."""
    preprocessor = Preprocessor(SIZE, (0.0,) * 3, (1.0,) * 3)
    if way == "skdfb":
        return preprocessor.resize(as_images([path]).read_one(0, 3 * SIZE))
    with Image.open(path) as image:
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].float() / 255
    return F.interpolate(pixels, (SIZE, SIZE), mode="bicubic", antialias=True)[0].clamp(0, 1)


def measure_once(path: Path, way: str) -> dict[str, float]:
    """Read a photograph in this process."""
    Image.MAX_IMAGE_PIXELS = None
    before, start = peak_megabytes(), time.perf_counter()
    read(path, way)
    return {"seconds": time.perf_counter() - start, "megabytes": peak_megabytes() - before}


def measure(megapixels: float, ways: list[str]) -> list[dict[str, object]]:
    """Return a row per kind of file and way."""
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("jpg", "png"):
            path = Path(folder) / f"photograph.{suffix}"
            write_photograph(path, megapixels)
            differences = {"mean difference": math.nan, "largest": math.nan}
            if len(ways) == 2:
                difference = (read(path, WAYS[0]) - read(path, WAYS[1])).abs() * 255
                differences = {"mean difference": float(difference.mean()), "largest": float(difference.max())}
            for way in ways:
                command = [sys.executable, __file__, "--once", str(path), way]
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                figures = json.loads(output.splitlines()[-1])
                rows.append({"file": suffix, "way": way, **figures, **differences})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, default=88)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--json", type=Path, help="also write the figures to a file")
    parser.add_argument("--once", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.once is not None:
        print(json.dumps(measure_once(Path(arguments.once[0]), arguments.once[1])))
        return
    rows = measure(arguments.megapixels, arguments.ways)
    print(f"{'file':6}{'way':16}{'seconds':>8}{'MB':>8}{'mean difference of 255':>24}{'largest':>10}")
    for row in rows:
        figures = "".join(f"{row[name]:{width}.{digits}f}" for name, width, digits in COLUMNS)
        print(f"{row['file']:6}{row['way']:16}{figures}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
