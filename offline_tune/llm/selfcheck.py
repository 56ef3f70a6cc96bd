"""Whether llama.cpp does on this machine what the decoder builds upon. A few tokens through a loaded model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from offline_tune.llm.backend import TESTED_VERSIONS
from offline_tune.llm.batch import Span
from offline_tune.llm.engine import Engine, Logits

_PROMPT_TOKENS = 24
# An accelerator may sum in another order where cells lie elsewhere; a fork that lost its prompt is off by far more.
_CLOSE = 1e-3
_REMEDY = f"reinstall llama-cpp-python=={TESTED_VERSIONS[-1]}, or use --device cpu"


@dataclass(frozen=True, slots=True)
class Check:
    """One point; `detail` is what was found, or where it does not hold the rule, the value and the next step."""

    name: str
    ok: bool
    detail: str


def self_check(engine: Engine) -> tuple[Check, ...]:
    """Ask for sequences, fork one, and do the same twice. The engine holds nothing afterwards.

    Raises:
        DecodingError: llama.cpp could not evaluate a few tokens.
    """
    return tuple(_checks(engine))


def check_sequences(wanted: int, got: int) -> Check:
    """Whether the context has the sequences that were asked for."""
    if got == wanted:
        return Check("sequences", True, f"{got} in one context")
    return Check("sequences", False, f"a context must have {wanted} sequences, got {got}; {_REMEDY}")


def check_fork(straight: Logits, forked: Logits) -> Check:
    """Whether a fork goes on as the sequence that it left does."""
    difference, scale = _difference(straight, forked), float(np.abs(straight).max())
    if difference <= _CLOSE * scale:
        return Check("fork", True, f"logits as of the sequence itself{f' to {difference:.1g}' if difference else ''}")
    return Check(
        "fork", False, f"a fork must have the logits of its sequence, got a difference of {difference:.2g}; {_REMEDY}"
    )


def check_repeat(first: Logits, second: Logits) -> Check:
    """Whether the same tokens have the same logits, bit by bit."""
    if np.array_equal(first, second):
        return Check("repeat", True, "the same logits twice, to the bit")
    found = f"got a difference of {_difference(first, second):.2g}"
    return Check("repeat", False, f"the same tokens must have the same logits twice, {found}; {_REMEDY}")


def _checks(engine: Engine) -> Iterator[Check]:
    prompt, last = _tokens(engine)
    yield check_sequences(engine.k_max + 1, engine.n_sequences)
    straight = _straight(engine, prompt, last)
    yield check_fork(straight, _forked(engine, prompt, last))
    yield check_repeat(straight, _straight(engine, prompt, last))
    engine.clear()


def _tokens(engine: Engine) -> tuple[list[int], int]:
    """A prompt and a token behind it, spread over the vocabulary; what they say does not matter."""
    size = engine.vocabulary.size
    *prompt, last = ((1 + i * size // 29) % size for i in range(min(_PROMPT_TOKENS, engine.n_cells - 1) + 1))
    return prompt, last


def _straight(engine: Engine, prompt: list[int], last: int) -> Logits:
    engine.clear()
    return engine.hold(prompt, (last,)).copy()


def _forked(engine: Engine, prompt: list[int], last: int) -> Logits:
    engine.clear()
    engine.hold(prompt)
    engine.fork([0], len(prompt))
    forked: Logits = engine.forward([Span(0, len(prompt), (last,))])[0].copy()
    return forked


def _difference(one: Logits, other: Logits) -> float:
    return float(np.abs(one - other).max())
