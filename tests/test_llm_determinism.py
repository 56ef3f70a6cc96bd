"""The same seed, number of candidates and build give the same candidates: in any process, whatever came before."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from random_models import make_random_llama, small_vocabulary
from random_spaces import random_space
from spaces import SPACES
from tally import tally

from offline_tune.errors import DecodingError
from offline_tune.grammar import compile_grammar
from offline_tune.llm.contract import Sampling
from offline_tune.llm.llama import load_model
from offline_tune.llm.manifest import shipped_model

K = 24
SPACE = SPACES["ten parameters"]
DRAW = """
import json, sys
from pathlib import Path
from offline_tune.llm.contract import Sampling
from offline_tune.llm.llama import load_model
path, regex, before = sys.argv[1:]
model = load_model(Path(path), n_ctx=1024, k_max=16)
for n in range(int(before)):
    model.complete([9] * (40 + n), model.matcher("[a-z0-9]{12}"), 3 + n, Sampling(), range(3 + n), 20)
found = model.complete(list(range(5, 200)), model.matcher(regex), 24, Sampling(3.0, 0.999, 1e-6), range(24), 300)
print(json.dumps([[list(c.tokens), c.text, c.logprob, c.raw_logprob, c.rejected_mass] for c in found]))
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_random_llama(tmp_path_factory.mktemp("models") / "small.gguf", small_vocabulary(), width=128, layers=2)


@pytest.fixture(scope="module")
def model(path):
    loaded = load_model(path, n_ctx=1_024, k_max=16)
    yield loaded
    loaded.close()


def draw(model, seeds=range(K), regex=None, prompt=tuple(range(5, 200))):
    matcher = model.matcher(regex or compile_grammar(SPACE).regex)
    return model.complete(prompt, matcher, len(seeds), Sampling(3.0, 0.999, 1e-6), seeds, 300)


def in_a_process(path, before):
    arguments = [sys.executable, "-c", DRAW, str(path), compile_grammar(SPACE).regex, str(before)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    return json.loads(done.stdout)


def test_the_candidates_compared_here_differ(model):
    assert len({c.text for c in draw(model)}) > K / 2


def test_processes_agree_to_the_last_bit(path, model):
    here = [[list(c.tokens), c.text, c.logprob, c.raw_logprob, c.rejected_mass] for c in draw(model)]
    assert in_a_process(path, 0) == in_a_process(path, 3) == here


def test_what_was_drawn_before_changes_no_bit(model):
    first = draw(model)
    for seed in range(3):
        tally(model, random_space(seed, 6), range(5))
        model.logits_after([7] * (30 + seed), [[5], [6, 7]])
        draw(model, range(3), prompt=range(5, 120 + seed))
        assert draw(model) == first


def test_a_call_that_failed_changes_no_bit(model):
    first = draw(model)
    with pytest.raises(DecodingError):
        draw(model, regex="[ab]{400}c*")
    assert draw(model) == first


def test_a_model_loaded_again_changes_no_bit(path, model):
    again = load_model(path, n_ctx=1_024, k_max=16)
    assert draw(again) == draw(model)
    again.close()


def test_another_model_beside_it_changes_no_bit(model):
    first = draw(model)
    other = load_model(shipped_model(), k_max=4)
    other.logits_after([1, 2, 3], [[5]])
    assert draw(model) == first
    other.close()
    assert draw(model) == first
