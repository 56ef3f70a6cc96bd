"""What is to be learnt: the kind of task, its metric, and how much may be spent on it.

Frozen values only; reading files and computing scores happen elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from offline_tune.errors import UsageError


class TaskKind(StrEnum):
    """The kinds of supervised task on tables."""

    BINARY = "binary"
    MULTICLASS = "multiclass"
    REGRESSION = "regression"

    @property
    def is_classification(self) -> bool:
        """Whether the target is a label."""
        return self is not TaskKind.REGRESSION


class ColumnKind(StrEnum):
    """What a column holds; decides how it is preprocessed, and whether it is used at all."""

    NUMERIC = "numeric"
    CATEGORICAL = "categorical"
    BOOLEAN = "boolean"
    DATE = "date"
    TEXT = "text"
    IDENTIFIER = "identifier"
    CONSTANT = "constant"
    EMPTY = "empty"

    @property
    def is_used(self) -> bool:
        """Whether a model may see the column."""
        return self not in (ColumnKind.IDENTIFIER, ColumnKind.CONSTANT, ColumnKind.EMPTY)


@dataclass(frozen=True, slots=True)
class Column:
    """One feature column: its name in the file, its kind, distinct values and missing cells on the training part."""

    name: str
    kind: ColumnKind
    n_unique: int = 0
    n_missing: int = 0


@dataclass(frozen=True, slots=True)
class Metric:
    """A scikit-learn scorer by its name. Scores are greater-is-better, as scikit-learn's are.

    `needs` is the response the scorer asks for: "predict", "predict_proba" or "decision_function" (the last is
    served by probabilities where a model has no decision function).
    """

    name: str
    needs: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A supervised task on one table.

    `classes` are the labels in encoded order (a binary task's positive class is the last); empty for regression.
    `metric` is optimised, `shown` are computed beside it.
    """

    name: str
    target: str
    kind: TaskKind
    metric: Metric
    shown: tuple[Metric, ...] = ()
    classes: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    n_rows: int = 0

    @property
    def features(self) -> tuple[Column, ...]:
        """The columns that a model may see."""
        return tuple(column for column in self.columns if column.kind.is_used)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The optimised metric, then the shown ones."""
        return (self.metric, *self.shown)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a run may spend. None means no limit; `trials` counts finished trials, failed ones too.

    Raises:
        UsageError: a limit below one unit.
    """

    trials: int = 30
    seconds: float | None = None
    llm_calls: int | None = None
    llm_tokens: int | None = None

    def __post_init__(self) -> None:
        _at_least("--trials", self.trials, 1)
        for option, value in (
            ("--time-limit", self.seconds),
            ("--llm-calls", self.llm_calls),
            ("--llm-tokens", self.llm_tokens),
        ):
            if value is not None:
                _at_least(option, value, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialLimits:
    """What one trial may use: wall seconds, and resident memory in MiB. None means no limit."""

    seconds: float | None = 300.0
    memory_mib: int | None = None

    def __post_init__(self) -> None:
        if self.seconds is not None:
            _at_least("--trial-time-limit", self.seconds, 0.1)
        if self.memory_mib is not None:
            _at_least("--trial-memory", self.memory_mib, 64)


@dataclass(frozen=True, slots=True)
class Note:
    """Something the user should know about the data; shown once on stderr and in the report."""

    text: str
    column: str | None = field(default=None)


def _at_least(option: str, value: float, least: float) -> None:
    if not value >= least:
        raise UsageError(f"{option} must be at least {least:g}, got {value:g}; raise it or leave it out")
