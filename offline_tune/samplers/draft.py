"""Drafts: what a language model answers before anything is chosen. One drafter for each dialect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from offline_tune.history import History
from offline_tune.samplers.proposal import Call
from offline_tune.space import SearchSpace, Values


@dataclass(frozen=True, slots=True)
class Draft:
    """A candidate that the model wrote, with its log-probability under the grammar."""

    values: Values
    logprob: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """How a candidate will turn out, on the history's scale (see `prompt.outcome`)."""

    mean: float
    improvement: float


class Drafter(Protocol):
    """Asks one model in one dialect about one space."""

    @property
    def space(self) -> SearchSpace:
        """The space of every draft."""
        ...

    @property
    def grammar_digest(self) -> str:
        """Names the language that the drafts are held to."""
        ...

    @property
    def familiarity(self) -> float:
        """The share of the free parameters whose names mean something to the model, 0 to 1."""
        ...

    def draft(self, history: History, k: int, seed: int, first_trial: int) -> tuple[tuple[Draft, ...], Call]:
        """K candidates after one prompt, in one pass."""
        ...

    def forecast(self, history: History, candidates: tuple[Values, ...]) -> tuple[Forecast, ...] | None:
        """The model's prediction for each candidate; None where the dialect has none or the history is too short."""
        ...


def call_seeds(seed: int, first_trial: int, k: int) -> list[int]:
    """A seed for each completion of a call, from nothing but the run's seed and the trial number."""
    state = np.random.SeedSequence([seed, first_trial]).generate_state(k)
    return [int(value) for value in state]
