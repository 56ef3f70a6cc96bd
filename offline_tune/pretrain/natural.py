"""Landscapes in natural units: spaces as a user would declare them, and a judge for any point of them.

Where `landscapes` gives levels to train on, this gives learning rates and numbers of trees. The judge of a landscape
is the mean of a forest and a small network, both fitted to its evaluated configurations: on held-out rows of the
landscapes this pair agrees better with them than either alone.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from offline_tune.evaluator.families import ROOT
from offline_tune.pretrain.landscapes import FILES, Scenario
from offline_tune.space import Condition, Parameter, SearchSpace, Value, Values

_WORST = -4.0  # on the scale where the median is 0 and the best 1: all that is worse is equally bad
_TREES, _UNITS, _PASSES = 100, 128, 150


@dataclass(frozen=True, slots=True)
class Column:
    """One parameter of a landscape: a name, and a range in natural units or choices."""

    name: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    whole: bool = False
    choices: tuple[str, ...] | None = None

    @property
    def distribution(self) -> BaseDistribution:
        """Optuna's view."""
        if self.choices is not None:
            return CategoricalDistribution(self.choices)
        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def to_unit(self, number: float) -> float:
        """The place of a number on [0, 1]."""
        low, high, x = (math.log(v) if self.log else v for v in (self.low, self.high, number))
        return min(max((x - low) / (high - low), 0.0), 1.0)

    def from_unit(self, unit: float) -> float | int:
        """Inverse of `to_unit`; three digits are enough of a number that is not whole."""
        low, high = (math.log(v) if self.log else v for v in (self.low, self.high))
        number = math.exp(low + unit * (high - low)) if self.log else low + unit * (high - low)
        return round(number) if self.whole else float(f"{number:.3g}")


@dataclass(frozen=True, eq=False)
class Landscape:
    """One family on one data set.

    Attributes:
        family: its name.
        instance: the data set's name.
        columns: the parameters, p of them.
        conditions: for a column that may be inactive, the categorical column and the choices that switch it on.
        cells: (n, p) places on [0, 1]; a choice by position; NaN where inactive.
        scores: (n,) greater is better.
    """

    family: str
    instance: str
    columns: tuple[Column, ...]
    conditions: Mapping[int, tuple[int, tuple[int, ...]]]
    cells: NDArray[np.float64]
    scores: NDArray[np.float64]

    @cached_property
    def space(self) -> SearchSpace:
        """As `run` would search it: a root with one family, and `family.name` for each column."""
        root = Parameter(ROOT, CategoricalDistribution((self.family,)), default=self.family)
        return SearchSpace((root, *(self._parameter(j) for j in range(len(self.columns)))))

    def values(self, cells: NDArray[np.float64]) -> dict[str, Value]:
        """A row of cells as values by the columns' own names; inactive ones are left out."""
        found: dict[str, Value] = {}
        for column, cell in zip(self.columns, cells, strict=True):
            if not np.isnan(cell):
                found[column.name] = column.choices[int(cell)] if column.choices else column.from_unit(float(cell))
        return found

    def cells_of(self, values: Values) -> NDArray[np.float64]:
        """A candidate of `space` as cells, (p,)."""
        return np.array([self._cell(column, values.get(f"{self.family}.{column.name}")) for column in self.columns])

    def _cell(self, column: Column, value: Value) -> float:
        if value is None:
            return math.nan
        if column.choices is not None:
            return float(column.choices.index(str(value)))
        assert isinstance(value, int | float)
        return column.to_unit(float(value))

    def _parameter(self, j: int) -> Parameter:
        column, when = self.columns[j], Condition(ROOT, (self.family,))
        if j in self.conditions:
            parent, places = self.conditions[j]
            words = self.columns[parent].choices
            assert words is not None
            when = Condition(f"{self.family}.{self.columns[parent].name}", tuple(words[i] for i in places))
        return Parameter(f"{self.family}.{column.name}", column.distribution, when=when)


class Judge:
    """Scores any point of a landscape; deterministic.

    Args:
        landscape: what it is fitted to.
    """

    def __init__(self, landscape: Landscape) -> None:
        from sklearn.ensemble import ExtraTreesRegressor
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPRegressor

        self._columns = landscape.columns
        scores = landscape.scores
        self._middle, best = float(np.median(scores)), float(scores.max())
        self._spread = best - self._middle or 1.0
        y = np.maximum((scores - self._middle) / self._spread, _WORST)
        x = self._features(landscape.cells)
        self._forest = ExtraTreesRegressor(_TREES, random_state=0).fit(x, y)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a fixed number of passes is meant
            self._network = MLPRegressor(
                hidden_layer_sizes=(_UNITS, _UNITS), learning_rate_init=2e-3, max_iter=_PASSES, random_state=0
            ).fit(x, y)

    def __call__(self, cells: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, p) cells -> (n,) scores in the landscape's unit."""
        x = self._features(cells)
        y = np.maximum((self._forest.predict(x) + self._network.predict(x)) / 2, _WORST)
        return np.asarray(y * self._spread + self._middle)

    def _features(self, cells: NDArray[np.float64]) -> NDArray[np.float64]:
        """Numbers on [-1, 1] with a flag for inactive ones, choices one by one."""
        blocks = []
        for j, column in enumerate(self._columns):
            cell = cells[:, j]
            inactive = np.isnan(cell)
            if column.choices is not None:
                blocks += [(cell == place) * 2.0 - 1.0 for place in range(len(column.choices))]
            else:
                blocks += [np.where(inactive, 0.0, cell * 2 - 1), inactive * 2.0 - 1.0]
        return np.stack(blocks, axis=1)


def landscape(folder: Path, scenario: Scenario, instance: str) -> Landscape:
    """One landscape of a scenario that was read from a folder."""
    (file,) = (name for name, (family, _) in FILES.items() if family == scenario.family)
    target = FILES[file][1]
    with np.load(folder / file, allow_pickle=False) as stored:
        columns = _columns(stored, scenario)
        raw = stored[f"x_{instance}"].astype(float)
        column = [str(t) for t in stored["targets"]].index(target)
        sign = -1.0 if bool(stored["minimize"][column]) else 1.0
        scores = sign * stored[f"y_{instance}"][:, column].astype(float)
    cells = np.stack([_cells(c, raw[:, j]) for j, c in enumerate(columns)], axis=1)
    return Landscape(scenario.family, instance, columns, _conditions(columns, cells), cells, scores)


def _columns(stored: Mapping[str, NDArray[np.float64]], scenario: Scenario) -> tuple[Column, ...]:
    schema, kinds = scenario.schema, [str(kind) for kind in stored["kinds"]]
    return tuple(
        Column(name or f"unnamed {j}", choices=schema.choices[j])
        if schema.choices[j] is not None
        else Column(
            name or f"unnamed {j}",
            float(stored["lower"][j]),
            float(stored["upper"][j]),
            bool(stored["log"][j]),
            kinds[j] == "int",
        )
        for j, name in enumerate(schema.names)
    )


def _cells(column: Column, raw: NDArray[np.float64]) -> NDArray[np.float64]:
    if column.choices is not None:
        return raw
    low, high = (math.log(v) if column.log else v for v in (column.low, column.high))
    with np.errstate(invalid="ignore"):
        return np.asarray(np.clip(((np.log(raw) if column.log else raw) - low) / (high - low), 0.0, 1.0))


def _conditions(columns: Sequence[Column], cells: NDArray[np.float64]) -> dict[int, tuple[int, tuple[int, ...]]]:
    """For each column that is inactive somewhere, an earlier choice that says exactly where."""
    found = {}
    for j in np.flatnonzero(np.isnan(cells).any(axis=0)):
        active = ~np.isnan(cells[:, j])
        for parent in (i for i in range(int(j)) if columns[i].choices):
            places = np.unique(cells[:, parent][~np.isnan(cells[:, parent])])
            shares = {int(place): float(active[cells[:, parent] == place].mean()) for place in places}
            if all(share in (0.0, 1.0) for share in shares.values()) and not active[np.isnan(cells[:, parent])].any():
                found[int(j)] = (parent, tuple(place for place, share in shares.items() if share == 1.0))
    return found
