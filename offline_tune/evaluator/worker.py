"""The inside of a worker process: how it starts, what it runs, and how it ends.

`start` runs first in a fresh process and imports numpy and the vendors only after the caller's hook, so that a hook
may still change what needs a process of one thread (a network namespace) or none loaded (an audit hook).
A watcher thread ends the process when its resident memory passes the limit or its parent is gone, also while a
vendor's compiled code is busy.

A worker's standard error goes to a log that is emptied before each trial and read by the parent when the process
dies: the last line of a crash is the only reason that a person will get.
"""

from __future__ import annotations

import ctypes
import gc
import os
import pickle
import shutil
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.abc import MetaPathFinder
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from offline_tune.evaluator.contract import Result
    from offline_tune.evaluator.crossval import CrossValidation, Refit
    from offline_tune.space import Values

TICK = 0.02  # seconds between two looks at memory and parent
TOO_MUCH_MEMORY = 77  # exit codes of a worker that ends itself
CANNOT_START = 78
ORPHANED = 79

DATA = "data.pickle"  # written by this same program, in a folder that nobody else can open
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Orders:
    """What a worker is told when it starts. `hook` is pickled: it is unpacked only inside the worker."""

    folder: str
    hook: bytes
    memory_mib: int | None


def start(orders: Orders) -> None:
    """Make this process a worker; pebble's initializer. Ends the process where it cannot be one."""
    try:
        _redirect_output(log_of(orders.folder, os.getpid()))
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a handler in Python would wait for compiled code to return
        hook: Callable[[], object] | None = pickle.loads(orders.hook)
        if hook is not None:
            hook()
        _offer_to_the_kernel()
        _Worker.current = _Worker(orders)
    except BaseException:  # noqa: BLE001  # whatever a hook raises, the parent must hear of it
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(CANNOT_START)


def evaluate(values: Values, seed: int) -> Result:
    """Cross-validate one candidate in this worker."""
    worker = _Worker.the()
    with worker.trial():
        result = worker.trials.evaluate(values, seed)
    return replace(result, peak_mib=max(result.peak_mib, worker.peak_mib))


def refit(values: Values, seed: int, folder: Path) -> Refit:
    """Train one candidate on all rows in this worker and write it to a folder."""
    worker = _Worker.the()
    _load_skops()
    with worker.trial():
        result = worker.trials.refit(values, seed, folder)
    return replace(result, peak_mib=max(result.peak_mib, worker.peak_mib))


def log_of(folder: str, pid: int) -> Path:
    """Where the worker of that process id writes its standard error: first the trial's start, then vendors' text."""
    return Path(folder) / f"{pid}.log"


class _Worker:
    """The state of this process: its data, and the watcher over its memory and its parent."""

    current: _Worker | None = None

    def __init__(self, orders: Orders) -> None:
        import psutil

        warnings.simplefilter("ignore")  # nobody reads a worker's warnings; a trial is judged by its score
        self.trials: CrossValidation = pickle.loads((Path(orders.folder) / DATA).read_bytes())
        self.trials.load_vendors()  # else the first trial's time limit would pay for the imports
        gc.freeze()  # what is loaded stays: collections need not walk through it
        self.peak_mib = 0.0
        self._orders = orders
        self._process = psutil.Process()
        self._busy = threading.Lock()
        self._in_trial = False
        threading.Thread(target=self._watch, name="watcher", daemon=True).start()

    @staticmethod
    def the() -> _Worker:
        assert _Worker.current is not None
        return _Worker.current

    @contextmanager
    def trial(self) -> Iterator[None]:
        """The time in which the memory limit holds and the peak is taken.

        Outside of it the process may hold the lock of the pool's channel, and must not end by its own hand.
        """
        os.ftruncate(2, 0)
        os.write(2, f"{time.time()}\n".encode())
        self.peak_mib = 0.0
        with self._busy:
            self._in_trial = True
        try:
            yield
        finally:
            with self._busy:
                self._in_trial = False
            if self._orders.memory_mib is not None:
                _return_memory()

    def _watch(self) -> None:
        parent = parent_process()
        assert parent is not None
        while not connection.wait([parent.sentinel], timeout=TICK):
            with self._busy:
                if self._in_trial:
                    self._look()
        shutil.rmtree(self._orders.folder, ignore_errors=True)  # the data must not outlive a killed run
        os._exit(ORPHANED)

    def _look(self) -> None:
        resident, limit = self._process.memory_info().rss / _MIB, self._orders.memory_mib
        self.peak_mib = max(self.peak_mib, resident)
        if limit is not None and resident > limit:
            os.write(2, f"resident memory reached {resident:.0f} MiB, the limit is {limit} MiB\n".encode())
            os._exit(TOO_MUCH_MEMORY)


def _redirect_output(log: Path) -> None:
    """Send both standard streams to the log: a vendor's print must not reach the parent's terminal or its JSON."""
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


class _NoTorch(MetaPathFinder):
    """Says that torch is not installed."""

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name == "torch":
            raise ModuleNotFoundError("torch is not loaded here", name=name)


def _load_skops() -> None:
    """Import skops, which imports all of scikit-learn, which imports torch for nothing: 2 s and 200 MiB."""
    hidden = _NoTorch()
    sys.meta_path.insert(0, hidden)
    try:
        import skops.io  # noqa: F401
    finally:
        sys.meta_path.remove(hidden)


def _offer_to_the_kernel() -> None:
    """When the machine runs out of memory, Linux should end a worker, not the study."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def _return_memory() -> None:
    """Give freed memory back to the system, or a large trial would count against the next one's limit."""
    gc.collect()
    with suppress(OSError, AttributeError):
        trim: Any = ctypes.CDLL(None).malloc_trim  # glibc only
        trim(0)
