"""The greedy choice of few configurations that together leave the least regret over many data sets.

The first is the one that is best on average, each further one that which most lowers the mean regret of the best so
far (Wistuba, Schilling and Schmidt-Thieme, "Sequential model-free hyperparameter tuning", 2015). Regret is 0 for the
best known on a data set, 1 for the median of even draws, and counts at most `CAP`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offline_tune.space import Values

CAP = 2.0
SIZE = 20


@dataclass(frozen=True, eq=False)
class Field:
    """Candidates and what they leave to be desired: `regrets` (n_tasks, n_candidates)."""

    candidates: tuple[Values, ...]
    regrets: NDArray[np.float64]


def greedy(regrets: NDArray[np.float64], size: int) -> list[int]:
    """Which candidates, in which order.

    Args:
        regrets: (n_tasks, n_candidates).
        size: at most so many; fewer where no further one lowers the regret of any task.
    """
    chosen: list[int] = []
    best = np.full(len(regrets), CAP)
    regrets = np.minimum(regrets, CAP)
    while len(chosen) < size:
        after = np.minimum(best[:, None], regrets).mean(axis=0)
        place = int(np.lexsort((regrets.mean(axis=0), after))[0])
        if after[place] >= best.mean():
            break
        chosen.append(place)
        best = np.minimum(best, regrets[:, place])
    return chosen


def regret_curve(regrets: NDArray[np.float64], chosen: Sequence[int]) -> list[float]:
    """The mean regret of the best so far after each entry."""
    curve = np.minimum.accumulate(np.minimum(regrets[:, list(chosen)], CAP), axis=1)
    return [float(value) for value in curve.mean(axis=0)]
