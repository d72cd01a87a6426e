"""Kill ``fit`` at random moments and check that it continues to the same weights.

    python benchmarks/faults.py --kills 20

A child process fits a small detector with checkpoints in a new folder and is killed (SIGKILL) at a random moment:
before the first checkpoint, during either training, while masks are made, or while a file is written. It is then
started once more, and must end with exactly the weights of an unbroken fit. The output has the last checkpoint of each
killed fit, and the counts.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from skdfb import DFBDetector, Trainer, load
from skdfb.augmentation import BackMix
from skdfb.datasets import load_digits_on_photos
from skdfb.networks import create_backbone
from skdfb.scorers import Energy


def fit(folder, result, n_steps):
    """Fit the detector with its checkpoints in a folder, and save it."""
    torch.set_num_threads(1)
    data = load_digits_on_photos(n_train=300, n_test=6, n_ood=6, random_state=0)
    backbone = create_backbone("test_resnet", pretrained=False, output_stride=8, random_state=0)
    trainer = Trainer(max_steps=n_steps, batch_size=32, learning_rate=0.1, augmentation=BackMix(), checkpoint_every=2)
    detector = DFBDetector(
        backbone,
        scorer=Energy(),
        classifier_trainer=trainer,
        dense_trainer=trainer,
        image_size=32,
        alpha=0.2,
        checkpoint_dir=folder,
        device="cpu",
        random_state=0,
    )
    detector.fit(data.images, data.target).save(result)


def child(folder, result, n_steps):
    """Start a process that runs :func:`fit`."""
    command = [sys.executable, __file__, "--fit", str(folder), str(result), "--steps", str(n_steps)]
    return subprocess.Popen(command)


def weights_of(path):
    """Return all weights of a saved detector."""
    detector = load(path, device="cpu")
    networks = (detector.classifier_, detector.dense_network_)
    return [tensor for network in networks for tensor in network.state_dict().values()]


def reached(folder):
    """Return the name of the newest checkpoint of a fit."""
    files = sorted(folder.rglob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    return files[-1].name.removesuffix(".safetensors") if files else "nothing"


def kill_and_resume(place, after, expected, n_steps):
    """Kill a fit ``after`` seconds and continue it.

    Returns whether it was killed in time, its last checkpoint, and whether it ended with the expected weights.
    """
    folder, result = place / "checkpoints", place / "detector.safetensors"
    process = child(folder, result, n_steps)
    while not folder.exists() and process.poll() is None:
        time.sleep(0.01)
    try:
        process.wait(timeout=after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    killed, stage = process.returncode == -signal.SIGKILL, reached(folder)
    if child(folder, result, n_steps).wait() != 0:
        return killed, stage, False
    found = weights_of(result)
    return killed, stage, len(found) == len(expected) and all(map(torch.equal, found, expected))


def main():
    """Kill and continue fits, and print the outcomes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="number of fits to kill")
    parser.add_argument("--steps", type=int, default=30, help="steps of each training")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments")
    parser.add_argument("--fit", nargs=2, type=Path, metavar=("FOLDER", "RESULT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fit:
        fit(*arguments.fit, arguments.steps)
        return
    moments, outcomes = random.Random(arguments.seed), []
    with tempfile.TemporaryDirectory() as place:
        # 1. An unbroken fit gives the expected weights and the time in which a kill can happen.
        start = time.perf_counter()
        unbroken = Path(place) / "unbroken"
        unbroken.mkdir()
        process = child(unbroken / "checkpoints", unbroken / "detector.safetensors", arguments.steps)
        while not (unbroken / "checkpoints").exists():
            time.sleep(0.01)
        began = time.perf_counter()
        if process.wait() != 0:
            raise SystemExit("The unbroken fit failed.")
        seconds = time.perf_counter() - began
        expected = weights_of(unbroken / "detector.safetensors")
        # 2. Some fits end before their moment, so that there may be more fits than kills.
        while sum(killed for killed, *_ in outcomes) < arguments.kills:
            folder = Path(place) / str(len(outcomes))
            folder.mkdir()
            outcomes.append(kill_and_resume(folder, moments.uniform(0, seconds), expected, arguments.steps))
            killed, stage, equal = outcomes[-1]
            ended = "killed" if killed else "ended before"
            print(f"{len(outcomes):3}  {ended}, last file {stage:24} {'equal' if equal else 'DIFFERENT'}", flush=True)
    n_killed, n_equal = (int(np.sum([outcome[place] for outcome in outcomes])) for place in (0, 2))
    print(f"{len(outcomes)} fits, {n_killed} killed, {n_equal} ended with the weights of the unbroken one; ", end="")
    print(f"{time.perf_counter() - start:.0f} s")
    if n_equal < len(outcomes):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
