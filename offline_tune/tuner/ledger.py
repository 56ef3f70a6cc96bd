"""What a run has spent, kept with the study so that resumed parts add up; also writes the call log."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, replace

import optuna
import psutil

from offline_tune.evaluator.contract import Result
from offline_tune.samplers.proposal import Call
from offline_tune.study.folder import RunFolder, writing
from offline_tune.study.result import Spent
from offline_tune.study.trials import Asked
from offline_tune.task import Note, Task
from offline_tune.tuner.events import Listener

SPENT = "offline_tune:spent"
STOPPED = "offline_tune:stopped"

_MIB = 2**20


class Ledger:
    """A listener that counts, and passes everything on."""

    def __init__(self, study: optuna.Study, started: float, listener: Listener, folder: RunFolder) -> None:
        self._study, self._started, self._listener, self._folder = study, started, listener, folder
        stored = study.user_attrs.get(SPENT)
        self._before = Spent(**json.loads(stored)) if stored else Spent()
        self.spent = self._before
        self._batch_began: float | None = None
        self._left = 0

    def elapsed(self) -> float:
        """Seconds of this run, earlier parts included."""
        return self._before.total + time.monotonic() - self._started

    def save(self, stopped: str = "") -> Spent:
        """Bring the totals up to date and store them with the study."""
        resident = psutil.Process().memory_info().rss / _MIB
        self.spent = replace(self.spent, total=self.elapsed(), peak_mib=max(self.spent.peak_mib, resident))
        self._study.set_user_attr(SPENT, json.dumps(asdict(self.spent)))
        if stopped:
            self._study.set_user_attr(STOPPED, stopped)
        return self.spent

    def on_task(self, task: Task, notes: Sequence[Note], n_folds: int) -> None:
        """Pass on."""
        self._listener.on_task(task, notes, n_folds)

    def on_stage(self, text: str) -> None:
        """Pass on."""
        self._listener.on_stage(text)

    def on_call(self, call: Call) -> None:
        """Count a pass of the model, and log it: one line, flushed."""
        self.spent = replace(
            self.spent,
            model=self.spent.model + call.seconds,
            calls=self.spent.calls + 1,
            tokens_in=self.spent.tokens_in + call.tokens_in,
            tokens_out=self.spent.tokens_out + call.tokens_out,
        )
        with writing(self._folder.calls), self._folder.calls.open("a", encoding="utf-8") as log:
            log.write(call.to_json() + "\n")
            log.flush()
            os.fsync(log.fileno())
        self._listener.on_call(call)

    def on_batch(self, asked: Sequence[Asked]) -> None:
        """The clock of the evaluation begins."""
        self._batch_began, self._left = time.monotonic(), len(asked)
        if self.spent.first_candidate is None:
            self.spent = replace(self.spent, first_candidate=self.elapsed())
        self._listener.on_batch(asked)

    def on_result(self, asked: Asked, result: Result) -> None:
        """The clock of the evaluation ends with the batch's last trial."""
        self._left -= 1
        self.spent = replace(self.spent, peak_mib=max(self.spent.peak_mib, result.peak_mib))
        if self._left == 0 and self._batch_began is not None:
            busy = time.monotonic() - self._batch_began
            self.spent = replace(self.spent, evaluation=self.spent.evaluation + busy)
            self.save()
        self._listener.on_result(asked, result)
