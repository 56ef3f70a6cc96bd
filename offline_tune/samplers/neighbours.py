"""Candidates beside the model's own: steps round the incumbent, even draws of the space, all of a small one."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial

from offline_tune.history import History
from offline_tune.space import Parameter, SearchSpace, Value, Values

_FLIP, _STAY = 0.08, 0.5


def local_steps(history: History, n: int, rng: np.random.Generator) -> list[dict[str, Value]]:
    """N candidates near the best trials: normal steps on some numbers, now and then another choice."""
    best = history.ranked[:3]
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


def all_candidates(space: SearchSpace) -> Iterator[dict[str, Value]]:
    """Every writable candidate, `space.size` of them, in written order."""
    yield from _completed(space, {})


def even_value(study: optuna.Study, trial: FrozenTrial, name: str, distribution: BaseDistribution, seed: int) -> Any:
    """An even draw for one parameter of one trial, from nothing but (seed, trial number, name)."""
    stream = np.random.SeedSequence([seed, trial.number, zlib.crc32(name.encode("utf-8", "replace"))])
    sampler = RandomSampler(seed=int(stream.generate_state(1)[0]))
    return sampler.sample_independent(study, trial, name, distribution)


def _completed(space: SearchSpace, values: Values) -> Iterator[dict[str, Value]]:
    missing = next((p for p in space.active(values) if p.name not in values), None)
    if missing is None:
        yield dict(values)
        return
    for value in map(missing.lattice.value, range(missing.lattice.size)):
        yield from _completed(space, {**values, missing.name: value})


def _step(space: SearchSpace, start: Values, rng: np.random.Generator) -> dict[str, Value]:
    size = np.exp(rng.uniform(np.log(0.02), np.log(0.2)))

    def choose(parameter: Parameter) -> Value:
        if parameter.name not in start:
            return parameter.default_or_middle
        value = start[parameter.name]
        if parameter.is_categorical:
            # The root of branches stays: another family is no step but a leap.
            is_root = parameter.when is None and bool(space.children(parameter.name))
            flips = not is_root and rng.random() < _FLIP
            return parameter.lattice.draw(rng.random()) if flips else value
        if rng.random() < _STAY:
            return value
        return parameter.from_unit(min(max(parameter.to_unit(value) + size * rng.standard_normal(), 0.0), 1.0))

    return space.assemble(choose)
