"""Which images a step sees, and its random numbers: functions of the seed and the step alone.

A training that goes on at step t thus sees exactly what an unbroken one sees there.
"""

from collections.abc import Iterator

import numpy as np

from skdfb.images import Indices

__all__ = ["shuffled_batches", "step_seed"]


def shuffled_batches(n_images: int, batch_size: int, first_step: int, last_step: int, seed: int) -> Iterator[Indices]:
    """Yield the batches of steps ``first_step`` to ``last_step - 1``.

    Each epoch is a new permutation, of which an incomplete last batch is left out.
    """
    batch_size = min(batch_size, n_images)
    steps_an_epoch = n_images // batch_size
    order, order_epoch = np.empty(0, dtype=np.intp), -1
    for step in range(first_step, last_step):
        epoch, place = divmod(step, steps_an_epoch)
        if epoch != order_epoch:
            order, order_epoch = np.random.default_rng([seed, epoch]).permutation(n_images), epoch
        yield order[place * batch_size : (place + 1) * batch_size]


def step_seed(seed: int, step: int) -> int:
    """Return the seed of the random numbers (augmentation, dropout) of one step."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1)[0])
