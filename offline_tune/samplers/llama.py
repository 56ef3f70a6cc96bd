"""The heart of the product: an Optuna sampler whose candidates a language model writes under a grammar.

One plan is one pass of the model: K drafts, none of them outside the space; those already tried are dropped; what is
left, with a few steps round the incumbent and a few even draws, is ranked (see `choice`) and the best n are proposed.
Everything derives from (seed, number of the first trial planned), so a plan can be made again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from offline_tune.errors import UsageError
from offline_tune.history import PROVENANCE, History, of_study
from offline_tune.samplers.choice import Contender, choose
from offline_tune.samplers.draft import Draft, Drafter
from offline_tune.samplers.neighbours import all_candidates, even_draws, even_value, local_steps
from offline_tune.samplers.proposal import Call, Proposal, Provenance, Source
from offline_tune.space import SearchSpace, Value, Values

_LOCAL, _EVEN = 32, 16
_FREE = 5  # one trial in so many may go to a step or a draw; the others are the model's while it has any left
# A model that does not know the names reads the history alone, and a short one it overrates.
_FREE_UNFAMILIAR, _FAMILIAR, _START = 2, 0.5, 5
_TRIES = 200
_LISTED = 4096  # candidates of a space that is small enough to find the last untried ones by listing it


class LlamaSampler(BaseSampler):
    """Proposes what the model wrote.

    Args:
        drafter: a model in its dialect on one space.
        seed: of every random stream, 0 or more.
        n_drafts: K, candidates written in one pass.
        model_sha256: for the provenance of trials.
        on_call: told of every pass of the model.
        may_call: asked before each pass; where it says no, candidates come from steps and draws alone.

    Raises:
        UsageError: a negative seed, or no drafts.
    """

    def __init__(
        self,
        drafter: Drafter,
        seed: int,
        *,
        n_drafts: int = 64,
        model_sha256: str = "",
        on_call: Callable[[Call], None] = lambda call: None,
        may_call: Callable[[], bool] = lambda: True,
    ) -> None:
        if seed < 0 or n_drafts < 1:
            raise UsageError(f"a seed must be 0 or more and drafts at least 1, got {seed} and {n_drafts}; raise them")
        self._drafter, self._seed, self._n_drafts = drafter, seed, n_drafts
        self._model_sha256, self._on_call, self._may_call = model_sha256, on_call, may_call
        self._planned: list[Proposal] = []

    @property
    def space(self) -> SearchSpace:
        """The space of every proposal."""
        return self._drafter.space

    def plan(self, history: History, n: int, first_trial: int) -> tuple[Proposal, ...]:
        """The next n candidates, distinct and untried as long as the space holds any.

        A pure function of its arguments and the seed, but for `on_call`.
        """
        rng = np.random.default_rng([self._seed, first_trial, 1])
        drafts, call = self._draft(history, first_trial)
        contenders = self._contenders(drafts, history, n, rng)
        is_familiar = self._drafter.familiarity >= _FAMILIAR
        if not is_familiar and len(history.scored) < _START:
            # Nothing is known by name or by history: even draws teach the most, as the classics begin, too.
            even = tuple(c for c in contenders if c.source is Source.RANDOM)
            contenders = even if len(even) >= n else contenders
        every = _FREE if is_familiar else _FREE_UNFAMILIAR
        free = (first_trial + n) // every - first_trial // every
        chosen = choose(contenders, history, n, self._seed + first_trial, least_from_model=n - free)
        stamp = Provenance(
            source=Source.MODEL,
            seed=self._seed,
            model_sha256=self._model_sha256,
            prompt_digest=call.prompt_digest if call else "",
            grammar_digest=self._drafter.grammar_digest,
            seconds=call.seconds if call else 0.0,
        )
        return tuple(_proposal(contender, stamp) for contender in chosen)

    def schedule(self, proposals: Sequence[Proposal]) -> None:
        """Hand out these to the next trials that are asked for."""
        self._planned = list(proposals)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The declared space, branches included."""
        return {p.name: p.distribution for p in self.space.parameters if not p.is_fixed}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The next planned candidate, or a plan of one."""
        if not self._planned:
            history = of_study(study, self.space)
            others = tuple(o for o in history.observations if o.number != trial.number)
            self._planned = list(self.plan(History(self.space, others), 1, trial.number))
        if not self._planned:
            return {}
        proposal = self._planned.pop(0)
        study._storage.set_trial_user_attr(trial._trial_id, PROVENANCE, proposal.provenance.to_json())
        return {name: value for name, value in proposal.values.items() if name in search_space}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """For parameters outside the declared space: an even draw."""
        return even_value(study, trial, param_name, param_distribution, self._seed)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Nothing: the history is the only state."""

    def _draft(self, history: History, first_trial: int) -> tuple[tuple[Draft, ...], Call | None]:
        if not self._may_call():
            return (), None
        drafts, call = self._drafter.draft(history, self._n_drafts, self._seed, first_trial)
        self._on_call(call)
        return drafts, call

    def _contenders(
        self, drafts: Sequence[Draft], history: History, n: int, rng: np.random.Generator
    ) -> tuple[Contender, ...]:
        found: dict[object, Contender] = {}

        def add(values: Values, source: Source, logprob: float | None = None) -> None:
            key = self.space.key(values)
            if key not in history.keys and key not in found:
                found[key] = Contender(values, source, logprob)

        for draft in drafts:
            self.space.check(draft.values)  # a grammar that let this through is a bug; it must not be trained
            add(draft.values, Source.MODEL, draft.logprob)
        for values in local_steps(history, _LOCAL, rng):
            add(values, Source.LOCAL)
        for values in even_draws(self.space, _EVEN, rng):
            add(values, Source.RANDOM)
        if len(found) < n:
            for values in self._further(rng):
                add(values, Source.RANDOM)
        return self._with_forecasts(tuple(found.values()), history)

    def _further(self, rng: np.random.Generator) -> list[dict[str, Value]]:
        if self.space.size > _LISTED:
            return even_draws(self.space, _TRIES, rng)
        listed = list(all_candidates(self.space))
        return [listed[place] for place in rng.permutation(len(listed))]

    def _with_forecasts(self, contenders: tuple[Contender, ...], history: History) -> tuple[Contender, ...]:
        forecasts = self._drafter.forecast(history, tuple(c.values for c in contenders)) if self._may_call() else None
        if forecasts is None:
            return contenders
        return tuple(replace(c, forecast=f) for c, f in zip(contenders, forecasts, strict=True))


def _proposal(contender: Contender, stamp: Provenance) -> Proposal:
    forecast = contender.forecast
    return Proposal(
        contender.values,
        replace(
            stamp,
            source=contender.source,
            logprob=contender.logprob,
            predicted=forecast.mean if forecast else None,
            improvement=forecast.improvement if forecast else None,
        ),
    )
