"""The images and the random numbers of a step, as functions of the seed and the step alone.

So a training that goes on at step t computes exactly what an uninterrupted training computes at that step.
"""

from collections.abc import Iterator

import numpy as np

from skdfb.images import Indices

__all__ = ["AUGMENTATION", "DROPOUT", "shuffled_batches", "step_seed"]

# Streams of random numbers, independent of each other: how many numbers one stream draws must not change the other.
AUGMENTATION, DROPOUT = 0, 1


def shuffled_batches(n_images: int, batch_size: int, first_step: int, last_step: int, seed: int) -> Iterator[Indices]:
    """Yield the batches of steps ``first_step`` to ``last_step - 1``.

    Each epoch is a new permutation; an incomplete last batch is left out.
    """
    batch_size = min(batch_size, n_images)
    steps_per_epoch = n_images // batch_size
    order, order_epoch = np.empty(0, dtype=np.intp), -1
    for step in range(first_step, last_step):
        epoch, place = divmod(step, steps_per_epoch)
        # From the seed and the epoch alone, so that a training can start in any epoch.
        if epoch != order_epoch:
            order, order_epoch = np.random.default_rng([seed, epoch]).permutation(n_images), epoch
        yield order[place * batch_size : (place + 1) * batch_size]


def step_seed(seed: int, step: int, stream: int, rank: int = 0) -> int:
    """Return the seed of the random numbers of one stream in one step, in the process ``rank``."""
    # SeedSequence mixes its entropy well: neighbouring steps, streams and ranks get unrelated seeds.
    return int(np.random.SeedSequence([seed, step, stream, rank]).generate_state(1)[0])
