"""What the grammar costs and what it saves: masks, a new schema, and the jump over forced tokens."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from benchmarks.measures.table import Row, interleaved, ratios
from benchmarks.measures.workload import grammar, prompt_tokens, ten_parameters
from offline_tune.grammar import compile_grammar
from offline_tune.llm.contract import LanguageModel, Matcher, Sampling
from offline_tune.llm.mask import Mask, n_words, tokens_of


class StepByStep:
    """A matcher that keeps quiet about forced tokens: each is allowed alone, one step after another."""

    def __init__(self, inner: Matcher) -> None:
        self._inner = inner

    @property
    def finished(self) -> bool:
        """As the matcher within."""
        return self._inner.finished

    def mask_into(self, row: Mask) -> None:
        """The next forced token alone, so that the text stays the same to the token; else the matcher's mask."""
        decided = self._inner.forced()
        if not decided:
            self._inner.mask_into(row)
            return
        row[:] = 0
        row[decided[0] // 32] = 1 << decided[0] % 32

    def forced(self) -> tuple[int, ...]:
        """Nothing."""
        return ()

    def advance(self, tokens: Sequence[int]) -> None:
        """As the matcher within."""
        self._inner.advance(tokens)

    def clone(self) -> StepByStep:
        """As the matcher within."""
        return StepByStep(self._inner.clone())


def jump(name: str, model: LanguageModel, text: str, repeats: int) -> Row:
    """One candidate after a cached prompt, forced tokens jumped over or evaluated one by one."""
    spoken, prompt = grammar(), prompt_tokens(model, text)
    matcher = model.matcher(spoken.regex)
    return jump_of(name, model, prompt, matcher, spoken.longest.utf8, repeats)


def jump_of(name: str, model: LanguageModel, prompt: list[int], matcher: Matcher, most: int, repeats: int) -> Row:
    """The same for any matcher."""
    found = {}

    def draw(way: Matcher, label: str) -> None:
        (found[label],) = model.complete(prompt, way, 1, Sampling(), (1,), most)

    draw(StepByStep(matcher), "steps")
    before = model.counters.tokens_sampled
    draw(matcher, "jump")
    drawn = model.counters.tokens_sampled - before
    if found["steps"].tokens != found["jump"].tokens:
        raise RuntimeError("both ways must write the same text, got two; the comparison would be of unlike things")
    times = interleaved(
        {"steps": lambda: draw(StepByStep(matcher), "steps"), "jump": lambda: draw(matcher, "jump")}, repeats
    )
    n = len(found["jump"].tokens)
    note = f"{n} tokens, {n - drawn} of them forced, prompt cached"
    return Row("jump-forward alone", name, 1, ratios(times["steps"], times["jump"]), "x", 1.8, note=note)


def schema_switch(name: str, model: LanguageModel, repeats: int, target: float | None) -> list[Row]:
    """From a new space to its first mask, processor milliseconds."""
    compiled, masked = [], []
    row = np.empty(n_words(model.info.n_vocab), np.uint32)
    model.matcher(grammar().regex)  # the tokenizer is built once for each model
    for variant in range(1, repeats + 1):
        space = ten_parameters(variant)
        began = time.process_time()
        spoken = compile_grammar(space)
        between = time.process_time()
        model.matcher(spoken.regex).mask_into(row)
        masked.append((time.process_time() - between) * 1e3)
        compiled.append((between - began) * 1e3)
    total = [a + b for a, b in zip(compiled, masked, strict=True)]
    note = f"regular expression {np.median(compiled):.2g} ms, compile and first mask {np.median(masked):.2g} ms"
    return [Row("schema switch", name, None, total, " ms", at_most=target, note=note)]


def masks(name: str, model: LanguageModel, texts: int, repeats: int) -> list[Row]:
    """One mask at every step of evenly drawn texts, processor microseconds; and with the ids read from it."""
    matcher, row = model.matcher(grammar().regex), np.empty(n_words(model.info.n_vocab), np.uint32)
    _walk(matcher, row, np.random.default_rng(0))  # the engine builds its states as it meets them
    rounds = [
        np.array([t for i in range(texts) for t in _walk(matcher, row, np.random.default_rng([r, i]))])
        for r in range(repeats)
    ]
    note = f"{sum(map(len, rounds))} masks"

    def percentile(p: int, times: list[np.ndarray]) -> list[float]:
        return [float(np.percentile(t, p)) for t in times]

    alone, read = [r[:, 0] for r in rounds], [r.sum(axis=1) for r in rounds]
    return [
        Row("mask p50", name, None, percentile(50, alone), " us", note=note),
        Row("mask p99", name, None, percentile(99, alone), " us", at_most=100, note=note),
        Row("  with its tokens' ids, p99", name, None, percentile(99, read), " us"),
    ]


def _walk(matcher: Matcher, row: Mask, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Draw one text evenly; microseconds of each mask, and of the reading of its ids."""
    matcher, found = matcher.clone(), []
    while not matcher.finished:
        if decided := matcher.forced():
            matcher.advance(decided)
            continue
        began = time.process_time()
        matcher.mask_into(row)
        masked = time.process_time()
        tokens = tokens_of(row)
        found.append(((masked - began) * 1e6, (time.process_time() - masked) * 1e6))
        matcher.advance((int(rng.choice(tokens)),))
    return found
