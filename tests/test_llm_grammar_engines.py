"""Three engines read one grammar: the same strings, the same masks, whatever the space."""

import re
import subprocess
import sys

import numpy as np
import pytest
from grammar_engines import END, ENGINES, N_VOCAB, PIECES, may_follow, text_of, tokens_of, walk
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_matcher import accepts
from spaces import SPACES, some_candidates, spaces

from offline_tune.errors import DecodingError, ModelError
from offline_tune.grammar import compile_grammar
from offline_tune.llm.index import Indexer
from offline_tune.llm.mask import allowed, n_words

RANDOM = st.randoms(use_true_random=False)


EACH_ENGINE = pytest.mark.parametrize("make", ENGINES.values(), ids=ENGINES)
REGEXES = st.sampled_from(
    [
        r'\{"lr":[1-9]\.[0-9]e-[1-5],"on":(true|false)\}',
        "(1|10|100)",
        "(a|ab|abc)c?",
        "(é|日本|ab){1,3}",
        "x?(ab){0,2}",
        r'\{"abc":(10|1000|100)\}',
        "[ab]{1,4}",
    ]
)


# what every engine must do


@EACH_ENGINE
@given(REGEXES, st.randoms(use_true_random=False), st.booleans())
def test_what_it_writes_the_expression_matches(make, regex, rng, use_forced):
    assert re.fullmatch(regex, text_of(walk(make(regex), rng.choice, use_forced)).decode())


@EACH_ENGINE
@pytest.mark.parametrize(
    ("regex", "texts"), [("(1|10|100)", "1 10 100"), ("(a|ab)c?", "a ac ab abc"), ("(é|日本)", "é 日本")]
)
def test_every_tokenisation_of_a_text_is_gone_through(make, regex, texts):
    for text in map(str.encode, texts.split()):
        for tokens in (tokens_of(text), [1 + byte for byte in text]):
            matcher = make(regex)
            matcher.advance(tokens)
            assert matcher.finished or END in may_follow(matcher)


@EACH_ENGINE
@pytest.mark.parametrize("filling", [0, 2**32 - 1])
@pytest.mark.parametrize("longer", [0, 3])
def test_a_mask_says_nothing_of_what_was_there_before(make, filling, longer):
    row = np.full(n_words(N_VOCAB) + longer, filling, np.uint32)
    make("[ab]c").mask_into(row)
    bits = np.unpackbits(row.view(np.uint8), bitorder="little").nonzero()[0].tolist()
    assert [PIECES[token] for token in bits] == [b"a", b"b"]


@EACH_ENGINE
def test_the_end_may_be_chosen_where_more_could_follow(make):
    matcher = make("a{1,3}")
    assert END not in may_follow(matcher)
    matcher.advance(tokens_of(b"a"))
    assert END in may_follow(matcher)
    matcher.advance((END,))
    assert matcher.finished


@EACH_ENGINE
def test_a_text_is_finished_once_nothing_may_follow(make):
    matcher = make("ab?")
    matcher.advance(tokens_of(b"a"))
    assert not matcher.finished
    matcher.advance(tokens_of(b"b"))
    assert (matcher.finished, matcher.forced()) == (True, ())


@EACH_ENGINE
@given(REGEXES, st.randoms(use_true_random=False))
def test_forced_tokens_are_allowed_and_leave_the_position(make, regex, rng):
    matcher = make(regex)
    while not matcher.finished:
        before, forced = may_follow(matcher), matcher.forced()
        assert (may_follow(matcher), matcher.forced()) == (before, forced)
        for token in forced or (rng.choice(before),):
            assert token in may_follow(matcher)
            matcher.advance((token,))


@EACH_ENGINE
def test_a_clone_goes_its_own_way(make):
    matcher = make("[xy][zw]")
    matcher.advance(tokens_of(b"x"))
    other = matcher.clone()
    other.advance(tokens_of(b"z"))
    assert (other.finished, matcher.finished) == (True, False)
    matcher.advance(tokens_of(b"w"))
    assert matcher.finished


@EACH_ENGINE
@pytest.mark.parametrize("token", [5, END, 1 + ord("c")])
def test_a_refused_token_raises(make, token):
    with pytest.raises(DecodingError, match="the grammar must allow token"):
        make("[ab]c").advance((token,))


@EACH_ENGINE
@pytest.mark.parametrize(
    "row",
    [
        np.zeros(n_words(N_VOCAB) - 1, np.uint32),
        np.zeros(n_words(N_VOCAB), np.int64),
        np.zeros(2 * n_words(N_VOCAB), np.uint32)[::2],
    ],
    ids=["short", "of another type", "in pieces"],
)
def test_memory_that_is_no_row_is_refused(make, row):
    with pytest.raises(DecodingError, match="a mask must have 9 or more words of uint32 in one piece, got"):
        make("ab").mask_into(row)


# what all engines must agree upon


def matchers(regex):
    return [make(regex) for make in ENGINES.values()]


def goes_through(matcher, text):
    """Whether the matcher accepts the whole text, by its longest tokens."""
    for token in tokens_of(text):
        if matcher.finished or token not in may_follow(matcher):
            return False
        matcher.advance((token,))
    return matcher.finished or END in may_follow(matcher)


def damaged(text, rng):
    """The text with one byte of ASCII dropped, doubled or changed."""
    place = rng.randrange(len(text))
    byte = text[place : place + 1]
    return text[:place] + rng.choice([b"", byte + byte, b"0", b"9", b"e", b'"', b","]) + text[place + 1 :]


@settings(max_examples=40)
@given(st.sampled_from([SPACES["nested conditions"], SPACES["odd names"]]) | spaces(most=4), RANDOM)
def test_all_engines_accept_the_same_strings(space, rng):
    grammar = compile_grammar(space)
    texts = [grammar.write(values).encode() for values in some_candidates(space, 1)]
    starts = matchers(grammar.regex)
    for text in [*texts, *(damaged(text, rng) for text in texts)]:
        assert [goes_through(start.clone(), text) for start in starts] == [accepts(grammar.regex, text)] * 3


@settings(max_examples=40)
@given(st.sampled_from([SPACES["nested conditions"], SPACES["ten parameters"]]) | spaces(most=3), RANDOM)
def test_all_engines_allow_the_same_tokens_wherever_there_is_a_choice(space, rng):
    three = matchers(compile_grammar(space).regex)
    while not three[0].finished:
        masks = [may_follow(matcher) for matcher in three]
        assert masks[1] == masks[2]
        if forced := three[0].forced():  # of several spellings of one text llguidance allows its tokenizer's alone
            assert set(masks[0]) <= set(masks[1])
        else:
            assert masks[0] == masks[1]
        step = forced or (rng.choice(masks[0]),)
        for matcher in three:
            matcher.advance(step)
    assert all(matcher.finished for matcher in three)


@EACH_ENGINE
@settings(max_examples=40)
@given(st.sampled_from([SPACES["families"], SPACES["log floats from 1e-9 to 1e12"]]) | spaces(most=3), RANDOM)
def test_whatever_an_engine_writes_the_space_reads(make, space, rng):
    grammar = compile_grammar(space)
    tokens = walk(make(grammar.regex), rng.choice, use_forced=True)
    assert space.contains(grammar.read(text_of(tokens).decode()))


# outlines-core


@pytest.mark.parametrize("regex", ["(a", "(?=a)b", "a{2,1}", "[z-a]"])
def test_a_malformed_expression_is_refused(regex):
    with pytest.raises(DecodingError, match=r"a regular expression that outlines-core compiles, got '.*; simplify"):
        ENGINES["outlines-core"](regex)


def test_a_vocabulary_without_the_letters_is_refused():
    with pytest.raises(DecodingError, match="outlines-core compiles, got 'b'"):
        Indexer([None, b"a"], [0]).matcher("b")


def test_every_end_token_may_end_a_text():
    matcher = Indexer([None, b"a", None, b"b"], [0, 2]).matcher("a?")
    matcher.advance((1,))
    assert matcher.finished
    assert allowed(Indexer([None, b"a", None, b"b"], [0, 2]).matcher("a?"), 4).tolist() == [0, 1, 2]


def test_a_class_that_holds_every_byte_lets_no_end_through_before_the_end():
    matcher = ENGINES["outlines-core"]('[^"]{2}z')
    assert END not in may_follow(matcher)
    with pytest.raises(DecodingError, match=r"must allow token 0, got a refusal \(the text is not complete"):
        matcher.advance((END,))
    matcher.advance(tokens_of(b"xyz"))
    assert matcher.finished


def test_a_refused_token_leaves_the_position():
    matcher = ENGINES["outlines-core"]("abcd|x")
    with pytest.raises(DecodingError, match="the grammar must allow token 5, got a refusal"):
        matcher.advance((*tokens_of(b"abc"), 5))
    assert text_of(matcher.forced()) == b""
    assert PIECES.index(b"x") in may_follow(matcher)


def test_outlines_core_is_imported_only_when_asked_for():
    code = "import sys, offline_tune.llm.index, offline_tune.llm.llama; sys.exit('outlines_core' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_outlines_core_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "outlines_core", None)
    with pytest.raises(ModelError, match=r"outlines-core must be importable, got .*; run: pip install outlines-core=="):
        Indexer(PIECES, [END])
