"""Matchers over outlines-core: a regular expression as an index of states and tokens, built in advance.

Slow to build and quick to ask, the reverse of llguidance; imported only when asked for. Knows nothing of logits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from offline_tune.errors import DecodingError, ModelError
from offline_tune.llm.mask import Mask, check_row, n_words, row_of

# A match of outlines-core ends with the first alternative that fits, so "(1|10)" would never be "10". With a last byte
# that every text must have, spelt by the end-of-generation tokens and by no other, no alternative fits too early.
_LAST = b"\x00"
_NO_TEXT = b"\xff"  # in no UTF-8, so no expression reaches a token that is spelt so


class Indexer:
    """Builds indices over one vocabulary."""

    def __init__(self, pieces: Sequence[bytes | None], end_ids: Iterable[int]) -> None:
        """Read the vocabulary.

        Args:
            pieces: the bytes of each token; None where no text may hold it.
            end_ids: the tokens that end a generation, at least one.

        Raises:
            ModelError: outlines-core is not installed.
        """
        try:
            from outlines_core import Vocabulary
        except ImportError as error:
            raise ModelError(
                f"outlines-core must be importable, got {str(error)[:80]!r}; run: pip install outlines-core==0.2.14"
            ) from None
        self._n_vocab = len(pieces)
        self._end_ids = frozenset(end_ids)
        self._ends = row_of(sorted(self._end_ids))
        spelt: dict[bytes, list[int]] = {_LAST: sorted(self._end_ids)}
        for token, piece in enumerate(pieces):
            if token not in self._end_ids:
                # each id must be known, or the engine's masks are too short
                spelt.setdefault(piece if piece and _LAST not in piece else _NO_TEXT, []).append(token)
        self._vocabulary = Vocabulary(self._n_vocab, spelt)

    def matcher(self, regex: str) -> IndexMatcher:
        """A matcher at the start of `regex` (Rust syntax, whole string); its texts are without the character U+0000.

        Raises:
            DecodingError: the expression is malformed, too large, or cannot be spelt with the vocabulary.
        """
        from outlines_core import Index

        try:
            index = Index(f"(?:{regex}){_LAST.decode()}", self._vocabulary)
        except ValueError as error:
            raise DecodingError(
                f"the grammar must be a regular expression that outlines-core compiles, got {regex[:40]!r} "
                f"({' '.join(str(error).split())[:160]}); simplify the search space"
            ) from None
        return IndexMatcher(_States(index, self._end_ids), self._ends, self._n_vocab)


class _States:
    """What is decided in each state of an index, found out once."""

    def __init__(self, index: Any, end_ids: frozenset[int]) -> None:
        self.index = index
        self.end_ids = end_ids
        self._may_end: dict[int, bool] = {}
        self._ended: dict[int, bool] = {}
        self._decided: dict[int, tuple[int, ...]] = {}

    def may_end(self, state: int) -> bool:
        """Whether the text may end here; a negated class such as [^"] lets the last byte through elsewhere, too."""
        if state not in self._may_end:
            behind = self.index.get_next_state(state, min(self.end_ids))
            self._may_end[state] = behind is not None and self.index.is_final_state(behind)
        return self._may_end[state]

    def ended(self, state: int) -> bool:
        """Whether nothing may follow but the end."""
        if state not in self._ended:
            self._ended[state] = self.index.is_final_state(state) or (
                self.may_end(state) and self.end_ids.issuperset(self.index.get_allowed_tokens(state))
            )
        return self._ended[state]

    def decided(self, state: int) -> tuple[int, ...]:
        """The tokens up to the next state with a choice, or to the end."""
        if state not in self._decided:
            chain: list[int] = []
            at = state
            while not self.ended(at) and len(allowed := self._allowed(at)) == 1:
                chain += allowed
                at = self.index.get_next_state(at, chain[-1])
            self._decided[state] = tuple(chain)
        return self._decided[state]

    def _allowed(self, state: int) -> list[int]:
        allowed = self.index.get_allowed_tokens(state)
        return list(allowed) if self.may_end(state) else [token for token in allowed if token not in self.end_ids]


class IndexMatcher:
    """A position in the index of a regular expression; made by `Indexer.matcher`."""

    def __init__(self, states: _States, ends: Mask, n_vocab: int, tokens: Sequence[int] = ()) -> None:
        from outlines_core import Guide

        self._states, self._ends, self._n_vocab = states, ends, n_vocab
        # the engine's own end token comes behind the vocabulary, maybe in a word of its own
        self._mask = np.zeros(n_words(n_vocab + 1), np.uint32)
        self._guide = Guide(states.index)
        self._tokens: list[int] = []
        self.advance(tokens)

    @property
    def finished(self) -> bool:
        """Whether the text is complete and nothing may follow."""
        return self._states.ended(self._guide.get_state())

    def mask_into(self, row: Mask) -> None:
        """Write which tokens may come next; see `Matcher.mask_into`."""
        n = n_words(self._n_vocab)
        check_row(row, n)
        self._guide.write_mask_into(self._mask.ctypes.data, self._mask.size, self._mask.itemsize)
        row[:n] = self._mask[:n]
        row[n:] = 0
        if not self._states.may_end(self._guide.get_state()):
            row[: self._ends.size] &= ~self._ends

    def forced(self) -> tuple[int, ...]:
        """The tokens that are decided already; see `Matcher.forced`."""
        return self._states.decided(self._guide.get_state())

    def advance(self, tokens: Sequence[int]) -> None:
        """Move over `tokens`; see `Matcher.advance`. The position stays if one of them is refused."""
        before = len(self._tokens)
        for token in tokens:
            try:
                self._step(token)
            except (ValueError, OverflowError) as error:
                self._rewind(before)
                raise DecodingError(
                    f"the grammar must allow token {token}, got a refusal ({str(error)[:80]}); "
                    "this is a bug of the matcher or of its caller"
                ) from None
            self._tokens.append(token)

    def clone(self) -> IndexMatcher:
        """An independent copy at the same position."""
        return IndexMatcher(self._states, self._ends, self._n_vocab, self._tokens)

    def _step(self, token: int) -> None:
        if token in self._states.end_ids and not self._states.may_end(self._guide.get_state()):
            raise ValueError("the text is not complete")
        self._guide.advance(token, False)

    def _rewind(self, length: int) -> None:
        del self._tokens[length:]
        self._guide.reset()
        for token in self._tokens:
            self._guide.advance(token, False)
