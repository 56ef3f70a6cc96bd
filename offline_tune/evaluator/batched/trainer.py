"""Runs are packed into stacks, trained, and handed back as they end; freed places are filled from the queue.

Results do not depend on the packing, so it may follow the memory at hand: when a stack does not fit it is halved, and
when one run alone does not fit, that run has failed and the others go on.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from offline_tune.evaluator.batched.packing import most_rows, packed
from offline_tune.evaluator.batched.resident import Resident
from offline_tune.evaluator.batched.run import Run
from offline_tune.evaluator.batched.stack import Stack

_WAIT = 0.2  # seconds between two looks at the keyboard


class OverTime(Exception):  # noqa: N818  # an event that becomes an outcome
    """A candidate took longer than it may."""


class Trainer:
    """Trains runs on one device.

    Args:
        data: where the rows of all runs lie.
        dtype: of parameters and activations.
        by_size: pack runs of equal sizes only; see `packing.packed`.
        most: rows of a stack at most; None for what fits, as measured.
    """

    def __init__(
        self,
        data: Resident,
        *,
        dtype: torch.dtype = torch.float32,
        by_size: bool = True,
        most: int | None = None,
    ) -> None:
        self._data = data
        self._dtype = dtype
        self._by_size = by_size
        self._most = most

    def advance(
        self, runs: Sequence[Run], until: float = math.inf, on_end: Callable[[Run], None] = lambda run: None
    ) -> None:
        """Train until every run is finished or `until` epochs old.

        Args:
            runs: in any state; those that are there already are handed back at once.
            until: epochs.
            on_end: called on this thread with each run as it is parked.
        """
        for run in runs:
            _start(run)
        waiting = [run for run in runs if not _is_there(run, until)]
        for run in runs:
            if _is_there(run, until):
                on_end(run)
        lines = [_Line(deque(group)) for group in packed(waiting, by_size=self._by_size)]
        ended: queue.SimpleQueue[Run | BaseException] = queue.SimpleQueue()
        with self._thread(lines, until, ended):
            for _ in waiting:
                on_end(_next(ended))

    @contextmanager
    def _thread(self, lines: list[_Line], until: float, ended: _Ended) -> Iterator[None]:
        """A thread that trains while the caller's listens, also to Ctrl-C; one, for two would wait for each other."""
        stop, n_threads = threading.Event(), torch.get_num_threads()
        thread = threading.Thread(target=self._work, args=(lines, until, ended, stop), name="stacks", daemon=True)
        try:
            thread.start()
            yield
        finally:
            stop.set()
            thread.join()
            torch.set_num_threads(n_threads)

    def _work(self, lines: list[_Line], until: float, ended: _Ended, stop: threading.Event) -> None:
        try:
            if self._data.device.type == "cpu":
                torch.set_num_threads(1)
                torch.set_flush_denormal(True)  # averages of vanishing gradients would cost ten times the time
            for line in lines:
                while not stop.is_set() and (some := self._take(line)):
                    self._train(some, line, until, ended, stop)
        except BaseException as error:  # noqa: BLE001  # the caller's thread must not wait for ever
            ended.put(error)

    def _take(self, line: _Line) -> list[Run]:
        """The next runs for a stack."""
        if line.waiting and line.most is None:
            line.most = self._most or self._measured(line.waiting[0])
        return line.take(line.most or 0)

    def _measured(self, run: Run) -> int:
        try:
            return most_rows(run, self._data, self._dtype)
        except Exception:  # noqa: BLE001  # the run will fail in the same way when it is trained, and is told then
            return 1

    def _train(self, some: list[Run], line: _Line, until: float, ended: _Ended, stop: threading.Event) -> None:
        bookmarks = {id(run): run.bookmark() for run in some}
        stack: Stack | None = None
        try:
            stack = Stack(some, self._data, self._dtype)
            while stack.runs and not stop.is_set():
                _time_an_epoch(stack, stop)
                there = [place for place, run in enumerate(stack.runs) if _is_there(run, until)]
                if there:
                    self._exchange(stack, there, line, bookmarks, ended)
        except Exception as error:  # noqa: BLE001  # whatever it was, it may be the fault of one run
            held = some if stack is None else stack.runs
            del stack
            self._split(held, line, bookmarks, ended, error)

    def _exchange(self, stack: Stack, there: list[int], line: _Line, bookmarks: _Bookmarks, ended: _Ended) -> None:
        """Park what has ended and take others in its place."""
        stack.park(there)
        for place in there:
            ended.put(stack.runs[place])
        joining = line.take(len(there))
        bookmarks.update((id(run), run.bookmark()) for run in joining)
        if len(there) < len(stack.runs) or joining:
            stack.change(there, joining)
        else:
            stack.runs = []

    def _split(self, held: Sequence[Run], line: _Line, bookmarks: _Bookmarks, ended: _Ended, error: Exception) -> None:
        """Halve a stack that could not be trained; a run that cannot be trained alone has failed."""
        if self._data.device.type == "cuda":
            torch.cuda.empty_cache()
        for run in held:
            bookmarks[id(run)]()
        if len(held) == 1:
            held[0].failure = error
            ended.put(held[0])
            return
        line.most = -(-len(held) // 2)
        line.waiting.extendleft(reversed(held))


@dataclass(eq=False)
class _Line:
    """Runs that may stand in one stack and wait for a place."""

    waiting: deque[Run]
    most: int | None = None

    def take(self, n: int) -> list[Run]:
        return [self.waiting.popleft() for _ in range(min(n, len(self.waiting)))]


_Ended = queue.SimpleQueue[Run | BaseException]
_Bookmarks = dict[int, Callable[[], None]]


def _time_an_epoch(stack: Stack, stop: threading.Event) -> None:
    began = time.perf_counter()
    stack.epoch(stop.is_set)
    share = (time.perf_counter() - began) / len(stack.runs)
    for run in stack.runs:
        run.spending.seconds += share
        if run.spending.over and not run.finished:
            run.failure = OverTime(f"stopped after {run.spending.limit:g} s")


def _start(run: Run) -> None:
    """Draw the initial numbers, which may be more than memory holds."""
    try:
        run.started()
    except Exception as error:  # noqa: BLE001  # it is this run's failure alone
        run.failure = error


def _is_there(run: Run, until: float) -> bool:
    return run.finished or run.epoch >= until


def _next(ended: _Ended) -> Run:
    while True:
        try:
            found = ended.get(timeout=_WAIT)
        except queue.Empty:
            continue
        if isinstance(found, BaseException):
            raise found
        return found
