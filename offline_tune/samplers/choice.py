"""Which of many candidates to try: the model's expected improvement, blended with a classical one by rank.

The model leads while the history is short, the Gaussian process once there is something to fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offline_tune.history import History
from offline_tune.samplers.draft import Forecast
from offline_tune.samplers.proposal import Source
from offline_tune.samplers.surrogate import LEAST, Surrogate, features
from offline_tune.space import Values

_NEAR = 0.03  # candidates closer than this in every coordinate teach the same


@dataclass(frozen=True, slots=True)
class Contender:
    """A candidate in the running."""

    values: Values
    source: Source
    logprob: float | None = None
    forecast: Forecast | None = None


def classical_share(n_scored: int) -> float:
    """How much the Gaussian process counts: nothing below four scores, .3 then, .8 from twenty on."""
    if n_scored < LEAST:
        return 0.0
    return float(np.interp(n_scored, [LEAST, 20], [0.3, 0.8]))


def choose(
    contenders: Sequence[Contender], history: History, n: int, seed: int, least_from_model: int
) -> tuple[Contender, ...]:
    """The n best, one after another, each chosen knowing those before it.

    Args:
        contenders: distinct, none tried before.
        history: what is known.
        n: how many are wanted.
        seed: of the surrogate's fit.
        least_from_model: how many of the n come from the model as long as it has any left.
    """
    surrogate = Surrogate(history, seed) if contenders and len(history.scored) >= LEAST else None
    points = features(history.space, [c.values for c in contenders])
    written = np.array([c.source is Source.MODEL for c in contenders], bool)
    left, chosen = list(range(len(contenders))), list[int]()
    while left and len(chosen) < n:
        merit = _merit([contenders[i] for i in left], points[left], history, surrogate)
        if least_from_model - written[chosen].sum() >= n - len(chosen) and written[left].any():
            merit = np.where(written[left], merit, -np.inf)
        best = left.pop(int(np.argmax(merit)))
        chosen.append(best)
        if surrogate is not None and len(chosen) < n:
            surrogate.pretend(points[best])
        apart = [i for i in left if np.abs(points[i] - points[best]).max() >= _NEAR]
        owed = min(least_from_model - written[chosen].sum(), written[left].sum())
        left = apart if len(apart) >= n - len(chosen) and written[apart].sum() >= owed else left
    return tuple(contenders[i] for i in chosen)


def _merit(
    contenders: Sequence[Contender], points: NDArray[np.float64], history: History, surrogate: Surrogate | None
) -> NDArray[np.float64]:
    """(k,) greater is better."""
    share = classical_share(len(history.scored)) if surrogate is not None else 0.0
    model = _ranks(np.array([_model_merit(c) for c in contenders]))
    if surrogate is None or share == 0.0:
        return model
    return (1 - share) * model + share * _ranks(surrogate.expected_improvement(points))


def _model_merit(contender: Contender) -> float:
    if contender.forecast is not None:
        return contender.forecast.improvement
    return contender.logprob if contender.logprob is not None else -np.inf


def _ranks(merit: NDArray[np.float64]) -> NDArray[np.float64]:
    """(k,) from 0 for the least to 1 for the greatest; equal merits share the mean of their ranks."""
    from scipy.stats import rankdata

    return np.asarray((rankdata(merit) - 1) / max(len(merit) - 1, 1))
