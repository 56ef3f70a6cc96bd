r"""Patterns that match finitely many strings, and what the longest of them costs.

A small part of the regular expressions that Python, Rust and ECMAScript read alike: literals, classes, groups,
alternatives and counted repeats. What could go on for ever (`*`, `+`, `{3,}`) is refused, and so is what is no set of
strings (look-around, back references). A match is always of the whole string; `^` and `$` at the ends are allowed.

Strings are written either plain or within JSON quotes, where a quotation mark and a backslash take a backslash.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from offline_tune.distribution import quoted
from offline_tune.errors import UsageError
from offline_tune.grammar import Length, text_regex

MAX_BYTES = 1 << 16
MAX_REGEX = 200_000
_MAX_NESTING = 32

Ranges = Sequence[tuple[int, int]]

_CONTROLS = ((0x0000, 0x001F), (0x007F, 0x009F), (0xD800, 0xDFFF))  # and halves of characters
_SPECIAL = ((0x22, 0x22), (0x5C, 0x5C))  # the quotation mark and the backslash
# Not in text of one line: controls (a terminal obeys them), marks that are not seen or turn the direction of writing,
# surrogates and private letters. Without the planes beyond, a character takes at most three bytes.
_NO_TEXT = (
    (0x0000, 0x001F),
    (0x007F, 0x00A0),
    (0x00AD, 0x00AD),
    (0x061C, 0x061C),
    (0x180E, 0x180E),
    (0x200B, 0x200F),
    (0x2028, 0x202F),
    (0x2060, 0x206F),
    (0xD800, 0xF8FF),
    (0xFEFF, 0xFEFF),
    (0xFFF0, 0x10FFFF),
)
_CLASSES: dict[str, Ranges] = {
    "d": ((0x30, 0x39),),
    "w": ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)),
}
_COUNT = re.compile(r"\?|\{([0-9]{1,6})(?:,([0-9]{1,6}))?\}")
_ENDLESS = re.compile(r"[*+]|\{[0-9]*,\}")


@dataclass(frozen=True, slots=True)
class Strings:
    """A finite set of strings.

    Attributes:
        regex: matches each of them as it is written, and nothing else.
        shortest: characters of the shortest one as written.
        longest: the length of the longest one as written.

    Raises:
        UsageError: the longest has more than `MAX_BYTES`, or the expression more than `MAX_REGEX` characters.
    """

    regex: str
    shortest: int
    longest: Length

    def __post_init__(self) -> None:
        if self.longest.utf8 > MAX_BYTES:
            raise UsageError(
                f"the longest answer may have {MAX_BYTES} bytes, got {self.longest.utf8}; "
                "lower maxLength, maxItems or the counts of the pattern"
            )
        if len(self.regex) > MAX_REGEX:
            raise UsageError(
                f"the expression of a schema may have {MAX_REGEX} characters, got {len(self.regex)}; "
                "use fewer or shorter choices and properties, or make one property required"
            )

    def times(self, least: int, most: int) -> Strings:
        """`least` to `most` of them, one after another."""
        if (least, most) == (1, 1):
            return self
        longest = Length(self.longest.characters * most, self.longest.utf8 * most)
        count = "?" if (least, most) == (0, 1) else f"{{{least},{most}}}"
        return Strings(f"({self.regex}){count}", self.shortest * least, longest)


def printable(least: int, most: int, *, in_json: bool) -> Strings:
    """All texts of one line with `least` to `most` characters of the Basic Multilingual Plane."""
    return _characters(_without(((0, 0x10FFFF),), _NO_TEXT), in_json).times(least, most)


def parse_pattern(pattern: str, *, in_json: bool) -> Strings:
    r"""The strings of a pattern.

    `.` and negated classes stand for the characters of `printable`, `\d` and `\w` for those of ASCII.

    >>> parse_pattern("[ab]{0,3}|é", in_json=False).longest
    Length(characters=3, utf8=3)

    Raises:
        UsageError: it matches endless strings, is malformed, or uses what is not allowed here.
    """
    return _Parser(pattern, in_json).parse()


class _Parser:
    """A reader of one pattern, by recursive descent."""

    def __init__(self, pattern: str, in_json: bool) -> None:
        self.pattern = pattern
        self.in_json = in_json
        self.place = 1 if pattern.startswith("^") else 0
        backslashes = sum(1 for _ in takewhile("\\".__eq__, reversed(pattern[:-1])))
        self.end = len(pattern) - (pattern.endswith("$") and backslashes % 2 == 0)
        self.nesting = 0

    def parse(self) -> Strings:
        found = self.alternatives()
        if self.place < self.end:
            raise self.refusal("an opening bracket for each closing one")
        return found

    def alternatives(self) -> Strings:
        found = [self.sequence()]
        while self.taken("|"):
            found.append(self.sequence())
        return either(found)

    def sequence(self) -> Strings:
        found: list[Strings] = []
        while self.place < self.end and self.pattern[self.place] not in "|)":
            found.append(self.repeated(self.atom()))
        return join(found)

    def repeated(self, piece: Strings) -> Strings:
        if _ENDLESS.match(self.pattern, self.place, self.end):
            raise self.refusal("a highest count for each repeat, such as {0,20}")
        count = _COUNT.match(self.pattern, self.place, self.end)
        if count is None:
            return piece
        least, most = (0, 1) if count[0] == "?" else (int(count[1]), int(count[2] or count[1]))
        if least > most:
            raise self.refusal("counts in ascending order")
        self.place = count.end()
        return piece.times(least, most)

    def atom(self) -> Strings:
        if self.taken("("):
            return self.group()
        if self.taken("["):
            return self.characters(self.char_class())
        if self.taken("."):
            return self.characters(_without(((0, 0x10FFFF),), _NO_TEXT))
        if self.pattern[self.place] in "^$*+?{}]":
            raise self.refusal("a backslash before a sign that has a meaning")
        return self.characters(self.one())

    def group(self) -> Strings:
        self.nesting += 1
        if self.nesting > _MAX_NESTING:
            raise self.refusal(f"at most {_MAX_NESTING} groups within groups")
        if self.taken("?") and not self.taken(":"):
            raise self.refusal("plain groups (...) or (?:...)")
        found = self.alternatives()
        if not self.taken(")"):
            raise self.refusal("a closing bracket for each opening one")
        self.nesting -= 1
        return found

    def char_class(self) -> Ranges:
        negated, found = self.taken("^"), list[tuple[int, int]]()
        while not self.taken("]"):
            if self.place >= self.end or self.pattern[self.place] == "[":
                raise self.refusal("classes of single characters and ranges, each closed by ]")
            low = self.one()
            if not (
                self.pattern.startswith("-", self.place) and self.pattern[self.place + 1 : self.end][:1] not in "]"
            ):
                found += low
                continue
            self.place += 1
            high = self.one()
            ends = [low[0][0], low[-1][1], high[0][0], high[-1][1]]
            if ends[0] != ends[1] or ends[2] != ends[3] or ends[0] > ends[2]:
                raise self.refusal("ranges from a lower to a higher character")
            found.append((ends[0], ends[2]))
        return _without(((0, 0x10FFFF),), (*_NO_TEXT, *found)) if negated else found

    def one(self) -> Ranges:
        """One character, or one of the classes that an escape stands for."""
        if not self.taken("\\"):
            self.place += 1
            return ((ord(self.pattern[self.place - 1]),) * 2,)
        letter = self.pattern[self.place : self.end][:1]
        if letter in _CLASSES:
            self.place += 1
            return _CLASSES[letter]
        if not letter or letter.isalnum():
            raise self.refusal(r"no escapes but \d, \w and those of signs")
        self.place += 1
        return ((ord(letter),) * 2,)

    def characters(self, ranges: Ranges) -> Strings:
        if not ranges or any(low <= b and high >= a for low, high in ranges for a, b in _CONTROLS):
            raise self.refusal("characters that can be written, without controls")
        return _characters(ranges, self.in_json)

    def taken(self, sign: str) -> bool:
        if self.place < self.end and self.pattern[self.place] == sign:
            self.place += 1
            return True
        return False

    def refusal(self, rule: str) -> UsageError:
        return UsageError(
            f"a pattern must have {rule}, got {quoted(self.pattern)} at character {self.place + 1}; rewrite it"
        )


def join(parts: Iterable[Strings]) -> Strings:
    """One string of each part, one after another."""
    parts = tuple(parts)
    return Strings(
        "".join(p.regex for p in parts),
        sum(p.shortest for p in parts),
        Length(sum(p.longest.characters for p in parts), sum(p.longest.utf8 for p in parts)),
    )


def either(parts: Sequence[Strings]) -> Strings:
    """The strings of all parts."""
    if len(parts) == 1:
        return parts[0]
    return Strings(
        f"({'|'.join(p.regex for p in parts)})",
        min(p.shortest for p in parts),
        Length(max(p.longest.characters for p in parts), max(p.longest.utf8 for p in parts)),
    )


def _characters(ranges: Ranges, in_json: bool) -> Strings:
    plain = _without(ranges, _SPECIAL) if in_json else _without(ranges, ())
    found = [Strings(_class(plain), 1, Length(1, max(len(chr(high).encode()) for _, high in plain)))] if plain else []
    if in_json and (escaped := [low for low, _ in _SPECIAL if any(a <= low <= b for a, b in ranges)]):
        found.append(Strings(r"\\" + _class([(c, c) for c in escaped]), 2, Length(2, 2)))
    return either(found)


def _class(ranges: Ranges) -> str:
    if len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
        return text_regex(chr(ranges[0][0]))
    return f"[{''.join(_sign(a) if a == b else f'{_sign(a)}-{_sign(b)}' for a, b in ranges)}]"


def _sign(code: int) -> str:
    """A character as all engines read it within a class."""
    if chr(code).isascii() and chr(code).isalnum():
        return chr(code)
    return f"\\u{code:04x}" if code < 1 << 16 else f"\\U{code:08x}"


def _without(ranges: Ranges, gaps: Ranges) -> list[tuple[int, int]]:
    """What of `ranges` lies in none of the gaps; ascending, each character once."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        low = max(low, found[-1][1] + 1) if found else low
        for a, b in sorted(gaps):
            if low < a <= high:
                found.append((low, a - 1))
            if a <= high and b >= low:
                low = b + 1
        if low <= high:
            found.append((low, high))
    return found
