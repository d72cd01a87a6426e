"""Measure what an image costs in time and memory, from a thousand images to a hundred thousand.

    python benchmarks/streaming.py                        # 1,000, 10,000 and 100,000 images
    python benchmarks/streaming.py --sizes 1000 10000     # fewer
    python benchmarks/streaming.py --json streaming.json --figure streaming.png

``iter_scores`` of a :class:`~skdfb.FrozenDetector` on timm's ``test_resnet``, at 32 pixels, goes through images from a
generator of JPEG bytes, from a folder of files, and from a Parquet file. Each row is a process of its own. "ms" is the
time of the processor per image, "MB" the largest resident memory while scoring. The folder has links to a thousand
files. The smallest size of a source is passed once before it is measured.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from peak_memory import peak_megabytes
from PIL import Image

from skdfb import FrozenDetector
from skdfb.datasets import iter_parquet
from skdfb.networks import create_backbone

SIDE, N_CLASSES, N_FILES, N_FIT = 32, 5, 1000, 400
SIZES = (1_000, 10_000, 100_000)
SOURCES = ("generator", "folder", "parquet")


def jpeg_files(n_images: int) -> list[bytes]:
    """Return JPEG files of noise."""
    files = []
    for image in np.random.default_rng(0).integers(0, 256, (n_images, SIDE, SIDE, 3), dtype=np.uint8):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "jpeg")
        files.append(buffer.getvalue())
    return files


def repeated(files: list[bytes], n_images: int) -> Iterator[bytes]:
    """Yield so many files, over and over."""
    for index in range(n_images):
        yield files[index % len(files)]


def write_parquet(files: list[bytes], path: Path, n_images: int) -> None:
    """Write a Parquet file in groups of a thousand rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("image", pa.binary())])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, n_images, 1000):
            images = list(repeated(files, min(1000, n_images - start)))
            writer.write_table(pa.table({"image": images}, schema=schema))


def make_source(source: str, folder: Path, n_images: int) -> Any:
    """Return images for ``iter_scores``."""
    files = jpeg_files(min(N_FILES, n_images))
    if source == "generator":
        return repeated(files, n_images)
    if source == "parquet":
        write_parquet(files, folder / "images.parquet", n_images)
        return iter_parquet(folder / "images.parquet")
    for index, content in enumerate(files):
        (folder / f"{index:06}.jpg").write_bytes(content)
    for index in range(len(files), n_images):
        os.link(folder / f"{index % len(files):06}.jpg", folder / f"{index:06}.jpg")
    return str(folder)


def fitted_detector() -> FrozenDetector:
    """Return a small detector; what it says of noise does not matter."""
    images = np.random.default_rng(1).integers(0, 256, (N_FIT, SIDE, SIDE, 3), dtype=np.uint8)
    backbone = create_backbone("test_resnet", pretrained=False, output_stride=8, random_state=0)
    detector = FrozenDetector(backbone, image_size=SIDE, device="cpu", random_state=0)
    return detector.fit(images, np.arange(N_FIT) % N_CLASSES)


def measure_once(source: str, n_images: int) -> dict[str, float]:
    """Score all images of a source in this process."""
    detector = fitted_detector()
    with tempfile.TemporaryDirectory() as folder:
        images = make_source(source, Path(folder), n_images)
        for _ in detector.iter_scores(repeated(jpeg_files(10), 500)):
            pass
        start = time.process_time()
        n_scored = sum(not row.error for row in detector.iter_scores(images))
        seconds = time.process_time() - start
    assert n_scored == n_images, "an image could not be read"
    return {"milliseconds": 1000 * seconds / n_images, "megabytes": peak_megabytes()}


def measure(sizes: list[int], sources: list[str]) -> list[dict[str, Any]]:
    """Return a row per source and size."""
    rows = []
    for source in sources:
        for n_images in sizes:
            command = [sys.executable, __file__, "--once", source, str(n_images)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            row = {"source": source, "images": n_images, **json.loads(output.splitlines()[-1])}
            print(f"{source:12}{n_images:>9,}{row['milliseconds']:>9.3f} ms{row['megabytes']:>8.0f} MB", flush=True)
            rows.append(row)
    return rows


def draw(rows: list[dict[str, Any]], path: str) -> None:
    """Draw time and memory over the number of images."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 1, figsize=(5.5, 5), layout="constrained")
    for axis, name, label in zip(axes, ("milliseconds", "megabytes"), ("ms per image", "peak memory, MB"), strict=True):
        for source, marker in zip(SOURCES, "osD", strict=True):
            own = [row for row in rows if row["source"] == source]
            axis.plot([row["images"] for row in own], [row[name] for row in own], marker=marker, label=source)
        axis.set(xscale="log", xlabel="images", ylabel=label, ylim=(0, 1.25 * max(row[name] for row in rows)))
    axes[0].legend(frameon=False, loc="lower left")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=list(SOURCES))
    parser.add_argument("--json", type=Path, help="also write the rows to a file")
    parser.add_argument("--figure", help="also draw them")
    parser.add_argument("--once", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.once is not None:
        print(json.dumps(measure_once(arguments.once[0], int(arguments.once[1]))))
        return
    rows = measure(arguments.sizes, arguments.sources)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    if arguments.figure is not None:
        draw(rows, arguments.figure)


if __name__ == "__main__":
    main()
