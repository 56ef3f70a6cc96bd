"""Fields of candidates on landscapes: what would do well on many data sets, by the judges of each.

Candidates are the best rows of each data set, even draws, and steps away from those that would be chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from offline_tune.evaluator.families import ROOT
from offline_tune.history import History, Observation
from offline_tune.pretrain.greedy import SIZE, Field, greedy
from offline_tune.pretrain.landscapes import Scenario, held_out, load_scenarios
from offline_tune.pretrain.natural import Judge, Landscape, landscape
from offline_tune.samplers.neighbours import local_steps
from offline_tune.samplers.portfolio import ANY, completed
from offline_tune.space import Values

_TOPS, _DRAWS = 12, 256  # candidates: the best rows of each data set, and even draws
_ROUNDS, _STEPS = 6, 24  # then steps away from each that would be chosen, some times over
_SAMPLE = 4000  # even draws that tell the median and the best

Say = Callable[[str], None]


def landscape_fields(
    folder: Path, seed: int = 0, without: Iterable[str] = (), say: Say = lambda line: None
) -> dict[str, Field]:
    """A field for each family of a folder of landscapes, and `ANY` for the families that share data sets.

    Judged by `natural.Judge` on all data sets that training may see.

    Args:
        folder: as for `landscapes.load_scenarios`.
        seed: of the even draws.
        without: families to leave out.
        say: told of each family.
    """
    scenarios = [s for s in load_scenarios(folder) if s.family not in set(without)]
    rng = np.random.default_rng(seed)
    measured: dict[str, _Measured] = {}
    for scenario in scenarios:
        say(f"{scenario.family}: fitting {len(scenario.pools) - len(held_out(scenario))} judges")
        measured[scenario.family] = _measure(folder, scenario, rng)
    fields = {family: found.field for family, found in measured.items()}
    together = {f: m for f, m in measured.items() if f in ("xgboost", "random_forest", "decision_tree")}
    if len(together) > 1:
        fields[ANY] = _rooted(together)
    return fields


@dataclass(frozen=True, eq=False)
class _Measured:
    """One family: the scores of candidates (n_tasks, k) and of even draws (n_tasks, m), by data set."""

    names: tuple[str, ...]
    candidates: tuple[Values, ...]
    scores: NDArray[np.float64]
    draws: NDArray[np.float64]

    @property
    def field(self) -> Field:
        return Field(self.candidates, _regrets(self.scores, self.draws))


def _measure(folder: Path, scenario: Scenario, rng: np.random.Generator) -> _Measured:
    names = tuple(sorted(set(scenario.pools) - set(held_out(scenario))))
    lands = [landscape(folder, scenario, name) for name in names]
    judges = [Judge(land) for land in lands]

    def score(cells: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([judge(cells) for judge in judges])

    tops = [land.cells[np.argsort(-land.scores)[:_TOPS]] for land in lands]
    cells = np.unique(np.concatenate([*tops, _draws(lands[0], _DRAWS, rng)]), axis=0)
    draws, scores = score(_draws(lands[0], _SAMPLE, rng)), score(cells)
    for _ in range(_ROUNDS):
        chosen = greedy(_regrets(scores, draws), SIZE)
        near = np.concatenate([_near(lands[0], cells[place], rng) for place in chosen])
        cells, scores = np.concatenate([cells, near]), np.concatenate([scores, score(near)], axis=1)
    return _Measured(names, tuple(lands[0].values(row) for row in cells), scores, draws)


def _near(land: Landscape, cells: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Candidates a step away from one, (n, p)."""
    own = {f"{land.family}.{name}": value for name, value in land.values(cells).items()}
    start = History(land.space, (Observation(0, completed(land.space, own)[0], 0.0),))
    return np.stack([land.cells_of(values) for values in local_steps(start, _STEPS, rng)])


def _draws(land: Landscape, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    return np.stack([land.cells_of(land.space.sample(rng)) for _ in range(n)])


def _rooted(together: Mapping[str, _Measured]) -> Field:
    """One field over families on the data sets that they share, so that the family is part of the choice."""
    shared = sorted(set.intersection(*(set(m.names) for m in together.values())))
    rows = {f: [m.names.index(name) for name in shared] for f, m in together.items()}
    scores = np.concatenate([m.scores[rows[f]] for f, m in together.items()], axis=1)
    draws = np.concatenate([m.draws[rows[f]] for f, m in together.items()], axis=1)
    return Field(
        tuple({ROOT: f, **values} for f, m in together.items() for values in m.candidates), _regrets(scores, draws)
    )


def _regrets(scores: NDArray[np.float64], draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n_tasks, k) scores and (n_tasks, m) scores of even draws -> (n_tasks, k) regrets."""
    middle = np.median(draws, axis=1, keepdims=True)
    best = np.maximum(draws.max(axis=1, keepdims=True), scores.max(axis=1, keepdims=True))
    return np.asarray((best - scores) / (best - middle))
