"""Candidates beside the model's own: steps round the incumbent, and even draws of the space."""

from __future__ import annotations

import numpy as np

from offline_tune.history import History
from offline_tune.space import Parameter, SearchSpace, Value, Values

_FLIP, _STAY = 0.08, 0.5


def local_steps(history: History, n: int, rng: np.random.Generator) -> list[dict[str, Value]]:
    """N candidates near the best trials: normal steps on some numbers, now and then another choice."""
    best = sorted(history.scored, key=lambda o: (-(o.score or 0.0), o.number))[:3]
    if not best:
        return []
    steps = []
    for _ in range(n):
        start = best[min(int(rng.exponential(0.7)), len(best) - 1)]
        steps.append(_step(history.space, start.values, rng))
    return steps


def even_draws(space: SearchSpace, n: int, rng: np.random.Generator) -> list[dict[str, Value]]:
    """N candidates drawn evenly."""
    return [space.sample(rng) for _ in range(n)]


def _step(space: SearchSpace, start: Values, rng: np.random.Generator) -> dict[str, Value]:
    size = np.exp(rng.uniform(np.log(0.02), np.log(0.2)))

    def choose(parameter: Parameter) -> Value:
        if parameter.name not in start:
            return parameter.default_or_middle
        value = start[parameter.name]
        if parameter.is_categorical:
            # The root stays: another family is no step but a leap.
            flips = parameter.when is not None and rng.random() < _FLIP
            return parameter.lattice.draw(rng.random()) if flips else value
        if rng.random() < _STAY:
            return value
        return parameter.from_unit(min(max(parameter.to_unit(value) + size * rng.standard_normal(), 0.0), 1.0))

    return space.assemble(choose)
