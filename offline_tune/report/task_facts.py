"""What result.json says of the task, read leniently: a report must not fail for a missing fact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from offline_tune.task import TaskKind


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnFacts:
    """One column of the data file."""

    name: str
    kind: str
    n_unique: int | None
    n_missing: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFacts:
    """The task, its data and the model that proposed, as `RunResult.facts` has them.

    `families` holds for each family the sentence on it and one sentence for each of its hyperparameters.
    """

    kind: TaskKind | None = None
    name: str = ""
    target: str = ""
    classes: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    n_rows: int | None = None
    n_train: int | None = None
    n_test: int | None = None
    card: Mapping[str, Any] = field(default_factory=dict)
    columns: tuple[ColumnFacts, ...] = ()
    notes: tuple[str, ...] = ()
    families: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> TaskFacts:
        """Read what is there."""
        kind = facts.get("task")
        return cls(
            kind=TaskKind(kind) if kind in list(TaskKind) else None,
            name=str(facts.get("name", "")),
            target=str(facts.get("target", "")),
            classes=tuple(map(str, _sequence(facts.get("classes")))),
            metrics=tuple(map(str, _sequence(facts.get("metrics")))),
            n_rows=_count(facts.get("n_rows")),
            n_train=_count(facts.get("n_train")),
            n_test=_count(facts.get("n_test")),
            card=_mapping(facts.get("card")),
            columns=tuple(_column(_mapping(each)) for each in _sequence(facts.get("columns"))),
            notes=tuple(map(str, _sequence(facts.get("notes")))),
            families=_mapping(facts.get("families")),
            model=_mapping(facts.get("model")),
        )

    def sentence_on(self, family: str, hyperparameter: str) -> str:
        """What a hyperparameter of a family does; empty where nobody has said."""
        said = _mapping(_mapping(self.families.get(family)).get("hyperparameters"))
        return str(said.get(hyperparameter, ""))


def _count(found: object) -> int | None:
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def _mapping(found: object) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}


def _sequence(found: object) -> Sequence[Any]:
    return found if isinstance(found, Sequence) and not isinstance(found, str) else ()


def _column(found: Mapping[str, Any]) -> ColumnFacts:
    return ColumnFacts(
        name=str(found.get("name", "")),
        kind=str(found.get("kind", "")),
        n_unique=_count(found.get("unique")),
        n_missing=_count(found.get("missing")),
    )
