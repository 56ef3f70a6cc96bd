"""The evaluator's own worker processes: started, handed the data once, watched, ended, replaced.

Built on pebble's ProcessPool, which stops a worker that takes too long and puts a new one in the place of one that
died. What is added: processes that start clean (`spawning`), a folder through which the data go to the workers and
their last words come back, and a new pool where pebble gives its own up.
"""

from __future__ import annotations

import pickle
import shutil
import signal
import tempfile
import time
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pebble import ProcessExpired, ProcessPool

from offline_tune.errors import OutputError, UsageError
from offline_tune.evaluator import worker
from offline_tune.evaluator.contract import Outcome
from offline_tune.evaluator.crossval import one_line, printable_line
from offline_tune.evaluator.spawning import clean_context
from offline_tune.task import TrialLimits

Hook = Callable[[], object]

START_PATIENCE = 120.0  # seconds beyond a trial's own limit in which a busy machine must have started a worker
_LOG_TAIL = 4096  # bytes


@dataclass(frozen=True, slots=True)
class Job:
    """One call of a method of `Trials`, in a worker: "evaluate" or "refit"."""

    method: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Ending:
    """What is known of a job that ended without a result."""

    outcome: Outcome
    detail: str
    seconds: float = 0.0
    peak_mib: float = 0.0


class WorkersLost(Exception):  # noqa: N818  # an event that is handled, not an error that is shown
    """All workers are gone or silent; jobs without a result may be submitted again after a restart."""


class Trials(Protocol):
    """What travels to the workers: it plays `evaluate` and `refit` jobs, whose reports have a `peak_mib`."""

    @property
    def evaluate(self) -> Callable[..., Any]:
        """Try candidates on the folds."""
        ...

    @property
    def refit(self) -> Callable[..., Any]:
        """Train candidates on all rows and write them."""
        ...

    def load_vendors(self) -> None:
        """Import what every trial needs."""
        ...


class Supervisor:
    """Supervised spawned workers.

    Raises:
        UsageError: the initializer or the pipeline's builder cannot be handed to another process.
        OutputError: the temporary folder cannot be written.
    """

    def __init__(self, trials: Trials, limits: TrialLimits | None, workers: int, initializer: Hook | None) -> None:
        self._limits = limits or TrialLimits()
        self._n_workers = workers
        self._hook = _pickled(initializer, "initializer")
        data = _pickled(trials, "pipeline builder")
        self._folder = Path(_private_folder(data))
        self._pools: list[ProcessPool] = []
        self._finalizer = weakref.finalize(self, _end, self._pools, self._folder)
        self.restart()

    def submit(self, job: Job) -> Future[Any]:
        """Queue a job; its time limit starts when a worker takes it."""
        try:
            future: Future[Any] = self._pools[0].schedule(
                getattr(worker, job.method), args=job.arguments, timeout=self._limits.seconds
            )
        except RuntimeError:
            raise WorkersLost(self._last_words()) from None
        return future

    def patience(self) -> float | None:
        """Seconds after which a queued job must have ended, or the pool hangs."""
        return None if self._limits.seconds is None else self._limits.seconds + START_PATIENCE

    def ending(self, job: Job, error: BaseException) -> Ending:
        """What a job's exception means; raises WorkersLost where it says nothing about the job."""
        if isinstance(error, TimeoutError):
            seconds = self._limits.seconds or 0.0
            return Ending(Outcome.TIMED_OUT, f"stopped after {seconds:g} s", seconds)
        if isinstance(error, ProcessExpired):
            return self._death(error.pid, error.exitcode)
        if isinstance(error, BrokenProcessPool | CancelledError):
            raise WorkersLost(self._last_words())
        return Ending(Outcome.DIED, one_line(error))

    def restart(self) -> None:
        """End whatever still runs and start new workers."""
        _stop(self._pools)
        orders = worker.Orders(str(self._folder), self._hook, self._limits.memory_mib)
        pool = ProcessPool(
            max_workers=self._n_workers, initializer=worker.start, initargs=(orders,), context=clean_context()
        )
        self._pools.append(pool)
        _ = pool.active  # starts the workers now; they import while the caller still thinks

    def close(self) -> None:
        """End the workers and delete the temporary folder; idempotent."""
        self._finalizer()

    def _death(self, pid: int, exitcode: int) -> Ending:
        started, words = _read_log(worker.log_of(str(self._folder), pid))
        seconds = max(0.0, time.time() - started) if started else 0.0
        if exitcode == worker.TOO_MUCH_MEMORY:
            return Ending(Outcome.OUT_OF_MEMORY, words, seconds, float(self._limits.memory_mib or 0))
        return Ending(Outcome.DIED, printable_line(f"{_manner_of(exitcode)}: {words}".rstrip(": ")), seconds)

    def _last_words(self) -> str:
        logs = sorted(self._folder.glob("*.log"), key=lambda log: log.stat().st_mtime)
        return _read_log(logs[-1])[1] if logs else "none that started"


def _pickled(thing: object, name: str) -> bytes:
    try:
        return pickle.dumps(thing, protocol=5)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UsageError(
            f"the {name} must be an importable function, got {one_line(error)}; define it in a module"
        ) from None


def _private_folder(data: bytes) -> str:
    try:
        folder = tempfile.mkdtemp(prefix="offline-tune-")  # mode 0700
        try:
            (Path(folder) / worker.DATA).write_bytes(data)
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    except OSError as error:
        raise OutputError(
            f"workers need a temporary folder with {len(data):,} free bytes, got {error}; set TMPDIR to another disk"
        ) from None
    return folder


def _end(pools: list[ProcessPool], folder: Path) -> None:
    _stop(pools)
    shutil.rmtree(folder, ignore_errors=True)


def _stop(pools: list[ProcessPool]) -> None:
    while pools:
        pool = pools.pop()
        pool.stop()
        pool.join()


def _read_log(log: Path) -> tuple[float, str]:
    """The start of the worker's last trial (seconds since the epoch, 0 if none) and the last line it wrote."""
    try:
        with log.open("rb") as stream:
            first = stream.readline(64).decode(errors="replace")
            stream.seek(max(0, log.stat().st_size - _LOG_TAIL))
            lines = stream.read().decode(errors="replace").splitlines()
    except OSError:
        return 0.0, ""
    words = next((line for line in map(printable_line, reversed(lines)) if line), "")
    try:
        return float(first), "" if words == first.strip() else words
    except ValueError:
        return 0.0, words


def _manner_of(exitcode: int) -> str:
    if exitcode >= 0:
        return f"exit code {exitcode}"
    try:
        name = signal.Signals(-exitcode).name
        return f"signal {name}, as when the system runs out of memory" if name == "SIGKILL" else f"signal {name}"
    except ValueError:
        return f"signal {-exitcode}"
