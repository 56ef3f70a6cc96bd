"""Records of proposals and calls: stored as JSON, read back, named by digests."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offline_tune.samplers.draft import call_seeds
from offline_tune.samplers.proposal import Answer, Call, Provenance, Source, text_digest

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
STAMPS = st.builds(
    Provenance,
    source=st.sampled_from(Source),
    seed=st.integers(0, 2**32),
    model_sha256=st.text(max_size=9),
    prompt_digest=st.text(max_size=9),
    logprob=st.none() | NUMBERS,
    predicted=st.none() | NUMBERS,
    improvement=st.none() | NUMBERS,
    seconds=NUMBERS,
)
CALL = Call(
    first_trial=4,
    prompt='<s> naïve "数"\n',
    grammar_digest="ab",
    answers=(Answer(text="{}", logprob=-1.5, rejected_mass=0.25),),
    tokens_in=10,
    tokens_out=3,
    seconds=0.5,
)


@given(stamp=STAMPS)
def test_a_provenance_comes_back_as_it_was(stamp):
    assert Provenance.from_json(stamp.to_json()) == stamp


def test_a_provenance_is_one_line_of_plain_json():
    text = Provenance(source=Source.MODEL, seed=1).to_json()
    assert "\n" not in text and json.loads(text)["source"] == "model"


@pytest.mark.parametrize("source", Source)
def test_every_source_has_a_word_of_its_own(source):
    assert Provenance.from_json(Provenance(source=source, seed=0).to_json()).source is source


def test_a_call_is_one_line_with_its_answers_and_its_digest():
    line = CALL.to_json()
    found = json.loads(line)
    assert "\n" not in line and found["prompt"] == CALL.prompt
    assert found["answers"] == [{"text": "{}", "logprob": -1.5, "rejected_mass": 0.25}]
    assert found["prompt_digest"] == CALL.prompt_digest


def test_a_digest_is_the_beginning_of_the_sha256():
    assert text_digest("数") == hashlib.sha256("数".encode()).hexdigest()[:16]


def test_other_prompts_have_other_digests():
    assert text_digest("a") != text_digest("a ")


def test_every_completion_has_a_seed_of_its_own():
    seeds = {seed for run in range(3) for trial in range(3) for seed in call_seeds(run, trial, 16)}
    assert len(seeds) == 3 * 3 * 16 and min(seeds) >= 0


def test_more_drafts_keep_the_seeds_of_the_first():
    assert call_seeds(1, 2, 16)[:4] == call_seeds(1, 2, 4)
