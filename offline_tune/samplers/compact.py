"""Drafts and forecasts of the shipped model, in the compact dialect."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from offline_tune.errors import DecodingError, ModelError
from offline_tune.history import History
from offline_tune.llm.contract import Completion, LanguageModel, Sampling
from offline_tune.llm.matcher import AutomatonMatcher, TokenAutomaton
from offline_tune.prompt.compact import ROOT, CompactDialect, levels_of
from offline_tune.prompt.outcome import CENTRES, expected_improvement
from offline_tune.prompt.vocabulary import N_OUTCOMES, VOCABULARY
from offline_tune.samplers.draft import Draft, Forecast, call_seeds
from offline_tune.samplers.proposal import Answer, Call
from offline_tune.space import Parameter, SearchSpace, Value, Values

_LEAST_SCORES = 2  # below this no outcome has a scale
_PROMPT_TOKENS = 1600
_FAVOURED = 3  # families that half of the drafts are held to


class CompactDrafter:
    """Asks the shipped model.

    Raises:
        SpaceError: the space has more unnamed parameters or choices than the dialect can tell apart.
        DecodingError: the model's context cannot hold the space.
        ModelError: the model has another vocabulary.
    """

    def __init__(self, model: LanguageModel, space: SearchSpace, sampling: Sampling) -> None:
        if tuple(model.vocabulary) != VOCABULARY.pieces:
            raise ModelError(
                f"a model of the compact dialect must have its {len(VOCABULARY)} tokens, got {len(model.vocabulary)} "
                f"others in {model.info.path.name}; use the shipped model or train one"
            )
        self._model, self._sampling = model, sampling
        self._dialect = CompactDialect(space)
        self._automaton = candidate_automaton(self._dialect)
        self._held: dict[Value, TokenAutomaton] = {}
        header, longest = len(self._dialect.header), self._automaton.longest
        self._limit = min(_PROMPT_TOKENS, model.n_ctx - longest - 2)
        if self._limit < header + longest:
            raise DecodingError(
                f"the context must hold the space and a candidate, {header + 2 * longest + 2} tokens, "
                f"got {model.n_ctx}; use fewer parameters or a model with a longer context"
            )

    @property
    def space(self) -> SearchSpace:
        """The space of every draft."""
        return self._dialect.space

    @cached_property
    def grammar_digest(self) -> str:
        """Names the automaton: equal digests mean equal languages."""
        return hashlib.sha256(repr(self._automaton).encode()).hexdigest()[:16]

    @property
    def familiarity(self) -> float:
        """The share of the free parameters that the vocabulary knows by name."""
        return self._dialect.familiarity

    def draft(self, history: History, k: int, seed: int, first_trial: int) -> tuple[tuple[Draft, ...], Call]:
        """K candidates after one prompt; a level becomes a random value of its bin.

        Where the space is rooted in families, half of the drafts are free, and the other half is held to the families
        that have done best so far: a choice that is made before anything else must not starve what follows it.
        """
        prompt = [*self._dialect.prompt_tokens(history, self._limit), VOCABULARY.ids["<propose>"]]
        before = self._model.counters
        seeds = call_seeds(seed, first_trial, k)
        completions: list[Completion] = []
        for automaton, share in self._portions(history, k):
            wanted = seeds[len(completions) : len(completions) + share]
            completions += self._model.complete(
                prompt, AutomatonMatcher(automaton), len(wanted), self._sampling, wanted, max(automaton.longest, 1)
            )
        after = self._model.counters
        drafts = tuple(
            Draft(self._dialect.read_candidate(c.tokens, np.random.default_rng(s)), c.logprob)
            for c, s in zip(completions, seeds, strict=True)
        )
        answers = tuple(
            Answer(text=_spell(c.tokens), logprob=c.logprob, rejected_mass=c.rejected_mass) for c in completions
        )
        call = Call(
            first_trial=first_trial,
            prompt=_spell(prompt),
            grammar_digest=self.grammar_digest,
            answers=answers,
            tokens_in=len(prompt),
            tokens_out=after.tokens_sampled - before.tokens_sampled,
            seconds=after.seconds - before.seconds,
        )
        return drafts, call

    def _portions(self, history: History, k: int) -> list[tuple[TokenAutomaton, int]]:
        """Which grammar holds how many of the k drafts."""
        best = best_families(history)[:_FAVOURED]
        if not best:
            return [(self._automaton, k)]
        each = k // 2 // len(best)
        held = [(self._held_to(family), each) for family in best] if each else []
        return [(self._automaton, k - each * len(held)), *held]

    def _held_to(self, family: Value) -> TokenAutomaton:
        if family not in self._held:
            self._held[family] = candidate_automaton(self._dialect, family)
        return self._held[family]

    def forecast(self, history: History, candidates: tuple[Values, ...]) -> tuple[Forecast, ...] | None:
        """The outcome distribution that the model gives each candidate, summed up; None below two scores."""
        if len(history.scored) < _LEAST_SCORES or not candidates:
            return None
        prompt = self._dialect.prompt_tokens(history, self._limit)
        queries = [self._dialect.query_tokens(values) for values in candidates]
        outcomes = slice(VOCABULARY.first_outcome, VOCABULARY.first_outcome + N_OUTCOMES)
        logits = self._model.logits_after(prompt, queries, outcomes).astype(np.float64)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = weights / weights.sum(axis=1, keepdims=True)
        improvements = expected_improvement(probabilities)
        return tuple(
            Forecast(mean=float(mean), improvement=float(gain))
            for mean, gain in zip(probabilities @ CENTRES, improvements, strict=True)
        )


def best_families(history: History) -> list[Value]:
    """The families tried with success, best first; none where the space has no choice of family."""
    root = history.space.by_name.get(ROOT)
    if root is None or root.is_fixed or not root.is_categorical or root.when is not None:
        return []
    return list(dict.fromkeys(o.values[ROOT] for o in history.ranked))


def candidate_automaton(dialect: CompactDialect, family: Value = None) -> TokenAutomaton:
    """The token grammar of (name value)* over a space: exactly its candidates, level by level.

    Args:
        dialect: of the space.
        family: the only family allowed; None for all.

    A space whose parameters are all fixed gives the automaton of the empty text.
    """
    states: list[dict[int, int]] = [{}]  # built from the end; turned round at last

    def chain(parameters: Sequence[Parameter], end: int) -> int:
        for parameter in reversed(parameters):
            end = member(parameter, end)
        return end

    def member(parameter: Parameter, end: int) -> int:
        if parameter.is_fixed:
            hanging = (
                next(branch for _, branch in dialect.space.branches(parameter.name)) if parameter.is_categorical else ()
            )
            return chain(hanging, end)
        if parameter.is_categorical:
            follow = [chain(hanging, end) for _, hanging in dialect.space.branches(parameter.name)]
        else:
            follow = [end] * len(levels_of(parameter))
        place = dialect.places[parameter.name]
        tokens = [VOCABULARY.value(place, level) for level in levels_of(parameter)]
        ways = dict(zip(tokens, follow, strict=True))
        if parameter.name == ROOT and parameter.is_categorical and family is not None:
            only = tokens[parameter.lattice.index(family)]
            ways = {only: ways[only]}
        states.append(ways)
        states.append({VOCABULARY.name(place): len(states) - 1})
        return len(states) - 1

    chain([p for p in dialect.space.parameters if p.when is None], 0)
    last = len(states) - 1
    return TokenAutomaton(tuple({token: last - state for token, state in ways.items()} for ways in reversed(states)))


def _spell(tokens: Sequence[int]) -> str:
    return " ".join(VOCABULARY.pieces[token] for token in tokens)
