"""What is tuned: a space, a function that scores its candidates, and what is known of it before the first trial."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from optuna.distributions import CategoricalDistribution, FloatDistribution

from offline_tune.cards import DataCard
from offline_tune.evaluator.families import FAMILIES, ROOT, default_of, space_of, split_values
from offline_tune.evaluator.pool import PoolEvaluator
from offline_tune.pretrain.collection import list_sources, sampled
from offline_tune.pretrain.functions import RandomFunction, random_schema
from offline_tune.pretrain.holdout import is_held_out
from offline_tune.pretrain.landscapes import Scenario, held_out, load_scenarios
from offline_tune.pretrain.natural import Judge, Landscape, landscape
from offline_tune.pretrain.pool import Schema
from offline_tune.pretrain.portfolio import write_portfolios
from offline_tune.pretrain.sweep_field import sweep_fields
from offline_tune.pretrain.sweep_judge import SweepJudge
from offline_tune.pretrain.sweep_table import Sweep, load_table, scale_of
from offline_tune.samplers.portfolio import Placed, portfolio
from offline_tune.space import Condition, Parameter, SearchSpace, Values
from offline_tune.task import TrialLimits

DRAWS = 20_000
_LEAST_SPREAD = 0.05  # of a function between the median and the best; its values lie between -1 and 0
TREES = ("xgboost", "random_forest", "decision_tree")  # measured on the same data sets: one space with a root


@dataclass(frozen=True)
class Problem:
    """One thing to tune.

    Attributes:
        kind: problems of one kind are reported together.
        name: tells it from others of its kind.
        space: of candidates.
        score: greater is better; None for a failure.
        best, middle: the best and the median of `DRAWS` even draws: regret 0 and 1.
        default: the default candidate, where there is one; among several families that of the safest.
        portfolio: what was learnt on other data sets, best first; empty where nothing was.
        card: facts about the data, where they are known.
        noise: what a tuner is told beside the truth.
        close: ends what `score` may have started; it starts again when it is needed.
    """

    kind: str
    name: str
    space: SearchSpace
    score: Callable[[Values], float | None]
    best: float
    middle: float
    default: Values | None = None
    portfolio: Placed = field(default_factory=Placed)
    card: DataCard | None = None
    noise: Callable[[Values], float] = lambda values: 0.0
    close: Callable[[], None] = lambda: None

    @property
    def key(self) -> str:
        """Names it among all."""
        return f"{self.kind}/{self.name}"

    def anonymous(self) -> tuple[Problem, Callable[[Values], Values]]:
        """The same with nothing but numbers for names, and the way from its candidates to those of the problem."""
        names = {p.name: f"x{j}" for j, p in enumerate(self.space.parameters)}
        real = {new: old for old, new in names.items()}

        def rename(parameter: Parameter) -> Parameter:
            when = parameter.when
            return replace(
                parameter,
                name=names[parameter.name],
                when=None if when is None else Condition(names[when.parent], when.values),
            )

        def back(values: Values) -> Values:
            return {real[name]: value for name, value in values.items()}

        space = SearchSpace(tuple(map(rename, self.space.parameters)))
        return replace(self, space=space, portfolio=Placed(), card=None), back


@dataclass(frozen=True)
class Catalogue:
    """Where problems come from; equal catalogues make equal problems, in any process.

    Kinds: the families of the landscapes, `root` for three of them under one, `unseen FAMILY`, `function`; of a table
    of sweeps `own FAMILY` and, for all families under a root, `own`, both judged by forests fitted to it; `real`,
    the same as `own` but with candidates that are really trained.

    Attributes:
        landscapes: folder of evaluated configurations, None for none.
        cache: folder for what takes long to make.
        functions: how many synthetic ones.
        instances: the most of each family of landscapes.
        unseen: families that the model has not been trained on: all their data sets may serve, no portfolio may.
        sweeps: a table of sweeps, None for none.
        all_tables: take every swept table, with portfolios learnt on the others; otherwise those held out of training.
        collection: folder of the tables that were swept, for `real`; None for none.
    """

    landscapes: Path | None
    cache: Path
    functions: int = 12
    instances: int = 6
    unseen: tuple[str, ...] = ()
    sweeps: Path | None = None
    all_tables: bool = False
    collection: Path | None = None

    def keys(self) -> list[str]:
        """All problems by key, those of one kind together."""
        lands = [f"{family}/{name}" for family, found in self._instances().items() for name in found]
        rooted = [f"root/{name}" for name in self._shared()]
        own = [f"own {family}/{name}" for family in self._swept() for name in self._tables()]
        together = [f"own/{name}" for name in self._tables()]
        real = [f"real/{name}" for name in self._tables() if self.collection is not None]
        functions = [problem.key for problem in _functions(self.functions)]
        return [*lands, *rooted, *together, *own, *real, *functions]

    @lru_cache(maxsize=4)  # noqa: B019  # a process holds one catalogue and works through its problems in order
    def problem(self, key: str) -> Problem:
        """The problem of a key."""
        kind, _, name = key.partition("/")
        if kind == "function":
            return _function(int(name))
        if kind == "root":
            return self._rooted(name)
        if kind == "real":
            return self._real(name)
        if kind == "own" or kind.startswith("own "):
            families = (kind.removeprefix("own "),) if kind != "own" else self._swept()
            return self._own(kind, families, name)
        return self._landscape(kind.removeprefix("unseen "), name, kind)

    def _instances(self) -> dict[str, list[str]]:
        found = {}
        for scenario in self._scenarios():
            if scenario.family in self.unseen:
                found[f"unseen {scenario.family}"] = sorted(scenario.pools)[: self.instances]
            elif not self.unseen:
                found[scenario.family] = list(held_out(scenario))[: self.instances]
        return found

    def _shared(self) -> list[str]:
        found = self._instances()
        if not all(family in found for family in TREES):
            return []
        return sorted(set.intersection(*(set(found[family]) for family in TREES)))

    @lru_cache  # noqa: B019
    def _scenarios(self) -> tuple[Scenario, ...]:
        return load_scenarios(self.landscapes) if self.landscapes else ()

    @lru_cache  # noqa: B019
    def _sweeps(self) -> tuple[Sweep, ...]:
        return load_table(self.sweeps).sweeps if self.sweeps else ()

    def _swept(self) -> tuple[str, ...]:
        """Families, in the order of the program."""
        found = {sweep.family for sweep in self._sweeps()}
        return tuple(family for family in FAMILIES if family in found)

    def _tables(self) -> list[str]:
        names = sorted({sweep.table for sweep in self._sweeps()})
        return [name for name in names if self.all_tables or is_held_out(name)]

    def _land(self, family: str, name: str) -> tuple[Landscape, Judge]:
        (scenario,) = (s for s in self._scenarios() if s.family == family)
        land = landscape(self.landscapes, scenario, name)
        return land, self._kept(f"judge-{family}-{name}", lambda: Judge(land))

    def _landscape(self, family: str, name: str, kind: str) -> Problem:
        land, judge = self._land(family, name)

        def scores(candidates: Sequence[Values]) -> np.ndarray:
            return judge(np.stack([land.cells_of(candidate) for candidate in candidates]))

        return self._judged(
            kind, name, land.space, scores, Placed() if family in self.unseen else portfolio(land.space)
        )

    def _rooted(self, name: str) -> Problem:
        lands = {family: self._land(family, name) for family in TREES}
        root = Parameter(ROOT, CategoricalDistribution(TREES))
        branches = (p for land, _ in lands.values() for p in land.space.parameters if p.name != ROOT)
        space = SearchSpace((root, *branches))

        def scores(candidates: Sequence[Values]) -> np.ndarray:
            found = np.empty(len(candidates))
            for family, (land, judge) in lands.items():
                mine = [i for i, candidate in enumerate(candidates) if candidate[ROOT] == family]
                if mine:
                    found[mine] = judge(np.stack([land.cells_of(candidates[i]) for i in mine]))
            return found

        return self._judged("root", name, space, scores, portfolio(space))

    def _own(self, kind: str, families: tuple[str, ...], name: str) -> Problem:
        judges = {f: self._kept(f"judge-own-{f}-{name}", partial(self._sweep_judge, f, name)) for f in families}
        card = next(sweep.card for sweep in self._sweeps() if sweep.table == name)
        space = space_of([FAMILIES[family] for family in families], card)

        def scores(candidates: Sequence[Values]) -> np.ndarray:
            split = [split_values(candidate) for candidate in candidates]
            found = np.empty(len(candidates))
            for family, judge in judges.items():
                mine = [i for i, (own, _) in enumerate(split) if own == family]
                if mine:
                    found[mine] = judge([split[i][1] for i in mine])
            return found

        problem = self._judged(kind, name, space, scores, self._learnt(space, name))
        return replace(problem, card=card, default=default_of(_safest(self._sweeps(), families, name), space))

    def _real(self, name: str) -> Problem:
        own = [sweep for sweep in self._sweeps() if sweep.table == name]
        told = load_table(self.sweeps).provenance
        (source,) = list_sources(self.collection, (name,))
        dataset = sampled(source, told["rows"], told["folds"], told["seed"])
        space = space_of([FAMILIES[family] for family in self._swept()], dataset.card)
        middle, spread = scale_of(own)
        working: list[PoolEvaluator] = []

        def score(candidate: Values) -> float | None:
            if not working:
                working.append(PoolEvaluator(dataset, TrialLimits(seconds=told["seconds"])))
            (result,) = working[0].evaluate([candidate], [told["seed"]])
            return None if result.scores is None else result.scores[dataset.task.metric.name]

        def close() -> None:
            while working:
                working.pop().close()

        return Problem(
            kind="real",
            name=name,
            space=space,
            score=score,
            best=middle + spread,
            middle=middle,
            default=default_of(_safest(self._sweeps(), self._swept(), name), space),
            portfolio=self._learnt(space, name),
            card=dataset.card,
            close=close,
        )

    def _sweep_judge(self, family: str, name: str) -> SweepJudge:
        return SweepJudge([sweep for sweep in self._sweeps() if sweep.family == family], name)

    @lru_cache(maxsize=2)  # noqa: B019
    def _learnt(self, space: SearchSpace, name: str) -> Placed:
        """A portfolio learnt on the other tables; the shipped one where it was learnt without this one."""
        if not self.all_tables:
            return portfolio(space)
        file = self.cache / f"portfolio-without-{name}.json"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            write_portfolios(file, {"sweeps": sweep_fields(self._sweeps(), [name])}, {})
        return portfolio(space, file)

    def _judged(
        self,
        kind: str,
        name: str,
        space: SearchSpace,
        scores: Callable[[Sequence[Values]], np.ndarray],
        learnt: Placed,
    ) -> Problem:
        def extremes() -> tuple[float, float]:
            rng = np.random.default_rng(5)
            values = scores([space.sample(rng) for _ in range(DRAWS)])
            return float(values.max()), float(np.median(values))

        def score(candidate: Values) -> float:
            return float(scores([candidate])[0])

        best, middle = self._kept(f"bounds-{kind}-{name}", extremes)
        return Problem(kind, name, space, score, best, middle, portfolio=learnt)

    def _kept(self, name: str, make: Callable[[], Any]) -> Any:
        """What was made once, for this table of sweeps and these landscapes."""
        source = self.sweeps if "own" in name else self.landscapes
        age = zlib.crc32(self.sweeps.read_bytes()) if "own" in name and self.sweeps else 0
        file = self.cache / f"{name.replace(' ', '-')}-{age:08x}-{source.name if source else ''}.joblib"
        if not file.exists():
            self.cache.mkdir(parents=True, exist_ok=True)
            joblib.dump(make(), file.with_suffix(".partial"), compress=3)
            file.with_suffix(".partial").replace(file)
        return joblib.load(file)


def _safest(sweeps: Sequence[Sweep], families: Sequence[str], without: str) -> str:
    """The family whose default ranks best on the other tables; a user who tries one default tries that."""
    scores: dict[str, dict[str, float]] = {}
    for sweep in sweeps:
        if sweep.family in families and sweep.table != without and sweep.numbers[0] == 0:
            scores.setdefault(sweep.table, {})[sweep.family] = float(np.nan_to_num(sweep.scores[0], nan=-np.inf))
    full = [found for found in scores.values() if len(found) == len(families)]
    ranks = {f: np.mean([sum(other > found[f] for other in found.values()) for found in full]) for f in families}
    return min(families, key=ranks.__getitem__)


def _functions(count: int) -> Iterator[Problem]:
    """Synthetic functions that leave something to tune."""
    found = (problem for problem in map(_function, itertools.count()) if problem.best - problem.middle > _LEAST_SPREAD)
    return itertools.islice(found, count)


def _function(index: int) -> Problem:
    rng = np.random.default_rng([index, 77_001])
    schema = random_schema(rng)
    function = RandomFunction(schema, rng)
    space = _schema_space(schema, function.branch)
    values = function(function.sample(DRAWS, rng))

    def score(candidate: Values) -> float:
        return float(function(_unit(space, candidate)[None])[0])

    def noise(candidate: Values) -> float:
        own = zlib.crc32(space.write(candidate).encode())  # equal candidates get equal noise, whoever asks and when
        return function.noise * float(np.random.default_rng([index, own]).standard_normal())

    best, middle = float(values.max()), float(np.median(values))
    return Problem("function", str(index), space, score, best, middle, noise=noise)


def _schema_space(schema: Schema, branch: np.ndarray) -> SearchSpace:
    """Nameless parameters on [0, 1]; where the first is a family, the branches hang on it."""
    names = [f"x{j}" for j in range(schema.n_parameters)]
    names[0] = schema.names[0] or names[0]
    parameters = []
    for j, choices in enumerate(schema.choices):
        when = None
        if schema.conditional[j] and schema.choices[0]:
            when = Condition(names[0], (schema.choices[0][int(branch[j])],))
        distribution = CategoricalDistribution(choices) if choices else FloatDistribution(0.0, 1.0)
        parameters.append(Parameter(names[j], distribution, when=when))
    return SearchSpace(tuple(parameters))


def _unit(space: SearchSpace, values: Values) -> np.ndarray:
    """In the order of the schema, which the space may have changed."""
    unit: dict[int, float] = {}
    for parameter in space.parameters:
        place = 0 if parameter.name == ROOT else int(parameter.name[1:])
        if parameter.name not in values:
            unit[place] = np.nan
        elif parameter.is_categorical:
            unit[place] = (parameter.lattice.index(values[parameter.name]) + 0.5) / parameter.lattice.size
        else:
            unit[place] = float(values[parameter.name])
    return np.array([unit[place] for place in sorted(unit)])
