"""Matchers: what may follow, what is decided, where the text ends; for regexes and for automata over tokens."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offline_tune.errors import DecodingError
from offline_tune.llm.mask import Groups, allowed, row_of, tokens_of
from offline_tune.llm.matcher import AutomatonMatcher, TokenAutomaton
from offline_tune.llm.scripted import END, ScriptedModel

MODEL = ScriptedModel()
N_VOCAB = len(MODEL.vocabulary)
ASCII = st.characters(codec="ascii")


def may_follow(matcher):
    return allowed(matcher, N_VOCAB).tolist()


def accepts(regex, text):
    """Whether a matcher over bytes goes through the whole text and may end there."""
    matcher = MODEL.matcher(regex)
    for token in MODEL.tokenize(text, special=False):
        if matcher.finished or token not in may_follow(matcher):
            return False
        matcher.advance((token,))
    return matcher.finished or END in may_follow(matcher)


def walk(matcher, choose, use_forced):
    """The tokens of one text, each chosen from the allowed ones."""
    tokens = []
    while not matcher.finished:
        step = (matcher.forced() if use_forced else ()) or (choose(may_follow(matcher)),)
        matcher.advance(step)
        tokens += step
    return tokens


def literals(max_size):
    return st.text(ASCII, min_size=1, max_size=max_size).map(re.escape)


REGEXES = st.recursive(
    literals(4) | st.sampled_from(["[0-9]", "[a-c]{2}", "x?", "(0|[1-9][0-9]{0,2})"]),
    lambda inner: st.lists(inner, min_size=1, max_size=3).flatmap(
        lambda parts: st.sampled_from(["(" + "|".join(parts) + ")", "".join(parts), f"({parts[0]})?"])
    ),
    max_leaves=6,
)


@given(REGEXES, st.randoms(use_true_random=False), st.booleans())
def test_whatever_a_matcher_writes_the_regex_matches(regex, rng, use_forced):
    tokens = walk(MODEL.matcher(regex), rng.choice, use_forced)
    assert re.fullmatch(regex, MODEL.spell([t for t in tokens if t != END]))


@given(REGEXES, st.text(ASCII, max_size=4))
def test_a_matcher_accepts_exactly_what_the_regex_matches(regex, text):
    assert accepts(regex, text) == (re.fullmatch(regex, text) is not None)


@pytest.mark.parametrize(
    ("regex", "texts"), [("(1|10|100)", ["1", "10", "100"]), ("(a|ab)c?", ["a", "ab", "abc", "ac"])]
)
def test_a_longer_alternative_is_reachable_behind_a_shorter_one(regex, texts):
    assert all(accepts(regex, text) for text in texts)


def test_regex_tokens_that_are_decided_are_forced():
    matcher = MODEL.matcher('{"lr":[12]}'.replace("{", r"\{").replace("}", r"\}"))
    assert MODEL.spell(matcher.forced()) == '{"lr":'
    matcher.advance(matcher.forced())
    assert (matcher.forced(), MODEL.spell(may_follow(matcher))) == ((), "12")
    matcher.advance(MODEL.tokenize("2", special=False))
    assert MODEL.spell(matcher.forced()) == "}"
    matcher.advance(matcher.forced())
    assert matcher.finished


def test_a_clone_of_a_regex_matcher_goes_its_own_way():
    matcher = MODEL.matcher("[ab][cd]")
    other = matcher.clone()
    other.advance(MODEL.tokenize("ac", special=False))
    assert other.finished
    assert MODEL.spell(may_follow(matcher)) == "ab"


def test_non_ascii_choices_are_written_byte_by_byte():
    assert accepts("(é|日本)", "日本")
    assert not accepts("(é|日本)", "日")


def test_words_beside_the_bytes_do_not_enter_a_regex():
    model = ScriptedModel(words=("ab", "<x>"))
    found = allowed(model.matcher("(ab|<x>)"), len(model.vocabulary))
    assert found.tolist() == sorted(model.tokenize("a<", special=False))


def test_a_refused_token_raises():
    matcher = MODEL.matcher("[ab]")
    with pytest.raises(DecodingError, match=r"the grammar must allow tokens \[5\], got a refusal \(.*doesn't satisfy"):
        matcher.advance((5,))


def test_after_a_refusal_every_question_raises():
    matcher = MODEL.matcher("[ab]c")
    with pytest.raises(DecodingError):
        matcher.advance((5,))
    for ask in (lambda: may_follow(matcher), matcher.forced, lambda: matcher.finished):
        with pytest.raises(DecodingError, match="the grammar must stay enforceable, got"):
            ask()


@pytest.mark.parametrize("regex", ["(a", "(?=a)b", "(?P<x>a)(?P=x)", "a{2,1}", "[z-a]"])
def test_a_malformed_regex_is_refused(regex):
    with pytest.raises(DecodingError, match="the grammar must be a regular expression that llguidance compiles, got"):
        MODEL.matcher(regex)


# automata


DIAMOND = TokenAutomaton(({7: 1}, {3: 2, 9: 3}, {5: 3}, {6: 4}, {}))


def test_an_automaton_says_what_may_follow():
    matcher = AutomatonMatcher(DIAMOND)
    assert may_follow(matcher) == [7]
    matcher.advance((7,))
    assert may_follow(matcher) == [3, 9]


def test_an_automaton_forces_up_to_the_next_choice():
    matcher = AutomatonMatcher(DIAMOND)
    assert matcher.forced() == (7,)
    matcher.advance((7,))
    assert matcher.forced() == ()
    matcher.advance((3,))
    assert matcher.forced() == (5, 6)
    matcher.advance((5, 6))
    assert (matcher.finished, matcher.forced()) == (True, ())


def test_the_longest_text_of_an_automaton_is_known():
    assert DIAMOND.longest == 4


def test_what_an_automaton_allows_cannot_be_written_over():
    with pytest.raises(ValueError, match="read-only"):
        DIAMOND.allowed[0][0] = 1


@pytest.mark.parametrize("words", [1, 2, 9])
def test_an_automaton_fills_a_row_of_any_vocabulary(words):
    row = np.full(words, 2**32 - 1, np.uint32)
    AutomatonMatcher(DIAMOND, 1).mask_into(row)
    assert tokens_of(row).tolist() == [3, 9]


def test_an_automaton_refuses_a_row_that_is_too_short_for_its_tokens():
    with pytest.raises(DecodingError, match=r"a mask must have 3 or more words of uint32 .*, got 2 of uint32"):
        AutomatonMatcher(TokenAutomaton(({64: 1}, {}))).mask_into(np.zeros(2, np.uint32))


def test_a_refused_token_leaves_an_automaton_where_it_was():
    matcher = AutomatonMatcher(DIAMOND)
    with pytest.raises(DecodingError, match=r"must allow token 8, got state 1 that allows \[3, 9\]; this is a bug"):
        matcher.advance((7, 8))
    assert matcher.forced() == (7,)


def test_the_end_of_an_automaton_allows_nothing():
    matcher = AutomatonMatcher(DIAMOND)
    matcher.advance((7, 9, 6))
    with pytest.raises(DecodingError, match="must be unfinished to allow a token, got its end"):
        may_follow(matcher)


def test_a_clone_of_an_automaton_matcher_goes_its_own_way():
    matcher = AutomatonMatcher(DIAMOND)
    matcher.clone().advance((7, 9, 6))
    assert matcher.forced() == (7,)


@pytest.mark.parametrize(
    ("states", "message"),
    [
        ((), "must have one end, got 0 states without a way out"),
        (({1: 1}, {}, {}), "must have one end, got 2 states without a way out"),
        (({1: 2}, {}), "of 2 states must lead to states 0 to 1, got 2"),
        (({1: -1}, {}), "of 2 states must lead to states 0 to 1, got -1"),
        (({1: 1, 2: 2}, {1: 0}, {}), "must be without loops, got one among 3 states"),
        (({1: 0, 2: 1}, {}), "must be without loops, got one among 2 states"),
    ],
)
def test_a_malformed_automaton_is_refused(states, message):
    with pytest.raises(DecodingError, match=message):
        TokenAutomaton(states)


@st.composite
def automata(draw):
    n = draw(st.integers(2, 7))
    ways = (st.dictionaries(st.integers(0, 9), st.integers(i + 1, n - 1), min_size=1, max_size=3) for i in range(n - 1))
    return TokenAutomaton((*map(draw, ways), {}))


@given(automata(), st.randoms(use_true_random=False), st.booleans())
def test_every_walk_ends_within_the_longest(automaton, rng, use_forced):
    assert 1 <= len(walk(AutomatonMatcher(automaton), rng.choice, use_forced)) <= automaton.longest


@given(automata())
def test_forced_tokens_are_the_only_ones(automaton):
    for state, chain in enumerate(automaton.forced):
        matcher = AutomatonMatcher(automaton, state)
        for token in chain:
            assert may_follow(matcher) == [token]
            matcher.advance((token,))
        assert matcher.finished or len(may_follow(matcher)) > 1


# masks


@given(st.sets(st.integers(0, 200), min_size=1))
def test_a_row_holds_exactly_its_tokens(tokens):
    row = row_of(sorted(tokens))
    assert (tokens_of(row).tolist(), tokens_of(row).dtype) == (sorted(tokens), np.int32)
    assert row.size == max(tokens) // 32 + 1


def test_matchers_in_one_place_are_grouped():
    first, second = AutomatonMatcher(DIAMOND, 1), AutomatonMatcher(DIAMOND, 2)
    groups = Groups(40).of([first, second, first.clone(), second])
    assert [(tokens.tolist(), places) for tokens, places in groups] == [([3, 9], [0, 2]), ([5], [1, 3])]
