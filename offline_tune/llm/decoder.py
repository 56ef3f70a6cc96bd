"""K texts under a grammar from one prompt: decode it once, fork it, draw, jump over what is forced, repeat.

One step is one forward pass for all texts that grow at the moment; where one ends, the next begins in its place. Any
fault raises; text that a grammar did not accept is never returned. Knows nothing of files, special tokens or how a
grammar is written.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from offline_tune.errors import DecodingError
from offline_tune.llm.batch import Span
from offline_tune.llm.contract import ALL, Completion, Matcher, Sampling
from offline_tune.llm.engine import Engine, Logits
from offline_tune.llm.mask import Groups
from offline_tune.llm.sampling import Draw, Totals, draw


def complete(
    engine: Engine,
    prompt: Sequence[int],
    matcher: Matcher,
    sampling: Sampling,
    seeds: Sequence[int],
    max_tokens: int,
) -> tuple[tuple[Completion, ...], int]:
    """Draw one text for each seed; see `LanguageModel.complete`.

    After an error the forks of `engine` are in no known state, and it must be cleared.

    Returns:
        The texts, and how many tokens were drawn for them.
    """
    root = _Branch(matcher.clone(), max_tokens, engine.vocabulary.end_ids)
    root.jump()
    at_once = forks_at_once(engine, len(prompt), max_tokens)
    branches = [root.fork(seed) for seed in seeds]
    if not root.done:
        logits = engine.hold(prompt, root.tokens)
        pencil = _Pencil(engine.vocabulary.size, sampling)
        pencil.draw(branches, logits[None], np.zeros(len(branches), np.intp))
        _grow(engine, branches, pencil, len(prompt), len(root.tokens), at_once)
    return tuple(branch.completion(engine) for branch in branches), sum(len(branch.draws) for branch in branches)


def logits_after(
    engine: Engine, prompt: Sequence[int], continuations: Sequence[Sequence[int]], columns: slice = ALL
) -> Logits:
    """The logits after each continuation, shape (n, tokens in columns); see `LanguageModel.logits_after`."""
    width = len(range(engine.vocabulary.size)[columns])
    found = np.empty((len(continuations), width), np.float32)
    if not continuations:
        return found
    at_once = forks_at_once(engine, len(prompt), max(map(len, continuations)))
    engine.hold_at_least(prompt)
    for start in range(0, len(continuations), at_once):
        wave = continuations[start : start + at_once]
        engine.fork(range(len(wave)), len(prompt))
        spans = [Span(i, len(prompt), tokens) for i, tokens in enumerate(wave)]
        found[start : start + len(wave)] = engine.forward(spans)[:, columns]
        engine.release(range(len(wave)))
    if not np.isfinite(found).all():
        raise DecodingError(
            "the model must give numbers as logits, got some that are NaN or infinite; "
            "its weights are damaged: restore the file or choose another model"
        )
    return found


def forks_at_once(engine: Engine, n_prompt: int, n_longest: int) -> int:
    """How many forks of `n_longest` tokens the cache holds beside a prompt of `n_prompt`, 1 to k_max.

    Raises:
        DecodingError: not one.
    """
    free = engine.n_cells - n_prompt
    if free < n_longest:
        raise DecodingError(
            f"prompt and longest output must fit {engine.n_cells} tokens, got {n_prompt} + {n_longest}; "
            "shorten the prompt, or load the model with a larger n_ctx"
        )
    return max(1, min(engine.k_max, free // n_longest))


@dataclass(slots=True)
class _Branch:
    """One text as it grows.

    Attributes:
        new: its last tokens, which the network has not seen.
        done: whether it is complete.
        sequence: the fork that it grows in.
    """

    matcher: Matcher
    max_tokens: int
    end_ids: frozenset[int]
    rng: np.random.Generator = field(default_factory=np.random.default_rng)
    tokens: list[int] = field(default_factory=list)
    draws: list[Draw] = field(default_factory=list)
    new: list[int] = field(default_factory=list)
    done: bool = False
    sequence: int = -1

    def fork(self, seed: int) -> _Branch:
        rng = np.random.default_rng(seed)
        return _Branch(self.matcher.clone(), self.max_tokens, self.end_ids, rng, list(self.tokens), done=self.done)

    def jump(self) -> None:
        """Take what is forced."""
        self.done = self.matcher.finished
        if not self.done and (forced := self.matcher.forced()):
            self._take(forced)

    def follow(self, drawn: Draw) -> None:
        """Take a drawn token and those that it decides."""
        self.draws.append(drawn)
        self.new = []
        self._take((drawn.token,))
        if not self.done and (forced := self.matcher.forced()):
            self._take(forced)

    def completion(self, engine: Engine) -> Completion:
        n = len(self.draws)
        decisions = tuple(d.logprob for d in self.draws)
        return Completion(
            tokens=tuple(self.tokens),
            text=engine.vocabulary.spell(self.tokens),
            logprob=sum(decisions),
            raw_logprob=sum(d.raw_logprob for d in self.draws),
            rejected_mass=sum(d.rejected for d in self.draws) / n if n else 0.0,
            decisions=decisions,
        )

    def _take(self, tokens: Sequence[int]) -> None:
        self.matcher.advance(tokens)
        self.done = self.matcher.finished
        taken = tokens[:-1] if self.done and tokens[-1] in self.end_ids else tokens
        self.tokens += taken
        self.new += taken
        if len(self.tokens) > self.max_tokens:
            raise DecodingError(
                f"an output must have at most max_tokens = {self.max_tokens} tokens, got {len(self.tokens)} and "
                "no end; raise max_tokens to the longest text of the grammar"
            )


class _Pencil:
    """Writes the next token of many branches at once."""

    def __init__(self, n_vocab: int, sampling: Sampling) -> None:
        self._sampling = sampling
        self._groups, self._totals = Groups(n_vocab), Totals(n_vocab)

    def draw(self, branches: Sequence[_Branch], logits: Logits, rows: NDArray[np.intp]) -> None:
        """Draw a token for each branch from its row of `logits`, and follow it."""
        totals = self._totals.of(logits)
        for allowed, places in self._groups.of([branch.matcher for branch in branches]):
            rngs = [branches[place].rng for place in places]
            drawn = draw(logits, totals, rows[places], allowed, self._sampling, rngs)
            for place, one in zip(places, drawn, strict=True):
                branches[place].follow(one)


def _grow(
    engine: Engine, branches: Sequence[_Branch], pencil: _Pencil, n_prompt: int, n_head: int, at_once: int
) -> None:
    """Grow all branches to their ends, in the order given, `at_once` at a time."""
    waiting = deque(branch for branch in branches if not branch.done)
    idle = list(reversed(range(min(at_once, len(waiting)))))
    growing: list[_Branch] = []
    while waiting or growing:
        while idle and waiting:
            growing.append(waiting.popleft())
            growing[-1].sequence = idle.pop()
            engine.fork((growing[-1].sequence,), n_prompt + n_head)
        logits = engine.forward([_span(branch, n_prompt) for branch in growing])
        pencil.draw(growing, logits, np.arange(len(growing)))
        ended = [branch.sequence for branch in growing if branch.done]
        growing = [branch for branch in growing if not branch.done]
        engine.release(ended)
        idle += ended


def _span(branch: _Branch, n_prompt: int) -> Span:
    return Span(branch.sequence, n_prompt + len(branch.tokens) - len(branch.new), branch.new)
