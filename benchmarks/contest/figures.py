"""From runs to figures: mean regret with intervals, paired tests, trials to a target, costs.

Problems of one kind are averaged with equal weight, and so are kinds where several are put together. Intervals are
bootstrapped over problems, which differ far more than seeds do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import wilcoxon

BUDGETS = (1, 3, 5, 10, 20, 40)
TARGET = 35  # random search's regret after so many trials is the target to reach
_RESAMPLES = 2000

Curves = Mapping[str, np.ndarray]  # problem key -> (seeds, trials) regret


@dataclass(frozen=True)
class Comparison:
    """Two contestants at one budget: mean difference, its 95 % interval, Wilcoxon's p over (problem, seed) pairs."""

    difference: float
    low: float
    high: float
    p: float


def mean_regret(curves: Curves, budget: int) -> tuple[float, float, float]:
    """Mean and its 95 % interval."""
    return _mean_and_interval(_by_problem(curves, budget), list(curves))


def compare(ours: Curves, theirs: Curves, budget: int) -> Comparison:
    """Ours less theirs: below zero is better."""
    keys = [key for key in ours if key in theirs]
    pairs = [(ours[k][: _seeds(ours, theirs, k), budget - 1], theirs[k][: _seeds(ours, theirs, k), budget - 1])
             for k in keys]  # fmt: skip
    gaps = np.concatenate([mine - other for mine, other in pairs])
    mean, low, high = _mean_and_interval(np.array([np.mean(mine - other) for mine, other in pairs]), keys)
    return Comparison(mean, low, high, float(wilcoxon(gaps).pvalue) if np.any(gaps) else 1.0)


def trials_to_target(curves: Curves, random: Curves) -> tuple[float, float]:
    """The median and the mean number of trials until random search's mean regret after `TARGET` is reached.

    A run that does not reach it counts one more trial than it had.
    """
    needed = []
    for key, runs in curves.items():
        goal = random[key][:, TARGET - 1].mean()
        for run in runs:
            reached = np.flatnonzero(run <= goal)
            needed.append(int(reached[0]) + 1 if len(reached) else len(run) + 1)
    return float(np.median(needed)), float(np.mean(needed))


def share_won(ours: Curves, our_budget: int, theirs: Curves, their_budget: int) -> float:
    """On how many of the problems our mean regret after one budget is below theirs after another."""
    keys = [key for key in ours if key in theirs]
    won = [ours[key][:, our_budget - 1].mean() < theirs[key][:, their_budget - 1].mean() for key in keys]
    return float(np.mean(won))


def text(found: Mapping[str, Curves], budgets: Sequence[int], champion: str | None) -> str:
    """A table in plain text: one contestant a line, and beneath it the champion against each of the others."""
    width = max(map(len, found)) + len(f"{champion} - ") + 1
    lines = ["".ljust(width) + "".join(f"{b:>22}" for b in budgets)]
    for name, curves in found.items():
        cells = (mean_regret(curves, budget) for budget in budgets)
        lines.append(name.ljust(width) + "".join(f"{f'{m:.3f} [{a:.3f}, {b:.3f}]':>22}" for m, a, b in cells))
    for name in (n for n in found if champion in found and n != champion):
        cells = (compare(found[champion], found[name], budget) for budget in budgets)
        shown = "".join(f"{f'{c.difference:+.3f} (p {c.p:.2g})':>22}" for c in cells)
        lines.append(f"{champion} - {name}".ljust(width) + shown)
    return "\n".join(lines)


def _by_problem(curves: Curves, budget: int) -> np.ndarray:
    return np.array([runs[:, budget - 1].mean() for runs in curves.values()])


def _mean_and_interval(values: np.ndarray, keys: Sequence[str]) -> tuple[float, float, float]:
    """Of values by problem, kinds with equal weight; the bootstrap draws problems within each kind."""
    kinds = [key.partition("/")[0] for key in keys]
    groups = [values[[i for i, k in enumerate(kinds) if k == kind]] for kind in dict.fromkeys(kinds)]
    rng = np.random.default_rng(0)
    means = np.mean([g[rng.integers(len(g), size=(_RESAMPLES, len(g)))].mean(axis=1) for g in groups], axis=0)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(np.mean([g.mean() for g in groups])), float(low), float(high)


def _seeds(ours: Curves, theirs: Curves, key: str) -> int:
    return min(len(ours[key]), len(theirs[key]))
