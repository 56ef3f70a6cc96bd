"""How many threads a model decodes with, and how idle ones wait for the others. Loads nothing, knows no engine.

Threads meet at a barrier after every operation of the network. GNU's OpenMP lets those that came first spin there: on a
core that a training wants too, one step then takes hundreds of milliseconds instead of one. OMP_WAIT_POLICY=PASSIVE
makes them sleep, but an OpenMP runtime reads it only once, when it is loaded.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

POLICY = "OMP_WAIT_POLICY"
SECONDS_EACH = 0.05
MOST_THREADS = 512  # that llama.cpp accepts
# a thread that brings less than this is left to the trainings
_LEAST_GAIN = 1.10
# from here on fewer threads only get slower
_HOPELESS = 1.25
_RUNTIME = re.compile(r"/(lib(?:gomp|omp|iomp5)[^/\s]*\.(?:so|dylib)[^/\s]*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Calibration:
    """What `calibrate` found.

    Attributes:
        n_threads: the choice.
        seconds: median time of one step by the number of threads, in the order in which they were tried.
    """

    n_threads: int
    seconds: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Waiting:
    """How idle threads wait.

    Attributes:
        policy: what the environment says, lower case; empty if nothing.
        too_early: OpenMP runtimes that llama.cpp shares and that were loaded before the policy was set.
    """

    policy: str
    too_early: tuple[str, ...]

    @property
    def passive(self) -> bool:
        """Whether they sleep, so that a training on the same core does not stall a step."""
        return self.policy == "passive" and not self.too_early


def calibrate(
    step: Callable[[int], object],
    counts: Sequence[int],
    *,
    seconds_each: float = SECONDS_EACH,
    clock: Callable[[], float] = time.perf_counter,
) -> Calibration:
    """Try numbers of threads, from the most to the fewest, and take the fastest; of two alike, the smaller.

    One step warms up and is not counted. Each number is tried for `seconds_each`, at least once, and the search ends
    where fewer threads are clearly slower, so that a large model is not decoded with one thread just to see.

    Args:
        step: decodes a short batch with that many threads.
        counts: the numbers to try, ascending.
        seconds_each: time for each.
        clock: in seconds.
    """
    step(counts[-1])
    seconds: dict[int, float] = {}
    for n in reversed(counts):
        seconds[n] = _median_time(lambda n=n: step(n), seconds_each, clock)  # type: ignore[misc]
        if seconds[n] > _HOPELESS * min(seconds.values()):
            break
    fastest = min(seconds.values())
    return Calibration(min(n for n, each in seconds.items() if each <= _LEAST_GAIN * fastest), seconds)


def counts_up_to(n_cores: int) -> tuple[int, ...]:
    """The numbers of threads worth trying: all where there are few cores, else powers of two and all cores.

    >>> counts_up_to(3), counts_up_to(12)
    ((1, 2, 3), (1, 2, 4, 8, 12))
    """
    most = min(max(n_cores, 1), MOST_THREADS)
    if most <= 4:
        return tuple(range(1, most + 1))
    return (*(2**i for i in range(most.bit_length()) if 2**i < most), most)


def usable_cores() -> int:
    """Cores that this process may use: under taskset, or in a container, fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ask_for_passive_waiting() -> tuple[str, ...]:
    """Set the policy for OpenMP runtimes that are loaded from now on, unless the user has set one.

    Returns:
        The runtimes that are loaded already and will not see it.
    """
    if POLICY in os.environ:
        return ()
    os.environ[POLICY] = "PASSIVE"
    return loaded_runtimes()


def shared(before: Iterable[str], after: Iterable[str]) -> tuple[str, ...]:
    """Of the OpenMP runtimes in memory before a library was loaded, those that it must have taken.

    A library that brought a runtime of its own shares none.

    >>> shared(["libgomp.so.1"], ["libgomp.so.1"]), shared(["libgomp-a34b3233.so.1"], ["libgomp.so.1"])
    (('libgomp.so.1',), ())
    """
    before = tuple(before)
    return () if set(after) - set(before) else before


def loaded_runtimes(maps: Path = Path("/proc/self/maps")) -> tuple[str, ...]:
    """File names of the OpenMP runtimes in this process; none where the system does not tell (it is Linux's to)."""
    if sys.platform != "linux":
        return ()
    try:
        text = maps.read_text(errors="replace")
    except OSError:
        return ()
    return tuple(dict.fromkeys(_RUNTIME.findall(text)))


def _median_time(step: Callable[[], object], seconds: float, clock: Callable[[], float]) -> float:
    times: list[float] = []
    while not times or sum(times) < seconds:
        start = clock()
        step()
        times.append(clock() - start)
    return median(times)
