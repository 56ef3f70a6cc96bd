"""Learning-rate schedules: a factor for each step, by name."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

SCHEDULES = ("cosine", "constant", "linear", "warmup_cosine")

WARMUP = 0.1  # share of the steps


def factors(name: str, steps: NDArray[np.int64], total: int) -> NDArray[np.float64]:
    """What the learning rate is multiplied by at each of `steps` (0 is the first) of `total`.

    >>> factors("linear", np.arange(4), 4).tolist()
    [1.0, 0.75, 0.5, 0.25]

    Raises:
        ValueError: there is no schedule of that name.
    """
    share = np.asarray(np.minimum(steps / max(total, 1), 1.0), dtype=np.float64)
    if name == "constant":
        return np.ones(len(steps))
    if name == "linear":
        return 1 - share
    if name == "cosine":
        return _cosine(share)
    if name == "warmup_cosine":
        warmup = max(1, round(WARMUP * total))
        return np.minimum((steps + 1) / warmup, 1.0) * _cosine(share)
    raise ValueError(f"a schedule must be one of {', '.join(SCHEDULES)}, got {name[:60]!r}; choose one")


def _cosine(share: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((1 + np.cos(math.pi * share)) / 2)
