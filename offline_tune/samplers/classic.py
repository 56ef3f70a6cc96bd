"""The classics on the same space and loop: Optuna's random, TPE and Gaussian process, and a grid.

Each trial gets a sampler of its own whose stream derives from (seed, trial number), so a resumed study goes on as if
it had never stopped.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from offline_tune.errors import UsageError
from offline_tune.samplers.neighbours import even_value
from offline_tune.samplers.proposal import Source
from offline_tune.space import Parameter, SearchSpace, Value

GRID_POINTS = 4  # values of a numeric parameter on the grid

NAMES = {"tpe": Source.TPE, "gp": Source.GP, "random": Source.RANDOM, "grid": Source.GRID}


def classic_sampler(name: str, space: SearchSpace, seed: int, trial_number: int) -> BaseSampler:
    """The sampler for one trial. `name` is a key of `NAMES`.

    Raises:
        UsageError: the Gaussian process is asked for where torch is not installed.
    """
    if name == "gp" and importlib.util.find_spec("torch") is None:
        raise UsageError("the sampler gp needs torch, got none installed; install it or choose tpe")
    stream = int(np.random.SeedSequence([seed, trial_number]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "tpe":
            # Grouping lets the multivariate kernel work inside each branch of a conditional space.
            return TPESampler(seed=stream, multivariate=True, group=True, constant_liar=True, n_startup_trials=5)
        if name == "gp":
            return GPSampler(seed=stream, n_startup_trials=5, independent_sampler=RandomSampler(seed=stream))
        if name == "random":
            return RandomSampler(seed=stream)
    return LatticeSampler(space, seed)


class LatticeSampler(BaseSampler):
    """Grid search: every combination of a few values a parameter, in an order shuffled once.

    A conditional parameter multiplies only its own branch. When the grid is used up it starts again from the top.
    """

    def __init__(self, space: SearchSpace, seed: int, points: int = GRID_POINTS) -> None:
        self._space, self._seed, self._points = space, seed, points
        self._sizes: dict[str, int] = {}
        for parameter in reversed(space.parameters):  # what hangs on a parameter stands behind it
            blocks = self._blocks(parameter)
            self._sizes[parameter.name] = sum(math.prod(self._sizes[p.name] for p in hanging) for _, hanging in blocks)
        total = math.prod(self._sizes[p.name] for p in space.parameters if p.when is None)
        self.size = total
        # A step coprime to the size visits every combination once, without a list of them.
        rng = np.random.default_rng([seed, 2])
        self._start = int(rng.integers(min(total, 2**62)))
        self._stride = next(s for s in range(total * 618 // 1000 | 1, 2 * total + 2) if math.gcd(s, total) == 1)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The declared space, branches included."""
        return {p.name: p.distribution for p in self._space.parameters if not p.is_fixed}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The combination of this trial's number."""
        values = self.combination((self._start + trial.number * self._stride) % self.size)
        return {name: value for name, value in values.items() if name in search_space}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """For parameters outside the declared space: an even draw."""
        return even_value(study, trial, param_name, param_distribution, self._seed)

    def combination(self, index: int) -> dict[str, Value]:
        """The grid's candidate number `index`, 0 <= index < size."""
        values: dict[str, Value] = {}
        for parameter in self._space.parameters:
            if parameter.when is None:
                index, place = divmod(index, self._sizes[parameter.name])
                self._place(parameter, place, values)
        return values

    def _place(self, parameter: Parameter, index: int, values: dict[str, Value]) -> None:
        for value, hanging in self._blocks(parameter):
            size = math.prod(self._sizes[p.name] for p in hanging)
            if index < size:
                values[parameter.name] = value
                for child in hanging:
                    index, place = divmod(index, self._sizes[child.name])
                    self._place(child, place, values)
                return
            index -= size

    def _blocks(self, parameter: Parameter) -> list[tuple[Value, tuple[Parameter, ...]]]:
        if parameter.is_categorical:
            return list(self._space.branches(parameter.name))
        lattice = parameter.lattice
        units = np.linspace(0, 1, min(self._points, lattice.size)) if lattice.size > 1 else [0.0]
        return [(value, ()) for value in dict.fromkeys(lattice.from_unit(float(unit)) for unit in units)]
