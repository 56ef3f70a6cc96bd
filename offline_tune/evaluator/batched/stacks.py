"""Trials in stacks, in this process: candidates x folds are the rows.

Data are prepared, split and scored by the code that the pool uses, so a candidate gets the same result here and there
but for rounding; it is only trained beside others.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from offline_tune.errors import UsageError
from offline_tune.evaluator.artifact import write_member
from offline_tune.evaluator.batched.alone import predict_alone
from offline_tune.evaluator.batched.design import job_of
from offline_tune.evaluator.batched.device import device_named
from offline_tune.evaluator.batched.estimators import NetworkClassifier, NetworkRegressor
from offline_tune.evaluator.batched.field import mean_curve, train_field
from offline_tune.evaluator.batched.run import Diverged, Run, Spending, kept_numbers
from offline_tune.evaluator.batched.stopping import Stopping
from offline_tune.evaluator.batched.trainer import OverTime, Trainer
from offline_tune.evaluator.batched.views import Placed, View, Views, resident_of
from offline_tune.evaluator.contract import Outcome, Result
from offline_tune.evaluator.crossval import (
    CrossValidation,
    FoldPredictions,
    Refit,
    one_line,
    outcome_of,
    resident_mib,
    sample_of,
)
from offline_tune.evaluator.families import family, split_values
from offline_tune.evaluator.families.neural import default_epochs
from offline_tune.evaluator.pipeline import placed
from offline_tune.space import Value, Values

FAMILIES = ("tabular_mlp", "tabular_resnet", "tabm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """How much of a full training is done: shares of the epochs and of the training rows, above 0 and at most 1.

    Raises:
        UsageError: a share outside.
    """

    epochs: float = 1.0
    rows: float = 1.0

    def __post_init__(self) -> None:
        for name in ("epochs", "rows"):
            value = getattr(self, name)
            if not 0 < value <= 1:
                raise UsageError(f"the fidelity of {name} must lie above 0 and at most at 1, got {value:g}; use 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class StackSettings:
    """How trials in stacks are run; for the words see `evaluator.BatchedEvaluator`. `seconds` limit one trial."""

    device: str = "auto"
    seconds: float = math.inf
    fidelity: Fidelity = Fidelity()
    stopping: Stopping | None = None


class StackTrials:
    """Trains candidates on folds in this process, in stacks. Travels to a worker process before its first trial.

    Args:
        trials: data, folds and metrics.
        settings: device, limits, fidelity and stopping.
    """

    def __init__(self, trials: CrossValidation, settings: StackSettings) -> None:
        self._trials = trials
        self._settings = settings
        self._views = Views(trials)

    def evaluate(
        self,
        candidates: Sequence[Values],
        seeds: Sequence[int],
        on_result: Callable[[int, Result], None] = lambda place, result: None,
    ) -> dict[int, Result]:
        """Cross-validate each candidate; results by position, reported as each trial ends."""
        results: dict[int, Result] = {}

        def end(trial: _Trial, found: Sequence[Run] | Exception, pruned: bool) -> None:
            results[trial.place] = self._result(trial, found, pruned)
            on_result(trial.place, results[trial.place])

        self._train(range(len(self._trials.folds)), candidates, seeds, self._settings.stopping, end)
        return results

    def refit(
        self,
        candidates: Sequence[Values],
        seeds: Sequence[int],
        targets: Sequence[Path],
        on_result: Callable[[int, Refit], None] = lambda place, refit: None,
    ) -> dict[int, Refit]:
        """Train each candidate on all rows and write it to its target."""
        results: dict[int, Refit] = {}

        def end(trial: _Trial, found: Sequence[Run] | Exception, pruned: bool) -> None:
            results[trial.place] = self._refitted(trial, found, targets[trial.place])
            on_result(trial.place, results[trial.place])

        self._train((None,), candidates, seeds, None, end)
        return results

    def load_vendors(self) -> None:
        """Import what every trial needs; this module has done it."""

    def clear(self) -> None:
        """Free the prepared data."""
        self._views.clear()

    @property
    def _device(self) -> torch.device:
        return device_named(self._settings.device)

    def _train(
        self,
        folds: Sequence[int | None],
        candidates: Sequence[Values],
        seeds: Sequence[int],
        stopping: Stopping | None,
        end: Callable[[_Trial, Sequence[Run] | Exception, bool], None],
    ) -> None:
        """Train candidates on folds (None is all rows) and report each as it ends: its runs, or why there are none."""
        field: dict[int, Sequence[Run]] = {}
        trials = [
            _Trial(place, dict(values), seed % 2**31, Spending(self._settings.seconds))
            for place, (values, seed) in enumerate(zip(candidates, seeds, strict=True))
        ]
        failures: dict[int, Exception] = {}
        for trial in trials:
            try:
                self._look(trial, folds)
            except Exception as error:  # noqa: BLE001  # whatever a candidate provokes is that candidate's failure
                failures[trial.place] = error
        views = [view for trial in trials for view in trial.views]
        if views:
            data, placed_views = resident_of(views, self._device, self._settings.fidelity.rows)
        for trial in trials:
            if trial.place not in failures:
                try:
                    field[trial.place] = self._runs(trial, placed_views)
                except Exception as error:  # noqa: BLE001  # whatever a candidate provokes is that candidate's failure
                    failures[trial.place] = error
            if trial.place in failures:
                end(trial, failures[trial.place], False)
        if field:
            train_field(
                Trainer(data), field, stopping, lambda ended: end(trials[ended.place], ended.runs, ended.pruned)
            )

    def _look(self, trial: _Trial, folds: Sequence[int | None]) -> None:
        """Read the candidate and prepare its data."""
        began = time.perf_counter()
        trial.kind, trial.own = split_values(trial.values)
        if trial.kind not in FAMILIES:
            raise UsageError(f"a stack holds {', '.join(FAMILIES)}, got {trial.kind!r}; use the pool for others")
        needs = family(trial.kind).needs
        trial.views = [self._views.of(fold, needs, trial.own, trial.seed) for fold in folds]
        trial.spending.seconds += time.perf_counter() - began

    def _runs(self, trial: _Trial, placed_views: Mapping[int, Placed]) -> list[Run]:
        runs = []
        for view in trial.views:
            rows = placed_views[id(view)]
            epochs = max(1, round(default_epochs(len(view.table.y)) * self._settings.fidelity.epochs))
            job = job_of(trial.kind, trial.own, view.table, (rows.train, rows.valid), trial.seed, epochs)
            runs.append(Run(job, spending=trial.spending))
        return runs

    def _result(self, trial: _Trial, found: Sequence[Run] | Exception, pruned: bool) -> Result:
        began = time.perf_counter()
        try:
            runs = _raised(found)
            parts = (self._predicted(trial, fold, run) for fold, run in enumerate(runs))
            result = self._trials.result(parts, trial.seed)
            curve = tuple(-loss for loss in mean_curve(runs))
            result = replace(result, curve=curve, pruned=pruned) if result.ok else result
        except Exception as error:  # noqa: BLE001  # the trial failed, the others did not
            outcome, detail = _ending(error)
            result = Result(outcome=outcome, seconds=0.0, detail=detail)
        seconds = trial.spending.seconds + time.perf_counter() - began
        return replace(result, seconds=seconds, peak_mib=self._peak_mib())

    def _predicted(self, trial: _Trial, fold: int, run: Run) -> FoldPredictions:
        table, held_out = trial.views[fold].table, trial.views[fold].held_out
        train, _ = self._trials.folds[fold]
        weights = kept_numbers(run)

        def said(X: NDArray[np.float32]) -> NDArray[np.float32]:
            found = predict_alone(run.job.network, weights, torch.as_tensor(X).to(self._device))
            if table.classes is not None:
                return placed(found, table.classes, len(self._trials.task.classes))
            with np.errstate(over="ignore"):  # what no float32 holds becomes infinite, and the score says so
                return (found * table.scale + table.center).astype(np.float32)

        seen = np.flatnonzero(np.isin(train, sample_of(train, trial.seed)))
        order = np.argsort(train[seen])  # the sample is in ascending order
        return FoldPredictions(said(held_out), said(table.X[seen[order] if len(seen) < len(train) else seen]))

    def _refitted(self, trial: _Trial, found: Sequence[Run] | Exception, target: Path) -> Refit:
        began = time.perf_counter()
        try:
            (run,), (view,) = _raised(found), trial.views
            is_classifier = self._trials.task.kind.is_classification
            model = (NetworkClassifier if is_classifier else NetworkRegressor)(trial.kind, trial.own, trial.seed)
            steps = [*view.preparation.steps, ("model", model.take(view.table, run))]
            write_member(target, Pipeline(steps))
            result = Refit(outcome=Outcome.OK, seconds=0.0, folder=target)
        except Exception as error:  # noqa: BLE001  # as above
            outcome, detail = _ending(error)
            result = Refit(outcome=outcome, seconds=0.0, detail=detail)
        seconds = trial.spending.seconds + time.perf_counter() - began
        return replace(result, seconds=seconds, peak_mib=self._peak_mib())

    def _peak_mib(self) -> float:
        if self._device.type == "cuda":
            return float(torch.cuda.max_memory_allocated(self._device)) / 2**20
        return resident_mib()


@dataclass(eq=False)
class _Trial:
    """A candidate under way; `own` are its values without the family's prefix, `views` its data by fold."""

    place: int
    values: Values
    seed: int
    spending: Spending
    kind: str = ""
    own: dict[str, Value] = field(default_factory=dict)
    views: Sequence[View] = ()


def _raised(found: Sequence[Run] | Exception) -> Sequence[Run]:
    if isinstance(found, Exception):
        raise found
    return found


def _ending(error: Exception) -> tuple[Outcome, str]:
    if isinstance(error, Diverged):
        return Outcome.NOT_FINITE, str(error)
    if isinstance(error, OverTime):
        return Outcome.TIMED_OUT, str(error)
    return outcome_of(error), one_line(error)
