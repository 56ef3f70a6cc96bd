"""From a search space to a finite grammar, and from a sentence back to a candidate.

A sentence is one JSON object without whitespace, parameters in the order of the space, each value in its one written
form: `{"lr":1.00e-3,"depth":3}`. The regular expression keeps to what Python's `re`, llguidance and outlines-core read
alike: literals, plain groups, classes of digits and counted repeats. No sentence begins another, because an object
ends where its brace closes, so the order of alternatives never matters (outlines-core takes the first that ends).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby

from offline_tune.distribution import quoted
from offline_tune.errors import SpaceError
from offline_tune.lattice import Lattice, Progression, Scientific, fixed_point
from offline_tune.space import Parameter, SearchSpace, Value, Values

MAX_CHARACTERS = 2_000_000

Schema = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Length:
    """Characters of the longest sentence, and UTF-8 bytes of the one that is longest in bytes; both exact."""

    characters: int
    utf8: int


@dataclass(frozen=True)
class Grammar:
    """The sentences of one search space: exactly its writable candidates.

    Attributes:
        space: the space.
        regex: matches the whole of every sentence and nothing else.
        schema: the same set as a JSON Schema (draft 2020-12), which tells values apart, not their spellings.
        longest: the length of the longest sentence; none takes more tokens than that has bytes.
    """

    space: SearchSpace
    regex: str
    schema: Schema = field(compare=False, repr=False)
    longest: Length

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the regular expression, in hexadecimal."""
        return hashlib.sha256(self.regex.encode()).hexdigest()

    def write(self, values: Values) -> str:
        """The sentence of a candidate, snapped to the lattice.

        Raises:
            SpaceError: the candidate lies outside the space.
        """
        return self.space.write(values)

    def read(self, text: str) -> dict[str, Value]:
        """The candidate of a sentence; inverse of `write` on the lattice.

        Raises:
            SpaceError: the text is no sentence.
        """
        if len(text) > self.longest.characters:
            raise SpaceError(
                f"a candidate has at most {self.longest.characters} characters, got {len(text)}; write it shorter"
            )
        values = _parse(text)
        if (sentence := self.space.write(values)) != text:
            raise SpaceError(f"a candidate must be spelled {quoted(sentence)}, got {quoted(text)}; write it so")
        return self.space.snap(values)


def compile_grammar(space: SearchSpace) -> Grammar:
    r"""The grammar of a space.

    >>> from optuna.distributions import IntDistribution
    >>> compile_grammar(SearchSpace.from_distributions({"depth": IntDistribution(1, 12)})).regex
    '\\{"depth":([1-9]|1[0-2])\\}'

    Raises:
        SpaceError: the regular expression would pass `MAX_CHARACTERS`.
    """
    rules = _rules(space)
    regex = _bounded(r"\{" + ",".join(rules[root.name] for root in _roots(space)) + r"\}")
    return Grammar(space, regex, _schema(space), Length(_longest(space, len), _longest(space, _utf8)))


def text_regex(text: str) -> str:
    """The regular expression of one text."""
    return _escape(text)


def lattice_regex(lattice: Lattice) -> str:
    r"""The regular expression of the spellings of a lattice.

    >>> lattice_regex(Progression(first=5, step=5, size=3, decimals=1, is_float=True))
    '(0\\.5|1\\.0|1\\.5)'
    """
    return _either(_spellings(lattice))


def _parse(text: str) -> dict[str, Value]:
    try:
        pairs = json.loads(text, object_pairs_hook=list, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise SpaceError(f"a candidate must be JSON, got {quoted(text)}; write one object") from None
    if not text.startswith("{") or len(dict(pairs)) < len(pairs):
        raise SpaceError(f"a candidate must be one object without repeated names, got {quoted(text)}; write it so")
    return dict(pairs)


def _refuse(constant: str) -> float:
    raise ValueError(constant)


# Regular expressions


def _rules(space: SearchSpace) -> dict[str, str]:
    """For each parameter the regular expression of its member, the members that hang on its choices included."""
    rules: dict[str, str] = {}
    for parameter in reversed(space.parameters):  # what hangs on a parameter stands behind it
        rules[parameter.name] = _bounded(_escape(_key(parameter)) + _either(_values(space, parameter, rules)))
    return rules


def _values(space: SearchSpace, parameter: Parameter, rules: Mapping[str, str]) -> list[str]:
    if not space.children(parameter.name):
        return _spellings(parameter.lattice)
    alike: dict[tuple[str, ...], list[str]] = {}
    for place, (_, hanging) in enumerate(space.branches(parameter.name)):
        text = _escape(parameter.lattice.text(place))
        alike.setdefault(tuple(rules[child.name] for child in hanging), []).append(text)
    return [",".join([_either(texts), *behind]) for behind, texts in alike.items()]


def _spellings(lattice: Lattice) -> list[str]:
    if isinstance(lattice, Scientific):
        return list(_scientific(lattice))
    if isinstance(lattice, Progression) and lattice.is_digit_range:
        return list(_multiples(lattice.first // lattice.step, lattice.last // lattice.step, lattice))
    return [_escape(lattice.text(index)) for index in range(lattice.size)]


def _scientific(lattice: Scientific) -> Iterator[str]:
    for (least, greatest), decades in groupby(lattice.decades, key=lambda decade: decade[1:]):
        exponents = [exponent for exponent, _, _ in decades]
        mantissa = _between(fixed_point(least, lattice.digits - 1), fixed_point(greatest, lattice.digits - 1))
        yield f"{mantissa}e{_either(list(_signed(exponents[0], exponents[-1])))}"


def _multiples(low: int, high: int, lattice: Progression) -> Iterator[str]:
    if lattice.step == 1:
        yield from _signed(low, high, lattice.decimals)
        return
    zeros = f"0{{{len(str(lattice.step)) - 1}}}"
    yield from (text + zeros for text in _signed(low, min(high, -1)))
    yield from "0" if low <= 0 <= high else ()
    yield from (text + zeros for text in _signed(max(low, 1), high))


def _signed(low: int, high: int, decimals: int = 0) -> Iterator[str]:
    if low < 0 and low <= high:
        yield "-" + _either(list(_magnitudes(max(1, -high), -low, decimals)))
    yield from _magnitudes(max(low, 0), high, decimals)


def _magnitudes(low: int, high: int, decimals: int) -> Iterator[str]:
    for width in range(max(len(str(low)), decimals + 1), max(len(str(high)), decimals + 1) + 1):
        least = max(low, 10 ** (width - 1) if width > decimals + 1 else 0)
        greatest = min(high, 10**width - 1)
        if least <= greatest:
            yield _between(fixed_point(least, decimals), fixed_point(greatest, decimals))


def _between(low: str, high: str) -> str:
    """The texts from `low` to `high`, which have equally many digits and the point at the same place."""
    same = next((place for place, pair in enumerate(zip(low, high, strict=True)) if pair[0] != pair[1]), len(low))
    if same == len(low):
        return _escape(low)
    first, last = int(low[same]), int(high[same])
    least, greatest = _all(low[same + 1 :], "0"), _all(low[same + 1 :], "9")
    below = [f"{first}{_between(low[same + 1 :], greatest)}"] if low[same + 1 :] != least else []
    above = [f"{last}{_between(least, high[same + 1 :])}"] if high[same + 1 :] != greatest else []
    first, last = first + len(below), last - len(above)
    inner = [_digit(first, last) + _any(least)] if first <= last else []
    return _escape(low[:same]) + _either([*below, *inner, *above])


def _all(text: str, digit: str) -> str:
    return "".join("." if character == "." else digit for character in text)


def _any(text: str) -> str:
    return r"\.".join(_repeat(len(part)) for part in text.split("."))


def _repeat(count: int) -> str:
    return "" if count == 0 else "[0-9]" if count == 1 else f"[0-9]{{{count}}}"


def _digit(first: int, last: int) -> str:
    return str(first) if first == last else f"[{first}-{last}]"


def _either(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"({'|'.join(parts)})"


def _escape(text: str) -> str:
    return "".join(f"\\{character}" if character in r"\.^$*+?()[]{}|" else character for character in text)


def _key(parameter: Parameter) -> str:
    return json.dumps(parameter.name, ensure_ascii=False) + ":"


def _bounded(regex: str) -> str:
    if len(regex) > MAX_CHARACTERS:
        raise SpaceError(
            f"a grammar may have at most {MAX_CHARACTERS:,} characters, got {len(regex):,} or more; "
            "use fewer or shorter choices, larger steps or fewer nested conditions"
        )
    return regex


def _roots(space: SearchSpace) -> list[Parameter]:
    return [parameter for parameter in space.parameters if parameter.when is None]


# Length


def _longest(space: SearchSpace, length: Callable[[str], int]) -> int:
    longest: dict[str, int] = {}  # of a member with the comma or brace behind it
    for parameter in reversed(space.parameters):
        value = parameter.lattice.longest
        if parameter.is_categorical:
            value = max(
                length(parameter.lattice.text(place)) + sum(longest[child.name] for child in hanging)
                for place, (_, hanging) in enumerate(space.branches(parameter.name))
            )
        longest[parameter.name] = length(_key(parameter)) + value + 1
    return 1 + sum(longest[root.name] for root in _roots(space))


def _utf8(text: str) -> int:
    return len(text.encode())


# JSON Schema


def _schema(space: SearchSpace) -> Schema:
    schema: dict[str, object] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {p.name: _value_schema(p.lattice) for p in space.parameters},
        "required": [root.name for root in _roots(space)],
        "additionalProperties": False,
    }
    conditions = [_condition(space, p) for p in space.parameters if space.children(p.name)]
    return {**schema, "allOf": conditions} if conditions else schema


def _condition(space: SearchSpace, parent: Parameter) -> Schema:
    absent = {child.name: False for child in space.children(parent.name)}
    alike: dict[tuple[str, ...], list[Value]] = {}
    for choice, hanging in space.branches(parent.name):
        alike.setdefault(tuple(child.name for child in hanging), []).append(choice)
    branches: list[Schema] = [
        {
            "properties": {parent.name: _enum(choices), **{name: False for name in absent if name not in hanging}},
            "required": [parent.name, *hanging],
        }
        for hanging, choices in alike.items()
    ]
    if parent.when is not None:
        branches.append({"properties": {parent.name: False, **absent}})
    return {"anyOf": branches}


def _value_schema(lattice: Lattice) -> Schema:
    if isinstance(lattice, Scientific):
        return {"type": "number", "anyOf": [_decade(lattice, *decade) for decade in lattice.decades]}
    if not isinstance(lattice, Progression) or lattice.first % lattice.step:
        return _enum([lattice.value(index) for index in range(lattice.size)])
    if lattice.size == 1:
        return {"const": lattice.value(0)}
    return {
        "type": "number" if lattice.is_float else "integer",
        "minimum": lattice.value(0),
        "maximum": lattice.value(lattice.size - 1),
        "multipleOf": _number(fixed_point(lattice.step, lattice.decimals)),
    }


def _decade(lattice: Scientific, exponent: int, least: int, greatest: int) -> Schema:
    unit = exponent - lattice.digits + 1
    bounds = {"minimum": least, "maximum": greatest, "multipleOf": 1}
    return {keyword: _number(f"{mantissa}e{unit}") for keyword, mantissa in bounds.items()}


def _enum(values: list[Value]) -> Schema:
    return {"enum": values} if len(values) > 1 else {"const": values[0]}


def _number(text: str) -> float | int:
    number = float(text)
    return int(number) if number.is_integer() and abs(number) < 1e15 else number
