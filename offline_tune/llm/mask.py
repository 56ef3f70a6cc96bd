"""Sets of tokens as bits, the form in which every grammar engine says what may follow.

Notation: a row is a C-contiguous uint32 array of `n_words(n_vocab)`; bit i % 32 of word i // 32 stands for token i.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from offline_tune.errors import DecodingError
from offline_tune.llm.contract import Matcher

Mask = NDArray[np.uint32]
Tokens = NDArray[np.int32]
_WORD = np.dtype(np.uint32)


def n_words(n_vocab: int) -> int:
    """Words of a row for `n_vocab` tokens.

    >>> n_words(32), n_words(33)
    (1, 2)
    """
    return (n_vocab + 31) // 32


def tokens_of(row: Mask) -> Tokens:
    """The tokens in a row, ascending.

    >>> tokens_of(np.array([0b101, 0, 0b10], np.uint32)).tolist()
    [0, 2, 65]
    """
    # Most words are empty: only the others are taken apart, and as bytes, which is ten times as fast as shifting them.
    words = (row != 0).nonzero()[0]
    places = np.unpackbits(row[words].view(np.uint8), bitorder="little").view(np.bool_).nonzero()[0]
    return np.asarray((words[places >> 5] << 5) + (places & 31), np.int32)


def row_of(tokens: Sequence[int]) -> Mask:
    """The shortest row that holds `tokens`, at least one id.

    >>> row_of([0, 2, 65]).tolist()
    [5, 0, 2]
    """
    bits = np.zeros(32 * n_words(max(tokens) + 1), np.uint8)
    bits[list(tokens)] = 1
    return np.packbits(bits, bitorder="little").view(np.uint32)


def allowed(matcher: Matcher, n_vocab: int) -> Tokens:
    """The tokens that may come next, ascending."""
    row = np.empty(n_words(n_vocab), np.uint32)
    matcher.mask_into(row)
    return tokens_of(row)


def check_row(row: Mask, least: int) -> None:
    """Refuse memory that a grammar engine would write beyond, or fill in another order than it is read.

    Raises:
        DecodingError: it has fewer than `least` words, or is no row.
    """
    if row.size < least or row.dtype != _WORD or not row.flags.c_contiguous:
        raise DecodingError(
            f"a mask must have {least} or more words of uint32 in one piece, got {row.size} of {row.dtype}; "
            "use a grammar and a row that were made for the same model"
        )


class Groups:
    """Sorts matchers by what they allow: those in the same place of a grammar are then drawn for together."""

    def __init__(self, n_vocab: int) -> None:
        self._row = np.empty(n_words(n_vocab), np.uint32)

    def of(self, matchers: Sequence[Matcher]) -> list[tuple[Tokens, list[int]]]:
        """For each distinct set of allowed tokens, its tokens and the places in `matchers`, in order of first use."""
        found: dict[bytes, list[int]] = {}
        for place, matcher in enumerate(matchers):
            matcher.mask_into(self._row)
            found.setdefault(self._row.tobytes(), []).append(place)
        return [(tokens_of(np.frombuffer(mask, np.uint32)), places) for mask, places in found.items()]
