"""The rows of one forward pass, in memory that llama.cpp reads in place.

Notation: a row is one token at one position of one sequence. Knows nothing of models.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from offline_tune.llm.backend import library


class Span(NamedTuple):
    """Consecutive tokens of one sequence, the first at position `start`."""

    sequence: int
    start: int
    tokens: Sequence[int]


class Rows(NamedTuple):
    """What one pass evaluates: for each row its token, position, sequence, and whether its logits are wanted."""

    tokens: list[int]
    positions: list[int]
    sequences: list[int]
    wanted: list[bool]

    def part(self, start: int, stop: int) -> Rows:
        """The rows from `start` to before `stop`."""
        part = slice(start, stop)
        return Rows(self.tokens[part], self.positions[part], self.sequences[part], self.wanted[part])


def rows_of(spans: Sequence[Span]) -> Rows:
    """The rows of all spans, one after another; the logits of each span's last token are wanted.

    >>> rows_of([Span(0, 7, (5, 6)), Span(1, 7, (8,))])
    Rows(tokens=[5, 6, 8], positions=[7, 8, 7], sequences=[0, 0, 1], wanted=[False, True, True])
    """
    rows = Rows([], [], [], [])
    for sequence, start, tokens in spans:
        n = len(tokens)
        rows.tokens.extend(tokens)
        rows.positions.extend(range(start, start + n))
        rows.sequences.extend([sequence] * n)
        rows.wanted.extend([False] * (n - 1) + [True])
    return rows


class Batch:
    """A `llama_batch` of at most `capacity` rows, each in one sequence."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._token = np.zeros(capacity, np.int32)
        self._position = np.zeros(capacity, np.int32)
        self._sequence = np.zeros(capacity, np.int32)
        self._n_sequences = np.ones(capacity, np.int32)
        self._wanted = np.zeros(capacity, np.int8)
        # llama.cpp wants a pointer to the sequences of each row; all point into one array
        first = self._sequence.ctypes.data
        self._sequence_pointers = (ctypes.c_void_p * capacity)(*(first + 4 * i for i in range(capacity)))
        self.struct = self._struct()

    def fill(self, rows: Rows) -> None:
        """Put `rows` in place of what was there."""
        n = len(rows.tokens)
        self._token[:n] = rows.tokens
        self._position[:n] = rows.positions
        self._sequence[:n] = rows.sequences
        self._wanted[:n] = rows.wanted
        self.struct.n_tokens = n

    def _struct(self) -> Any:
        batch = library().llama_batch()
        for name, source in (
            ("token", self._token.ctypes.data),
            ("pos", self._position.ctypes.data),
            ("n_seq_id", self._n_sequences.ctypes.data),
            ("seq_id", ctypes.addressof(self._sequence_pointers)),
            ("logits", self._wanted.ctypes.data),
        ):
            setattr(batch, name, ctypes.cast(source, dict(batch._fields_)[name]))
        return batch
