"""The compact dialect: a candidate comes back level for level, and the automaton holds exactly the space."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution as Cat
from optuna.distributions import FloatDistribution as Float
from optuna.distributions import IntDistribution as Int
from spaces import SMALL, SPACES, candidates, distributions, one, some_candidates, spaces, when

from offline_tune.errors import SpaceError
from offline_tune.history import History, Observation
from offline_tune.llm.mask import allowed
from offline_tune.llm.matcher import AutomatonMatcher
from offline_tune.prompt.compact import CompactDialect, by_interest, level_of, levels_of, short_name, value_of
from offline_tune.prompt.vocabulary import (
    DIALECT_VERSION,
    FAMILIES,
    N_CHOICE_SLOTS,
    N_LEVELS,
    N_NUMBER_SLOTS,
    NUMBERS,
    VOCABULARY,
    WORDS,
)
from offline_tune.samplers.compact import candidate_automaton
from offline_tune.space import Parameter, SearchSpace

FITTING = {name: space for name, space in SPACES.items() if name != "300 categories"}
SENTENCES = [name for name in SMALL if name in FITTING]
IDS = VOCABULARY.ids


def sentence(dialect, values):
    """(name value)* of a candidate."""
    pairs = ((dialect.places[p.name], level_of(p, values[p.name])) for p in dialect.written(values))
    return tuple(token for place, level in pairs for token in (VOCABULARY.name(place), VOCABULARY.value(place, level)))


def language(automaton, state=0):
    """Every text of an automaton."""
    if state == automaton.end:
        yield ()
    for token, following in automaton.states[state].items():
        for rest in language(automaton, following):
            yield (token, *rest)


def walk(automaton, rng):
    """A text of an automaton, each token drawn evenly."""
    matcher, tokens = AutomatonMatcher(automaton), []
    while not matcher.finished:
        tokens.append(int(rng.choice(allowed(matcher, len(VOCABULARY.pieces)))))
        matcher.advance(tokens[-1:])
    return tuple(tokens)


def flat(**distributions):
    return SearchSpace.from_distributions(distributions)


def observed(space, n, seed=0, **odd):
    """A history of n scored trials; `odd` replaces fields of all of them."""
    rng = np.random.default_rng(seed)
    values = (space.sample(rng) for _ in range(n))
    return History(
        space, tuple(Observation(i, v, **{"score": float(rng.normal()), **odd}) for i, v in enumerate(values))
    )


# --- the vocabulary


def test_no_piece_of_the_vocabulary_moves_without_a_new_version():
    digest = hashlib.sha256("\n".join(VOCABULARY.pieces).encode()).hexdigest()[:16]
    assert {1: "954c149cead294e8"}[DIALECT_VERSION] == digest


def test_every_piece_is_spelt_once():
    assert len(set(VOCABULARY.pieces)) == len(VOCABULARY) == len(VOCABULARY.ids)


def test_every_word_has_a_level():
    assert len(set(WORDS)) == len(WORDS) <= N_LEVELS


def test_a_value_token_names_its_parameter_and_its_level():
    token = VOCABULARY.value(VOCABULARY.known("subsample", False), 17)
    assert VOCABULARY.pieces[token] == "<subsample=17>"


def test_an_unknown_family_has_a_piece_of_its_own():
    assert VOCABULARY.pieces[VOCABULARY.family("no such family")] == "<family:?>"


def test_a_name_is_known_as_a_number_or_as_a_choice_and_not_as_both():
    assert VOCABULARY.known("booster", False) is None and VOCABULARY.known("learning_rate", True) is None


# --- candidates


@pytest.mark.parametrize("name", FITTING)
def test_a_candidate_comes_back_level_for_level(name):
    dialect, rng = CompactDialect(SPACES[name]), np.random.default_rng(0)
    for values in some_candidates(SPACES[name], 20):
        read = dialect.read_candidate(sentence(dialect, values), rng)
        assert dialect.candidate_tokens(read) == dialect.candidate_tokens(values)
        assert dialect.space.contains(read)


@given(space=spaces(), seed=st.integers(0, 2**32 - 1))
def test_a_candidate_of_any_space_comes_back_level_for_level(space, seed):
    dialect, rng = CompactDialect(space), np.random.default_rng(seed)
    values = space.sample(rng)
    assert sentence(dialect, dialect.read_candidate(sentence(dialect, values), rng)) == sentence(dialect, values)


@given(distribution=distributions(), seed=st.integers(0, 2**32 - 1))
def test_a_value_of_any_level_lies_in_the_range_and_has_that_level(distribution, seed):
    parameter, rng = Parameter("x", distribution), np.random.default_rng(seed)
    for level in levels_of(parameter):
        value = value_of(parameter, level, rng)
        assert parameter.contains(value) and level_of(parameter, value) == level


@given(distribution=distributions(), unit=st.floats(0, 1))
def test_the_level_of_any_value_is_among_its_parameters_levels(distribution, unit):
    parameter = Parameter("x", distribution)
    assert level_of(parameter, parameter.lattice.draw(unit)) in levels_of(parameter)


@given(low=st.integers(1, 50), factor=st.integers(5_000, 10**9), place=st.integers(0, 5_000))
def test_the_small_integers_of_a_wide_log_scale_have_levels_too(low, factor, place):
    parameter = Parameter("x", Int(low, low * factor, log=True))
    assert level_of(parameter, low + place) in levels_of(parameter)


def test_a_level_becomes_different_values_of_its_bin():
    parameter, rng = Parameter("x", Float(0, 1)), np.random.default_rng(0)
    assert len({value_of(parameter, 9, rng) for _ in range(20)}) > 5


def test_a_level_without_a_value_is_refused():
    with pytest.raises(SpaceError, match="'x' has no value of level 3; the model and the space disagree"):
        value_of(Parameter("x", Int(0, 1)), 3, np.random.default_rng(0))


def test_tokens_of_another_space_are_refused():
    dialect = CompactDialect(flat(x=Int(0, 9), y=Int(0, 9)))
    tokens = sentence(dialect, {"x": 1, "y": 2})
    with pytest.raises(SpaceError, match="'x' must come next, got tokens"):
        dialect.read_candidate(tokens[2:], np.random.default_rng(0))


def test_tokens_that_end_too_early_are_refused():
    dialect = CompactDialect(flat(x=Int(0, 9), y=Int(0, 9)))
    with pytest.raises(SpaceError, match="'y' must come next, got tokens -1 and -1"):
        dialect.read_candidate(sentence(dialect, {"x": 1, "y": 2})[:2], np.random.default_rng(0))


def test_tokens_that_go_on_are_refused():
    dialect = CompactDialect(flat(x=Int(0, 9)))
    tokens = sentence(dialect, {"x": 1})
    with pytest.raises(SpaceError, match=f"must end with its last parameter, got token {tokens[0]} too; leave it out"):
        dialect.read_candidate(tokens * 2, np.random.default_rng(0))


def test_a_long_name_is_cut_in_a_message():
    with pytest.raises(SpaceError) as caught:
        value_of(Parameter("n" * 10_000, Int(0, 1)), 3, np.random.default_rng(0))
    assert len(str(caught.value)) < 200


# --- the automaton


@pytest.mark.parametrize("name", SENTENCES)
def test_the_automaton_holds_every_candidate_and_nothing_else(name):
    dialect = CompactDialect(SPACES[name])
    texts = list(language(candidate_automaton(dialect)))
    assert len(texts) == len(set(texts))
    assert set(texts) == {sentence(dialect, values) for values in candidates(SPACES[name])}


@given(space=spaces(), seed=st.integers(0, 2**32 - 1))
def test_every_walk_through_the_automaton_is_a_candidate(space, seed):
    dialect, rng = CompactDialect(space), np.random.default_rng(seed)
    tokens = walk(candidate_automaton(dialect), rng)
    values = dialect.read_candidate(tokens, rng)
    assert space.contains(values) and sentence(dialect, values) == tokens


@given(space=spaces(), seed=st.integers(0, 2**32 - 1))
def test_the_automaton_takes_every_candidate_of_any_space(space, seed):
    dialect = CompactDialect(space)
    matcher = AutomatonMatcher(candidate_automaton(dialect))
    matcher.advance(sentence(dialect, space.sample(np.random.default_rng(seed))))
    assert matcher.finished


def test_the_first_name_and_every_later_one_is_forced():
    dialect = CompactDialect(flat(x=Int(0, 9), y=Int(0, 9)))
    matcher = AutomatonMatcher(candidate_automaton(dialect))
    assert matcher.forced() == (VOCABULARY.name(dialect.places["x"]),)
    matcher.advance(sentence(dialect, {"x": 1, "y": 2})[:2])
    assert matcher.forced() == (VOCABULARY.name(dialect.places["y"]),)


def test_what_hangs_on_a_fixed_choice_is_written():
    space = SearchSpace((Parameter("family", Cat(["svm"])), Parameter("svm.C", Int(1, 3), when=when("family", "svm"))))
    dialect = CompactDialect(space)
    assert {len(text) for text in language(candidate_automaton(dialect))} == {2}


def test_a_space_of_fixed_parameters_writes_nothing():
    automaton = candidate_automaton(CompactDialect(flat(x=Int(7, 7), y=Cat(["a"]))))
    assert list(language(automaton)) == [()]


def test_an_automaton_may_be_held_to_one_family():
    space = SPACES["families"]
    dialect, rng = CompactDialect(space), np.random.default_rng(0)
    automaton = candidate_automaton(dialect, "forest")
    read = [dialect.read_candidate(walk(automaton, rng), rng) for _ in range(20)]
    assert {values["family"] for values in read} == {"forest"}


# --- prompts


@pytest.mark.parametrize("name", ["families", "nested conditions", "ten parameters"])
@given(n=st.integers(0, 60), spare=st.integers(0, 300), seed=st.integers(0, 99))
def test_a_prompt_keeps_to_its_limit_and_to_the_incumbent(name, n, spare, seed):
    space = SPACES[name]
    dialect, history = CompactDialect(space), observed(space, n, seed)
    limit = len(dialect.header) + len(space.parameters) + 3 + spare
    prompt = dialect.prompt_tokens(history, limit)
    assert len(prompt) <= limit
    if history.incumbent is not None:
        assert contains(prompt, [IDS["<trial>"], *dialect.candidate_tokens(history.incumbent.values), IDS["<outcome>"]])


def contains(tokens, part):
    return any(tokens[i : i + len(part)] == part for i in range(len(tokens) - len(part) + 1))


def test_the_trials_that_stay_keep_their_order():
    dialect = CompactDialect(flat(x=Int(0, 63)))
    history = History(dialect.space, tuple(Observation(i, {"x": i}, float(-i)) for i in range(40)))
    prompt = dialect.prompt_tokens(history, 3 + 4 * 10)
    levels = [token for token in prompt if token >= VOCABULARY.first_value]
    assert len(levels) == 10 and levels == sorted(levels)


def test_a_short_prompt_keeps_the_best_the_pending_and_the_latest():
    scores = [9.0, 8.0, 7.0, 6.0, 5.0, 0.0, 1.0, None, 2.0]
    trials = [Observation(i, {"x": i}, score, pending=score is None) for i, score in enumerate(scores)]
    order = [o.number for o in by_interest(History(flat(x=Int(0, 63)), tuple(trials)))]
    assert order == [0, 1, 2, 3, 4, 7, 8, 6, 5]


def test_no_trial_is_of_interest_twice():
    history = observed(SPACES["families"], 20)
    assert sorted(o.number for o in by_interest(history)) == list(range(20))


@pytest.mark.parametrize(("odd", "piece"), [({"pending": True}, "<pending>"), ({}, "<fail>")])
def test_a_trial_without_a_score_says_why(odd, piece):
    dialect = CompactDialect(flat(x=Int(0, 9)))
    history = History(dialect.space, (Observation(0, {"x": 3}, None, **odd),))
    assert dialect.prompt_tokens(history, 100)[-1] == IDS[piece]


def test_the_best_trial_has_the_level_of_zero():
    dialect = CompactDialect(flat(x=Int(0, 9)))
    history = History(dialect.space, tuple(Observation(i, {"x": i}, float(i)) for i in range(5)))
    best = dialect.prompt_tokens(history, 100)[-1]
    assert VOCABULARY.pieces[best] == "<y42>"  # z = 0 of -4 .. 2


def test_a_question_ends_where_the_outcome_follows():
    dialect = CompactDialect(flat(x=Int(0, 9)))
    pieces = [VOCABULARY.pieces[token] for token in dialect.query_tokens({"x": 0})]
    assert pieces == ["<trial>", "<number 0=0>", "<outcome>"]


def test_fixed_parameters_are_not_written():
    dialect = CompactDialect(flat(x=Int(0, 9), fixed=Int(7, 7), y=Int(0, 9)))
    assert [p.name for p in dialect.written({"x": 1, "fixed": 7, "y": 2})] == ["x", "y"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_header_names_the_only_family(family):
    dialect = CompactDialect(flat(family=Cat([family]), x=Int(0, 9)))
    assert VOCABULARY.pieces[dialect.header[-1]] == f"<family:{family}>"


@pytest.mark.parametrize("space", [SPACES["families"], flat(x=Int(0, 9)), flat(family=Cat(["mine"]))])
def test_the_header_names_no_family_where_there_are_several_none_or_an_unknown_one(space):
    assert VOCABULARY.pieces[CompactDialect(space).header[-1]] == "<family:?>"


# --- names


def test_known_names_have_their_places_in_every_family():
    dialect = CompactDialect(SPACES["families"])
    assert VOCABULARY.parameters[dialect.places["xgboost.max_depth"]] == "max_depth"
    assert VOCABULARY.parameters[dialect.places["forest.bootstrap"]] == "bootstrap"


def test_unknown_names_take_slots_in_order():
    dialect = CompactDialect(flat(a=Int(0, 9), b=Cat(["u", "v"]), c=Float(0, 1)))
    places = [VOCABULARY.parameters[dialect.places[name]] for name in "abc"]
    assert places == ["number 0", "choice 0", "number 1"]


def test_a_short_name_in_two_branches_has_one_place():
    root = Parameter("family", Cat(["u", "v"]))
    branches = [Parameter(f"{family}.knob", Int(0, 9), when=when("family", family)) for family in "uv"]
    dialect = CompactDialect(SearchSpace((root, *branches)))
    assert dialect.places["u.knob"] == dialect.places["v.knob"]


def test_parameters_that_are_active_together_have_places_of_their_own():
    dialect = CompactDialect(flat(**{"encoder.learning_rate": Float(0, 1), "decoder.learning_rate": Float(0, 1)}))
    places = [VOCABULARY.parameters[place] for place in dialect.places.values()]
    assert places == ["learning_rate", "number 0"]


@given(space=spaces(), seed=st.integers(0, 99))
def test_no_candidate_names_a_place_twice(space, seed):
    dialect = CompactDialect(space)
    places = [dialect.places[p.name] for p in dialect.written(space.sample(np.random.default_rng(seed)))]
    assert len(set(places)) == len(places)


def test_a_known_choice_with_unknown_words_takes_a_slot():
    dialect = CompactDialect(flat(booster=Cat(["gbtree", "my own"])))
    assert VOCABULARY.parameters[dialect.places["booster"]] == "choice 0"


def test_a_known_choice_is_written_as_its_word():
    dialect = CompactDialect(flat(bootstrap=Cat([True, False])))
    (token,) = dialect.candidate_tokens({"bootstrap": False})
    assert VOCABULARY.pieces[token] == f"<bootstrap={WORDS.index('false')}>"


def test_a_name_without_its_family_is_short():
    assert [short_name(name) for name in ("max_depth", "xgboost.max_depth", "a.b.c")] == ["max_depth"] * 2 + ["c"]


@pytest.mark.parametrize(
    ("distribution", "most", "kind"),
    [(Int(0, 9), N_NUMBER_SLOTS, "numbers"), (Cat(["u", "v"]), N_CHOICE_SLOTS, "choices")],
)
def test_too_many_unknown_names_are_refused(distribution, most, kind):
    space = flat(**{f"unknown {i}": distribution for i in range(most + 1)})
    with pytest.raises(SpaceError, match=f"at most {most} unnamed {kind} apart, got more; use an instruct model"):
        _ = CompactDialect(space).places


def test_as_many_unknown_names_as_slots_fit():
    space = flat(**{f"unknown {i}": Int(0, 9) for i in range(N_NUMBER_SLOTS)}, **{n: Int(0, 9) for n in NUMBERS})
    assert len(set(CompactDialect(space).places.values())) == N_NUMBER_SLOTS + len(NUMBERS)


def test_more_choices_than_levels_are_refused():
    dialect = CompactDialect(SPACES["300 categories"])
    with pytest.raises(SpaceError, match="'x': the shipped model can tell at most 64 choices apart, got 300; use an"):
        candidate_automaton(dialect)


def test_as_many_choices_as_levels_fit():
    dialect = CompactDialect(one(Cat([f"choice {i}" for i in range(N_LEVELS)])))
    assert len(list(language(candidate_automaton(dialect)))) == N_LEVELS
