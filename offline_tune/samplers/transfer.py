"""Which of a portfolio's entries to try next: data sets on which the tried ones ranked as they do here count most.

The greedy order of a portfolio asks what helps on average. After two trials more is known: data sets on which the same
two came out the other way round are poor guides. So every data set of the portfolio is weighted by how far its order
of the tried entries agrees with this one's (as Feurer, Letham and Bakshy rank surrogates in "Scalable meta-learning
for Bayesian optimization", 2018), and the entry with the greatest weighted mean improvement comes next.

Notation: t data sets, k entries. Regret is 0 for the best known on a data set, 1 for the median of even draws.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

_SHARPNESS = 8.0  # weight of full agreement over none: e to this; 4 to 32 differ little (docs/log.md)
_TELLING = 0.05  # a difference in regret that is more than noise
_WORST = 2.0  # where a data set stands before anything is tried


def next_entries(regrets: NDArray[np.float64], tried: Mapping[int, float | None], n: int) -> list[int]:
    """The n entries to try next, each chosen knowing those before it.

    Args:
        regrets: (t, k) of each entry on each data set; t may be 0, then the order of the entries stands.
        tried: score here of each entry that was tried, greater is better; None while it runs, minus infinity where it
            failed.
        n: how many are wanted; fewer come where fewer are left.
    """
    chosen: list[int] = []
    left = [entry for entry in range(regrets.shape[1]) if entry not in tried]
    if not len(regrets):
        return left[:n]
    weights = _agreement(regrets, tried)
    standing = [entry for entry, score in tried.items() if score is None or np.isfinite(score)]
    best = regrets[:, standing].min(axis=1, initial=_WORST)
    while left and len(chosen) < n:
        gains = weights @ np.maximum(best[:, None] - regrets[:, left], 0.0)
        # Where no entry helps any more, the order of the list stands: argmax takes the first of equals.
        chosen.append(left.pop(int(np.argmax(gains))))
        best = np.minimum(best, regrets[:, chosen[-1]])
    return chosen


def _agreement(regrets: NDArray[np.float64], tried: Mapping[int, float | None]) -> NDArray[np.float64]:
    """(t,) weights, mean 1."""
    entries = [entry for entry, score in tried.items() if score is not None and np.isfinite(score)]
    first, second = np.triu_indices(len(entries), 1)
    if not len(first):
        return np.ones(len(regrets))
    scores, theirs = np.array([tried[entry] for entry in entries], np.float64), regrets[:, entries]
    here = np.sign(scores[first] - scores[second])
    there = np.tanh((theirs[:, second] - theirs[:, first]) / _TELLING)
    weights = np.exp(_SHARPNESS * (here * there).mean(axis=1))
    return np.asarray(weights / weights.mean())
