"""Candidates dealt out to worker processes, a hand at a time; a hand is trained in stacks by one worker.

Built on the pool's supervisor. When a worker dies (of memory, mostly), its hand is halved, and a candidate with which a
worker dies alone has that outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from offline_tune.errors import EvaluationError
from offline_tune.evaluator.batched.stacks import StackTrials
from offline_tune.evaluator.contract import Outcome, Result
from offline_tune.evaluator.crossval import Refit
from offline_tune.evaluator.families import ROOT
from offline_tune.evaluator.supervisor import Ending, Hook, Job, Supervisor, WorkersLost
from offline_tune.space import Values
from offline_tune.task import TrialLimits

HANDS = 3  # for each worker: enough that none waits long for the last one
ATTEMPTS = 2  # in a row that end without one report, until the workers are given up

Report = TypeVar("Report", bound=Result | Refit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hand(Generic[Report]):
    """What a worker found for its candidates, by their places in the hand."""

    reports: dict[int, Report]
    peak_mib: float = 0.0


class Dealer:
    """What travels to a worker: it plays hands as `worker` plays trials."""

    def __init__(self, trials: StackTrials) -> None:
        self._trials = trials

    def evaluate(self, candidates: Sequence[Values], seeds: Sequence[int]) -> Hand[Result]:
        """Cross-validate the candidates of a hand."""
        return Hand(reports=self._trials.evaluate(candidates, seeds))

    def refit(self, candidates: Sequence[Values], seeds: Sequence[int], targets: Sequence[Path]) -> Hand[Refit]:
        """Train the candidates of a hand on all rows and write them."""
        return Hand(reports=self._trials.refit(candidates, seeds, targets))

    def load_vendors(self) -> None:
        """Import what every trial needs."""


class Crew:
    """Workers that train stacks.

    Args:
        trials: what they do.
        memory_mib: the most that a worker may hold; None for no limit.
        workers: processes.
        initializer: called first in each.
    """

    def __init__(self, trials: StackTrials, memory_mib: int | None, workers: int, initializer: Hook | None) -> None:
        limits = TrialLimits(seconds=None, memory_mib=memory_mib)  # each candidate's time is watched in the worker
        self._supervisor = Supervisor(Dealer(trials), limits, workers, initializer)
        self._workers = workers

    def evaluate(
        self, candidates: Sequence[Values], seeds: Sequence[int], on_result: Callable[[int, Result], None]
    ) -> dict[int, Result]:
        """As `StackTrials.evaluate`."""
        rows = [(dict(values), seed) for values, seed in zip(candidates, seeds, strict=True)]
        return _Deal(self._supervisor, "evaluate", rows, Result, on_result).play(self._hands(candidates))

    def refit(
        self,
        candidates: Sequence[Values],
        seeds: Sequence[int],
        targets: Sequence[Path],
        on_result: Callable[[int, Refit], None],
    ) -> dict[int, Refit]:
        """As `StackTrials.refit`."""
        rows = [(dict(values), seed, target) for values, seed, target in zip(candidates, seeds, targets, strict=True)]
        return _Deal(self._supervisor, "refit", rows, Refit, on_result).play(self._hands(candidates))

    def close(self) -> None:
        """End the workers; idempotent."""
        self._supervisor.close()

    def _hands(self, candidates: Sequence[Values]) -> list[list[int]]:
        """Places of candidates that are alike together, the costly ones first."""
        alike = sorted(range(len(candidates)), key=lambda place: (_cost(candidates[place]), -place), reverse=True)
        size = max(1, -(-len(alike) // (HANDS * self._workers)))
        return [alike[start : start + size] for start in range(0, len(alike), size)]


def _cost(values: Values) -> tuple[str, float]:
    """The family, and the units of a hidden layer; whatever is no number counts nothing."""
    name = str(values.get(ROOT))
    width = values.get(f"{name}.hidden_width")
    return name, float(width) if isinstance(width, int | float) else 0.0


class _Deal(Generic[Report]):
    """Some candidates, from the first hand to the last report."""

    def __init__(
        self,
        supervisor: Supervisor,
        method: str,
        rows: Sequence[tuple[Any, ...]],
        report: type[Report],
        on_result: Callable[[int, Report], None],
    ) -> None:
        self._supervisor = supervisor
        self._method = method
        self._rows = rows
        self._kind = report
        self._on_result = on_result
        self._reports: dict[int, Report] = {}
        self._fruitless = 0
        self._pending: dict[Future[Any], list[int]] = {}

    def play(self, hands: list[list[int]]) -> dict[int, Report]:
        try:
            while hands:
                hands = self._attempt(hands)
        finally:
            for future in self._pending:
                future.cancel()
        return self._reports

    def _attempt(self, hands: list[list[int]]) -> list[list[int]]:
        """Play hands until all are reported or the workers are lost; what is left then gets another attempt."""
        known = len(self._reports)
        try:
            self._pending = {}
            for hand in hands:
                self._submit(hand)
            while self._pending:
                done, _ = wait(self._pending, return_when=FIRST_COMPLETED)
                for future in done:
                    self._collect(future, self._pending.pop(future))
            return []
        except WorkersLost as lost:
            self._supervisor.restart()
            self._fruitless = 0 if len(self._reports) > known else self._fruitless + 1
            if self._fruitless == ATTEMPTS:
                raise EvaluationError(f"trials need workers that run, got {lost}; see `offline-tune doctor`") from None
            left = ([place for place in hand if place not in self._reports] for hand in hands)
            return [hand for hand in left if hand]

    def _submit(self, hand: list[int]) -> None:
        columns = zip(*(self._rows[place] for place in hand), strict=True)
        self._pending[self._supervisor.submit(Job(self._method, tuple(map(list, columns))))] = hand

    def _collect(self, future: Future[Any], hand: list[int]) -> None:
        try:
            found: Hand[Report] = future.result()
        except Exception as error:  # noqa: BLE001  # whatever ended the hand, `ending` tells what it means
            self._divide(hand, self._supervisor.ending(Job(self._method, ()), error))
            return
        for at, report in found.reports.items():
            self._report(hand[at], report)

    def _divide(self, hand: list[int], end: Ending) -> None:
        if len(hand) > 1 and end.outcome in (Outcome.DIED, Outcome.OUT_OF_MEMORY):
            middle = len(hand) // 2
            self._submit(hand[:middle])
            self._submit(hand[middle:])
            return
        for place in hand:
            ended = self._kind(outcome=end.outcome, seconds=end.seconds, detail=end.detail, peak_mib=end.peak_mib)
            self._report(place, ended)

    def _report(self, place: int, report: Report) -> None:
        self._reports[place] = report
        self._on_result(place, report)
