"""From a JSON Schema to a finite grammar: answers that always end, parse and are valid.

A schema is taken only if its values are finitely many texts of known length:

- a string has `maxLength`, or a `pattern` that ends (see `structured.pattern`), or is one of an `enum`;
- a number has `minimum`, `maximum` and a step (`multipleOf`; 1 for integers), or `x-significantDigits` in its place for
  positive numbers over several decades, written `1.50e-3`;
- an array has `maxItems`; an object lists its `properties` and takes no others;
- nothing contains itself; `anyOf`, `$ref` within the schema, `enum` and `const` are understood.

Each value has one spelling: no whitespace, properties in their declared order (optional ones may be left out), numbers
in the fixed form of their lattice. Any other keyword that would narrow the values is refused rather than ignored.
Knows no engine: the grammar is a regular expression in the common part of Python's, Rust's and outlines-core's syntax.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from offline_tune.distribution import is_unicode, quoted
from offline_tune.errors import UsageError
from offline_tune.llm.structured.form import Form, one_text, union, written
from offline_tune.llm.structured.pattern import Strings, either, join
from offline_tune.llm.structured.scalars import (
    DIGITS,
    Place,
    Schema,
    check_order,
    constants,
    count,
    integer,
    literal,
    number,
    string,
)

MAX_DEPTH = 32

_ANNOTATIONS = frozenset(
    "$schema $id $comment $defs definitions title description default examples deprecated readOnly writeOnly".split()
)
_RANGE = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_KEYWORDS: Mapping[str, Sequence[str]] = {
    "string": ("minLength", "maxLength", "pattern"),
    "number": (*_RANGE, DIGITS),
    "integer": _RANGE,
    "array": ("items", "minItems", "maxItems"),
    "object": ("properties", "required", "additionalProperties"),
    "boolean": (),
    "null": (),
}


def bounded(schema: Schema) -> Form:
    """The answers that a JSON Schema describes.

    >>> bounded({"type": "integer", "minimum": 1, "maximum": 12}).regex
    '([1-9]|1[0-2])'

    Raises:
        UsageError: the schema is malformed, has no value or cannot be bounded.
    """
    try:
        text = json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"a schema must be JSON, got {quoted(str(error))}; correct it") from None
    return _compiled(text)


@lru_cache(maxsize=64)
def _compiled(text: str) -> Form:
    schema = json.loads(text)
    return _form(schema, Place(schema))


def _form(schema: object, place: Place) -> Form:
    if len(place.path) > 2 * MAX_DEPTH:
        raise place.refusal(f"a schema may be {MAX_DEPTH} levels deep", "more", "make it flatter")
    if not isinstance(schema, dict):
        raise place.refusal("a schema must be an object that bounds its values", schema, "give its type and bounds")
    told = {k: v for k, v in schema.items() if k not in _ANNOTATIONS and (k == DIGITS or not k.startswith("x-"))}
    if "$ref" in told:
        return _reference(_only(told, ["$ref"], place), place)
    if "enum" in told or "const" in told:
        return constants(_only(told, ["enum", "const", "type"], place), place)
    if "anyOf" in told:
        return _any_of(_only(told, ["anyOf", "type"], place), place)
    return _typed(told, place)


def _typed(schema: Schema, place: Place) -> Form:
    kinds = schema.get("type")
    names = [str(name) for name in kinds] if isinstance(kinds, list) else [str(kinds)]
    if not names or any(name not in _KEYWORDS for name in names):
        raise place.refusal(
            "a schema must give its type, enum, const, anyOf or $ref", kinds or schema, "say what the value is"
        )
    _only(schema, ["type", *(keyword for name in names for keyword in _KEYWORDS[name])], place)
    return union([_OF_TYPE[name]({k: schema[k] for k in schema if k in _KEYWORDS[name]}, place) for name in names])


def _only(schema: Schema, allowed: Iterable[str], place: Place) -> Schema:
    for keyword in schema:
        if keyword not in allowed:
            raise place.refusal(
                f"a bounded schema may have {', '.join(dict.fromkeys(allowed))} here",
                keyword,
                "leave it out, and check the answer yourself",
            )
    return schema


def _reference(schema: Schema, place: Place) -> Form:
    pointer = schema["$ref"]
    if not isinstance(pointer, str) or not (pointer == "#" or pointer.startswith("#/")):
        raise place.refusal("a $ref must point into the schema itself", pointer, "put what it names under $defs")
    if pointer in place.references:
        raise place.refusal("a schema must not contain itself", pointer, "write out as many levels as are needed")
    target = place.root
    for name in (part.replace("~1", "/").replace("~0", "~") for part in pointer[2:].split("/")):
        if not isinstance(target, dict) or name not in target:
            raise place.refusal("a $ref must point to a part of the schema", pointer, "correct it")
        target = target[name]
    return _form(target, replace(place.at("$ref"), references=(*place.references, pointer)))


def _any_of(schema: Schema, place: Place) -> Form:
    branches = schema["anyOf"]
    if not isinstance(branches, list) or not branches:
        raise place.refusal("anyOf must be a list of schemas", branches, "give one or more")
    kind = {"type": schema["type"]} if "type" in schema else {}
    parts = [{**kind, **branch} if isinstance(branch, dict) else branch for branch in branches]
    return union([_form(part, place.at("anyOf", i)) for i, part in enumerate(parts)])


# Arrays and objects


def _array(schema: Schema, place: Place) -> Form:
    least, most = count(schema, "minItems", place) or 0, count(schema, "maxItems", place)
    if most is None or "items" not in schema:
        raise place.refusal("an array must have items and maxItems", schema, "add them")
    check_order(least, most, "minItems", "maxItems", place)
    item = _form(schema["items"], place.at("items"))
    strings = join([one_text("["), _listed(item.strings, least, most), one_text("]")])
    return Form(
        strings, lambda v: isinstance(v, list) and least <= len(v) <= most and all(item.accepts(part) for part in v)
    )


def _listed(item: Strings, least: int, most: int) -> Strings:
    """`least` to `most` items with commas between them."""
    if most == 0:
        return one_text("")
    found = join([item, join([one_text(","), item]).times(max(least - 1, 0), most - 1)])
    return found if least else found.times(0, 1)


def _object(schema: Schema, place: Place) -> Form:
    properties, required = schema.get("properties", {}), schema.get("required", [])
    if schema.get("additionalProperties", False) is not False or not isinstance(properties, dict):
        raise place.refusal(
            "an object must list its properties and take no others", schema, "set additionalProperties to false"
        )
    if not isinstance(required, list) or any(str(name) not in properties for name in required):
        raise place.refusal("required must name properties of the object", required, "correct it")
    if not all(map(is_unicode, properties)):
        raise place.refusal("a property's name must be Unicode text", list(properties), "correct it")
    forms = {name: _form(part, place.at("properties", name)) for name, part in properties.items()}
    members = [(join([one_text(f"{written(name)}:"), form.strings]), name in required) for name, form in forms.items()]
    strings = join([one_text("{"), _members(members), one_text("}")])
    return Form(strings, lambda value: isinstance(value, dict) and _fits(value, forms, required))


def _fits(value: Mapping[str, object], forms: Mapping[str, Form], required: Sequence[str]) -> bool:
    return all(name in value for name in required) and all(
        name in forms and forms[name].accepts(part) for name, part in value.items()
    )


def _members(members: Sequence[tuple[Strings, bool]]) -> Strings:
    """The members in their order with commas between them; those that are not required may be left out."""
    comma = one_text(",")
    first = next((i for i, (_, is_required) in enumerate(members) if is_required), None)
    if first is not None:
        before = [join([strings, comma]).times(0, 1) for strings, _ in members[:first]]
        after = [join([comma, strings]).times(int(is_required), 1) for strings, is_required in members[first + 1 :]]
        return join([*before, members[first][0], *after])
    # none is sure to be there, so each may be the first: as long as the square of their number
    starts = [_members([(strings, True), *members[i + 1 :]]) for i, (strings, _) in enumerate(members)]
    return either(starts).times(0, 1) if starts else one_text("")


_OF_TYPE: Mapping[str, Callable[[Schema, Place], Form]] = {
    "string": string,
    "number": number,
    "integer": integer,
    "array": _array,
    "object": _object,
    "boolean": literal(False, True),
    "null": literal(None),
}
