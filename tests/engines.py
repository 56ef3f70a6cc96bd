"""The engines that read a grammar's regular expression, each as a test of whole texts. They see bytes as tokens."""

import json
from collections.abc import Callable

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask
from outlines_core import Index, Vocabulary

_TOKENIZER = LLTokenizer("byte")
_END = 256
_VOCABULARY = Vocabulary(_END, {bytes([byte]): [byte] for byte in range(_END)})

Accepts = Callable[[str], bool]


def llguidance_regex(regex: str) -> Accepts:
    return _accepts(_matcher(LLMatcher.grammar_from_regex(regex)))


def llguidance_schema(schema) -> Accepts:
    return _accepts(
        _matcher(LLMatcher.grammar_from_json_schema(json.dumps(schema), defaults={"whitespace_flexible": False}))
    )


def outlines_core_regex(regex: str) -> Accepts:
    index = Index(regex, _VOCABULARY)

    def accepts(text: str) -> bool:
        state = index.get_initial_state()
        for byte in text.encode():
            state = index.get_next_state(state, byte) if state is not None else None
        return state is not None and index.is_final_state(state)

    return accepts


def count_sentences(regex: str) -> int:
    """How many texts a finite regular expression matches, by its deterministic automaton."""
    index = Index(regex, _VOCABULARY)
    edges = {
        state: [after for byte, after in steps.items() if byte != _END]
        for state, steps in index.get_transitions().items()
    }
    counts: dict[int, int] = {}
    stack = [index.get_initial_state()]
    while stack:
        state = stack[-1]
        waiting = [after for after in edges.get(state, ()) if after not in counts]
        if waiting:
            stack.extend(waiting)
            continue
        stack.pop()
        counts[state] = index.is_final_state(state) + sum(counts[after] for after in edges.get(state, ()))
    return counts[index.get_initial_state()]


def walk(regex: str, rng: np.random.Generator) -> str:
    """A sentence drawn byte by byte, each evenly among those that the mask allows."""
    matcher, text = _matcher(LLMatcher.grammar_from_regex(regex)), bytearray()
    mask = allocate_token_bitmask(1, _TOKENIZER.vocab_size)
    while not matcher.is_stopped():
        fill_next_token_bitmask(matcher, mask)
        allowed = np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little"))
        token = int(rng.choice(allowed))
        assert matcher.consume_token(token)
        text.append(token)
    return text.decode()


def _matcher(grammar: str) -> LLMatcher:
    matcher = LLMatcher(_TOKENIZER, grammar, log_level=0)
    assert not matcher.get_error()
    return matcher


def _accepts(matcher: LLMatcher) -> Accepts:
    def accepts(text: str) -> bool:
        fresh = matcher.deep_copy()
        tokens = _TOKENIZER.tokenize_str(text)
        return fresh.validate_tokens(tokens) == len(tokens) and fresh.consume_tokens(tokens) and fresh.is_accepting()

    return accepts
