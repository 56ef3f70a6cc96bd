"""Trials in supervised processes: one thread each, a time and a memory limit, and a death is one failed trial.

By default the workers are spawned here, through pebble. Any `concurrent.futures.Executor` may serve instead (threads,
the standard library's processes, a Dask cluster's `client.get_executor()`); then starting, limiting and replacing
workers is that executor's business, the data travel with each candidate, and `TrialLimits` are not enforced.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

from offline_tune.data.dataset import Dataset
from offline_tune.errors import EvaluationError, UsageError
from offline_tune.evaluator.contract import Outcome, Result
from offline_tune.evaluator.crossval import Build, CrossValidation, Refit, one_line
from offline_tune.evaluator.rounds import check_round, member_folders
from offline_tune.evaluator.supervisor import Ending, Hook, Job, Supervisor, WorkersLost
from offline_tune.space import Values
from offline_tune.task import TrialLimits

ATTEMPTS = 2  # in a row that end without one report, until the workers are given up

Report = TypeVar("Report", bound=Result | Refit)


class PoolEvaluator:
    """Cross-validates and refits candidates, several at a time; satisfies `contract.Evaluator`.

    Use it as a context manager, or call `close`. Workers start at once, in the background. One thread may call it.

    Args:
        dataset: the data of every trial; its test part is not handed to the workers.
        limits: what one trial may use. The memory limit is on the whole worker, which holds 150 to 400 MiB (Python,
            libraries, data) before it trains.
        workers: how many trials run at a time; ignored with an executor.
        executor: runs the trials instead of own workers; it is not closed here.
        build: makes a candidate's pipeline, an importable function; None for `evaluator.pipeline.build_pipeline`.
        initializer: called in each own worker before anything heavy is imported, an importable function such as
            `airgap.engage`; a worker whose initializer raises does not start.

    Raises:
        UsageError: fewer than one worker.
        OutputError: the temporary folder cannot be written.
    """

    def __init__(
        self,
        dataset: Dataset,
        limits: TrialLimits | None = None,
        workers: int = 1,
        executor: Executor | None = None,
        *,
        build: Build | None = None,
        initializer: Hook | None = None,
    ) -> None:
        if workers < 1:
            raise UsageError(f"--workers must be at least 1, got {workers}; raise it or leave it out")
        trials = CrossValidation.of(dataset, build)
        self._workers: _Workers = (
            _Lent(executor, trials) if executor is not None else Supervisor(trials, limits, workers, initializer)
        )
        self._is_open = True

    def evaluate(
        self,
        candidates: Sequence[Values],
        seeds: Sequence[int],
        on_result: Callable[[int, Result], None] | None = None,
    ) -> tuple[Result, ...]:
        """Cross-validate each candidate with its own seed; results in the order of the candidates.

        Ctrl-C, or an exception of `on_result`, ends the trials that are under way.

        Args:
            candidates: values as in a trial, names prefixed by their family.
            seeds: one for each candidate; candidate and seed determine the scores and the predictions.
            on_result: called on this thread with the position and the result as each trial ends.

        Raises:
            EvaluationError: the evaluator is closed, or no worker can start.
            UsageError: candidates and seeds differ in number.
        """
        check_round(self._is_open, candidates, seeds)
        jobs = [Job("evaluate", (dict(values), seed)) for values, seed in zip(candidates, seeds, strict=True)]
        return _Round(self._workers, jobs, Result, on_result).run()

    def refit(
        self,
        candidates: Sequence[Values],
        seeds: Sequence[int],
        folder: Path,
        on_result: Callable[[int, Refit], None] | None = None,
    ) -> tuple[Refit, ...]:
        """Train each candidate on all training rows and write it to a folder of its own under `folder`.

        The limits of a trial hold. `artifact.save_model` makes an export of the folders, which an executor's workers
        must be able to write to.

        Raises:
            EvaluationError: the evaluator is closed, or no worker can start.
            OutputError: `folder` cannot be written, or holds earlier members.
            UsageError: candidates and seeds differ in number.
        """
        check_round(self._is_open, candidates, seeds)
        targets = member_folders(folder, len(candidates))
        jobs = [
            Job("refit", (dict(values), seed, target))
            for values, seed, target in zip(candidates, seeds, targets, strict=True)
        ]
        try:
            return _Round(self._workers, jobs, Refit, on_result).run()
        finally:
            for draft in folder.glob(".member-*"):  # of workers that died while they wrote
                shutil.rmtree(draft, ignore_errors=True)

    def close(self) -> None:
        """End the workers and delete the temporary folder; idempotent."""
        self._is_open = False
        self._workers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Workers(Protocol):
    def submit(self, job: Job) -> Future[Any]: ...

    def patience(self) -> float | None:
        """Seconds after which one of the submitted jobs must have ended; None where it may take for ever."""

    def ending(self, job: Job, error: BaseException) -> Ending:
        """What to report of a job that ended without a result; raises WorkersLost where it may be submitted again."""

    def restart(self) -> None: ...

    def close(self) -> None: ...


class _Lent:
    """The workers of an executor that belongs to the caller."""

    def __init__(self, executor: Executor, trials: CrossValidation) -> None:
        self._executor = executor
        self._trials = trials

    def submit(self, job: Job) -> Future[Any]:
        try:
            return self._executor.submit(getattr(self._trials, job.method), *job.arguments)
        except RuntimeError as error:
            raise EvaluationError(
                f"the executor must accept work, got {one_line(error)}; pass one that is running"
            ) from None

    def patience(self) -> float | None:
        return None

    def ending(self, job: Job, error: BaseException) -> Ending:
        return Ending(Outcome.DIED, one_line(error))

    def restart(self) -> None:
        pass

    def close(self) -> None:
        pass


class _Round(Generic[Report]):
    """Some jobs, from submission to the last report."""

    def __init__(
        self,
        workers: _Workers,
        jobs: Sequence[Job],
        report: type[Report],
        on_result: Callable[[int, Report], None] | None,
    ) -> None:
        self._workers = workers
        self._jobs = jobs
        self._kind = report
        self._on_result = on_result
        self._fruitless = 0
        self._reports: dict[int, Report] = {}
        self._pending: dict[Future[Any], int] = {}

    def run(self) -> tuple[Report, ...]:
        try:
            while missing := [place for place in range(len(self._jobs)) if place not in self._reports]:
                self._attempt(missing)
        finally:
            for future in self._pending:
                future.cancel()
        return tuple(self._reports[place] for place in range(len(self._jobs)))

    def _attempt(self, places: Sequence[int]) -> None:
        """Run jobs until all are reported or the workers are lost; what is left then gets another attempt."""
        known = len(self._reports)
        try:
            self._pending = {self._workers.submit(self._jobs[place]): place for place in places}
            while self._pending:
                self._collect()
        except WorkersLost as lost:
            self._pending = {}
            self._workers.restart()
            self._fruitless = 0 if len(self._reports) > known else self._fruitless + 1
            if self._fruitless == ATTEMPTS:
                raise EvaluationError(f"trials need workers that run, got {lost}; see `offline-tune doctor`") from None

    def _collect(self) -> None:
        done, _ = wait(self._pending, timeout=self._workers.patience(), return_when=FIRST_COMPLETED)
        if not done:
            raise WorkersLost("no answer")
        for future in sorted(done, key=self._pending.__getitem__):
            place = self._pending[future]
            report = self._report_of(self._jobs[place], future)
            del self._pending[future]
            self._reports[place] = report
            if self._on_result is not None:
                self._on_result(place, report)

    def _report_of(self, job: Job, future: Future[Any]) -> Report:
        try:
            report: Report = future.result()
        except Exception as error:  # noqa: BLE001  # whatever ended the job, `ending` tells what it means
            end = self._workers.ending(job, error)
            return self._kind(outcome=end.outcome, seconds=end.seconds, detail=end.detail, peak_mib=end.peak_mib)
        return report
