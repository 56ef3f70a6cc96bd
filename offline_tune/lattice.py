"""The finite, ascending list of values of one parameter that have a written form, each with exactly one spelling.

- integers: plain digits, no leading zero;
- floats on a linear scale: fixed-point with a constant number of decimals;
- floats on a log scale: scientific notation, one digit before the point;
- anything with a step: the terms of its arithmetic progression;
- choices: their JSON spelling.

A lattice also maps its values to [0, 1] and back, exactly. Knows nothing of names, conditions, grammars or trials.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Protocol

Value = float | int | str | bool | None

SMALLEST = 1e-300  # positive numbers below it are taken for it: their neighbours are no longer normal doubles


def fixed_point(scaled: int, decimals: int) -> str:
    """The decimal text of `scaled / 10**decimals` with exactly that many decimals.

    >>> fixed_point(-50, 3)
    '-0.050'
    """
    sign, digits = ("-" if scaled < 0 else ""), str(abs(scaled)).zfill(decimals + 1)
    return f"{sign}{digits[: len(digits) - decimals]}.{digits[len(digits) - decimals :]}" if decimals else sign + digits


def exact(value: Value) -> Decimal:
    """A number as the decimal that Python prints for it."""
    assert isinstance(value, int | float)
    return Decimal(repr(float(value))) if isinstance(value, float) else Decimal(value)


class Lattice(Protocol):
    """What every lattice can do. Places run from 0, the lowest value, to `size - 1`."""

    @property
    def size(self) -> int:
        """How many values there are."""
        ...

    @property
    def longest(self) -> int:
        """Characters of the longest spelling."""
        ...

    def value(self, index: int) -> Value:
        """The value at a place."""
        ...

    def text(self, index: int) -> str:
        """How the value at a place is written."""
        ...

    def index(self, value: Value) -> int:
        """The place of the nearest writable value."""
        ...

    def to_unit(self, value: Value) -> float:
        """The place on [0, 1] on the parameter's own scale."""
        ...

    def from_unit(self, unit: float) -> Value:
        """The writable value nearest to a place on [0, 1]; inverse of `to_unit` on the lattice."""
        ...

    def draw(self, unit: float) -> Value:
        """The value whose share of the scale holds `unit` in [0, 1): an even draw for an even `unit`."""
        ...


@dataclass(frozen=True)
class Choices:
    """A categorical's choices in their declared order, with their JSON spellings."""

    choices: tuple[Value, ...]
    texts: tuple[str, ...]

    @property
    def size(self) -> int:
        """How many choices there are."""
        return len(self.choices)

    @property
    def longest(self) -> int:
        """Characters of the longest spelling."""
        return max(map(len, self.texts))

    def value(self, index: int) -> Value:
        """The choice at a place."""
        return self.choices[index]

    def text(self, index: int) -> str:
        """Its JSON spelling."""
        return self.texts[index]

    def index(self, value: Value) -> int:
        """The place of a choice.

        Raises:
            ValueError: it is none of the choices.
        """
        return self.choices.index(value)

    def to_unit(self, value: Value) -> float:
        """Choices lie evenly, in their order."""
        return self.index(value) / max(self.size - 1, 1)

    def from_unit(self, unit: float) -> Value:
        """The nearest choice."""
        return self.choices[round(_clip(unit) * (self.size - 1))]

    def draw(self, unit: float) -> Value:
        """Each choice has the same share."""
        return self.choices[min(int(_clip(unit) * self.size), self.size - 1)]


@dataclass(frozen=True)
class Progression:
    """Numbers `(first + i * step) / 10**decimals`, written with that many decimals.

    `is_float` keeps the Python type of a float parameter with whole steps.
    """

    first: int
    step: int
    size: int
    decimals: int
    is_float: bool
    log: bool = False

    @property
    def last(self) -> int:
        """The greatest term, times `10**decimals`."""
        return self.first + (self.size - 1) * self.step

    @property
    def is_digit_range(self) -> bool:
        """Whether the terms are every multiple of a power of ten in a range, so that digit classes can list them."""
        return str(self.step).strip("0") == "1" and self.first % self.step == 0

    @property
    def longest(self) -> int:
        """Characters of the longest spelling, which is at one of the ends."""
        return max(len(self.text(0)), len(self.text(self.size - 1)))

    def value(self, index: int) -> float | int:
        """The term at a place."""
        text = self.text(index)
        return float(text) if self.is_float else int(text)

    def text(self, index: int) -> str:
        """The term at a place, fixed-point."""
        if not 0 <= index < self.size:
            raise IndexError(index)
        return fixed_point(self.first + index * self.step, self.decimals)

    def index(self, value: Value) -> int:
        """The place of the nearest term."""
        place = (exact(value).scaleb(self.decimals) - self.first) / self.step
        return min(max(round(place), 0), self.size - 1)

    def to_unit(self, value: Value) -> float:
        """Even in the terms, or in their logarithms."""
        low, high, x = (self._scaled(number) for number in (*self._ends, _number(value)))
        return _clip((x - low) / (high - low)) if high > low else 0.0

    def from_unit(self, unit: float) -> float | int:
        """The nearest term."""
        low, high = self._ends
        return self.value(self.index(_between(low, high, _clip(unit), self.log)))

    def draw(self, unit: float) -> float | int:
        """Each term has the same share, or as much as lies within half a step of it on the log scale."""
        if not self.log:
            return self.value(min(int(_clip(unit) * self.size), self.size - 1))
        low, high = self._ends
        return self.value(self.index(_between(low - 0.5, high + 0.5, _clip(unit), log=True)))

    @cached_property
    def _ends(self) -> tuple[float, float]:
        return float(self.value(0)), float(self.value(self.size - 1))

    def _scaled(self, number: float) -> float:
        return math.log(max(number, self._ends[0])) if self.log else number


@dataclass(frozen=True)
class Scientific:
    """Positive numbers `m * 10**e` with `digits` significant digits, from `low` to `high`, both written so."""

    low: Decimal
    high: Decimal
    digits: int

    @property
    def size(self) -> int:
        """How many numbers there are: 9 * 10**(digits - 1) in each full decade."""
        low, high = self._span
        return high - low + 1

    @property
    def longest(self) -> int:
        """Characters of the longest spelling, which is at one of the ends."""
        return max(len(self.text(0)), len(self.text(self.size - 1)))

    @property
    def decades(self) -> Iterator[tuple[int, int, int]]:
        """(exponent, least mantissa, greatest mantissa), ascending; mantissas are integers of `digits` digits."""
        for exponent in range(self.low.adjusted(), self.high.adjusted() + 1):
            least, greatest = 10 ** (self.digits - 1), 10**self.digits - 1
            if exponent == self.low.adjusted():
                least = self._mantissa(self.low)
            if exponent == self.high.adjusted():
                greatest = self._mantissa(self.high)
            yield exponent, least, greatest

    def value(self, index: int) -> float:
        """The number at a place."""
        return float(self.text(index))

    def text(self, index: int) -> str:
        """The number at a place as d.dde±x, without a plus or leading zeros."""
        if not 0 <= index < self.size:
            raise IndexError(index)
        exponent, place = divmod(self._span[0] + index, 9 * 10 ** (self.digits - 1))
        digits = str(10 ** (self.digits - 1) + place)
        return f"{digits[0]}.{digits[1:]}e{exponent}"

    def index(self, value: Value) -> int:
        """The place of the number that `value` rounds to."""
        low, high = self._span
        rounded = Decimal(f"{max(_number(value), SMALLEST):.{self.digits - 1}e}")
        return min(max(self._rank(rounded), low), high) - low

    def to_unit(self, value: Value) -> float:
        """Even in the logarithms."""
        low, high = self._logs
        return _clip((math.log(max(_number(value), SMALLEST)) - low) / (high - low)) if high > low else 0.0

    def from_unit(self, unit: float) -> float:
        """The nearest number."""
        return self.value(self.index(_between(float(self.low), float(self.high), _clip(unit), log=True)))

    def draw(self, unit: float) -> float:
        """Even in the logarithms."""
        return self.from_unit(unit)

    @cached_property
    def _span(self) -> tuple[int, int]:
        return self._rank(self.low), self._rank(self.high)

    @cached_property
    def _logs(self) -> tuple[float, float]:
        return math.log(self.low), math.log(self.high)

    def _mantissa(self, number: Decimal) -> int:
        return int(number.scaleb(self.digits - 1 - number.adjusted()))

    def _rank(self, number: Decimal) -> int:
        lead = int(10 ** (self.digits - 1))
        return number.adjusted() * 9 * lead + self._mantissa(number) - lead


def _number(value: Value) -> float:
    assert isinstance(value, int | float)
    return float(value)


def _clip(unit: float) -> float:
    return min(max(unit, 0.0), 1.0)


def _between(low: float, high: float, unit: float, log: bool) -> float:
    if log:
        return min(max(math.exp(math.log(low) + unit * (math.log(high) - math.log(low))), low), high)
    return min(max(low + unit * (high - low), low), high)
