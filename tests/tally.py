"""Counts how many of a model's candidates are what the grammar promises: JSON, in the space, within its bounds."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from offline_tune.errors import SpaceError
from offline_tune.grammar import Grammar, compile_grammar
from offline_tune.history import History, Observation
from offline_tune.llm.contract import Completion, LanguageModel, Sampling
from offline_tune.prompt.compact import CompactDialect
from offline_tune.samplers.compact import CompactDrafter, candidate_automaton
from offline_tune.space import SearchSpace, Value

HOT = Sampling(temperature=2.0)


@dataclass(frozen=True)
class Tally:
    """What became of some candidates.

    Attributes:
        parsed: are JSON objects without repeated names.
        in_space: lie in the space, by its own check of the parsed values.
        bounded: are within the grammar's bounds, in characters, UTF-8 bytes and tokens.
        fullest: the greatest share of a bound that one took.
        seconds: spent drawing.
    """

    candidates: int = 0
    parsed: int = 0
    in_space: int = 0
    bounded: int = 0
    fullest: float = 0.0
    tokens: int = 0
    seconds: float = 0.0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            candidates=self.candidates + other.candidates,
            parsed=self.parsed + other.parsed,
            in_space=self.in_space + other.in_space,
            bounded=self.bounded + other.bounded,
            fullest=max(self.fullest, other.fullest),
            tokens=self.tokens + other.tokens,
            seconds=self.seconds + other.seconds,
        )

    @property
    def is_clean(self) -> bool:
        """Whether every candidate is all that was promised."""
        return self.candidates == self.parsed == self.in_space == self.bounded > 0


def tally(
    model: LanguageModel, space: SearchSpace, seeds: Sequence[int], sampling: Sampling = HOT, prompt: Sequence[int] = ()
) -> Tally:
    """Draw one candidate for each seed, all in one call, and judge them."""
    grammar = compile_grammar(space)
    asked = prompt or [*model.prompt_start, *model.tokenize("Propose a candidate:", special=False)]
    began = time.perf_counter()
    matcher = model.matcher(grammar.regex)
    found = model.complete(asked, matcher, len(seeds), sampling, seeds, grammar.longest.utf8)
    return judge(grammar, found, time.perf_counter() - began)


def tally_compact(model: LanguageModel, space: SearchSpace, seeds: Sequence[int], sampling: Sampling = HOT) -> Tally:
    """The same for a model of the compact dialect, after a short history; empty where the dialect has no room."""
    try:
        drafter = CompactDrafter(model, space, sampling)
    except SpaceError:
        return Tally()
    rng, n = np.random.default_rng(seeds[0]), 5
    history = History(space, tuple(Observation(i, space.sample(rng), float(rng.normal())) for i in range(n)))
    began = time.perf_counter()
    drafts, call = drafter.draft(history, len(seeds), seeds[0], n)
    seconds = time.perf_counter() - began
    longest = max(candidate_automaton(CompactDialect(space)).longest, 1)
    lengths = [answer.text.count("<") for answer in call.answers]  # each token is spelt in angle brackets
    return Tally(
        candidates=len(drafts),
        parsed=len(drafts),  # the drafter reads each or raises
        in_space=sum(space.contains(draft.values) for draft in drafts),
        bounded=sum(length <= longest for length in lengths),
        fullest=max(lengths) / longest,
        tokens=sum(lengths),
        seconds=seconds,
    )


def judge(grammar: Grammar, found: Sequence[Completion], seconds: float = 0.0) -> Tally:
    """What became of these completions; knows JSON and the space, and nothing of the regular expression."""
    values = [parsed(c.text) for c in found]
    shares = [fullness(grammar, c) for c in found]
    return Tally(
        candidates=len(found),
        parsed=sum(v is not None for v in values),
        in_space=sum(v is not None and grammar.space.contains(v) for v in values),
        bounded=sum(share <= 1 for share in shares),
        fullest=max(shares, default=0.0),
        tokens=sum(len(c.tokens) for c in found),
        seconds=seconds,
    )


def parsed(text: str) -> dict[str, Value] | None:
    """The object that a text is; None where it is none, or says a name twice."""
    try:
        pairs = json.loads(text, object_pairs_hook=list)
    except ValueError:
        return None
    return dict(pairs) if text.startswith("{") and len(dict(pairs)) == len(pairs) else None


def fullness(grammar: Grammar, completion: Completion) -> float:
    """The greatest share of a bound that a candidate takes; above 1 it is too long."""
    text, longest = completion.text, grammar.longest
    return max(len(text) / longest.characters, len(text.encode()) / longest.utf8, len(completion.tokens) / longest.utf8)
