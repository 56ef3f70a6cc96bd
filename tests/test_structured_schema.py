"""Schemas become finite grammars: what is accepted is valid, bounded and complete, what has no end is refused."""

import json
import re
import warnings

import engines
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offline_tune.errors import DecodingError, UsageError
from offline_tune.grammar import Length
from offline_tune.llm.structured.form import bounded_text
from offline_tune.llm.structured.pattern import MAX_BYTES, parse_pattern
from offline_tune.llm.structured.schema import bounded

LINE = {"type": "string", "maxLength": 5}
RATE = {"type": "number", "minimum": 0, "maximum": 0.99, "multipleOf": 0.01}
COUNT = {"type": "integer", "minimum": -3, "maximum": 120}


def an_object(required=(), **properties):
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def accepts(schema, text):
    """What Python's `re` and llguidance say of a text; they must agree."""
    form = bounded(schema)
    here = re.fullmatch(form.regex, text) is not None
    assert engines.llguidance_regex(form.regex)(text) is here
    return here


# Numbers


def test_every_legal_decimal_below_the_maximum_can_be_written():
    assert all(accepts(RATE, f"0.{i:02d}") for i in range(100))


@pytest.mark.parametrize("text", ["1.00", "0.990", "0.9", "-0.01", "00.10", ".5", "0.1e0", " 0.10"])
def test_other_decimals_cannot(text):
    assert not accepts(RATE, text)


def test_integers_are_exactly_those_of_the_range():
    form = bounded(COUNT)
    written = {i for i in range(-200, 1200) if re.fullmatch(form.regex, str(i))}
    assert written == set(range(-3, 121)) == {i for i in range(-200, 1200) if form.accepts(i)}


def test_a_step_that_is_no_power_of_ten_is_kept():
    schema = {"type": "number", "minimum": 0, "maximum": 1, "multipleOf": 0.25}
    assert [t for t in ("0.00", "0.25", "0.30", "0.75", "1.00") if accepts(schema, t)] == [
        "0.00",
        "0.25",
        "0.75",
        "1.00",
    ]


def test_bounds_between_steps_are_rounded_inward():
    schema = {"type": "integer", "minimum": 0.5, "maximum": 29.9, "multipleOf": 10}
    assert [i for i in range(0, 41, 10) if accepts(schema, str(i))] == [10, 20]


def test_exclusive_bounds_are_left_out():
    schema = {"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 4}
    assert [i for i in range(6) if accepts(schema, str(i))] == [2, 3]


def test_numbers_over_decades_have_their_significant_digits():
    schema = {"type": "number", "minimum": 1e-5, "maximum": 0.2, "x-significantDigits": 2}
    assert [t for t in ("9.9e-6", "1.0e-5", "3.3e-4", "2.0e-1", "2.1e-1") if accepts(schema, t)] == [
        "1.0e-5",
        "3.3e-4",
        "2.0e-1",
    ]


@pytest.mark.parametrize("value", [True, "0.5", float("nan"), float("inf"), 0.505, 1, None, [0.5]])
def test_a_value_off_the_lattice_is_not_accepted(value):
    assert not bounded(RATE).accepts(value)


# Strings


@pytest.mark.parametrize("text", ["", "a b", "äöü", "数据集", 'a"b', "\\", "}{][,"])
def test_text_of_one_line_can_be_written(text):
    written = json.dumps(text, ensure_ascii=False)
    assert accepts(LINE, written)
    assert bounded(LINE).read(written) == text


@pytest.mark.parametrize("text", ["a\nb", "\x1b[2J", "\x9b", "\u202eabc", "\u200b", "\ue000", "toolong"])
def test_controls_and_hidden_marks_cannot(text):
    assert not accepts(LINE, json.dumps(text, ensure_ascii=False))
    assert not accepts(LINE, json.dumps(text))


def test_a_text_has_one_spelling():
    assert not accepts(LINE, '"\\u0061"')
    assert not accepts(LINE, '"a\\/"')


def test_a_shortest_length_is_kept():
    schema = {"type": "string", "minLength": 2, "maxLength": 3}
    assert [n for n in range(6) if accepts(schema, f'"{"x" * n}"')] == [2, 3]


def test_a_pattern_is_written_with_its_quotation_marks_escaped():
    schema = {"type": "string", "pattern": r'^[a-z]{1,3}(="[^"]?"|\\\.)?$'}
    for text in ("abc", 'a="x"', 'a=""', "ab\\."):
        assert accepts(schema, json.dumps(text))
        assert bounded(schema).accepts(text)
    assert not accepts(schema, json.dumps('a="""'))


@pytest.mark.parametrize(
    ("pattern", "texts"),
    [
        ("a|bc", ["a", "bc"]),
        (r"\d{2}\w?", ["12", "12_"]),
        ("(?:x(y|)){2}", ["xx", "xyx"]),
        (r"[\]\-a^]", ["]", "-", "^"]),
    ],
)
def test_a_pattern_matches_as_in_python(pattern, texts):
    form = bounded_text(pattern)
    assert all(re.fullmatch(pattern, t) and re.fullmatch(form.regex, t) and form.read(t) == t for t in texts)


@pytest.mark.parametrize("pattern", ["[b-d]{3}", ".{2}é", "(a|bcd){1,4}", r"(\\|x){0,2}", "", "(|a)?"])
def test_the_longest_string_is_known(pattern):
    rng = np.random.default_rng(0)
    found, counted = parse_pattern(pattern, in_json=False), parse_pattern(pattern, in_json=True)
    texts = [engines.walk(f"{found.regex}#", rng)[:-1] for _ in range(50)]
    assert max(len(t) for t in texts) <= found.longest.characters
    assert max(len(t.encode()) for t in texts) <= found.longest.utf8
    assert min(len(t) for t in texts) >= found.shortest
    assert counted.longest.utf8 >= found.longest.utf8


# Objects, arrays, alternatives


def test_optional_properties_may_be_left_out_in_their_order():
    schema = an_object(["b"], a=COUNT, b=COUNT, c=COUNT)
    for text in ('{"b":1}', '{"a":1,"b":2}', '{"b":1,"c":2}', '{"a":1,"b":2,"c":3}'):
        assert accepts(schema, text)
        assert bounded(schema).read(text) == json.loads(text)
    for text in ("{}", '{"a":1}', '{"b":1,"a":2}', '{"b":1,}', '{,"b":1}', '{"b":1,"b":2}', '{"b": 1}'):
        assert not accepts(schema, text)


def test_an_object_may_be_empty_where_nothing_is_required():
    schema = an_object(a=COUNT, b=COUNT, c=COUNT)
    for text in ("{}", '{"a":1}', '{"c":1}', '{"a":1,"c":1}', '{"a":1,"b":1,"c":1}'):
        assert accepts(schema, text)
    assert not accepts(schema, '{"c":1,"a":1}')
    assert accepts(an_object(), "{}")


@pytest.mark.parametrize(("least", "most"), [(0, 0), (0, 1), (0, 3), (1, 1), (2, 4)])
def test_arrays_have_as_many_items_as_told(least, most):
    schema = {"type": "array", "items": {"enum": ["x"]}, "minItems": least, "maxItems": most}
    texts = [json.dumps(["x"] * n, separators=(",", ":")) for n in range(7)]
    assert [n for n, text in enumerate(texts) if accepts(schema, text)] == list(range(least, most + 1))


def test_constants_tell_true_from_one():
    form = bounded({"enum": [1, "ü", None, {"a": [0.5]}]})
    assert [v for v in (1, True, "ü", None, {"a": [0.5]}, {"a": []}) if form.accepts(v)] == [1, "ü", None, {"a": [0.5]}]
    assert accepts({"enum": [1, "ü", None, {"a": [0.5]}]}, '{"a":[0.5]}')


def test_a_type_beside_an_enum_selects():
    assert bounded({"enum": ["a", 1, None, True], "type": ["string", "integer"]}).regex == '("a"|1)'


@pytest.mark.parametrize(
    "schema",
    [
        {"anyOf": [{"type": "null"}, COUNT]},
        {"type": ["null", "integer"], "minimum": -3, "maximum": 120},
        {"$defs": {"a/b": {"$ref": "#/$defs/c"}, "c": {"anyOf": [COUNT, {"const": None}]}}, "$ref": "#/$defs/a~1b"},
    ],
)
def test_alternatives_and_references_are_followed(schema):
    assert accepts(schema, "null")
    assert accepts(schema, "120")
    assert not accepts(schema, "121")


def test_a_type_beside_alternatives_holds_in_each():
    schema = {"type": "integer", "anyOf": [{"minimum": 0, "maximum": 1}, {"minimum": 5, "maximum": 6}]}
    assert [i for i in range(9) if accepts(schema, str(i))] == [0, 1, 5, 6]


def test_annotations_do_not_matter():
    schema = {
        "type": "null",
        "title": "t",
        "description": "d",
        "default": 1,
        "examples": [],
        "x-why": 0,
        "$comment": "",
    }
    assert bounded(schema).regex == "null"


def test_names_with_any_characters_stay_names():
    name = 'a"b\\{}|.*é\n'
    schema = an_object([name], **{name: {"type": "null"}})
    assert accepts(schema, json.dumps({name: None}, ensure_ascii=False, separators=(",", ":")))


def test_the_longest_answer_is_exact():
    schema = an_object(["a"], a=LINE, b={"type": "array", "items": COUNT, "maxItems": 2})
    longest = '{"a":"","b":[-3,120]}'.replace("-3", "120")
    assert bounded(schema).longest == Length(len(longest) + 10, len(longest) + 15)


# Reading


@pytest.mark.parametrize("text", ["", "{", "1000", "1.5", '"1"', "NaN", "1" * 10_000])
def test_a_text_that_is_no_answer_is_refused(text):
    with pytest.raises(DecodingError, match="an answer must be one of its schema's, got "):
        bounded(COUNT).read(text)


# What has no end


@pytest.mark.parametrize(
    ("schema", "match"),
    [
        (
            {"type": "string"},
            r"a string must have maxLength, a pattern, enum or const, got 'none of them' at '\$'; add",
        ),
        ({"type": "number", "minimum": 0, "maximum": 1}, "a number must have a step: multipleOf from 1E-15, whole"),
        ({"type": "integer", "minimum": 0}, "a number must have minimum and maximum, or enum, got 'no maximum' at"),
        ({"type": "integer", "maximum": 0}, "got 'no minimum'"),
        ({"type": "array", "items": COUNT}, "an array must have items and maxItems, got "),
        ({"type": "array", "maxItems": 3}, "an array must have items and maxItems"),
        ({"type": "object", "additionalProperties": COUNT}, "an object must list its properties and take no others"),
        ({"type": "object", "patternProperties": {}}, "a bounded schema may have type, properties, required, .* got"),
        ({}, "a schema must give its type, enum, const, anyOf or .ref, got {} at"),
        ({"type": "text"}, "a schema must give its type, .* got 'text'"),
        ({"type": []}, "a schema must give its type"),
        ({"type": [["string"]]}, "a schema must give its type"),
        (an_object(a=True), r"a schema must be an object that bounds its values, got True at '\$.properties.a'"),
        ({"$defs": {"n": an_object(n={"$ref": "#/$defs/n"})}, "$ref": "#/$defs/n"}, "must not contain itself, got '#/"),
        (an_object(n={"$ref": "#"}), "a schema must not contain itself, got '#' at .*; write out as many levels"),
        ({"$ref": "https://example.org/x.json"}, "a .ref must point into the schema itself, got 'https"),
        ({"$ref": "#/$defs/n"}, "a .ref must point to a part of the schema, got '#/.defs/n'"),
        (
            {"type": "array", "items": COUNT, "maxItems": 3, "uniqueItems": True},
            "got 'uniqueItems' at .*; leave it out",
        ),
        ({"oneOf": [COUNT]}, "a bounded schema may have type here|a schema must give its type"),
        ({"anyOf": []}, r"anyOf must be a list of schemas, got \[\]"),
        ({"anyOf": [COUNT], "not": COUNT}, "got 'not'"),
        ({"enum": []}, r"an enum must hold a value of its type, of Unicode text, got \[\]"),
        ({"enum": "abc"}, "an enum must be a list, without a const beside it"),
        ({"enum": [1], "const": 1}, "an enum must be a list, without a const beside it"),
        ({"enum": ["\ud800"]}, "an enum must hold a value of its type, of Unicode text"),
        ({"enum": [1], "type": "string"}, "an enum must hold a value of its type"),
        ({"enum": [1], "type": 3}, "a type must be one of JSON Schema's, got 3"),
        (an_object(["b"], a=COUNT), r"required must name properties of the object, got \['b'\]"),
        (an_object([["a"]], a=COUNT), "required must name properties of the object"),
        (an_object(**{"\udc00": COUNT}), "a property's name must be Unicode text"),
    ],
)
def test_a_schema_without_bounds_is_refused(schema, match):
    with pytest.raises(UsageError, match=match):
        bounded(schema)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"minimum": 2}, "a range must hold a multiple of its step, .* got '0 multiples of 0.01'"),
        ({"multipleOf": 0}, "a number must have a step"),
        ({"multipleOf": -1}, "a number must have a step"),
        ({"multipleOf": 1e-20}, "a number must have a step"),
        ({"multipleOf": 3e-6}, "at most 20000 unless that is a power of ten, got '330001 multiples of 0.000003'"),
        ({"maximum": 1e300}, "a range must be less than 1e15 steps from 0, got"),
        ({"maximum": 10**400}, "a range must be less than 1e15 steps from 0"),
        ({"maximum": "1"}, "maximum must be a number, got '1'"),
        ({"minimum": True}, "minimum must be a number, got True"),
        ({"minimum": None}, "minimum must be a number, got None"),
        ({"maximum": float("nan")}, "a schema must be JSON, got 'Out of range float"),
        ({"x-significantDigits": 2}, "x-significantDigits must be 2 to 6, with minimum and maximum, got"),
    ],
)
def test_a_range_without_numbers_is_refused(change, match):
    with pytest.raises(UsageError, match=match):
        bounded({**RATE, **change})


@pytest.mark.parametrize(
    ("schema", "match"),
    [
        ({"minimum": 0, "maximum": 1}, "x-significantDigits needs a range from 1E-300 to 1E.300, got"),
        ({"minimum": 1.01, "maximum": 1.02}, "a range must hold a number, got 'none of 2 digits'"),
        ({"minimum": 1}, "a number must have minimum and maximum"),
        ({"minimum": 1, "exclusiveMaximum": 2}, "x-significantDigits must be 2 to 6, with minimum and maximum"),
        ({"minimum": 1, "maximum": 2, "x-significantDigits": 9}, "x-significantDigits must be 2 to 6"),
        ({"minimum": 1, "maximum": 2, "x-significantDigits": 2.5}, "must be a whole number from 0 to 999999, got 2.5"),
    ],
)
def test_significant_digits_need_a_positive_range(schema, match):
    with pytest.raises(UsageError, match=match):
        bounded({"type": "number", "x-significantDigits": 2, **schema})


@pytest.mark.parametrize(
    ("schema", "match"),
    [
        ({"maxLength": -1}, "maxLength must be a whole number from 0 to 999999, got -1"),
        ({"maxLength": "5"}, "maxLength must be a whole number from 0 to 999999, got '5'"),
        ({"maxLength": 10**9}, "maxLength must be a whole number"),
        ({"maxLength": 999_999}, f"the longest answer may have {MAX_BYTES} bytes, got 2999997; lower maxLength"),
        ({"minLength": 3, "maxLength": 2}, r"minLength must be at most maxLength, got \[3, 2\]"),
        ({"maxLength": 5, "format": "date"}, "a bounded schema may have .* got 'format'"),
        ({"pattern": 3}, "a pattern must be text, got 3"),
        ({"pattern": "a{2,9}", "maxLength": 5}, "keep to minLength 0 and maxLength 5, got '2 to 9 characters'"),
        ({"pattern": "a?", "minLength": 1}, "a pattern must keep to minLength 1 and maxLength None"),
    ],
)
def test_a_string_without_end_is_refused(schema, match):
    with pytest.raises(UsageError, match=match):
        bounded({"type": "string", **schema})


@pytest.mark.parametrize(
    ("pattern", "rule"),
    [
        ("a*", "a highest count for each repeat, such as {0,20}"),
        ("a+b", "a highest count"),
        ("a{3,}", "a highest count"),
        ("a{3,2}", "counts in ascending order"),
        ("(a", "a closing bracket for each opening one"),
        ("a)", "an opening bracket for each closing one"),
        ("[a", "classes of single characters and ranges, each closed by ]"),
        ("[[:alpha:]]", "classes of single characters"),
        ("[]", "characters that can be written, without controls"),
        ("[z-a]", "ranges from a lower to a higher character"),
        (r"[\d-z]", "ranges from a lower to a higher"),
        (r"\bx", r"no escapes but \\d, \\w and those of signs"),
        ("a\\", "no escapes but"),
        ("(?=a)", r"plain groups \(...\) or \(\?:...\)"),
        ("(?P<n>a)", "plain groups"),
        (r"(a)\1", "no escapes"),
        ("a^b", "a backslash before a sign that has a meaning"),
        ("a{2}{3}", "a backslash before a sign"),
        ("a??", "a backslash before a sign|a highest"),
        ("a\nb", "characters that can be written"),
        ("[\x00-z]", "characters that can be written"),
        ("\udc00", "characters that can be written"),
        ("(" * 40 + ")" * 40, "at most 32 groups within groups"),
    ],
)
def test_a_pattern_that_is_no_finite_set_is_refused(pattern, rule):
    with pytest.raises(UsageError, match=f"a pattern must have {rule}.* at character [0-9]+; rewrite it"):
        parse_pattern(pattern, in_json=True)


def test_counts_within_counts_are_refused_before_they_are_written_out():
    with pytest.raises(UsageError, match="the longest answer may have 65536 bytes"):
        parse_pattern("((((a{900}){900}){900}){900}){900}", in_json=False)


def test_references_that_double_are_refused_before_they_are_written_out():
    nodes = {
        f"n{i}": an_object(["a"], a={"$ref": f"#/$defs/n{i + 1}"}, b={"$ref": f"#/$defs/n{i + 1}"}) for i in range(20)
    }
    with pytest.raises(UsageError, match="may have"):
        bounded({"$defs": {**nodes, "n20": COUNT}, "$ref": "#/$defs/n0"})


def test_a_deep_schema_is_refused():
    schema = COUNT
    for _ in range(40):
        schema = an_object(a=schema)
    with pytest.raises(UsageError, match=r"a schema may be 32 levels deep, got 'more' at .*; make it flatter"):
        bounded(schema)


@pytest.mark.parametrize("schema", [{1: {1, 2}}, {"enum": [object()]}, {"const": float("inf")}])
def test_what_is_no_json_is_refused(schema):
    with pytest.raises(UsageError, match="a schema must be JSON, got "):
        bounded(schema)


def test_a_schema_that_holds_itself_is_refused():
    schema = {"type": "object"}
    schema["properties"] = {"a": schema}
    with pytest.raises(UsageError, match="a schema must be JSON, got 'Circular"):
        bounded(schema)


def test_too_many_optional_properties_are_refused():
    schema = an_object(**{f"p{i}": LINE for i in range(60)})
    with pytest.raises(
        UsageError, match=r"expression of a schema may have 200000 characters, .* make one property req"
    ):
        bounded(schema)


# Anything at all

KEYWORDS = (
    "type enum const anyOf $ref $defs minLength maxLength pattern minimum maximum exclusiveMinimum multipleOf items "
    "minItems maxItems properties required additionalProperties x-significantDigits title not"
).split()
anything = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-5, 40),
        st.floats(),
        st.text(max_size=4),
        st.sampled_from(["string", "number", "integer", "array", "object", "null", "#", "#/$defs/a", "^[a-c]{1,2}$"]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*KEYWORDS, "a"]), inner, max_size=5),
    max_leaves=12,
)


@given(schema=anything)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_json_is_bounded_or_refused(schema):
    try:
        found = bounded(schema)
    except UsageError as error:
        assert "\n" not in str(error)
    else:
        assert re.compile(found.regex)


@given(pattern=st.text(st.sampled_from('ab1(|)[]-^$.?{}2,\\"dw:é'), max_size=12), seed=st.integers(0, 99))
@settings(max_examples=400, deadline=None)
def test_any_pattern_is_refused_or_writes_what_python_matches(pattern, seed):
    try:
        found = parse_pattern(pattern, in_json=False)
    except UsageError:
        return
    text = engines.walk(f"{found.regex}#", np.random.default_rng(seed))[:-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Python may once read [a&&b] as Rust does
        assert re.fullmatch(pattern.removeprefix("^"), text)
    assert found.shortest <= len(text) <= found.longest.characters
