"""Cross-validation of many candidates at once, in this process or in one process a core.

On a GPU one process trains all. On a processor of several cores the candidates are dealt out to supervised workers (the
pool's own: limited in memory, replaced when they die), each of which trains stacks; threads would wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from offline_tune.data.dataset import Dataset
from offline_tune.errors import UsageError
from offline_tune.evaluator.batched.crew import Crew
from offline_tune.evaluator.batched.device import device_named
from offline_tune.evaluator.batched.stacks import FAMILIES, Fidelity, StackSettings, StackTrials
from offline_tune.evaluator.batched.stopping import Stopping
from offline_tune.evaluator.contract import Result
from offline_tune.evaluator.crossval import CrossValidation, Refit
from offline_tune.evaluator.rounds import check_round, member_folders
from offline_tune.evaluator.supervisor import Hook
from offline_tune.space import Values
from offline_tune.task import TrialLimits

__all__ = ["FAMILIES", "BatchedEvaluator", "Fidelity"]


class BatchedEvaluator:
    """Cross-validates and refits candidates of the neural families in stacks; satisfies `contract.Evaluator`.

    Use it as a context manager, or call `close`. One thread may call it.

    Args:
        dataset: the data of every trial; its test part is not looked at.
        limits: what one trial may use; its seconds are its share of the stacks that it was in, its memory is that of a
            worker and not limited without workers.
        device: "cpu", "cuda", "cuda:1", "mps", or "auto" for the quickest that is there.
        workers: processes, on a processor; with one, or where `stopping` must see all candidates together, trials run
            in this process.
        fidelity: how much of a full training is done.
        stopping: which candidates are stopped for others; None for none, and then a result depends on its candidate
            and seed alone.
        initializer: called in each worker before anything heavy is imported, an importable function such as
            `airgap.engage`.

    Raises:
        UsageError: fewer than one worker, or a device that is not there.
        OutputError: the temporary folder of the workers cannot be written.
    """

    def __init__(
        self,
        dataset: Dataset,
        limits: TrialLimits | None = None,
        *,
        device: str = "auto",
        workers: int = 1,
        fidelity: Fidelity | None = None,
        stopping: Stopping | None = None,
        initializer: Hook | None = None,
    ) -> None:
        if workers < 1:
            raise UsageError(f"--workers must be at least 1, got {workers}; raise it or leave it out")
        kind = device_named(device).type
        seconds = limits.seconds if limits and limits.seconds is not None else float("inf")
        settings = StackSettings(device=device, seconds=seconds, fidelity=fidelity or Fidelity(), stopping=stopping)
        trials = StackTrials(CrossValidation.of(dataset), settings)
        alone = workers == 1 or kind != "cpu" or stopping is not None
        self._here = trials if alone else None
        memory = limits.memory_mib if limits else None
        self._crew = None if alone else Crew(trials, memory, workers, initializer)
        self._is_open = True

    def evaluate(
        self,
        candidates: Sequence[Values],
        seeds: Sequence[int],
        on_result: Callable[[int, Result], None] | None = None,
    ) -> tuple[Result, ...]:
        """Cross-validate each candidate with its own seed; results in the order of the candidates.

        Args:
            candidates: values as in a trial, names prefixed by their family.
            seeds: one for each candidate.
            on_result: called on this thread with the position and the result as each trial ends.

        Raises:
            EvaluationError: the evaluator is closed, or no worker can start.
            UsageError: candidates and seeds differ in number.
        """
        check_round(self._is_open, candidates, seeds)
        listener = on_result or (lambda place, result: None)
        if self._crew is not None:
            results = self._crew.evaluate(candidates, seeds, listener)
        else:
            assert self._here is not None
            results = self._here.evaluate(candidates, seeds, listener)
        return tuple(results[place] for place in range(len(candidates)))

    def refit(
        self,
        candidates: Sequence[Values],
        seeds: Sequence[int],
        folder: Path,
        on_result: Callable[[int, Refit], None] | None = None,
    ) -> tuple[Refit, ...]:
        """Train each candidate on all training rows and write it to a folder of its own under `folder`.

        Raises:
            EvaluationError: the evaluator is closed, or no worker can start.
            OutputError: `folder` cannot be written, or holds earlier members.
            UsageError: candidates and seeds differ in number.
        """
        check_round(self._is_open, candidates, seeds)
        targets = member_folders(folder, len(candidates))
        listener = on_result or (lambda place, refit: None)
        if self._crew is not None:
            results = self._crew.refit(candidates, seeds, targets, listener)
        else:
            assert self._here is not None
            results = self._here.refit(candidates, seeds, targets, listener)
        return tuple(results[place] for place in range(len(candidates)))

    def close(self) -> None:
        """End the workers and free the prepared data; idempotent."""
        self._is_open = False
        if self._crew is not None:
            self._crew.close()
        if self._here is not None:
            self._here.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
