"""The number of steps of a training, and the learning rate of each step."""

import math

__all__ = ["SCHEDULES", "SMALL_SET", "bit_steps", "learning_rate_factor", "learning_rates"]

SCHEDULES = ("step", "cosine", "constant")
# Training sets with fewer images are small by BiT's rule.
SMALL_SET = 20_000
# Fractions of all steps at which the learning rate drops, and the factor of each drop.
_MILESTONES, _DROP = (0.3, 0.6, 0.9), 0.1


def bit_steps(n_images: int) -> int:
    """Return the number of steps for a training set of ``n_images`` by BiT's rule.

    500 steps below 20,000 images, 10,000 below 500,000, else 20,000 (Kolesnikov et al., "Big Transfer (BiT)", ECCV
    2020, :arxiv:`1912.11370`, section 3.3).
    """
    if n_images < SMALL_SET:
        return 500
    return 10_000 if n_images < 500_000 else 20_000


def learning_rate_factor(step: int, max_steps: int, warmup_steps: int, schedule: str) -> float:
    """Return the factor on the learning rate at ``step`` (0 to max_steps - 1).

    A linear warm-up to 1 comes first. Then ``"step"`` divides by ten at 30 %, 60 % and 90 % of all steps, ``"cosine"``
    decreases to 0 along half a cosine, and ``"constant"`` stays at 1.
    """
    # step + 1: a factor of 0 would waste the first step.
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule == "step":
        return _DROP ** sum(step >= fraction * max_steps for fraction in _MILESTONES)
    if schedule == "cosine":
        # The max avoids 0 / 0 when the warm-up takes all steps.
        return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, max_steps - warmup_steps)))
    return 1.0


def learning_rates(n_steps: int, highest: float, warmup_steps: int | None, schedule: str) -> list[float]:
    """Return the learning rate of every step. The default warm-up is 500 steps, but at most a fifth of all steps."""
    warmup = min(500, n_steps // 5) if warmup_steps is None else warmup_steps
    return [float(highest * learning_rate_factor(step, n_steps, warmup, schedule)) for step in range(n_steps)]
