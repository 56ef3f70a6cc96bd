"""The heart of the product: an Optuna sampler whose candidates a language model writes under a grammar.

A study opens with configurations that did well elsewhere (see `portfolio`). Then one plan is one pass of the model: K
drafts, none of them outside the space; those already tried are dropped; what is left, with the most promising of many
steps round the incumbent, even draws and portfolio entries, is ranked (see `choice`) and the best n are proposed.
Everything derives from (seed, number of the first trial planned), so a plan can be made again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from offline_tune.errors import UsageError
from offline_tune.history import PROVENANCE, History, Observation, of_study
from offline_tune.samplers.choice import Contender, choose, most_promising
from offline_tune.samplers.draft import Draft, Drafter
from offline_tune.samplers.neighbours import all_candidates, even_draws, even_value, local_steps
from offline_tune.samplers.portfolio import Placed
from offline_tune.samplers.proposal import Call, Proposal, Provenance, Source
from offline_tune.samplers.recipe import Recipe
from offline_tune.samplers.surrogate import LEAST, Surrogate
from offline_tune.samplers.transfer import next_entries
from offline_tune.space import SearchSpace

# A model that does not know the names reads the history alone, and a short one it overrates.
_FAMILIAR, _START = 0.5, 5
_TRIES = 200
_LISTED = 4096  # candidates of a space that is small enough to find the last untried ones by listing it


class LlamaSampler(BaseSampler):
    """Proposes what the model wrote, and what it thinks of others' candidates.

    Args:
        drafter: a model in its dialect on one space.
        seed: of every random stream, 0 or more.
        recipe: how sources are mixed.
        portfolio: configurations that did well elsewhere, placed in the space.
        model_sha256: for the provenance of trials.
        on_call: told of every pass of the model.
        may_call: asked before each pass; where it says no, candidates come from the other sources alone.

    Raises:
        UsageError: a negative seed.
    """

    def __init__(
        self,
        drafter: Drafter,
        seed: int,
        *,
        recipe: Recipe | None = None,
        portfolio: Placed | None = None,
        model_sha256: str = "",
        on_call: Callable[[Call], None] = lambda call: None,
        may_call: Callable[[], bool] = lambda: True,
    ) -> None:
        if seed < 0:
            raise UsageError(f"a seed must be 0 or more, got {seed}; raise it")
        self._drafter, self._seed, self._recipe = drafter, seed, recipe or Recipe()
        self._portfolio = portfolio or Placed()
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
        opening = self._opening(history, n)
        if len(opening) == n:
            return tuple(_proposal(contender, self._stamp(None)) for contender in opening)
        history = history.extended(
            [Observation(first_trial + place, c.values, pending=True) for place, c in enumerate(opening)]
        )
        further, call = self._further_plan(history, n - len(opening), first_trial + len(opening))
        stamp = self._stamp(call)
        return tuple(_proposal(contender, stamp) for contender in (*opening, *further))

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

    def _opening(self, history: History, n: int) -> list[Contender]:
        """The portfolio's part of the next n trials: its entries are tried first, see `transfer`."""
        entries = self._portfolio.entries
        if not entries or not self._recipe.opening:
            return []
        places = {self.space.key(values): place for place, values in enumerate(entries)}
        tried: dict[int, float | None] = {}
        for observation in history.observations:
            if (place := places.get(self.space.key(observation.values))) is not None:
                tried[place] = -math.inf if observation.failed else observation.score
        wanted = min(n, self._recipe.opening - len(tried))
        chosen = next_entries(self._portfolio.regrets, tried, max(wanted, 0))
        return [Contender(entries[place], Source.PORTFOLIO) for place in chosen]

    def _further_plan(self, history: History, n: int, first_trial: int) -> tuple[tuple[Contender, ...], Call | None]:
        rng = np.random.default_rng([self._seed, first_trial, 1])
        is_familiar = self._drafter.familiarity >= _FAMILIAR
        if not is_familiar and len(history.scored) < _START:
            # Nothing is known by name or by history: even draws teach the most, as the classics begin, too.
            return tuple(self._untried(history, n, rng)), None
        surrogate = Surrogate(history) if len(history.scored) >= LEAST else None
        drafts, call = self._draft(history, first_trial)
        contenders = self._contenders(drafts, history, n, rng, surrogate)
        share = self._recipe.share(len(history.scored), is_familiar, LEAST)
        return choose(contenders, history, n, surrogate, share), call

    def _draft(self, history: History, first_trial: int) -> tuple[tuple[Draft, ...], Call | None]:
        if not self._recipe.drafts or not self._may_call():
            return (), None
        drafts, call = self._drafter.draft(history, self._recipe.drafts, self._seed, first_trial)
        self._on_call(call)
        return drafts, call

    def _contenders(
        self,
        drafts: Sequence[Draft],
        history: History,
        n: int,
        rng: np.random.Generator,
        surrogate: Surrogate | None,
    ) -> tuple[Contender, ...]:
        for draft in drafts:
            self.space.check(draft.values)  # a grammar that let this through is a bug; it must not be trained
        recipe = self._recipe
        written = [Contender(d.values, Source.MODEL, d.logprob) for d in drafts]
        others = [Contender(values, Source.PORTFOLIO) for values in self._portfolio.entries]
        others += [Contender(values, Source.LOCAL) for values in local_steps(history, recipe.local, rng)]
        others += [Contender(values, Source.RANDOM) for values in even_draws(self.space, recipe.even, rng)]
        found = self._distinct([*written, *others], history)
        drafted = [c for c in found if c.source is Source.MODEL]
        rest = found[len(drafted) :]
        if surrogate is None:
            rest = rest[:: max(1, len(others) // max(recipe.kept, 1))]
        else:
            rest = most_promising(rest, recipe.kept, surrogate, history)
        found = drafted + rest
        if len(found) < n:
            found = self._distinct([*found, *self._untried(history, n, rng)], history)
        return self._with_forecasts(tuple(found), history)

    def _distinct(self, contenders: Sequence[Contender], history: History) -> list[Contender]:
        """Those never tried, each once."""
        found: dict[object, Contender] = {}
        for contender in contenders:
            key = self.space.key(contender.values)
            if key not in history.keys:
                found.setdefault(key, contender)
        return list(found.values())

    def _untried(self, history: History, n: int, rng: np.random.Generator) -> list[Contender]:
        """N even draws that were never tried; fewer where the space has no more."""
        if self.space.size <= _LISTED:
            listed = list(all_candidates(self.space))
            draws = [listed[place] for place in rng.permutation(len(listed))]
        else:
            draws = even_draws(self.space, n + _TRIES, rng)
        return self._distinct([Contender(values, Source.RANDOM) for values in draws], history)[:n]

    def _stamp(self, call: Call | None) -> Provenance:
        return Provenance(
            source=Source.MODEL,
            seed=self._seed,
            model_sha256=self._model_sha256,
            prompt_digest=call.prompt_digest if call else "",
            grammar_digest=self._drafter.grammar_digest,
            seconds=call.seconds if call else 0.0,
        )

    def _with_forecasts(self, contenders: tuple[Contender, ...], history: History) -> tuple[Contender, ...]:
        asks = self._recipe.by_forecast and self._may_call()
        forecasts = self._drafter.forecast(history, tuple(c.values for c in contenders)) if asks else None
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
