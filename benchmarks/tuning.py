"""Who tunes best: the shipped model against random search, TPE and a Gaussian process, from nothing, same budgets.

Tasks: synthetic functions of seeds that training never used, and, where OFFLINE_TUNE_LANDSCAPES names the folder of
tables, the data sets held out of training (a table's in-between points judged by a forest fitted to it).
Regret: 0 is the best of 20,000 random configurations, 1 their median, above 2 counts as 2 (beyond a cliff it can be
any number); the mean over tasks and seeds is printed.

    make bench-tuning          SEEDS=3 TRIALS=30 MODEL=models/x.gguf override the defaults
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution
from scipy.stats import wilcoxon
from sklearn.ensemble import ExtraTreesRegressor

from offline_tune.history import History, Observation
from offline_tune.llm.contract import Sampling
from offline_tune.llm.llama import load_model
from offline_tune.llm.manifest import shipped_model
from offline_tune.pretrain.functions import RandomFunction, random_schema
from offline_tune.pretrain.landscapes import held_out, load_scenarios
from offline_tune.pretrain.pool import Pool, Schema
from offline_tune.prompt.vocabulary import N_LEVELS
from offline_tune.samplers.classic import classic_sampler
from offline_tune.samplers.compact import CompactDrafter
from offline_tune.samplers.llama import LlamaSampler
from offline_tune.space import Condition, Parameter, SearchSpace, Values

WORST = 2.0
BUDGETS = (1, 3, 5, 10, 20, 30)
CLASSICS = ("random", "tpe", "gp")


@dataclass(frozen=True)
class Problem:
    """A space and its objective on the unit cube, greater is better; `best` and `middle` are of random search."""

    kind: str
    space: SearchSpace
    score: Callable[[Values], float]
    best: float
    middle: float

    def regret(self, curve: list[float]) -> list[float]:
        """Of the best so far after each trial."""
        gaps = self.best - np.maximum.accumulate(curve)
        return [float(gap) for gap in np.minimum(gaps / (self.best - self.middle), WORST)]


def main() -> None:
    seeds, trials = int(os.environ.get("SEEDS", "3")), int(os.environ.get("TRIALS", "30"))
    path = Path(os.environ["MODEL"]) if "MODEL" in os.environ else shipped_model()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    problems = [*synthetic(int(os.environ.get("FUNCTIONS", "12"))), *tables()]
    model = load_model(path, k_max=64)
    found: dict[str, dict[str, list[list[float]]]] = {}
    seconds: list[float] = []
    for problem in problems:
        for seed in range(seeds):
            for name in CLASSICS:
                curve = classic(problem, name, seed, trials)
                found.setdefault(problem.kind, {}).setdefault(name, []).append(problem.regret(curve))
            sampler = LlamaSampler(CompactDrafter(model, problem.space, Sampling()), seed)
            began = time.perf_counter()
            curve = llama(problem, sampler, trials)
            seconds.append((time.perf_counter() - began) / trials)
            found[problem.kind].setdefault("llama", []).append(problem.regret(curve))
        print(f"... {problem.kind}, {len(problem.space.parameters)} parameters", flush=True)
    print(f"model {path.name}; {len(problems)} tasks x {seeds} seeds; {np.median(seconds):.2f} s a proposal (median)")
    for kind, curves in [*found.items(), ("all", _together(found))]:
        table(kind, curves, trials)


def table(kind: str, curves: dict[str, list[list[float]]], trials: int) -> None:
    budgets = [b for b in BUDGETS if b <= trials]
    print(f"\n{kind:20}" + "".join(f"{b:>9}" for b in budgets))
    for name, rows in curves.items():
        print(f"  {name:18}" + "".join(f"{np.mean([row[b - 1] for row in rows]):9.3f}" for b in budgets))
    for rival in CLASSICS:
        ours, theirs = (np.array([np.mean(row) for row in curves[name]]) for name in ("llama", rival))
        p = wilcoxon(ours, theirs).pvalue if np.any(ours != theirs) else 1.0
        print(f"  llama to {rival}: mean regret over all trials {ours.mean():.3f} to {theirs.mean():.3f}, p {p:.2g}")


def llama(problem: Problem, sampler: LlamaSampler, trials: int) -> list[float]:
    history = History(problem.space)
    for number in range(trials):
        values = sampler.plan(history, 1, number)[0].values
        history = history.extended([Observation(number, values, problem.score(values))])
    return [observation.score for observation in history.observations]


def classic(problem: Problem, name: str, seed: int, trials: int) -> list[float]:
    study = optuna.create_study(direction="maximize")
    for number in range(trials):
        study.sampler = classic_sampler(name, problem.space, seed, number)
        trial = study.ask()
        study.tell(trial, problem.score(problem.space.suggest(trial)))
    return [trial.values[0] for trial in study.trials]


def synthetic(count: int) -> Iterator[Problem]:
    for index in range(count):
        rng = np.random.default_rng([index, 77_001])
        schema = random_schema(rng)
        function = RandomFunction(schema, rng)
        space = space_of(schema, branch=function.branch)
        values = function(function.sample(20_000, rng))

        def score(candidate: Values, function: RandomFunction = function, space: SearchSpace = space) -> float:
            return float(function(function.legal(_unit(space, candidate)[None]))[0])

        yield Problem("synthetic", space, score, float(values.max()), float(np.median(values)))


def tables() -> Iterator[Problem]:
    folder = os.environ.get("OFFLINE_TUNE_LANDSCAPES")
    scenarios = load_scenarios(Path(folder)) if folder else ()
    for scenario in scenarios:
        for name in held_out(scenario)[:3]:
            yield _tabled(scenario.family, scenario.pools[name])


def _tabled(family: str, pool: Pool) -> Problem:
    space = space_of(pool.schema, conditions=_conditions(pool))
    forest = ExtraTreesRegressor(60, min_samples_leaf=2, random_state=0).fit(pool.cells.astype(float), pool.scores)
    draws = [space.sample(rng) for rng in [np.random.default_rng(5)] for _ in range(20_000)]
    values = forest.predict(np.array([_cells(space, pool.schema, draw) for draw in draws]))

    def score(candidate: Values) -> float:
        return float(forest.predict(_cells(space, pool.schema, candidate)[None])[0])

    return Problem(family, space, score, float(values.max()), float(np.median(values)))


def space_of(
    schema: Schema, branch: np.ndarray | None = None, conditions: dict[int, tuple[int, tuple[int, ...]]] | None = None
) -> SearchSpace:
    """The space of a schema; names that repeat or are unknown get a number, which the dialect's short name drops."""
    names = [f"p{j}.{name or f'unnamed {j}'}" for j, name in enumerate(schema.names)]
    if schema.names[0] == "family":
        names[0] = "family"
    parameters = []
    for j, choices in enumerate(schema.choices):
        when = None
        if conditions and j in conditions:
            parent, wanted = conditions[j]
            words = schema.choices[parent]
            assert words is not None
            when = Condition(names[parent], tuple(words[i] for i in wanted))
        elif branch is not None and schema.conditional[j] and schema.choices[0]:
            when = Condition(names[0], (schema.choices[0][int(branch[j])],))
        distribution = CategoricalDistribution(choices) if choices else FloatDistribution(0.0, 1.0)
        parameters.append(Parameter(names[j], distribution, when=when))
    return SearchSpace(tuple(parameters))


def _conditions(pool: Pool) -> dict[int, tuple[int, tuple[int, ...]]]:
    """For each conditional column, the categorical column and choices that switch it on in the table."""
    found = {}
    categorical = [j for j, choices in enumerate(pool.schema.choices) if choices]
    for j in np.flatnonzero(pool.schema.conditional):
        active = pool.cells[:, j] >= 0
        for parent in categorical:
            shares = {c: active[pool.cells[:, parent] == c].mean() for c in np.unique(pool.cells[:, parent]) if c >= 0}
            absent = active[pool.cells[:, parent] < 0]
            if parent < j and all(s in (0.0, 1.0) for s in shares.values()) and not absent.any():
                found[int(j)] = (parent, tuple(int(c) for c, s in shares.items() if s == 1.0))
    return found


def _unit(space: SearchSpace, values: Values) -> np.ndarray:
    unit = []
    for parameter in space.parameters:
        if parameter not in space.active(values):
            unit.append(np.nan)
        elif parameter.is_categorical:
            unit.append((parameter.lattice.index(values[parameter.name]) + 0.5) / parameter.lattice.size)
        else:
            unit.append(float(values[parameter.name]))
    return np.array(unit)


def _cells(space: SearchSpace, schema: Schema, values: Values) -> np.ndarray:
    order = {parameter.name: parameter for parameter in space.parameters}
    cells = []
    for j in range(schema.n_parameters):
        name = next(n for n in order if n.startswith(f"p{j}.") or (j == 0 and n == "family"))
        if name not in values:
            cells.append(-1.0)
        elif order[name].is_categorical:
            cells.append(float(order[name].lattice.index(values[name])))
        else:
            cells.append(float(min(int(float(values[name]) * N_LEVELS), N_LEVELS - 1)))
    return np.array(cells)


def _together(found: dict[str, dict[str, list[list[float]]]]) -> dict[str, list[list[float]]]:
    return {name: [row for curves in found.values() for row in curves[name]] for name in ("llama", *CLASSICS)}


if __name__ == "__main__":
    main()
