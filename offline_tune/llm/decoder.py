"""K texts under a grammar from one prompt: decode it once, fork it, draw, jump over what is forced, repeat.

One step is one forward pass for all unfinished texts. Any fault raises; text that a grammar did not accept is never
returned. Knows nothing of files, special tokens or how a grammar is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from offline_tune.errors import DecodingError
from offline_tune.llm.batch import Span
from offline_tune.llm.contract import Completion, Matcher, Sampling
from offline_tune.llm.engine import Engine, Logits
from offline_tune.llm.sampling import Draw, draw


def complete(
    engine: Engine,
    prompt: Sequence[int],
    matcher: Matcher,
    sampling: Sampling,
    seeds: Sequence[int],
    max_tokens: int,
) -> tuple[tuple[Completion, ...], int]:
    """Draw one text for each seed; see `LanguageModel.complete`.

    Seeds run in waves of as many forks as the cache holds at their longest. After an error the forks of `engine`
    are in no known state, and it must be cleared.

    Returns:
        The texts, and how many tokens were drawn for them.
    """
    root = _Branch(0, matcher.clone(), max_tokens, engine.vocabulary.end_ids)
    head = root.jump()
    at_once = forks_at_once(engine, len(prompt), max_tokens)
    logits = None if root.done else engine.hold(prompt, head)
    branches = [root.fork(i % at_once, seed) for i, seed in enumerate(seeds)]
    if logits is not None:
        for start in range(0, len(seeds), at_once):
            _run_wave(engine, branches[start : start + at_once], len(prompt), logits, sampling)
    return tuple(branch.completion(engine) for branch in branches), sum(len(branch.draws) for branch in branches)


def logits_after(engine: Engine, prompt: Sequence[int], continuations: Sequence[Sequence[int]]) -> Logits:
    """The logits after each continuation, shape (n, n_vocab); see `LanguageModel.logits_after`."""
    found = np.empty((len(continuations), engine.vocabulary.size), np.float32)
    if not continuations:
        return found
    at_once = forks_at_once(engine, len(prompt), max(map(len, continuations)))
    engine.hold_at_least(prompt)
    for start in range(0, len(continuations), at_once):
        wave = continuations[start : start + at_once]
        engine.fork(len(wave), len(prompt))
        spans = [Span(i, len(prompt), tokens) for i, tokens in enumerate(wave)]
        found[start : start + len(wave)] = engine.forward(spans)
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


@dataclass
class _Branch:
    """One text as it grows."""

    sequence: int
    matcher: Matcher
    max_tokens: int
    end_ids: frozenset[int]
    rng: np.random.Generator | None = None
    tokens: list[int] = field(default_factory=list)
    draws: list[Draw] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return self.matcher.finished

    def fork(self, sequence: int, seed: int) -> _Branch:
        rng = np.random.default_rng(seed)
        return _Branch(sequence, self.matcher.clone(), self.max_tokens, self.end_ids, rng, list(self.tokens))

    def jump(self) -> list[int]:
        """Take all forced tokens; returns them."""
        taken: list[int] = []
        while not self.done and (forced := self.matcher.forced()):
            self._take(forced)
            taken += forced
        return taken

    def step(self, logits: NDArray[np.float32], sampling: Sampling) -> list[int]:
        """Draw one token and take those that it decides; returns all of them."""
        assert self.rng is not None
        drawn = draw(logits, self.matcher.allowed(), sampling, self.rng)
        self.draws.append(drawn)
        self._take((drawn.token,))
        return [drawn.token, *self.jump()]

    def completion(self, engine: Engine) -> Completion:
        n = len(self.draws)
        return Completion(
            tokens=tuple(self.tokens),
            text=engine.vocabulary.spell(self.tokens),
            logprob=sum(d.logprob for d in self.draws),
            raw_logprob=sum(d.raw_logprob for d in self.draws),
            rejected_mass=sum(d.rejected for d in self.draws) / n if n else 0.0,
        )

    def _take(self, tokens: Sequence[int]) -> None:
        self.matcher.advance(tokens)
        ended = self.done and tokens[-1] in self.end_ids
        self.tokens += tokens[:-1] if ended else tokens
        if len(self.tokens) > self.max_tokens:
            raise DecodingError(
                f"an output must have at most max_tokens = {self.max_tokens} tokens, got {len(self.tokens)} and "
                "no end; raise max_tokens to the longest text of the grammar"
            )


def _run_wave(
    engine: Engine, branches: Sequence[_Branch], n_prompt: int, root: NDArray[np.float32], sampling: Sampling
) -> None:
    """Grow all branches to their ends."""
    engine.fork(len(branches), n_prompt + len(branches[0].tokens))
    pending: list[tuple[_Branch, NDArray[np.float32]]] = [(branch, root) for branch in branches]
    while pending:
        grown = [(branch, branch.step(logits, sampling)) for branch, logits in pending]
        engine.release(branch.sequence for branch, _ in grown if branch.done)
        going = [(branch, new) for branch, new in grown if not branch.done]
        spans = [_span(branch, new, n_prompt) for branch, new in going]
        pending = list(zip((b for b, _ in going), engine.forward(spans) if spans else (), strict=True))


def _span(branch: _Branch, new: Sequence[int], n_prompt: int) -> Span:
    return Span(branch.sequence, n_prompt + len(branch.tokens) - len(new), new)
