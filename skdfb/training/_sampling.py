"""The images and the random numbers of a step, as functions of the seed and the step alone.

So a training that continues at step t computes exactly what an uninterrupted one computes there, and a checkpoint need
not hold the states of random generators.
"""

from collections.abc import Iterator

import numpy as np

from skdfb.images import Indices

__all__ = ["AUGMENTATION", "DONORS", "DROPOUT", "FOREIGN", "READING", "random_images", "shuffled_batches", "step_seed"]

# Streams of random numbers. They are independent: an augmentation that draws more numbers does not change dropout.
# The last two are for code of the user that draws without a generator: augmentations, and datasets as they are read.
AUGMENTATION, DROPOUT, DONORS, FOREIGN, READING = 0, 1, 2, 3, 4


def shuffled_batches(n_images: int, batch_size: int, first_step: int, last_step: int, seed: int) -> Iterator[Indices]:
    """Yield the batches of steps ``first_step`` to ``last_step - 1``.

    Each epoch is a new permutation. An incomplete last batch is left out.
    """
    # A small data set gives batches of all images: otherwise an epoch would have no complete batch.
    batch_size = min(batch_size, n_images)
    steps_per_epoch = n_images // batch_size
    order, order_epoch = np.empty(0, dtype=np.intp), -1
    for step in range(first_step, last_step):
        epoch, place = divmod(step, steps_per_epoch)
        # Seeded with the epoch, so that any step can be the first one.
        if epoch != order_epoch:
            order, order_epoch = np.random.default_rng([seed, epoch]).permutation(n_images), epoch
        yield order[place * batch_size : (place + 1) * batch_size]


def random_images(n_images: int, n: int, seed: int) -> Indices:
    """Draw ``n`` of the images independently: an image may be drawn several times."""
    return np.random.default_rng(seed).integers(n_images, size=n, dtype=np.intp)


def step_seed(seed: int, step: int, stream: int, rank: int = 0) -> int:
    """Return the seed of one stream of random numbers in one step, for the process ``rank``."""
    # SeedSequence hashes its entries. A sum such as seed + step would give seed 1, step 0 and seed 0, step 1 the same.
    return int(np.random.SeedSequence([seed, step, stream, rank]).generate_state(1)[0])
