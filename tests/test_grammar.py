import hashlib
import json
import re
from decimal import Context
from fractions import Fraction

import numpy as np
import pytest
from engines import count_sentences, llguidance_regex, llguidance_schema, outlines_core_regex, walk
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from optuna.distributions import CategoricalDistribution as Cat
from optuna.distributions import FloatDistribution as Float
from optuna.distributions import IntDistribution as Int
from spaces import NUMBERS, SMALL, SPACES, candidates, distributions, one, some_candidates, spaces, when

from offline_tune.errors import SpaceError
from offline_tune.grammar import Grammar, compile_grammar
from offline_tune.space import Parameter, Scientific, SearchSpace, fixed_point

GRAMMARS = {name: compile_grammar(space) for name, space in SPACES.items()}
EACH_SPACE = pytest.mark.parametrize("grammar", GRAMMARS.values(), ids=GRAMMARS)
EACH_NUMBER = pytest.mark.parametrize("grammar", [GRAMMARS[name] for name in NUMBERS], ids=NUMBERS)
EACH_SMALL = pytest.mark.parametrize("grammar", [GRAMMARS[name] for name in SMALL], ids=SMALL)


def matches(grammar, text):
    return re.fullmatch(grammar.regex, text) is not None


def reads(grammar, text):
    try:
        grammar.read(text)
    except SpaceError:
        return False
    return True


def sentences(grammar, n=200):
    """Every sentence where there are few, else the corners and random ones."""
    space = grammar.space
    chosen = candidates(space) if space.size <= 2_000 else some_candidates(space, n)
    return [grammar.write(values) for values in chosen]


def value_texts(grammar, n=500):
    """The spellings of a one-parameter space: all of a small grid, else evenly spread ones and both ends."""
    lattice = grammar.space.parameters[0].lattice
    return [lattice.text(round(place)) for place in np.linspace(0, lattice.size - 1, min(lattice.size, n))]


def exact_json(text):
    """JSON with its decimals kept, so that a multiple of 0.01 is no matter of rounding."""
    return json.loads(text, parse_float=Fraction)


def validator(grammar):
    schema = exact_json(json.dumps(grammar.schema))
    Draft202012Validator.check_schema(grammar.schema)
    return Draft202012Validator(schema)


# The regular expression is the space


@EACH_SPACE
def test_the_regex_matches_as_many_texts_as_there_are_candidates(grammar):
    assert count_sentences(grammar.regex) == grammar.space.size


@EACH_SPACE
def test_the_regex_matches_every_candidate(grammar):
    assert all(matches(grammar, sentence) for sentence in sentences(grammar))


@EACH_NUMBER
def test_the_regex_matches_the_full_grid(grammar):
    assert all(matches(grammar, f'{{"x":{text}}}') for text in value_texts(grammar, 20_000))


@given(spaces())
def test_the_regex_of_any_space_matches_its_candidates_and_nothing_else(space):
    grammar = compile_grammar(space)
    assert count_sentences(grammar.regex) == space.size
    assert all(matches(grammar, grammar.write(values)) for values in some_candidates(space, 5))


def neighbours(lattice):
    """The spellings one step below the lowest value and one above the highest."""
    if not isinstance(lattice, Scientific):
        ends = (lattice.first - lattice.step, lattice.last + lattice.step)
        return [fixed_point(end, lattice.decimals) for end in ends]
    context = Context(prec=lattice.digits)
    outside = (context.next_minus(lattice.low), context.next_plus(lattice.high))
    texts = (f"{number:.{lattice.digits - 1}e}" for number in outside)
    return [text.replace("e+", "e") for text in texts]


@EACH_NUMBER
def test_numbers_one_step_outside_the_bounds_are_rejected(grammar):
    for text in neighbours(grammar.space.parameters[0].lattice):
        assert not matches(grammar, f'{{"x":{text}}}')
        assert not reads(grammar, f'{{"x":{text}}}')


@EACH_NUMBER
def test_other_spellings_of_a_number_are_rejected(grammar):
    for text in value_texts(grammar, 50):
        digits, _, exponent = text.partition("e")
        finer = f"{digits}5{'e' * bool(exponent)}{exponent}" if "." in text else f"{text}.5"
        for other in (finer, f"0{text}", f"+{text}", f" {text}", f"{text} ", f'"{text}"', f"{text}e0", f"{text}."):
            assert not matches(grammar, f'{{"x":{other}}}')
            assert not reads(grammar, f'{{"x":{other}}}')


def test_a_zero_has_no_sign():
    for name in ("floats round zero", "integers round zero", "tens"):
        zeros = [text for text in ("0", "-0", "0.000", "-0.000") if matches(GRAMMARS[name], f'{{"x":{text}}}')]
        assert zeros in (["0"], ["0.000"])


@pytest.mark.parametrize(
    ("sentence", "accepted"),
    [
        ('{"booster":"gblinear","alpha":1.0,"n":0}', True),
        ('{"booster":"gblinear","depth":2,"alpha":1.0,"n":0}', False),
        ('{"booster":"gbtree","depth":2,"alpha":1.0,"n":0}', True),
        ('{"booster":"gbtree","alpha":1.0,"n":0}', False),
        ('{"booster":"dart","depth":2,"sample":null,"alpha":1.0,"n":0}', True),
        ('{"booster":"dart","depth":2,"sample":null,"skip":false,"alpha":1.0,"n":0}', False),
        ('{"booster":"dart","depth":2,"sample":"uniform","skip":true,"rate":0.2,"alpha":1.0,"n":0}', True),
        ('{"booster":"dart","depth":2,"sample":"uniform","skip":true,"alpha":1.0,"n":0}', False),
        ('{"booster":"dart","depth":2,"sample":"uniform","skip":false,"alpha":1.0,"n":0}', True),
    ],
)
def test_a_parameter_is_written_just_when_it_is_active(sentence, accepted):
    grammar = GRAMMARS["nested conditions"]
    assert matches(grammar, sentence) == reads(grammar, sentence) == accepted
    assert validator(grammar).is_valid(exact_json(sentence)) == accepted


def test_the_order_of_parameters_is_fixed_in_a_sentence_only():
    grammar, turned = GRAMMARS["nested conditions"], '{"booster":"gbtree","alpha":1.0,"depth":2,"n":0}'
    assert not matches(grammar, turned)
    assert not reads(grammar, turned)
    assert validator(grammar).is_valid(exact_json(turned))


@EACH_SPACE
def test_a_damaged_sentence_is_matched_just_when_it_is_read(grammar):
    rng = np.random.default_rng(0)
    for sentence in sentences(grammar, 20)[:20]:
        for place in range(len(sentence)):
            symbol = rng.choice(list('0123456789.-e,:"{}[] \\a'))
            for damaged in (
                sentence[:place] + symbol + sentence[place + 1 :],
                sentence[:place] + sentence[place + 1 :],
            ):
                assert matches(grammar, damaged) == reads(grammar, damaged)


@given(distributions(), st.text('0123456789.-e"truefalsn', max_size=12))
def test_a_random_value_is_matched_just_when_it_is_read(distribution, text):
    grammar = compile_grammar(one(distribution))
    assert matches(grammar, f'{{"x":{text}}}') == reads(grammar, f'{{"x":{text}}}')


def test_the_regex_of_ten_parameters_is_small():
    assert len(GRAMMARS["ten parameters"].regex) < 1_000


# The engines agree


@EACH_SPACE
def test_the_engines_accept_what_python_matches(grammar):
    engines = [llguidance_regex(grammar.regex), outlines_core_regex(grammar.regex)]
    for sentence in sentences(grammar, 10)[:40]:
        for text in (
            sentence,
            sentence[:-1],
            sentence + "}",
            sentence.replace('":', '":0', 1),
            sentence.replace("1", "9"),
        ):
            assert [accepts(text) for accepts in engines] == [matches(grammar, text)] * 2


@EACH_SPACE
def test_random_walks_under_the_mask_read_and_lie_in_the_space(grammar):
    rng = np.random.default_rng(1)
    for _ in range(2_000 // len(GRAMMARS) + 1):
        sentence = walk(grammar.regex, rng)
        values = grammar.read(sentence)
        assert grammar.space.contains(values)
        assert grammar.write(values) == sentence


# Reading and writing


@EACH_SPACE
def test_reading_is_the_inverse_of_writing(grammar):
    for values in some_candidates(grammar.space, 50):
        assert grammar.read(grammar.write(values)) == values


def test_a_value_off_the_lattice_is_written_as_the_nearest():
    grammar = compile_grammar(SearchSpace.from_distributions({"lr": Float(1e-5, 1, log=True), "depth": Int(1, 9)}))
    assert grammar.write({"depth": 3, "lr": 0.00123456}) == '{"lr":1.23e-3,"depth":3}'


def test_types_survive_reading():
    space = SearchSpace.from_distributions({"f": Float(0, 1e12), "i": Int(0, 9), "c": Cat([1.0, "1"])})
    values = compile_grammar(space).read('{"f":5,"i":5,"c":1.0}')
    assert [type(value) for value in values.values()] == [float, int, float]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a candidate must be JSON, got ''; write one object"),
        ("{", "a candidate must be JSON, got '{'; write one object"),
        ('{"x":NaN}', "a candidate must be JSON, got '{\"x\":NaN}'; write one object"),
        ("[1]", "a candidate must be one object without repeated names, got '[1]'; write it so"),
        ("7", "a candidate must be one object without repeated names, got '7'; write it so"),
        ('{"x":1,"x":1}', 'a candidate must be one object without repeated names, got \'{"x":1,"x":1}\'; write it so'),
        ('{"x": 1}', "a candidate must be spelled '{\"x\":1}', got '{\"x\": 1}'; write it so"),
        ('{"x":1.0}', "a candidate must be spelled '{\"x\":1}', got '{\"x\":1.0}'; write it so"),
        (
            "{}",
            "'x' must have a value, got none; set it within IntDistribution(high=100000000, log=False, low=1, step=1)",
        ),
        ('{"y":1}', "'y' is not in the space, got 1; leave it out"),
        (
            '{"x":[2]}',
            "'x' must lie in IntDistribution(high=100000000, log=False, low=1, step=1), got [2]; choose a value inside",
        ),
        (
            '{"x":{}}',
            "'x' must lie in IntDistribution(high=100000000, log=False, low=1, step=1), got []; choose a value inside",
        ),
        (
            '{"x":1e999}',
            "'x' must lie in IntDistribution(high=100000000, log=False, low=1, step=1), got inf; choose a value inside",
        ),
        ("1" * 16, "a candidate has at most 15 characters, got 16; write it shorter"),
    ],
)
def test_a_text_that_is_no_sentence_is_refused(text, message):
    with pytest.raises(SpaceError) as caught:
        compile_grammar(one(Int(1, 10**8))).read(text)
    assert str(caught.value) == message


@pytest.mark.parametrize("text", ["[" * 9_000, "9" * 9_000, '{"x":' * 1_500, '{"x":"' + "\\ud800" * 1_000 + '"}'])
def test_deep_and_long_texts_are_refused_like_any_other(text):
    grammar = compile_grammar(one(Cat(["y" * 10_000, "z"])))
    with pytest.raises(SpaceError, match=r"a candidate must be|must lie in"):
        grammar.read(text)


# Length, digest, limits


@EACH_SMALL
def test_the_longest_length_is_reached_and_never_passed(grammar):
    written = [grammar.write(values) for values in candidates(grammar.space)]
    assert grammar.longest.characters == max(map(len, written))
    assert grammar.longest.utf8 == max(len(sentence.encode()) for sentence in written)


@given(spaces())
def test_no_sentence_of_any_space_is_longer_than_the_longest(space):
    grammar = compile_grammar(space)
    for values in some_candidates(space, 10):
        assert len(grammar.write(values)) <= grammar.longest.characters
        assert len(grammar.write(values).encode()) <= grammar.longest.utf8


def test_characters_and_bytes_are_counted_apart():
    grammar = compile_grammar(one(Cat(["aaa", "éé"])))
    assert (grammar.longest.characters, grammar.longest.utf8) == (11, 12)


def test_the_digest_names_the_regex():
    grammar = GRAMMARS["ten parameters"]
    assert grammar.digest == hashlib.sha256(grammar.regex.encode()).hexdigest()
    assert grammar.digest != GRAMMARS["families"].digest


def test_equal_spaces_have_equal_grammars():
    again: Grammar = compile_grammar(SearchSpace.from_json(SPACES["families"].to_json()))
    assert again == GRAMMARS["families"]
    assert again.schema == GRAMMARS["families"].schema


def test_a_grammar_beyond_its_limit_is_refused():
    space = SearchSpace((Parameter("x", Cat(["y" * 1_000_000 + str(i) for i in range(3)])),))
    with pytest.raises(
        SpaceError, match=r"a grammar may have at most 2,000,000 characters, got 3,000,0\d\d or more; use"
    ):
        compile_grammar(space)


def test_many_nested_branches_are_refused_without_being_built():
    chain = [Parameter("p0", Cat(list("abcdefgh")))]
    for depth in range(1, 40):
        for choice in "abcdefgh":
            chain.append(Parameter(f"p{depth}{choice}", Cat(list("abcdefgh")), when=when(chain[-1].name, choice)))
    assert len(compile_grammar(SearchSpace(tuple(chain))).regex) < 100_000


# The JSON Schema


@EACH_SPACE
def test_the_schema_accepts_every_candidate(grammar):
    valid = validator(grammar)
    assert all(valid.is_valid(exact_json(sentence)) for sentence in sentences(grammar, 20)[:300])


@EACH_SMALL
def test_the_schema_rejects_what_the_space_does_not_hold(grammar):
    valid, space = validator(grammar), grammar.space
    written = sentences(grammar)
    known = {json.dumps(json.loads(sentence), sort_keys=True) for sentence in written}
    for values in (json.loads(sentence) for sentence in written[:: len(written) // 20 + 1]):
        for name in values:
            for other in (None, True, "?", -(10**6), 10**6, 0, 0.00001, 0.5, 1.5, 2, 1e30, [], {}):
                changed = {**values, name: other}
                expected = json.dumps(changed, sort_keys=True) in known or _same_number(space, changed)
                assert valid.is_valid(exact_json(json.dumps(changed))) == expected
            missing = {key: value for key, value in values.items() if key != name}
            assert not valid.is_valid(exact_json(json.dumps(missing)))
        assert not valid.is_valid(exact_json(json.dumps({**values, "unknown": 1})))


def _same_number(space, values):
    """Whether the values are a candidate, however its numbers are spelled."""
    return space.contains(values) and exact_json(space.write(values)) == exact_json(json.dumps(values))


@pytest.mark.parametrize("name", ["nested conditions", "integers round zero", "300 categories"])
def test_the_schema_can_drive_an_engine(name):
    grammar = GRAMMARS[name]
    accepts = llguidance_schema(grammar.schema)
    assert all(
        accepts(json.dumps(json.loads(s), separators=(",", ":"), ensure_ascii=False)) for s in sentences(grammar, 3)[:3]
    )
