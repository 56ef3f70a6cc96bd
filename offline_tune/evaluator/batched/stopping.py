"""Stopping candidates that fall behind: successive halving, and the rule of the median.

Decisions are made at rungs that all candidates have reached, from losses alone, so they are the same on a slow machine
and on a fast one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

Curves = Mapping[int, Sequence[float]]


class Stopping(Protocol):
    """Which candidates go on."""

    def rungs(self, epochs: int) -> tuple[int, ...]:
        """Ages at which candidates of at most `epochs` epochs are compared, ascending, below `epochs`."""
        ...

    def survivors(self, losses: Curves, running: frozenset[int]) -> frozenset[int]:
        """Those of the running candidates that go on.

        Args:
            losses: loss after each epoch, of every candidate that reached this rung or finished before it.
            running: the candidates that would go on by themselves.
        """
        ...


@dataclass(frozen=True, slots=True)
class Halving:
    """Successive halving: at each rung the best 1 / eta of the candidates go on.

    After Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization" (2016).

    Attributes:
        eta: how many candidates compete for one place, and how many times longer the next rung is.
        first: epochs before the first decision at least.
    """

    eta: int = 3
    first: int = 3

    def rungs(self, epochs: int) -> tuple[int, ...]:
        """From epochs / eta by 1 / eta down to `first`.

        >>> Halving(3, 3).rungs(81)
        (3, 9, 27)
        """
        found = []
        rung = epochs // self.eta
        while rung >= self.first:
            found.append(rung)
            rung //= self.eta
        return tuple(reversed(found))

    def survivors(self, losses: Curves, running: frozenset[int]) -> frozenset[int]:
        """The running ones among the best 1 / eta, earlier candidates first among equals."""
        ranked = sorted(losses, key=lambda place: (_best(losses[place]), place))
        return frozenset(ranked[: math.ceil(len(ranked) / self.eta)]) & running


@dataclass(frozen=True, slots=True)
class Median:
    """The rule of the median: who has never been better than the others were on average is stopped.

    After Golovin and others, "Google Vizier: A Service for Black-Box Optimization" (2017).

    Attributes:
        first: epochs before the first decision.
        every: epochs between decisions.
        least: candidates that must be compared.
    """

    first: int = 5
    every: int = 1
    least: int = 5

    def rungs(self, epochs: int) -> tuple[int, ...]:
        """Every `every` epochs from `first` on."""
        return tuple(range(self.first, epochs, self.every))

    def survivors(self, losses: Curves, running: frozenset[int]) -> frozenset[int]:
        """The running ones whose best loss is not above the median of the others' mean losses so far."""
        if len(losses) < self.least:
            return running
        age = max((len(losses[place]) for place in running), default=0)
        means = {place: float(np.mean(curve[:age])) if curve else math.inf for place, curve in losses.items()}
        return frozenset(
            place
            for place in running
            if _best(losses[place]) <= np.median([mean for other, mean in means.items() if other != place])
        )


def _best(curve: Sequence[float]) -> float:
    return min((loss for loss in curve if math.isfinite(loss)), default=math.inf)
