"""Strings, numbers and constants of a JSON Schema as forms, and the place that an error names.

A number lies on a lattice, so that it has a last digit; see `offline_tune.lattice`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Any, NamedTuple

from offline_tune.distribution import MAX_DIGITS, MAX_STEPS, is_unicode, quoted
from offline_tune.errors import UsageError
from offline_tune.grammar import Length, lattice_regex
from offline_tune.lattice import Lattice, Progression, Scientific, exact
from offline_tune.llm.structured.form import Form, one_text, text_check, written
from offline_tune.llm.structured.pattern import Strings, either, join, parse_pattern, printable

Schema = Mapping[str, Any]

DIGITS = "x-significantDigits"
_MOST_STEPS = 10**15  # beyond it the terms of a lattice are not told apart as doubles
_LEAST_STEP = Decimal("1e-15")
_LEAST, _MOST = Decimal("1e-300"), Decimal("1e300")  # of a scientific lattice
_MOST_COUNT = 999_999


@dataclass(frozen=True)
class Place:
    """Where in a schema the compiler is.

    Attributes:
        root: the entire schema.
        path: the keywords that lead here.
        references: the `$ref`s on the way.
    """

    root: Any
    path: tuple[str, ...] = ()
    references: tuple[str, ...] = ("#",)

    def at(self, *names: object) -> Place:
        """A place below."""
        return replace(self, path=(*self.path, *map(str, names)))

    def refusal(self, rule: str, got: object, advice: str) -> UsageError:
        """The error that names this place."""
        return UsageError(f"{rule}, got {quoted(got)} at {quoted('.'.join(('$', *self.path)))}; {advice}")


def string(schema: Schema, place: Place) -> Form:
    """Text of one line with `maxLength`, or the strings of a `pattern`."""
    least = count(schema, "minLength", place) or 0
    most = count(schema, "maxLength", place)
    if "pattern" in schema:
        return _patterned(schema["pattern"], least, most, place)
    if most is None:
        raise place.refusal("a string must have maxLength, a pattern, enum or const", "none of them", "add one")
    check_order(least, most, "minLength", "maxLength", place)
    plain = printable(least, most, in_json=False)
    return Form(_in_quotes(printable(least, most, in_json=True)), text_check(plain))


def number(schema: Schema, place: Place) -> Form:
    """The multiples of `multipleOf` in a range, or its numbers of `x-significantDigits` digits."""
    if DIGITS in schema:
        return _on_lattice(_scientific(schema, place), int | float)
    return _on_lattice(_progression(schema, place, is_float=True), int | float)


def integer(schema: Schema, place: Place) -> Form:
    """The whole numbers of a range, or those that are multiples of `multipleOf`."""
    return _on_lattice(_progression({"multipleOf": 1, **schema}, place, is_float=False), int)


def literal(*values: bool | None) -> Callable[[Schema, Place], Form]:
    """A type that has these values alone."""
    strings = either([one_text(written(value)) for value in values])
    return lambda _schema, _place: Form(strings, lambda value: any(value is v for v in values))


def constants(schema: Schema, place: Place) -> Form:
    """The values of `enum` or `const` that are of the `type`, if there is one."""
    values = [schema["const"]] if "const" in schema else schema["enum"]
    if not isinstance(values, list) or ("enum" in schema and "const" in schema):
        raise place.refusal("an enum must be a list, without a const beside it", schema, "correct it")
    texts = dict.fromkeys(written(value) for value in values if _is_of(schema.get("type"), value, place))
    if not texts or not all(map(is_unicode, texts)):
        raise place.refusal("an enum must hold a value of its type, of Unicode text", values, "correct it")
    return Form(either([one_text(text) for text in texts]), lambda value: written(value) in texts)


def count(schema: Schema, keyword: str, place: Place) -> int | None:
    """A keyword's whole number, 0 or more; None where it is absent."""
    if keyword not in schema:
        return None
    value = schema[keyword]
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value % 1 == 0
    if not (whole and 0 <= value <= _MOST_COUNT):
        raise place.refusal(f"{keyword} must be a whole number from 0 to {_MOST_COUNT}", value, "correct it")
    return int(value)


def check_order(least: int, most: int, low: str, high: str, place: Place) -> None:
    """Refuse a lower bound above the upper one."""
    if least > most:
        raise place.refusal(f"{low} must be at most {high}", [least, most], "exchange them")


# Strings


def _patterned(pattern: object, least: int, most: int | None, place: Place) -> Form:
    if not isinstance(pattern, str):
        raise place.refusal("a pattern must be text", pattern, "correct it")
    plain = parse_pattern(pattern, in_json=False)
    if plain.shortest < least or (most is not None and plain.longest.characters > most):
        raise place.refusal(
            f"a pattern must keep to minLength {least} and maxLength {most}",
            f"{plain.shortest} to {plain.longest.characters} characters",
            "count its repeats so",
        )
    return Form(_in_quotes(parse_pattern(pattern, in_json=True)), text_check(plain))


def _in_quotes(strings: Strings) -> Strings:
    return join([one_text('"'), strings, one_text('"')])


# Numbers


class _Range(NamedTuple):
    """From `low` to `high`, each of which is itself outside where open."""

    low: Decimal
    high: Decimal
    is_open_low: bool
    is_open_high: bool


def _on_lattice(lattice: Lattice, kind: Any) -> Form:
    def accepts(value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, kind) or not math.isfinite(value):
            return False
        return lattice.value(lattice.index(value)) == value  # type: ignore[arg-type]

    return Form(Strings(lattice_regex(lattice), 1, Length(lattice.longest, lattice.longest)), accepts)


def _progression(schema: Schema, place: Place, *, is_float: bool) -> Progression:
    step = _decimal(schema, "multipleOf", place)
    low, high, is_open_low, is_open_high = _range(schema, place)
    if step is None or step < _LEAST_STEP or (not is_float and step % 1):
        raise place.refusal(
            f"a number must have a step: multipleOf from {_LEAST_STEP}, whole for an integer, or {DIGITS}",
            schema.get("multipleOf"),
            "add one, or an enum",
        )
    if max(abs(low), abs(high), step) >= min(step, Decimal(1)) * _MOST_STEPS:
        raise place.refusal("a range must be less than 1e15 steps from 0", [str(low), str(high)], "narrow it")
    decimals = _decimals(step)
    unit = int(step.scaleb(decimals))
    first, last = math.ceil(low / step), math.floor(high / step)
    first += is_open_low and first * step == low
    last -= is_open_high and last * step == high
    found = Progression(first * unit, unit, last - first + 1, decimals, is_float)
    if found.size < 1 or (found.size > MAX_STEPS and not found.is_digit_range):
        raise place.refusal(
            f"a range must hold a multiple of its step, at most {MAX_STEPS} unless that is a power of ten",
            f"{max(found.size, 0)} multiples of {step}",
            "correct the range or the step",
        )
    return found


def _decimals(step: Decimal) -> int:
    exponent = step.normalize().as_tuple().exponent
    assert isinstance(exponent, int)
    return max(0, -exponent)


def _scientific(schema: Schema, place: Place) -> Scientific:
    digits = count(schema, DIGITS, place)
    low, high, is_open_low, is_open_high = _range(schema, place)
    if digits is None or not 2 <= digits <= MAX_DIGITS or "multipleOf" in schema or is_open_low or is_open_high:
        raise place.refusal(f"{DIGITS} must be 2 to {MAX_DIGITS}, with minimum and maximum", schema, "correct it")
    if not _LEAST <= low <= high <= _MOST:
        raise place.refusal(f"{DIGITS} needs a range from {_LEAST} to {_MOST}", [str(low), str(high)], "correct it")
    low, high = Context(digits, ROUND_CEILING).plus(low), Context(digits, ROUND_FLOOR).plus(high)
    if low > high:
        raise place.refusal("a range must hold a number", f"none of {digits} digits", "widen it or use more digits")
    return Scientific(low, high, digits)


def _range(schema: Schema, place: Place) -> _Range:
    low, above = _decimal(schema, "minimum", place), _decimal(schema, "exclusiveMinimum", place)
    high, below = _decimal(schema, "maximum", place), _decimal(schema, "exclusiveMaximum", place)
    lows, highs = [x for x in (low, above) if x is not None], [x for x in (high, below) if x is not None]
    if not lows or not highs:
        raise place.refusal(
            "a number must have minimum and maximum, or enum", f"no {'maximum' if lows else 'minimum'}", "add it"
        )
    return _Range(max(lows), min(highs), above == max(lows), below == min(highs))


def _decimal(schema: Schema, keyword: str, place: Place) -> Decimal | None:
    if keyword not in schema:
        return None
    value = schema[keyword]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise place.refusal(f"{keyword} must be a number", value, "correct it")
    return exact(value)


# Constants

_PYTHON: Mapping[str, Any] = {
    "string": str,
    "number": int | float,
    "integer": int,
    "array": list,
    "object": dict,
    "boolean": bool,
    "null": type(None),
}


def _is_of(kinds: object, value: object, place: Place) -> bool:
    if kinds is None:
        return True
    names = [str(name) for name in kinds] if isinstance(kinds, list) else [str(kinds)]
    if not all(name in _PYTHON for name in names):
        raise place.refusal("a type must be one of JSON Schema's", kinds, "correct it")
    return any(isinstance(value, _PYTHON[n]) and (not isinstance(value, bool) or n == "boolean") for n in names)
