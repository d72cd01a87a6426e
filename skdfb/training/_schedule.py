"""The number of training steps, and the learning rate of each."""

import math

__all__ = ["SCHEDULES", "bit_steps", "learning_rate_factor", "learning_rates"]

SCHEDULES = ("step", "cosine", "constant")
# The drops of the paper, as fractions of all steps.
_MILESTONES, _DROP = (0.3, 0.6, 0.9), 0.1


def bit_steps(n_images: int) -> int:
    """Return the number of steps for a training set of ``n_images``: BiT's rule.

    500 steps below 20,000 images, 10,000 below 500,000, else 20,000 (Kolesnikov et al., "Big Transfer (BiT)", ECCV
    2020, :arxiv:`1912.11370`, section 3.3).
    """
    if n_images < 20_000:
        return 500
    return 10_000 if n_images < 500_000 else 20_000


def learning_rate_factor(step: int, max_steps: int, warmup_steps: int, schedule: str) -> float:
    """Return the factor on the learning rate at ``step`` (0 to max_steps - 1).

    The factor rises linearly to 1 in the warm-up and then follows the schedule: ``"step"`` divides by ten at 30 %,
    60 % and 90 % of all steps, ``"cosine"`` falls to 0 along half a cosine, ``"constant"`` stays at 1.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    # The paper counts its drops from the first step, warm-up included; the cosine starts after the warm-up.
    if schedule == "step":
        return _DROP ** sum(step >= fraction * max_steps for fraction in _MILESTONES)
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, max_steps - warmup_steps)))
    return 1.0


def learning_rates(n_steps: int, highest: float, warmup_steps: int | None, schedule: str) -> list[float]:
    """Return the learning rate of every step; a warm-up of None is 500 steps, but at most a fifth of all steps."""
    warmup = min(500, n_steps // 5) if warmup_steps is None else warmup_steps
    return [float(highest * learning_rate_factor(step, n_steps, warmup, schedule)) for step in range(n_steps)]
