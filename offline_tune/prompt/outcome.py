"""Scores as outcome levels: relative to one history, so that no unit and no direction is left.

A score becomes z = (score - best) / scale, where best is the history's best and scale the distance from its median to
its best; z is cut to [-4, 2] and divided into `N_OUTCOMES` equal levels. An improvement by one scale is z = 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from offline_tune.prompt.vocabulary import N_OUTCOMES

Z_LOW, Z_HIGH = -4.0, 2.0

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
    best = history.max(axis=-1, keepdims=True)
    scale = best - np.median(history, axis=-1, keepdims=True)
    spread = best - history.min(axis=-1, keepdims=True)
    scale = np.maximum(np.maximum(scale, 0.02 * spread), 1e-9 * np.maximum(np.abs(best), 1e-3))
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
