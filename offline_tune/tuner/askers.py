"""How the loop gets its candidates: from the language model in one pass a batch, or from a classic one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import optuna

from offline_tune.history import History
from offline_tune.samplers.classic import NAMES, LatticeSampler, classic_sampler
from offline_tune.samplers.llama import LlamaSampler
from offline_tune.samplers.proposal import Proposal, Provenance
from offline_tune.space import SearchSpace


class Asker(Protocol):
    """Prepares a study's sampler, trial by trial."""

    @property
    def label(self) -> Provenance:
        """What to note of a trial whose sampler says nothing of itself."""
        ...

    @property
    def most(self) -> int | None:
        """How many candidates it has before it repeats itself; None where nobody counts."""
        ...

    def plan(self, history: History, first_trial: int, n: int) -> None:
        """Think about the n trials from `first_trial` on, knowing this history."""
        ...

    def prepare(self, study: optuna.Study, trial_number: int) -> None:
        """Set the study's sampler for one trial."""
        ...


class LlamaAsker:
    """One pass of the model for each batch."""

    def __init__(self, sampler: LlamaSampler, label: Provenance) -> None:
        self._sampler, self.label = sampler, label
        self._first, self._proposals = 0, tuple[Proposal, ...]()

    @property
    def most(self) -> int:
        """All candidates of the space: each is proposed once."""
        return self._sampler.space.size

    def plan(self, history: History, first_trial: int, n: int) -> None:
        """Decode and rank the batch."""
        self._first, self._proposals = first_trial, self._sampler.plan(history, n, first_trial)

    def prepare(self, study: optuna.Study, trial_number: int) -> None:
        """Hand the trial's own proposal to the sampler; a default that was enqueued has none."""
        place = trial_number - self._first
        planned: Sequence[Proposal] = self._proposals[place : place + 1] if place >= 0 else ()
        self._sampler.schedule(planned)
        study.sampler = self._sampler


class ClassicAsker:
    """A fresh sampler for each trial."""

    def __init__(self, name: str, space: SearchSpace, seed: int) -> None:
        self._name, self._space, self._seed = name, space, seed
        self.label = Provenance(source=NAMES[name], seed=seed)
        self.most = LatticeSampler(space, seed).size if name == "grid" else None

    def plan(self, history: History, first_trial: int, n: int) -> None:
        """Nothing: these samplers read the study."""

    def prepare(self, study: optuna.Study, trial_number: int) -> None:
        """Make the sampler of this trial."""
        study.sampler = classic_sampler(self._name, self._space, self._seed, trial_number)
