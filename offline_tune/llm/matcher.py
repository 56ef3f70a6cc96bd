"""Grammars with a position in them: which tokens may follow, which are decided, when the text ends.

`RegexMatcher` accepts every tokenisation of the strings of a regular expression (llguidance); `AutomatonMatcher`
follows a finite automaton over tokens, for dialects whose words are single tokens. Knows nothing of logits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offline_tune.errors import DecodingError
from offline_tune.llm.mask import Mask, check_row, n_words, row_of

# What llguidance may spend on one mask and on the tokens forced behind it. Its own 200,000 run out where numbers have
# 300 digits.
_FUEL = 5_000_000


def _nothing() -> None:
    return None


class RegexMatcher:
    """A position in a regular expression, over the tokens of one llguidance tokenizer."""

    def __init__(self, tokenizer: Any, regex: str, check_open: Callable[[], object] = _nothing) -> None:
        """Compile `regex` (Rust syntax, whole string).

        Args:
            tokenizer: an `llguidance.LLTokenizer`.
            regex: the strings to accept.
            check_open: called before each use of the tokenizer; raises once the model behind it is freed.

        Raises:
            DecodingError: the expression is malformed or too large.
        """
        from llguidance import LLMatcher, LLParserLimits

        check_open()
        self._check_open = check_open
        self._n_words = n_words(tokenizer.vocab_size)
        limits = LLParserLimits(step_lexer_fuel=_FUEL)
        self._inner = LLMatcher(tokenizer, LLMatcher.grammar_from_regex(regex), log_level=0, limits=limits)
        if self._inner.is_error():
            raise DecodingError(
                f"the grammar must be a regular expression that llguidance compiles, got {regex[:40]!r} "
                f"({_complaint(self._inner)}); simplify the search space"
            )

    @property
    def finished(self) -> bool:
        """Whether the text is complete and nothing may follow."""
        stopped = bool(self._inner.is_stopped())
        if stopped:
            self._check()  # an engine in an error calls itself stopped too
        return stopped

    def mask_into(self, row: Mask) -> None:
        """Write which tokens may come next; see `Matcher.mask_into`."""
        self._check_open()
        check_row(row, self._n_words)
        self._inner.unsafe_compute_mask_ptr(row.ctypes.data, 4 * self._n_words)
        row[self._n_words :] = 0
        self._check()  # in an error the mask would hold the end token alone, and the text would end anywhere

    def forced(self) -> tuple[int, ...]:
        """The tokens that are decided already; see `Matcher.forced`."""
        if self._inner.is_stopped():
            self._check()
            return ()
        self._check_open()
        tokens = tuple(self._inner.compute_ff_tokens())
        self._check()
        return tokens

    def advance(self, tokens: Sequence[int]) -> None:
        """Move over `tokens`; see `Matcher.advance`."""
        self._check_open()
        if not self._inner.consume_tokens(list(tokens)):
            raise DecodingError(
                f"the grammar must allow tokens {str(list(tokens))[:60]}, got a refusal "
                f"({_complaint(self._inner)}); this is a bug of the matcher or of its caller"
            )

    def clone(self) -> RegexMatcher:
        """An independent copy at the same position."""
        copy = object.__new__(RegexMatcher)
        copy.__dict__.update(self.__dict__)
        copy._inner = self._inner.deep_copy()
        return copy

    def _check(self) -> None:
        if self._inner.is_error():
            raise DecodingError(
                f"the grammar must stay enforceable, got {_complaint(self._inner)}; simplify the search space"
            )


@dataclass(frozen=True, eq=False)
class TokenAutomaton:
    """A finite automaton over token ids without loops: its texts are finitely many and their lengths known.

    State 0 is the start. Exactly one state, the end, has no way out; every state leads to it.

    Attributes:
        states: for each state, the state behind each allowed token.

    Raises:
        DecodingError: not exactly one end, a state that does not exist, or a loop.

    >>> automaton = TokenAutomaton(({5: 1}, {7: 2, 8: 2}, {}))
    >>> automaton.longest, automaton.forced[0], automaton.allowed[1].tolist()
    (2, (5,), [7, 8])
    """

    states: tuple[Mapping[int, int], ...]

    def __post_init__(self) -> None:
        n = len(self.states)
        ends = sum(not ways for ways in self.states)
        if ends != 1:
            raise DecodingError(
                f"an automaton must have one end, got {ends} states without a way out; correct its ways"
            )
        wrong = next((s for following in self._following for s in following if not 0 <= s < n), None)
        if wrong is not None:
            raise DecodingError(f"an automaton of {n} states must lead to states 0 to {n - 1}, got {wrong}; correct it")
        if len(self._forward) < n:
            raise DecodingError(
                f"an automaton must be without loops, got one among {n - len(self._forward)} states; "
                "unroll it to the longest text"
            )

    @cached_property
    def end(self) -> int:
        """The state in which the text is complete."""
        return next(i for i, ways in enumerate(self.states) if not ways)

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest text."""
        lengths = [0] * len(self.states)
        for state in reversed(self._forward):
            lengths[state] = max((1 + lengths[s] for s in self._following[state]), default=0)
        return lengths[0]

    @cached_property
    def allowed(self) -> tuple[NDArray[np.int32], ...]:
        """For each state, the ids of its tokens, ascending, not for writing."""
        arrays = tuple(np.array(sorted(ways), np.int32) for ways in self.states)
        for array in arrays:
            array.setflags(write=False)
        return arrays

    @cached_property
    def masks(self) -> tuple[Mask, ...]:
        """For each state, the same as bits (see `llm.mask`), as short as they come; empty for the end."""
        return tuple(row_of(list(ways)) if ways else np.zeros(0, np.uint32) for ways in self.states)

    @cached_property
    def forced(self) -> tuple[tuple[int, ...], ...]:
        """For each state, the tokens up to the next state with a choice, or to the end."""
        chains: list[tuple[int, ...]] = [()] * len(self.states)
        for state in reversed(self._forward):
            if len(self.states[state]) == 1:
                ((token, following),) = self.states[state].items()
                chains[state] = (token, *chains[following])
        return tuple(chains)

    @cached_property
    def _following(self) -> tuple[frozenset[int], ...]:
        return tuple(frozenset(ways.values()) for ways in self.states)

    @cached_property
    def _forward(self) -> tuple[int, ...]:
        """The states, each before those that follow it; states on or behind a loop are missing (Kahn 1962)."""
        waiting = Counter(s for following in self._following for s in following)
        order = [state for state in range(len(self.states)) if not waiting[state]]
        for state in order:
            for following in self._following[state]:
                waiting[following] -= 1
                if not waiting[following]:
                    order.append(following)
        return tuple(order)


class AutomatonMatcher:
    """A position in a `TokenAutomaton`."""

    def __init__(self, automaton: TokenAutomaton, state: int = 0) -> None:
        self._automaton = automaton
        self._state = state

    @property
    def finished(self) -> bool:
        """Whether the text is complete and nothing may follow."""
        return self._state == self._automaton.end

    def mask_into(self, row: Mask) -> None:
        """Write which tokens may come next; see `Matcher.mask_into`.

        Raises:
            DecodingError: the text is complete, or `row` is of another vocabulary.
        """
        if self.finished:
            raise DecodingError("the grammar must be unfinished to allow a token, got its end; stop at `finished`")
        mask = self._automaton.masks[self._state]
        check_row(row, mask.size)
        row[: mask.size] = mask
        row[mask.size :] = 0

    def forced(self) -> tuple[int, ...]:
        """The tokens that are decided already; see `Matcher.forced`."""
        return self._automaton.forced[self._state]

    def advance(self, tokens: Sequence[int]) -> None:
        """Move over `tokens`; see `Matcher.advance`. The position stays if one of them is refused."""
        state = self._state
        for token in tokens:
            following = self._automaton.states[state].get(token)
            if following is None:
                raise DecodingError(
                    f"the grammar must allow token {token}, got state {state} that allows "
                    f"{str(self._automaton.allowed[state].tolist())[:60]}; this is a bug of the caller"
                )
            state = following
        self._state = state

    def clone(self) -> AutomatonMatcher:
        """An independent copy at the same position."""
        return AutomatonMatcher(self._automaton, self._state)


def _complaint(inner: Any) -> str:
    """The first words of llguidance's error, one line."""
    return " ".join(str(inner.get_error()).split("<state>")[0].split())[:160] or "no reason given"
