"""Which of many candidates to try: the model's expected improvement, blended with a classical one by rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offline_tune.history import History
from offline_tune.samplers.draft import Forecast
from offline_tune.samplers.proposal import Source
from offline_tune.samplers.surrogate import Surrogate, features
from offline_tune.space import Values

_NEAR = 0.03  # candidates closer than this in every coordinate teach the same


@dataclass(frozen=True, slots=True)
class Contender:
    """A candidate in the running."""

    values: Values
    source: Source
    logprob: float | None = None
    forecast: Forecast | None = None


def choose(
    contenders: Sequence[Contender], history: History, n: int, surrogate: Surrogate | None, share: float
) -> tuple[Contender, ...]:
    """The n best, one after another, each chosen knowing those before it.

    Args:
        contenders: distinct, none tried before.
        history: what is known.
        n: how many are wanted.
        surrogate: the Gaussian process, None where the history is too short; told of what is chosen.
        share: how much it counts, 0 to 1.
    """
    points = features(history.space, [c.values for c in contenders])
    model = _ranks(np.array([_model_merit(c) for c in contenders]))
    left, chosen = list(range(len(contenders))), list[int]()
    while left and len(chosen) < n:
        merit = model[left]
        if surrogate is not None and share > 0:
            merit = (1 - share) * merit + share * _ranks(surrogate.log_improvement(points[left]))
        best = left.pop(int(np.argmax(merit)))
        chosen.append(best)
        if surrogate is not None and len(chosen) < n:
            surrogate.pretend(points[best])
        apart = [i for i in left if np.abs(points[i] - points[best]).max() >= _NEAR]
        left = apart if len(apart) >= n - len(chosen) else left
    return tuple(contenders[i] for i in chosen)


def most_promising(contenders: Sequence[Contender], n: int, surrogate: Surrogate, history: History) -> list[Contender]:
    """The n with the greatest expected improvement by the surrogate, in their old order."""
    if len(contenders) <= n:
        return list(contenders)
    improvement = surrogate.log_improvement(features(history.space, [c.values for c in contenders]))
    return [contenders[i] for i in sorted(np.argsort(-improvement, kind="stable")[:n])]


def _model_merit(contender: Contender) -> float:
    if contender.forecast is not None:
        return contender.forecast.improvement
    return contender.logprob if contender.logprob is not None else -np.inf


def _ranks(merit: NDArray[np.float64]) -> NDArray[np.float64]:
    """(k,) from 0 for the least to 1 for the greatest; equal merits share the mean of their ranks."""
    from scipy.stats import rankdata

    return np.asarray((rankdata(merit) - 1) / max(len(merit) - 1, 1))
