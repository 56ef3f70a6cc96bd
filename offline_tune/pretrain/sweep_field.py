"""Fields of candidates on swept tables: what did well on many of them, measured or judged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from offline_tune.evaluator.families import ROOT
from offline_tune.pretrain.greedy import CAP, Field
from offline_tune.pretrain.sweep_judge import SweepJudge
from offline_tune.pretrain.sweep_log import FIRST_ENTRY
from offline_tune.pretrain.sweep_table import Sweep, scale_of
from offline_tune.samplers.portfolio import ANY, completed
from offline_tune.space import Value, Values

_LEAST_MEASURED = 0.8  # share of tables on which a swept candidate must have been measured


def sweep_fields(sweeps: Sequence[Sweep], without: Iterable[str] = ()) -> dict[str, Field]:
    """A field for each family of a table of sweeps, and `ANY` for all of them together.

    Candidates are those measured on nearly all tables; where one is missing it counts as on the others.

    Args:
        sweeps: the pairs of table and family.
        without: tables to leave out, such as those that a model is tested on.
    """
    kept = [sweep for sweep in sweeps if sweep.table not in set(without)]
    tables = sorted({sweep.table for sweep in kept})
    fields, blocks, rooted = dict[str, Field](), list[NDArray[np.float64]](), list[Values]()
    for family in sorted({sweep.family for sweep in kept}):
        own = {sweep.table: sweep for sweep in kept if sweep.family == family}
        values, scores = _common(own, tables)
        regrets = _regrets(scores, [scale_of([own[table]]) if table in own else None for table in tables])
        fields |= {family: Field(values, regrets)} if regrets.size else {}
        blocks.append(scores)
        rooted += [{ROOT: family, **v} for v in values]
    scales = [scale_of([sweep for sweep in kept if sweep.table == table]) for table in tables]
    regrets = _regrets(np.concatenate(blocks, axis=1), scales)
    return fields | ({ANY: Field(tuple(rooted), regrets)} if regrets.size else {})


def judged_fields(sweeps: Sequence[Sweep], without: Iterable[str] = ()) -> dict[str, Field]:
    """A field for each family whose candidates are all that were swept, judged where they were not measured.

    Worth measuring everywhere (`sweep --portfolio`), before a portfolio is chosen from `sweep_fields`.

    Args:
        sweeps: the pairs of table and family.
        without: tables to leave out.
    """
    kept = [sweep for sweep in sweeps if sweep.table not in set(without) and scale_of([sweep]) is not None]
    fields = {}
    for family in sorted({sweep.family for sweep in kept}):
        own = [sweep for sweep in kept if sweep.family == family]
        candidates = [values for sweep in own for values in sweep.candidates]
        fields[family] = Field(tuple(candidates), np.array([_judged(own, sweep, candidates) for sweep in own]))
    return fields


def _judged(sweeps: Sequence[Sweep], sweep: Sweep, candidates: Sequence[Values]) -> NDArray[np.float64]:
    """(k,) regrets of candidates of any table on one of them."""
    scale = scale_of([sweep])
    assert scale is not None
    here = [completed(sweep.space, values)[0] for values in candidates]
    return np.asarray((sum(scale) - SweepJudge(sweeps, sweep.table)(here)) / scale[1])


def _common(own: Mapping[str, Sweep], tables: Sequence[str]) -> tuple[tuple[Values, ...], NDArray[np.float64]]:
    """The candidates measured on nearly all tables: their values, and their scores (n_tables, k).

    A failure is -inf; what was not measured is NaN.
    """
    counts = np.unique(np.concatenate([s.numbers[_is_common(s.numbers)] for s in own.values()]), return_counts=True)
    numbers = [int(n) for n, count in zip(*counts, strict=True) if count >= _LEAST_MEASURED * len(own)]
    scores = np.full((len(tables), len(numbers)), np.nan)
    found: list[list[Values]] = [[] for _ in numbers]
    for row, table in enumerate(tables):
        if table not in own:
            continue
        place_of = {int(n): place for place, n in enumerate(own[table].numbers)}
        for column, number in enumerate(numbers):
            if number in place_of:
                score = own[table].scores[place_of[number]]
                scores[row, column] = -np.inf if np.isnan(score) else score
                found[column].append(own[table].candidates[place_of[number]])
    return tuple(_typical(values) for values in found), scores


def _is_common(numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The default, every second even draw, and entries of a portfolio are the same on all tables."""
    return np.asarray((numbers == 0) | (numbers % 2 == 1) | (numbers >= FIRST_ENTRY))


def _typical(values: Sequence[Values]) -> dict[str, Value]:
    """The middle number and the most frequent choice of one candidate, whose values differ with the tables' ranges."""
    typical: dict[str, Value] = {}
    for name in dict.fromkeys(name for one in values for name in one):
        seen = [one[name] for one in values if name in one]
        if all(isinstance(v, int | float) and not isinstance(v, bool) for v in seen):
            typical[name] = sorted(seen, key=float)[len(seen) // 2]  # type: ignore[arg-type]
        else:
            typical[name] = max(dict.fromkeys(seen), key=seen.count)
    return typical


def _regrets(scores: NDArray[np.float64], scales: Sequence[tuple[float, float] | None]) -> NDArray[np.float64]:
    """(n_tables, k) regrets; tables on which nothing differs are left out, what is missing counts as elsewhere.

    Args:
        scores: (n_tables, k), -inf for failures, NaN for what is missing.
        scales: of each table, see `scale_of`.
    """
    rows = [np.zeros((0, scores.shape[1]))]
    for row, scale in zip(scores, scales, strict=True):
        if scale is not None:
            rows.append((sum(scale) - row)[None] / scale[1])
    regrets = np.minimum(np.concatenate(rows), CAP)
    known_mean = np.nansum(regrets, axis=0) / np.maximum((~np.isnan(regrets)).sum(axis=0), 1)
    return np.asarray(np.where(np.isnan(regrets), known_mean, regrets))
