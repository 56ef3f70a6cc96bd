"""What a run has spent, kept with the study so that resumed parts add up; also writes the call log."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import BinaryIO

import optuna
import psutil

from offline_tune.evaluator.contract import Result
from offline_tune.samplers.proposal import Call
from offline_tune.study.folder import RunFolder, writing
from offline_tune.study.result import Spent
from offline_tune.study.trials import Asked
from offline_tune.task import Budget, Note, Task
from offline_tune.tuner.events import Listener, Standing

SPENT = "offline_tune:spent"
STOPPED = "offline_tune:stopped"

_MIB = 2**20


class Ledger:
    """A listener that counts, and passes everything on."""

    def __init__(self, study: optuna.Study, started: float, listener: Listener, folder: RunFolder) -> None:
        self._study, self._started, self._listener, self._folder = study, started, listener, folder
        stored = study.user_attrs.get(SPENT)
        self._before = Spent(**json.loads(stored)) if stored else Spent()
        self.spent = self._settled = self._before
        self._batch_began: float | None = None
        self._left = 0
        self._told_of_limit = False

    def elapsed(self) -> float:
        """Seconds of this run, earlier parts included."""
        return self._before.total + time.monotonic() - self._started

    def may_call(self, budget: Budget) -> bool:
        """Whether the language model may answer once more; says so once where it may not."""
        tokens = self.spent.tokens_in + self.spent.tokens_out
        within_calls = budget.llm_calls is None or self.spent.calls < budget.llm_calls
        within_tokens = budget.llm_tokens is None or tokens < budget.llm_tokens
        if not (within_calls and within_tokens) and not self._told_of_limit:
            self._told_of_limit = True
            self._listener.on_stage("the language model's budget is spent: local steps and even draws propose now")
        return within_calls and within_tokens

    def save(self, stopped: str = "") -> Spent:
        """Bring the totals up to date and store them with the study."""
        resident = psutil.Process().memory_info().rss / _MIB
        self.spent = replace(self.spent, total=self.elapsed(), peak_mib=max(self.spent.peak_mib, resident))
        self._settled = self.spent
        self._study.set_user_attr(SPENT, json.dumps(asdict(self.spent)))
        if stopped:
            self._study.set_user_attr(STOPPED, stopped)
        return self.spent

    def interrupt(self, stopped: str) -> None:
        """Store the time, but of the language model only what ended batches took: a resumed run asks it again.

        Counting that pass twice would end the model's budget, and so change the candidates, earlier than in a run
        that was not interrupted.
        """
        self.spent = self._settled
        self.save(stopped)

    def on_task(self, task: Task, notes: Sequence[Note], n_folds: int) -> None:
        """Pass on."""
        self._listener.on_task(task, notes, n_folds)

    def on_stage(self, text: str) -> None:
        """Pass on."""
        self._listener.on_stage(text)

    def on_study(self, standing: Standing) -> None:
        """Pass on."""
        self._listener.on_study(standing)

    def on_call(self, call: Call) -> None:
        """Count a pass of the model, and log it: one line, flushed."""
        self.spent = replace(
            self.spent,
            model=self.spent.model + call.seconds,
            calls=self.spent.calls + 1,
            tokens_in=self.spent.tokens_in + call.tokens_in,
            tokens_out=self.spent.tokens_out + call.tokens_out,
        )
        with writing(self._folder.calls), self._folder.calls.open("ab+") as log:
            log.write(_line_break(log) + call.to_json().encode(errors="replace") + b"\n")
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


def _line_break(log: BinaryIO) -> bytes:
    """What must stand before a new record: a line that a killed process tore off is ended first."""
    if log.seek(0, os.SEEK_END) == 0:
        return b""
    log.seek(-1, os.SEEK_END)
    return b"" if log.read(1) == b"\n" else b"\n"
