"""Scores as outcome levels: relative to one history, so that no unit and no direction is left.

A score becomes z = (score - best) / scale, where best is the history's best and scale the distance from its median to
its best, or a fiftieth of the distance from its worst where that is more, but at most four times as much: a trial that
diverged must not make all others look alike. z is cut to [-4, 2] and divided into `N_OUTCOMES` equal levels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from offline_tune.prompt.vocabulary import N_OUTCOMES

Z_LOW, Z_HIGH = -4.0, 2.0
_ROOM = 4096.0  # a power of two, so nothing is rounded: multiples of differences of huge scores are still doubles
_FARTHEST = 200.0  # scales from the best beyond which a bad score does not widen the scale any more
_TINY = float(np.finfo(np.float64).tiny)

CENTRES: NDArray[np.float64] = Z_LOW + (np.arange(N_OUTCOMES) + 0.5) * (Z_HIGH - Z_LOW) / N_OUTCOMES
"""The z of each outcome level, shape (N_OUTCOMES,)."""


def standardise(scores: NDArray[np.float64], history: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores on the scale of a history.

    Args:
        scores: (..., n) greater is better.
        history: (..., m) the scores that are known, m >= 1, same leading shape.

    Returns:
        z, shape (..., n), cut to [-4, 2].
    """
    scores, history = scores / _ROOM, history / _ROOM
    best = history.max(axis=-1, keepdims=True)
    scale = best - np.median(history, axis=-1, keepdims=True)
    spread = best - history.min(axis=-1, keepdims=True)
    spread = np.where(scale > 0, np.minimum(spread, _FARTHEST * scale), spread)
    scale = np.maximum(np.maximum(scale, 0.02 * spread), np.maximum(1e-9 * np.abs(best), _TINY))
    with np.errstate(over="ignore"):  # what is infinitely better or worse is cut all the same
        return np.asarray(np.clip((scores - best) / scale, Z_LOW, Z_HIGH))


def outcome_levels(z: NDArray[np.float64]) -> NDArray[np.int64]:
    """The level 0 .. N_OUTCOMES - 1 of each z, same shape."""
    place = (z - Z_LOW) / (Z_HIGH - Z_LOW) * N_OUTCOMES
    return np.clip(place.astype(np.int64), 0, N_OUTCOMES - 1)


def expected_improvement(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean positive z of each outcome distribution, plus a trace of the mean to order what cannot improve.

    Args:
        probabilities: (k, N_OUTCOMES), rows sum to one.

    Returns:
        (k,) in units of the history's scale.
    """
    return np.asarray(probabilities @ np.maximum(CENTRES, 0.0) + 1e-3 * (probabilities @ CENTRES))
