"""A matcher in plain Python, slow and plain to see through: what the engines must agree with.

An expression becomes a nondeterministic automaton over the bytes of UTF-8 (Thompson 1968), and a position in it the
set of states that the bytes so far lead to. A token may follow where its bytes lead anywhere. Python's own parser
reads the expression, so nothing here comes from the engines.
"""

from collections.abc import Sequence
from re import _constants as kinds
from re import _parser as parser

from offline_tune.errors import DecodingError
from offline_tune.llm.mask import check_row, n_words, row_of


class Automaton:
    """States are numbers; from each, bytes lead to one other state, and some states are entered at once."""

    def __init__(self, regex: str) -> None:
        self.at_once: list[list[int]] = []
        self.by_byte: list[tuple[frozenset[int], int] | None] = []
        self.last = self._state()
        first = self._sequence(parser.parse(regex), self.last)
        self.start = self._closed({first})
        self._known: dict[tuple[frozenset[int], int], frozenset[int]] = {}

    def after(self, position: frozenset[int], text: bytes) -> frozenset[int]:
        """The position behind `text`; empty where the expression does not go on so."""
        for byte in text:
            key = (position, byte)
            if key not in self._known:
                ways = (self.by_byte[state] for state in position)
                self._known[key] = self._closed({way[1] for way in ways if way and byte in way[0]})
            position = self._known[key]
        return position

    def is_end(self, position: frozenset[int]) -> bool:
        """Whether nothing may follow."""
        return not any(self.by_byte[state] for state in position)

    def _state(self, following=(), by_byte=None) -> int:
        self.at_once.append(list(following))
        self.by_byte.append(by_byte)
        return len(self.at_once) - 1

    def _closed(self, states: set[int]) -> frozenset[int]:
        found, waiting = set(states), list(states)
        while waiting:
            for state in self.at_once[waiting.pop()]:
                if state not in found:
                    found.add(state)
                    waiting.append(state)
        return frozenset(found)

    def _sequence(self, items, then: int) -> int:
        for kind, value in reversed(list(items)):
            then = self._item(kind, value, then)
        return then

    def _item(self, kind, value, then: int) -> int:
        if kind is kinds.LITERAL:
            for byte in reversed(chr(value).encode()):
                then = self._state(by_byte=(frozenset({byte}), then))
            return then
        if kind is kinds.IN:
            return self._state(by_byte=(_bytes_of(value), then))
        if kind is kinds.SUBPATTERN:
            return self._sequence(value[-1], then)
        if kind is kinds.BRANCH:
            return self._state([self._sequence(branch, then) for branch in value[1]])
        assert kind is kinds.MAX_REPEAT, f"an expression must be of the forms that grammars use, got {kind}"
        return self._repeat(*value, then)

    def _repeat(self, least: int, most: int, items, then: int) -> int:
        if most == kinds.MAXREPEAT:
            loop = self._state([then])
            self.at_once[loop].append(self._sequence(items, loop))
            then = loop
        else:
            end = then
            for _ in range(most - least):
                then = self._state([self._sequence(items, then), end])
        for _ in range(least):
            then = self._sequence(items, then)
        return then


class ReferenceMatcher:
    """A position in an automaton, over tokens whose bytes are known; None stands for one that no text may hold."""

    def __init__(self, pieces: Sequence[bytes | None], end_ids, regex: str) -> None:
        self._pieces, self._end_ids = pieces, frozenset(end_ids)
        self._automaton = Automaton(regex)
        self._position = self._automaton.start
        self._ended = False

    @property
    def finished(self) -> bool:
        return self._ended or self._automaton.is_end(self._position)

    def mask_into(self, row) -> None:
        check_row(row, n_words(len(self._pieces)))
        mask = row_of(self._allowed())
        row[: mask.size] = mask
        row[mask.size :] = 0

    def forced(self) -> tuple[int, ...]:
        ahead, chain = self.clone(), []
        while not ahead.finished and len(allowed := ahead._allowed()) == 1:
            ahead.advance(allowed)
            chain += allowed
        return tuple(chain)

    def advance(self, tokens) -> None:
        for token in tokens:
            if token not in self._allowed():
                raise DecodingError(f"the grammar must allow token {token}, got a refusal; correct the caller")
            self._ended = token in self._end_ids
            if not self._ended:
                self._position = self._automaton.after(self._position, self._pieces[token])

    def clone(self):
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        return copy

    def _allowed(self) -> list[int]:
        ways = [t for t, piece in enumerate(self._pieces) if piece and self._automaton.after(self._position, piece)]
        return sorted({*ways, *(self._end_ids if self._automaton.last in self._position else ())})


def accepts(regex: str, text: bytes) -> bool:
    """Whether the expression matches the whole text."""
    automaton = Automaton(regex)
    return automaton.last in automaton.after(automaton.start, text)


def _bytes_of(items) -> frozenset[int]:
    """The bytes of a class of ASCII characters."""
    found: set[int] = set()
    for kind, value in items:
        low, high = value if kind is kinds.RANGE else (value, value)
        assert kind in (kinds.RANGE, kinds.LITERAL) and high < 128, f"a class must be of ASCII, got {kind} {value}"
        found.update(range(low, high + 1))
    return frozenset(found)
