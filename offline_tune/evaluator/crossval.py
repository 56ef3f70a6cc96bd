"""One candidate trained on every fold and scored on what it did not see; or once more, on all rows.

A `CrossValidation` is what travels to a worker: the training part of a data set, its folds, and the function that
builds a pipeline. The test part is not in it, so no worker can look at it.

Knows nothing of processes, limits or other candidates.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd
import psutil
from numpy.typing import NDArray

from offline_tune.data.dataset import Dataset
from offline_tune.data.metrics import score_predictions
from offline_tune.errors import MetricError
from offline_tune.evaluator.contract import Outcome, Result
from offline_tune.space import Values
from offline_tune.task import Metric, Task

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

Target = NDArray[np.int64] | NDArray[np.float64]
Predictions = NDArray[np.float32]

MAX_DETAIL = 300  # characters of a failure's message
TRAIN_SAMPLE = 2000  # rows of a training part on which the training score is taken

_OUT_OF_MEMORY = ("bad_alloc", "bad allocation", "cannot allocate memory", "out of memory")
_MIB = 2**20


class Build(Protocol):
    """Makes the unfitted pipeline of a candidate; what `evaluator.pipeline.build_pipeline` does."""

    def __call__(self, values: Values, task: Task, seed: int, n_rows: int) -> Pipeline:
        """The pipeline, to be fitted on `n_rows` rows."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Refit:
    """What came of training a candidate on all training rows.

    `folder` holds the fitted member, in the form that `artifact.save_model` takes; None unless the outcome is OK.
    """

    outcome: Outcome
    seconds: float
    detail: str = ""
    folder: Path | None = None
    peak_mib: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether there is a fitted member."""
        return self.outcome is Outcome.OK


@dataclass(frozen=True, eq=False, kw_only=True)
class CrossValidation:
    """The data and the recipe of every trial of one study.

    Attributes:
        task: what is learnt, and the metrics.
        X: training features, one row each.
        y: training target, shape (n,).
        folds: pairs of row positions (train, held out).
        build: makes the pipeline of a candidate; None for `evaluator.pipeline.build_pipeline`.
    """

    task: Task
    X: pd.DataFrame
    y: Target
    folds: tuple[tuple[NDArray[np.int64], NDArray[np.int64]], ...]
    build: Build | None = None

    @classmethod
    def of(cls, dataset: Dataset, build: Build | None = None) -> CrossValidation:
        """The training part of a data set."""
        return cls(task=dataset.task, X=dataset.X, y=dataset.y, folds=dataset.folds, build=build)

    def evaluate(self, values: Values, seed: int) -> Result:
        """Train on each fold and score; deterministic given the candidate and the seed, failures are outcomes."""
        start = time.perf_counter()
        try:
            result = self.result(self._predicted(values, seed), seed)
        except Exception as error:  # noqa: BLE001  # a vendor may raise anything; the trial failed, the study did not
            result = Result(outcome=outcome_of(error), seconds=0.0, detail=one_line(error))
        return replace(result, seconds=time.perf_counter() - start, peak_mib=resident_mib())

    def refit(self, values: Values, seed: int, folder: Path) -> Refit:
        """Train on all rows and write the fitted member to `folder`, which must not exist."""
        from offline_tune.evaluator.artifact import write_member

        start = time.perf_counter()
        try:
            write_member(folder, self._fitted(values, seed, self.X, self.y))
            result = Refit(outcome=Outcome.OK, seconds=0.0, folder=folder)
        except Exception as error:  # noqa: BLE001  # as above
            result = Refit(outcome=outcome_of(error), seconds=0.0, detail=one_line(error))
        return replace(result, seconds=time.perf_counter() - start, peak_mib=resident_mib())

    def load_vendors(self) -> None:
        """Import what every trial needs."""
        self._build()

    def result(self, parts: Iterable[FoldPredictions], seed: int) -> Result:
        """Score what was predicted for each fold, in their order.

        Args:
            parts: predictions for the held-out rows of each fold and for `sample_of` its training rows.
            seed: of the candidate.

        Raises:
            MetricError: the optimised metric is not defined for these predictions.
        """
        pairs = zip(self.folds, parts, strict=True)
        held_out = [self._fold(part, train, test, seed) for (train, test), part in pairs]
        scores = {
            metric.name: float(np.mean([fold.scores[metric.name] for fold in held_out])) for metric in self.task.metrics
        }
        optimised = self.task.metric.name
        if not math.isfinite(scores[optimised]):
            detail = f"{optimised} by fold: {', '.join(f'{fold.scores[optimised]:g}' for fold in held_out)}"
            return Result(outcome=Outcome.NOT_FINITE, seconds=0.0, detail=printable_line(detail))
        train_score = float(np.mean([fold.train_score for fold in held_out]))
        return Result(
            outcome=Outcome.OK,
            seconds=0.0,
            scores=scores,
            fold_scores=tuple(fold.scores[optimised] for fold in held_out),
            train_score=train_score if math.isfinite(train_score) else None,
            oof=self._assembled([fold.predictions for fold in held_out]),
        )

    def _predicted(self, values: Values, seed: int) -> Iterator[FoldPredictions]:
        from offline_tune.evaluator.pipeline import predictions

        for train, test in self.folds:
            fitted = self._fitted(values, seed, self.X.iloc[train], self.y[train])
            yield FoldPredictions(
                predictions(fitted, self.X.iloc[test], self.task),
                predictions(fitted, self.X.iloc[sample_of(train, seed)], self.task),
            )

    def _fold(self, part: FoldPredictions, train: NDArray[np.int64], test: NDArray[np.int64], seed: int) -> _Fold:
        shown = {metric.name: self._score_or_nan(metric, self.y[test], part.held_out) for metric in self.task.shown}
        return _Fold(
            scores={self.task.metric.name: self._score(self.task.metric, self.y[test], part.held_out), **shown},
            train_score=self._score_or_nan(self.task.metric, self.y[sample_of(train, seed)], part.seen),
            predictions=part.held_out,
        )

    def _fitted(self, values: Values, seed: int, X: pd.DataFrame, y: Target) -> Pipeline:
        return self._build()(values, self.task, seed, len(y)).fit(X, y)

    def _build(self) -> Build:
        if self.build is not None:
            return self.build
        from offline_tune.evaluator.pipeline import build_pipeline

        return build_pipeline

    def _score(self, metric: Metric, y: Target, found: Predictions) -> float:
        return score_predictions(metric, y, found, len(self.task.classes))

    def _score_or_nan(self, metric: Metric, y: Target, found: Predictions) -> float:
        """What is only shown may be undefined for some predictions; the trial goes on."""
        try:
            return self._score(metric, y, found)
        except MetricError:
            return math.nan

    def _assembled(self, parts: list[Predictions]) -> Predictions:
        oof = np.full((len(self.y), *parts[0].shape[1:]), np.nan, dtype=np.float32)
        for (_, test), part in zip(self.folds, parts, strict=True):
            oof[test] = part
        return oof


@dataclass(frozen=True, eq=False)
class FoldPredictions:
    """What a model that was trained on a fold's training part says of its held-out rows, and of a sample of its own."""

    held_out: Predictions
    seen: Predictions


@dataclass(frozen=True, eq=False)
class _Fold:
    scores: dict[str, float]
    train_score: float
    predictions: Predictions


def one_line(error: BaseException) -> str:
    """The class and message of an exception as one printable line of at most `MAX_DETAIL` characters."""
    return printable_line(f"{type(error).__name__}: {error}")


def printable_line(text: str) -> str:
    """Text on one line, without control characters, cut to `MAX_DETAIL` characters."""
    line = " ".join(text.split())
    return "".join(character for character in line if character.isprintable())[:MAX_DETAIL]


def outcome_of(error: Exception) -> Outcome:
    """How a trial ended that raised: memory that the system refused is told from what the model refused."""
    text = str(error).lower()
    if isinstance(error, MemoryError) or any(sign in text for sign in _OUT_OF_MEMORY):
        return Outcome.OUT_OF_MEMORY
    return Outcome.FAILED


def sample_of(rows: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """At most `TRAIN_SAMPLE` of some rows, those on which the training score is taken; shape (m,)."""
    if len(rows) <= TRAIN_SAMPLE:
        return rows
    rng = np.random.default_rng(seed % 2**32)
    return np.sort(rng.choice(rows, TRAIN_SAMPLE, replace=False))


def resident_mib() -> float:
    """Resident memory of this process."""
    return float(psutil.Process().memory_info().rss) / _MIB
