"""How candidates of several sources are mixed: how many of each, and whose judgement counts how much when.

The defaults were chosen by measurement (docs/log.md). Each field switched off is an ablation of `make bench-tuning`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from offline_tune.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The mixture of one sampler.

    Attributes:
        opening: entries of the portfolio that are tried before anything else.
        drafts: K, candidates that the model writes in one pass; 0 for none.
        local: steps round the best trials.
        even: even draws.
        kept: how many steps and draws the Gaussian process lets through to the model.
        by_forecast: whether the model judges candidates by the outcome it foresees; else by their probability.
        classical: how much the Gaussian process counts once it exists, and from `settled` scored trials on, each 0
            to 1. Ranks between are blended.
        settled: scored trials from which the second figure of `classical` holds.
        unfamiliar: the same two figures for a space most of whose names the model does not know.

    Raises:
        UsageError: a negative number, a share outside [0, 1], or no source at all.
    """

    opening: int = 5
    drafts: int = 64
    local: int = 96
    even: int = 96
    kept: int = 24
    by_forecast: bool = True
    classical: tuple[float, float] = (0.3, 0.9)
    unfamiliar: tuple[float, float] = (0.6, 1.0)
    settled: int = 14

    def __post_init__(self) -> None:
        counts = (self.opening, self.drafts, self.local, self.even, self.kept, self.settled)
        shares = (*self.classical, *self.unfamiliar)
        if min(counts) < 0 or not all(0 <= share <= 1 for share in shares) or self.drafts + self.even < 1:
            raise UsageError(f"a recipe must have counts from 0 and shares from 0 to 1, got {self}; correct it")

    def share(self, n_scored: int, is_familiar: bool, least: int) -> float:
        """How much the Gaussian process counts after `n_scored` trials, given that it exists from `least` on."""
        if n_scored < least:
            return 0.0
        shares = self.classical if is_familiar else self.unfamiliar
        return float(np.interp(n_scored, [least, max(self.settled, least + 1)], shares))
