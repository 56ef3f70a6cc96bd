"""A judge for any candidate of a swept family on one table.

Some dozens of trials say little about a space of a dozen dimensions, but the same family's trials on other tables say
more. So one forest learns from those, with the facts of each data card as further features, and a second one learns
what the first one leaves over on the table itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from offline_tune.cards import DataCard
from offline_tune.data.wording import quoted
from offline_tune.errors import DataError
from offline_tune.pretrain.sweep_table import Sweep, scale_of
from offline_tune.space import SearchSpace, Values

_WORST = -4.0  # on the scale where a table's median is 0 and its best 1
_TREES = 150


class SweepJudge:
    """Scores candidates of one family on one table; deterministic.

    Args:
        sweeps: of one family, on several tables.
        table: the name of the table to judge.

    Raises:
        DataError: the table is not among the sweeps, or has no two different scores.
    """

    def __init__(self, sweeps: Sequence[Sweep], table: str) -> None:
        from sklearn.ensemble import ExtraTreesRegressor

        scaled = {sweep.table: (sweep, scale) for sweep in sweeps if (scale := scale_of([sweep])) is not None}
        if table not in scaled:
            raise DataError(f"a judge needs a table with different scores, got {quoted(table)}; sweep it further")
        self._own, (self._middle, self._spread) = scaled.pop(table)
        others = list(scaled.values())
        self._columns = _columns([self._own, *(sweep for sweep, _ in others)])
        self._others = ExtraTreesRegressor(_TREES, min_samples_leaf=2, random_state=0)
        self._rest = ExtraTreesRegressor(_TREES, min_samples_leaf=3, random_state=0)
        self._has_others = bool(others)
        if others:
            blocks = [self._features(sweep.space, sweep.candidates, sweep.card) for sweep, _ in others]
            self._others.fit(np.concatenate(blocks), np.concatenate([_normalised(*other) for other in others]))
        x, first = self._opinion(self._own.candidates)
        self._rest.fit(x, _normalised(self._own, (self._middle, self._spread)) - first)

    def __call__(self, candidates: Sequence[Values]) -> NDArray[np.float64]:
        """Candidates of the table's space -> (n,) scores in the table's metric."""
        x, first = self._opinion(candidates)
        return np.asarray((first + self._rest.predict(x)) * self._spread + self._middle)

    def _opinion(self, candidates: Sequence[Values]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Features (n, d), and what the other tables say (n,), which is the last of them."""
        x = self._features(self._own.space, candidates, self._own.card)
        first = self._others.predict(x) if self._has_others else np.zeros(len(x))
        return np.column_stack([x, first]), first

    def _features(self, space: SearchSpace, candidates: Sequence[Values], card: DataCard) -> NDArray[np.float64]:
        facts = _facts(card)
        return np.array([[*_places(self._columns, space, values), *facts] for values in candidates])


def _normalised(sweep: Sweep, scale: tuple[float, float]) -> NDArray[np.float64]:
    """Scores (n,) on the scale where the median is 0 and the best 1; failures are the worst there is."""
    scores = (sweep.scores - scale[0]) / scale[1]
    return np.asarray(np.maximum(np.where(np.isnan(scores), _WORST, scores), _WORST))


def _columns(sweeps: Sequence[Sweep]) -> Mapping[str, tuple[object, ...]]:
    """Each parameter's name, with its choices on any table; numbers have none."""
    found: dict[str, dict[object, None]] = {}
    for parameter in (p for sweep in sweeps for p in sweep.space.parameters):
        choices = found.setdefault(parameter.name, {})
        if parameter.is_categorical:
            choices |= dict.fromkeys(parameter.lattice.value(place) for place in range(parameter.lattice.size))
    return {name: tuple(choices) for name, choices in sorted(found.items())}


def _places(columns: Mapping[str, tuple[object, ...]], space: SearchSpace, values: Values) -> list[float]:
    """Numbers on [0, 1] with a flag for absent ones, choices one by one."""
    places: list[float] = []
    for name, choices in columns.items():
        if choices:
            places += [float(name in values and values[name] == choice) for choice in choices]
        elif name in values:
            places += [space.by_name[name].to_unit(values[name]), 1.0]
        else:
            places += [0.5, 0.0]
    return places


def _facts(card: DataCard) -> list[float]:
    scores = [card.linear_score, card.tree_score]
    return [
        float(card.kind.is_classification),
        math.log(max(card.n_rows, 1)),
        math.log(max(card.n_features, 1)),
        card.n_categorical / max(card.n_features, 1),
        math.log(max(card.n_classes, 1)),
        card.imbalance,
        card.missing_share,
        card.mean_abs_skew,
        *(0.0 if score is None else score for score in scores),
    ]
