"""From an Optuna distribution to the lattice of its writable values.

Linear floats have at least 1,000 levels, log floats three significant digits or more. A bound that needs more digits
than that is rounded *inward*, so no written value leaves the distribution. A lattice is never finer than doubles can
tell apart, so different spellings are different values, and the unit map has an exact inverse.
"""

from __future__ import annotations

import json
import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from offline_tune.errors import SpaceError
from offline_tune.lattice import SMALLEST, Choices, Lattice, Progression, Scientific, Value, exact

MAX_STEPS = 20_000  # terms of a stepped range that a grammar still lists one by one
MAX_DIGITS = 6  # significant digits of a scientific lattice, at most
MAX_INTEGER = 10**12  # beyond it the log scale of a double no longer tells neighbours apart
MAX_FLOAT = 1e300  # beyond it the width of a range is no double
_SPACING = 32  # a lattice is at least this many times coarser than the doubles at its larger bound


def lattice_of(distribution: BaseDistribution) -> Lattice:
    """The writable values of an Optuna distribution.

    Raises:
        SpaceError: a bound, a step or a choice cannot be written, or no writable value lies between the bounds.
    """
    if isinstance(distribution, CategoricalDistribution):
        return _choices(tuple(distribution.choices))
    if isinstance(distribution, IntDistribution):
        return _integers(distribution)
    if isinstance(distribution, FloatDistribution):
        return _floats(distribution)
    raise SpaceError(
        f"the distribution must be float, int or categorical, got {quoted(distribution)}; use one of these"
    )


def quoted(value: object, limit: int = 60) -> str:
    """The repr of anything from outside, on one line, cut to `limit` characters."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def is_unicode(text: str) -> bool:
    """Whether the text can be encoded: no lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _choices(choices: tuple[Value, ...]) -> Choices:
    texts = tuple(map(_spelling, choices))
    seen: set[Value] = set()
    for choice in choices:
        if choice in seen:  # 1, 1.0 and True are equal too: Optuna would store the first for all
            raise SpaceError(f"choices must differ, got {quoted(choice)} after an equal one; remove one of them")
        seen.add(choice)
    return Choices(choices, texts)


def _spelling(choice: Value) -> str:
    if not (choice is None or isinstance(choice, bool | int | float | str)):
        raise SpaceError(f"a choice must be None, bool, int, float or text, got {quoted(choice)}; write it as text")
    if isinstance(choice, float) and not math.isfinite(choice):
        raise SpaceError(f"a choice must be finite, got {choice}; write it as text")
    if isinstance(choice, str) and not is_unicode(choice):
        raise SpaceError(f"a choice must be Unicode text, got {quoted(choice)}; re-encode it")
    if isinstance(choice, int) and not -(2**63) <= choice < 2**63:
        raise SpaceError(f"an integer choice must fit in 64 bits, got {_huge(choice)}; write it as text")
    return json.dumps(choice, ensure_ascii=False)


def _integers(distribution: IntDistribution) -> Progression:
    low, high, step = distribution.low, distribution.high, distribution.step
    if max(abs(low), abs(high)) > MAX_INTEGER:
        raise SpaceError(
            f"integer bounds must lie within ±{MAX_INTEGER:,}, got {_huge(low)} to {_huge(high)}; narrow the range"
        )
    return _stepped(Decimal(low), Decimal(high), Decimal(step), distribution.log, is_float=False)


def _floats(distribution: FloatDistribution) -> Progression | Scientific:
    for bound in (distribution.low, distribution.high):
        if bound != 0 and not SMALLEST <= abs(bound) <= MAX_FLOAT:
            raise SpaceError(
                f"bounds must be 0 or lie between {SMALLEST:g} and {MAX_FLOAT:g} in size, got {bound!r}; change it"
            )
    low, high = exact(distribution.low), exact(distribution.high)
    if distribution.log:
        return _scientific(low, high)
    if distribution.step is not None:
        # Optuna's own test of membership divides doubles and allows an error of 1e-8 steps.
        least = 1e9 * math.ulp(max(abs(distribution.low), abs(distribution.high)))
        if not distribution.step >= least:
            raise SpaceError(
                f"a step must be at least {least:g} for these bounds, got {distribution.step!r}; use a larger or none"
            )
        return _stepped(low, high, exact(distribution.step), log=False, is_float=True)
    return _fixed(low, high)


def _stepped(low: Decimal, high: Decimal, step: Decimal, log: bool, is_float: bool) -> Progression:
    decimals = max(0, _decimals(low), _decimals(step))
    size = math.floor((high - low) / step + Decimal("1e-7")) + 1  # a double `high` may lie just below its last term
    terms = Progression(int(low.scaleb(decimals)), int(step.scaleb(decimals)), size, decimals, is_float, log)
    if size > MAX_STEPS and not terms.is_digit_range:
        raise SpaceError(
            f"a stepped range may have at most {MAX_STEPS:,} values, got {size:,}; use a larger step or none"
        )
    return terms


def _fixed(low: Decimal, high: Decimal) -> Progression:
    if low == high:
        decimals = max(0, _decimals(low))
        return Progression(int(low.scaleb(decimals)), 1, 1, decimals, is_float=True)
    wanted = 3 - (high - low).adjusted()
    bounds = max(_decimals(low), _decimals(high))
    finest = math.floor(-math.log10(_SPACING * math.ulp(float(max(abs(low), abs(high))))))
    decimals = min(max(0, wanted, min(bounds, wanted + 2)), finest)
    first = int(low.scaleb(decimals).to_integral_value(ROUND_CEILING))
    last = int(high.scaleb(decimals).to_integral_value(ROUND_FLOOR))
    if last < first:
        raise SpaceError(f"no value with {decimals} decimals lies in [{low}, {high}]; widen the range")
    coarse = 10 ** max(0, -decimals)
    return Progression(first * coarse, coarse, last - first + 1, max(0, decimals), is_float=True)


def _scientific(low: Decimal, high: Decimal) -> Scientific:
    digits = max(3, *(len(bound.normalize().as_tuple().digits) for bound in (low, high)))
    if low < high:
        digits = min(MAX_DIGITS, digits)
    least, greatest = _significant(low, digits, ROUND_CEILING), _significant(high, digits, ROUND_FLOOR)
    if greatest < least:
        raise SpaceError(f"no value with {digits} significant digits lies in [{low}, {high}]; widen the range")
    return Scientific(least, greatest, digits)


def _significant(number: Decimal, digits: int, rounding: str) -> Decimal:
    return number.quantize(Decimal(1).scaleb(number.adjusted() - digits + 1), rounding=rounding)


def _decimals(number: Decimal) -> int:
    return -int(number.normalize().as_tuple().exponent)


def _huge(number: int) -> str:
    return quoted(number) if abs(number) < 10**60 else f"an integer of {number.bit_length()} bits"
