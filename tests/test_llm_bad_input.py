"""Bad input to a loaded model: one line of a typed error each, and the model answers afterwards as it did before."""

import subprocess
import sys
from pathlib import Path

import gguf_maker
import pytest
from optuna.distributions import CategoricalDistribution as Cat
from optuna.distributions import FloatDistribution as Float
from optuna.distributions import IntDistribution as Int
from random_models import make_random_llama, small_vocabulary
from spaces import one, when
from tally import tally

from offline_tune.cards import DataCard
from offline_tune.errors import DecodingError, ModelError, SpaceError, UsageError
from offline_tune.history import History
from offline_tune.llm.contract import Sampling
from offline_tune.llm.llama import load_model
from offline_tune.samplers.chat import ChatDrafter
from offline_tune.space import Parameter, SearchSpace
from offline_tune.task import Metric, TaskKind

CARD = DataCard(kind=TaskKind.BINARY, n_rows=100, n_features=3, n_numeric=3, n_categorical=0, n_classes=2)
LETTERS = gguf_maker.byte_letters()
SPECIALS = ["<|end|>", "<|im_end|>", "<|eot_id|>", "<|endoftext|>"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def loaded(folder):
    made = load_model(make_random_llama(folder / "small.gguf", small_vocabulary()), n_ctx=2_048, k_max=16)
    yield made
    made.close()


def answer(model):
    return model.complete([5, 6, 7], model.matcher("[a-z]{5}[0-9]{3}"), 4, Sampling(1.5), range(4), 20)


@pytest.fixture
def model(loaded):
    """The model; the test fails if it does not answer afterwards as it did before."""
    before = answer(loaded)
    yield loaded
    assert answer(loaded) == before


def without(letters):
    tokens = [letter for letter in LETTERS if letter not in letters]
    return {
        "tokens": [*tokens, "<|end|>"],
        "types": [gguf_maker.NORMAL] * len(tokens) + [gguf_maker.CONTROL],
        "merges": ["d e"],
        "bos": len(tokens),
        "eos": len(tokens),
    }


# Spaces


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SearchSpace(()), "a search space needs at least one parameter, got none; add one"),
        (lambda: one(Float(1.23456781, 1.23456782, log=True)), r"no value with 6 significant digits lies in .*; widen"),
        (lambda: one(Int(0, 300_000, step=3)), r"a stepped range may have at most 20,000 values, got 100,001; use a"),
        (
            lambda: one(Int(2**53, 2**53 + 10)),
            r"integer bounds must lie within ±1,000,000,000,000, got 9007199254740992",
        ),
        (lambda: one(Cat([2**63, 1])), "an integer choice must fit in 64 bits, got 9223372036854775808; write it as"),
        (lambda: one(Cat(["\ud800"])), r"a choice must be Unicode text, got '\\ud800'; re-encode it"),
        (lambda: one(Cat([float("nan")])), "a choice must be finite, got nan; write it as text"),
        (
            lambda: one(Float(1e-301, 1, log=True)),
            "bounds must be 0 or lie between 1e-300 and 1e\\+300 in size, got 1e-301",
        ),
    ],
)
def test_a_space_that_cannot_be_written_is_refused(make, message):
    with pytest.raises(SpaceError, match=message):
        make()


def test_an_empty_list_of_choices_is_refused_before_it_is_a_distribution():
    with pytest.raises(ValueError, match="must contain one or more elements"):
        Cat([])
    stored = one(Cat(["a"])).to_json().replace('["a"]', "[]")
    with pytest.raises(SpaceError, match="a stored search space must be the text that to_json wrote, got"):
        SearchSpace.from_json(stored)


def test_a_candidate_longer_than_the_context_is_refused(model):
    with pytest.raises(
        DecodingError, match=r"fit a context of 2048 tokens, got \d+ \+ 3008; show fewer trials, or load"
    ):
        tally(model, one(Cat(["x" * 3_000, "y"])), [0])


@pytest.mark.parametrize("n", [1_500, 5_000])
def test_a_drafter_refuses_a_space_that_leaves_no_room_for_the_prompt(model, n):
    space = one(Cat(["x" * n, "y"]))
    drafter = ChatDrafter(model, space, CARD, (), Metric("accuracy", "predict"), Sampling())
    with pytest.raises(DecodingError, match=r"the shortest prompt for this space has [\d,]+ characters, got room for"):
        drafter.draft(History(space), 2, 0, 0)


def test_a_space_beyond_any_grammar_is_refused(model):
    space = SearchSpace.from_distributions({f"p{i}": Cat([f"{i}-{j}" * 40 for j in range(900)]) for i in range(20)})
    with pytest.raises(
        SpaceError, match=r"a grammar may have at most 2,000,000 characters, got .*; use fewer or shorter"
    ):
        tally(model, space, [0])


@pytest.mark.parametrize(
    "space",
    [
        one(Cat(["a", "ab", "abc", '"', '""', "\\", '\\"'])),
        one(Cat([2**53, 2**53 + 1, 2**63 - 1, -(2**63)])),
        one(Cat([f"c{i}" for i in range(256)])),
        one(Float(1e-300, 1e300, log=True)),
        one(Float(-1e300, 1e300)),
        one(Float(0.3, 0.3)),
        SearchSpace(
            (
                Parameter("p0", Cat(["on", "off"])),
                *(Parameter(f"p{i}", Cat(["on", "off"]), when=when(f"p{i - 1}", "on")) for i in range(1, 11)),
            )
        ),
        SearchSpace.from_distributions(
            {name: Int(0, 9) for name in ("\u202e", "👩‍👩‍👧", "\x7f", '"}', "\ufeff", "\x00", "{}")}
        ),
    ],
    ids=["prefixes", "64 bits", "256 choices", "1e-300 to 1e300", "±1e300", "one value", "ten deep", "odd names"],
)
def test_an_extreme_space_is_no_bad_input(model, space):
    assert tally(model, space, range(32)).is_clean


# Prompts and grammars


def test_a_prompt_over_the_context_is_refused(model):
    with pytest.raises(
        DecodingError, match=r"must fit a context of 2048 tokens, got 2047 \+ 20; show fewer trials, or"
    ):
        model.complete([5] * 2_047, model.matcher("[a-z]{5}"), 1, Sampling(), [0], 20)


@pytest.mark.parametrize(
    ("regex", "message"),
    [
        ("[a-c&&x-z]", "the grammar must stay enforceable, got .*; simplify the search space"),
        ("(" * 5_000 + "a" + ")" * 5_000, "that llguidance compiles, got '\\({40}'"),
        ("a" + "|a".join(f"{i}" for i in range(200_000)), "that llguidance compiles, got 'a0|a1"),
        ("\ud800", r"must spell every character of a name or choice, got '\\ud800', which no token holds; rename"),
        ("a*", "an output must have at most max_tokens = 20 tokens, got 21 and no end; raise max_tokens"),
    ],
    ids=["nothing", "nested", "huge", "half a character", "endless"],
)
def test_a_grammar_that_cannot_be_enforced_is_refused(model, regex, message):
    with pytest.raises(DecodingError, match=message):
        model.complete([5], model.matcher(regex), 3, Sampling(0), range(3), 20)


# Models


def test_a_cache_too_small_for_all_runs_them_one_after_another(folder):
    small = load_model(folder / "small.gguf", n_ctx=64, k_max=16)
    found = small.complete([5] * 10, small.matcher("[a-z]{40}"), 48, Sampling(), range(48), 50)
    assert len(found) == 48 and all(len(c.text) == 40 for c in found)
    small.close()


def test_a_character_that_the_vocabulary_lacks_is_named(model, folder):
    other = load_model(gguf_maker.make_gguf(folder / "lacks.gguf", **without(LETTERS[0xF2])), k_max=1)
    with pytest.raises(DecodingError, match=r"must spell every character .*, got '\\U00080041', which no token holds"):
        tally(other, one(Cat(["a\U00080041", "b"])), [0])
    assert tally(other, one(Cat(["a🙂", "b"])), [0]).is_clean
    other.close()


def test_a_vocabulary_of_ends_alone_is_refused(model, folder):
    options = {"tokens": SPECIALS, "types": [gguf_maker.CONTROL] * 4, "merges": ["a b"], "bos": 0, "eos": 1}
    other = load_model(gguf_maker.make_gguf(folder / "ends.gguf", **options), k_max=1)
    with pytest.raises(ModelError, match=r"ends.gguf must have tokens that spell ASCII, got '.*'; convert the model"):
        other.matcher("-")
    other.close()


def test_a_model_without_a_tokenizer_is_refused_beside_a_loaded_one(model, folder):
    path = gguf_maker.make_spm(folder / "mute.gguf", tokenizer=False)
    with pytest.raises(ModelError, match=r"mute.gguf must hold a tokenizer, got 0 tokens"):
        load_model(path)


def test_a_model_whose_logits_are_no_numbers_is_refused_beside_a_sound_one(model, folder):
    other = load_model(gguf_maker.make_spm(folder / "nan.gguf", nan=True), k_max=2)
    for _ in range(2):
        with pytest.raises(DecodingError, match="the model must give numbers as logits, got 273 of 273 that are NaN"):
            other.complete([1, 5], other.matcher("[ab]"), 2, Sampling(), [0, 1], 9)
    other.close()


OUT_OF_MEMORY = """
import resource, sys
from pathlib import Path
import psutil
from offline_tune.errors import ModelError
from offline_tune.llm.contract import Sampling
from offline_tune.llm.llama import load_model
path = Path(sys.argv[1])
model = load_model(path, n_ctx=512, k_max=2, device="cpu")
answer = lambda: model.complete([1, 5], model.matcher("[a-z]{3}"), 2, Sampling(), [0, 1], 9)
before = answer()
limit = psutil.Process().memory_info().vms + (64 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, -1))
try:
    load_model(path, n_ctx=2**20, k_max=2, device="cpu")
except ModelError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
assert answer() == before
print("still usable")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are Linux's")
def test_a_context_that_the_system_has_no_memory_for_is_refused(folder):
    path = gguf_maker.make_spm(folder / "long.gguf", n_ctx=2**21, width=64, layers=4)
    arguments = [sys.executable, "-c", OUT_OF_MEMORY, str(path)]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    first, second = done.stdout.splitlines() or ["", done.stderr]
    assert first.startswith("llama.cpp must allot a context of 1048704 tokens, got: ") and "memory" in first
    assert first.endswith("; load the model with a smaller n_ctx or k_max")
    assert second == "still usable"


# Requests


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": float("nan")}, "temperature must be 0 or more, got nan"),
        ({"temperature": float("inf")}, "temperature must be 0 or more, got inf"),
        ({"temperature": -1e-9}, "temperature must be 0 or more, got -1e-09"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, got 0"),
        ({"top_p": float("nan")}, "top_p must be above 0 and at most 1, got nan"),
        ({"min_p": 1.01}, "min_p must be between 0 and 1, got 1.01"),
    ],
)
def test_sampling_out_of_range_is_refused(change, message):
    with pytest.raises(UsageError, match=message):
        Sampling(**change)


@pytest.mark.parametrize("seed", [0, 2**32, 2**64, 2**200])
def test_any_size_of_seed_is_taken(model, seed):
    assert tally(model, one(Float(0, 1)), [seed, seed + 1]).is_clean
