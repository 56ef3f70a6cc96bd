"""The table that a benchmark prints, and the few statistics in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        what: is measured.
        model: it was measured on.
        k: completions that grew at once; None where there are none.
        values: of the repeats; their median is the figure, the smallest and largest stand beside it.
        unit: behind the figure.
        at_least: the target from below, if there is one.
        at_most: the target from above.
        note: how it came about, or why there is no figure.
    """

    what: str
    model: str
    k: int | None
    values: Sequence[float]
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None
    note: str = ""

    @property
    def figure(self) -> float:
        """The median of the repeats."""
        return float(np.median(self.values))

    @property
    def verdict(self) -> str:
        """Whether the target is met; empty without target or figure."""
        if not self.values or (self.at_least is None and self.at_most is None):
            return ""
        low = self.at_least is not None and self.figure < self.at_least
        high = self.at_most is not None and self.figure > self.at_most
        return "MISSED" if low or high else "met"

    @property
    def target(self) -> str:
        """The target in words."""
        at_least = f">= {self.at_least:g}{self.unit}" if self.at_least is not None else ""
        at_most = f"<= {self.at_most:g}{self.unit}" if self.at_most is not None else ""
        return at_least or at_most


def render(rows: Sequence[Row]) -> str:
    """The rows as lines of equal columns."""
    lines = [("what", "model", "K", "median", "[min, max]", "target", "", "note")]
    lines += [
        (
            row.what,
            row.model,
            "" if row.k is None else str(row.k),
            f"{row.figure:.3g}{row.unit}" if row.values else "-",
            f"[{min(row.values):.3g}, {max(row.values):.3g}]" if len(row.values) > 1 else "",
            row.target,
            row.verdict,
            row.note,
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def interleaved(
    actions: Mapping[str, Callable[[], object]], repeats: int, before: Callable[[], object] = lambda: None
) -> dict[str, list[float]]:
    """Processor seconds of each action in each repeat, run in turns (A B A B ...).

    Args:
        actions: by name.
        repeats: how often each runs.
        before: what precedes each run, outside its time.
    """
    found: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(repeats):
        for name, action in actions.items():
            before()
            found[name].append(seconds(action))
    return found


def seconds(action: Callable[[], object]) -> float:
    """Processor time of one run, all threads of this process together.

    One thread that never waits takes as much wall time on a core of its own; on a shared one, wall time would be
    the neighbours' as well.
    """
    began = time.process_time()
    action()
    return time.process_time() - began


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """The quotient in each repeat."""
    return [a / b for a, b in zip(above, below, strict=True)]


def tail(repeats: Sequence[Sequence[float]]) -> float:
    """The 99th percentile of steps of unequal size, each as a multiple of its own median over the repeats.

    >>> tail([[1, 10], [1, 10], [1, 10]])
    1.0

    Args:
        repeats: times of the same steps, shape (repeats, steps).
    """
    times = np.asarray(repeats, float)
    return float(np.percentile(times / np.median(times, axis=0), 99))
