"""Sweeps: the project's own families measured on many small tables, so that a model can learn from them.

For each table and family the default configuration is tried first, then candidates drawn evenly. Every second of
these comes from one stream for all tables (as places on each parameter's own scale), so that the same configuration
is measured everywhere; the others come from a stream of the table's own. At last come the entries of a portfolio,
where one is given: what promises to be good, measured everywhere. The sweep goes through all tables and families
again and again, a few candidates at a time: wherever it is stopped, all have about as many.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from offline_tune import airgap
from offline_tune.data.dataset import Dataset
from offline_tune.data.wording import quoted
from offline_tune.errors import StudyError, UsageError
from offline_tune.evaluator.contract import Result
from offline_tune.evaluator.families import AUTO, FAMILIES, ROOT, Family, families_for
from offline_tune.evaluator.pool import PoolEvaluator
from offline_tune.pretrain.collection import Source, list_sources, sampled, seed_of
from offline_tune.pretrain.sweep_log import FIRST_ENTRY, TABLE, TRIAL, SweepLog, opened
from offline_tune.samplers.portfolio import completed, load_portfolios
from offline_tune.space import Parameter, SearchSpace, Value, Values
from offline_tune.task import TrialLimits

AT_A_TIME = 4  # candidates of one family on one table, before the next

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPlan:
    """What to measure.

    Attributes:
        families: names, or "auto".
        tables: names of tables, none for all.
        candidates: for each table and family, beside the default.
        portfolio: a file of entries to measure besides, see `samplers.portfolio`; None for none.
        rows: the most rows of a table.
        folds: of the cross-validation.
        seconds: the time limit of one trial; what takes longer counts as a failure.
        workers: trials at a time.
        seed: of samples, folds, candidates and models.

    Raises:
        UsageError: a number out of its range.
    """

    families: tuple[str, ...] = ("auto",)
    tables: tuple[str, ...] = ()
    candidates: int = 32
    portfolio: Path | None = None
    rows: int = 1000
    folds: int = 3
    seconds: float = 20.0
    workers: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        ranges = {"candidates": (0, 4096), "rows": (50, 10**6), "folds": (2, 50), "workers": (1, 4096)}
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise UsageError(f"--{name} must be from {low} to {high}, got {value}; choose a number inside")
        TrialLimits(seconds=self.seconds)  # refuses what is too short
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"--seed must be from 0 to {2**32 - 1}, got {self.seed}; choose a number inside")

    @property
    def lasting(self) -> Mapping[str, object]:
        """What a resumed sweep may not change."""
        return {"rows": self.rows, "folds": self.folds, "seconds": self.seconds, "seed": self.seed}


def run_sweep(folder: Path, work: Path, plan: SweepPlan, say: Say = lambda line: None) -> None:
    """Measure what the work file lacks of a plan; a killed sweep goes on where it was.

    Args:
        folder: a collection of tables; see `collection`.
        work: the work file, made where there is none; see `sweep_log`.
        plan: what to measure.
        say: told of each visit to a table.

    Raises:
        DataError: the collection has no readable index, or a table cannot be read.
        UsageError: an unknown table or family.
        StudyError: the work file is in use, damaged, or of another plan.
        OutputError: it cannot be written.
    """
    sources = list_sources(folder, plan.tables)
    with opened(work, plan.lasting) as log:
        for numbers in _rounds(plan):
            for source in sources:
                _Visit(source, numbers, plan, log).run(say)


def candidate(family: Family, space: SearchSpace, table: str, number: int, seed: int) -> dict[str, Value]:
    """Even candidate `number` of a family on a table: 0 is the default, odd numbers are the same on all tables.

    Args:
        family: of the card whose parameters the streams are laid out for.
        space: of that family on that table, names without prefix.
        table: its name.
        number: 0 or more.
        seed: of the sweep.
    """
    if number == 0:
        return space.default
    stream = (seed, family.name) if number % 2 else (seed, family.name, table)
    names = sorted(family.card.hyperparameters)
    places = dict(zip(names, _even_point(len(names), (number - 1) // 2, seed_of(*stream)), strict=True))

    def choose(parameter: Parameter) -> Value:
        return parameter.lattice.draw(float(places[parameter.name]))

    return space.assemble(choose)


def entries_of(path: Path | None, family: str) -> tuple[Values, ...]:
    """The entries of a portfolio for one family, of all lists in the file's order, each once."""
    lists = load_portfolios(path) if path is not None else ()
    found = (entry for one in lists if one.family == family for entry in one.entries)
    return tuple({json.dumps(entry, sort_keys=True): entry for entry in found}.values())


def _rounds(plan: SweepPlan) -> Iterator[range]:
    """The numbers of a few candidates at a time."""
    longest = max((len(entries_of(plan.portfolio, family)) for family in FAMILIES), default=0)
    for first, end in ((0, plan.candidates + 1), (FIRST_ENTRY, FIRST_ENTRY + longest)):
        for start in range(first, end, AT_A_TIME):
            yield range(start, min(start + AT_A_TIME, end))


@dataclass(frozen=True)
class _Visit:
    """One table in one round: the candidates with these numbers, of every family."""

    source: Source
    numbers: range
    plan: SweepPlan
    log: SweepLog

    def run(self, say: Say) -> None:
        if self._is_done():
            return
        dataset = sampled(self.source, self.plan.rows, self.plan.folds, self.plan.seed)
        families = families_for(self.plan.families, dataset.task.kind, dataset.card)
        spaces = {family.name: SearchSpace(family.parameters(dataset.card)) for family in families}
        self._describe(dataset, spaces)
        self._evaluate(dataset, [job for family in families for job in self._jobs(family, spaces[family.name])])
        say(
            f"{self.source.name}: candidates {self.numbers[0]} to {self.numbers[-1]} of {len(families)} families; "
            f"{len(self.log.trials)} trials in all"
        )

    def _is_done(self) -> bool:
        """Whether every trial is known, so that the table need not be read."""
        if self.source.name not in self.log.tables:
            return False
        recorded = self.log.tables[self.source.name]["spaces"]
        families = recorded if AUTO in self.plan.families else self.plan.families
        return not any(self._lacks(family, number) for family in families for number in self.numbers)

    def _lacks(self, family: str, number: int) -> bool:
        """Whether there is such a candidate, not yet measured."""
        exists = number < FIRST_ENTRY or number - FIRST_ENTRY < len(entries_of(self.plan.portfolio, family))
        return exists and (self.source.name, family, number) not in self.log.trials

    def _describe(self, dataset: Dataset, spaces: Mapping[str, SearchSpace]) -> None:
        """Record the table and the spaces, or make sure that they are those recorded."""
        name = self.source.name
        known = self.log.tables.get(name)
        recorded = known["spaces"] if known else {}
        written = {family: json.loads(space.to_json()) for family, space in spaces.items()}
        for family in written.keys() & recorded.keys():
            if written[family] != recorded[family]:
                raise StudyError(
                    f"a sweep must go on with the spaces it began with, got another for {family} on {quoted(name)}; "
                    "take a new work file"
                )
        if known is None or written.keys() - recorded.keys():
            self.log.add(
                TABLE,
                table=name,
                licence=self.source.licence,
                origin=self.source.origin,
                metric=dataset.task.metric.name,
                card=asdict(dataset.card),
                spaces={**recorded, **written},
            )

    def _jobs(self, family: Family, space: SearchSpace) -> list[_Job]:
        wanted = [number for number in self.numbers if self._lacks(family.name, number)]
        return [_Job(family.name, number, self._values(family, space, number)) for number in wanted]

    def _values(self, family: Family, space: SearchSpace, number: int) -> dict[str, Value]:
        if number < FIRST_ENTRY:
            return candidate(family, space, self.source.name, number, self.plan.seed)
        entry = entries_of(self.plan.portfolio, family.name)[number - FIRST_ENTRY]
        return completed(space, entry)[0]

    def _evaluate(self, dataset: Dataset, jobs: Sequence[_Job]) -> None:
        def record(place: int, result: Result) -> None:
            job = jobs[place]
            self.log.add(
                TRIAL,
                table=self.source.name,
                family=job.family,
                number=job.number,
                values=job.values,
                outcome=result.outcome.name,
                scores=None if result.scores is None else _finite(result.scores),
                seconds=round(result.seconds, 3),
            )

        limits = TrialLimits(seconds=self.plan.seconds)
        with PoolEvaluator(dataset, limits, self.plan.workers, initializer=airgap.engage) as evaluator:
            evaluator.evaluate([job.prefixed for job in jobs], [self.plan.seed] * len(jobs), record)


@dataclass(frozen=True, slots=True)
class _Job:
    family: str
    number: int
    values: dict[str, Value]

    @property
    def prefixed(self) -> dict[str, Value]:
        """The candidate as evaluators know it."""
        return {ROOT: self.family, **{f"{self.family}.{name}": value for name, value in self.values.items()}}


def _finite(scores: Mapping[str, float]) -> dict[str, float | None]:
    """Scores for JSON, which has no NaN."""
    return {name: score if math.isfinite(score) else None for name, score in scores.items()}


def _even_point(dimensions: int, index: int, seed: int) -> NDArray[np.float64]:
    """Point `index` of a scrambled Sobol sequence in the unit cube, shape (dimensions,)."""
    from scipy.stats import qmc

    sequence = qmc.Sobol(dimensions, rng=np.random.default_rng(seed))
    return np.asarray(sequence.random_base2(index.bit_length())[index])
