"""The contract of every evaluator: candidates in, results out, in the same order.

An expected failure is data, an `Outcome` with the sentence a person reads; it never raises and it is never a
penalty number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from offline_tune.space import Values


class Outcome(StrEnum):
    """How an evaluation ended. The value is the sentence a person reads."""

    OK = "trained on every fold"
    TIMED_OUT = "took longer than the time limit of one trial"
    OUT_OF_MEMORY = "needed more memory than the limit of one trial"
    DIED = "its worker process died"
    NOT_FINITE = "its score is not a finite number"
    FAILED = "the model refused the configuration"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one evaluation found.

    Attributes:
        outcome: how it ended; everything below `seconds` is empty unless it is OK.
        seconds: wall seconds over all folds.
        detail: the vendor's own message of a failure, one line.
        scores: mean over folds, by metric name, greater is better.
        fold_scores: the optimised metric on each fold's held-out part.
        train_score: mean score of the optimised metric on (a sample of) the training parts.
        oof: predictions for each training row by the model that did not see it; shape (n_rows,) for regression,
            (n_rows, n_classes) for classification; NaN rows were in no held-out part (time splits).
        peak_mib: highest resident memory of the worker, MiB.
        curve: intermediate values, one after each epoch: minus the loss on rows kept back from the training parts,
            mean over folds, greater is better; empty where a model has no epochs.
        pruned: whether training was stopped because others were ahead after as many epochs; the scores are those of
            what had been learnt by then.
    """

    outcome: Outcome
    seconds: float
    detail: str = ""
    scores: Mapping[str, float] | None = None
    fold_scores: tuple[float, ...] = ()
    train_score: float | None = None
    oof: NDArray[np.float32] | None = None
    peak_mib: float = 0.0
    curve: tuple[float, ...] = ()
    pruned: bool = False

    @property
    def ok(self) -> bool:
        """Whether there are scores."""
        return self.outcome is Outcome.OK


class Evaluator(Protocol):
    """Trains candidates and scores them by cross-validation."""

    def evaluate(
        self,
        candidates: Sequence[Values],
        seeds: Sequence[int],
        on_result: Callable[[int, Result], None] | None = None,
    ) -> tuple[Result, ...]:
        """Evaluate each candidate with its own seed.

        `on_result(position, result)` is called on the caller's thread as each ends, in order of completion.
        """
        ...

    def close(self) -> None:
        """Free workers and memory; idempotent."""
        ...
