"""What a run tells its audience while it works. The command line draws it; a test collects it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from offline_tune.evaluator.contract import Result
from offline_tune.samplers.proposal import Call
from offline_tune.study.trials import Asked
from offline_tune.task import Note, Task


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a study stands: how many trials have ended, how many are wanted, the best score and its trial's number."""

    n_finished: int
    n_wanted: int
    best: tuple[float, int] | None = None


class Listener(Protocol):
    """Told of everything, in the order in which it happens, on the run's own thread."""

    def on_task(self, task: Task, notes: Sequence[Note], n_folds: int) -> None:
        """The data are read and split."""
        ...

    def on_stage(self, text: str) -> None:
        """Something that takes a moment begins."""
        ...

    def on_study(self, standing: Standing) -> None:
        """The study is open; a resumed one has finished trials."""
        ...

    def on_call(self, call: Call) -> None:
        """The language model has answered."""
        ...

    def on_batch(self, asked: Sequence[Asked]) -> None:
        """Trials begin."""
        ...

    def on_result(self, asked: Asked, result: Result) -> None:
        """A trial has ended and is stored."""
        ...


class Silence:
    """Listens and says nothing."""

    def on_task(self, task: Task, notes: Sequence[Note], n_folds: int) -> None:
        """Nothing."""

    def on_stage(self, text: str) -> None:
        """Nothing."""

    def on_study(self, standing: Standing) -> None:
        """Nothing."""

    def on_call(self, call: Call) -> None:
        """Nothing."""

    def on_batch(self, asked: Sequence[Asked]) -> None:
        """Nothing."""

    def on_result(self, asked: Asked, result: Result) -> None:
        """Nothing."""
