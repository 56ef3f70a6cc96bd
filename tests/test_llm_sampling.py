"""Drawing a token: among the allowed ones only, as often as the model says, reproducibly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from offline_tune.errors import DecodingError, UsageError
from offline_tune.llm.contract import Sampling
from offline_tune.llm.sampling import Totals
from offline_tune.llm.sampling import draw as draw_rows

N = 12
LOGITS = arrays(np.float32, N, elements=st.floats(-50, 50, width=32))
ALLOWED = st.sets(st.integers(0, N - 1), min_size=1).map(lambda ids: np.array(sorted(ids), np.int32))
SAMPLINGS = st.builds(Sampling, st.sampled_from([0, 0.1, 1, 5]), st.floats(0.01, 1), st.floats(0, 1))


def draw(logits, allowed, sampling, rng):
    """One draw from one row."""
    rows = logits[None]
    (drawn,) = draw_rows(rows, Totals(logits.size).of(rows), np.zeros(1, np.intp), allowed, sampling, [rng])
    return drawn


def frequencies(logits, allowed, sampling, n=4000):
    rng, rows = np.random.default_rng(0), logits[None]
    found = draw_rows(rows, Totals(logits.size).of(rows), np.zeros(n, np.intp), allowed, sampling, [rng] * n)
    tokens = [drawn.token for drawn in found]
    return np.bincount(tokens, minlength=logits.size) / n


def softmax(x):
    p = np.exp(x - np.max(x))
    return p / p.sum()


@given(LOGITS, ALLOWED, SAMPLINGS, st.integers(0, 2**32))
def test_a_drawn_token_is_allowed_and_its_numbers_agree(logits, allowed, sampling, seed):
    drawn = draw(logits, allowed, sampling, np.random.default_rng(seed))
    assert drawn.token in allowed
    assert drawn.raw_logprob <= drawn.logprob <= 1e-9
    assert 0 <= drawn.rejected <= 1
    assert drawn.rejected == pytest.approx(-np.expm1(drawn.raw_logprob - drawn.logprob), abs=1e-6)


@given(LOGITS, ALLOWED, st.integers(0, 2**32))
def test_the_same_generator_draws_the_same_token(logits, allowed, seed):
    first, second = (draw(logits, allowed, Sampling(), np.random.default_rng(seed)) for _ in range(2))
    assert first == second


@given(arrays(np.float32, (5, N), elements=st.floats(-50, 50, width=32)), ALLOWED, SAMPLINGS, st.integers(0, 2**32))
def test_rows_drawn_together_are_drawn_as_each_alone(logits, allowed, sampling, seed):
    seeds = range(seed, seed + 7)
    rows = np.arange(7) % 5
    rngs = [np.random.default_rng(s) for s in seeds]
    together = draw_rows(logits, Totals(N).of(logits), rows, allowed, sampling, rngs)
    alone = [draw(logits[row], allowed, sampling, np.random.default_rng(s)) for row, s in zip(rows, seeds, strict=True)]
    assert together == alone


@pytest.mark.parametrize(("n_rows", "n_vocab"), [(1, 1), (70, 3000), (3, 200_000)])
def test_totals_are_the_log_of_the_sum_of_exponentials(n_rows, n_vocab):
    logits = (np.random.default_rng(0).standard_normal((n_rows, n_vocab)) * 8).astype(np.float32)
    expected = np.logaddexp.reduce(logits.astype(np.float64), axis=1)
    totals = Totals(n_vocab)
    assert totals.of(logits) == pytest.approx(expected, abs=1e-5)
    assert totals.of(logits[:1]) == pytest.approx(expected[:1], abs=1e-5)


def test_tokens_come_as_often_as_the_model_says():
    logits = np.array([2, 1, 0, 5, -1], np.float32)
    allowed = np.array([0, 1, 2, 4], np.int32)
    expected = np.zeros(5)
    expected[allowed] = softmax(logits[allowed] / 2)
    assert frequencies(logits, allowed, Sampling(temperature=2)) == pytest.approx(expected, abs=0.02)


def test_logprob_is_of_the_allowed_tokens_and_raw_of_all():
    logits = np.log(np.array([0.5, 0.3, 0.2], np.float32))
    drawn = draw(logits, np.array([1, 2], np.int32), Sampling(temperature=0), np.random.default_rng(0))
    assert (drawn.token, drawn.rejected) == (1, pytest.approx(0.5))
    assert (drawn.logprob, drawn.raw_logprob) == (pytest.approx(np.log(0.6)), pytest.approx(np.log(0.3)))


def test_temperature_zero_takes_the_first_of_the_most_probable():
    logits = np.array([0, 3, 3, 9], np.float32)
    drawn = draw(logits, np.array([0, 1, 2], np.int32), Sampling(temperature=0), np.random.default_rng(0))
    assert drawn.token == 1


def test_top_p_keeps_the_fewest_tokens_that_reach_it():
    logits = np.log(np.array([0.05, 0.5, 0.3, 0.15], np.float32))
    seen = frequencies(logits, np.arange(4, dtype=np.int32), Sampling(top_p=0.75))
    assert seen == pytest.approx([0, 0.625, 0.375, 0], abs=0.03)


def test_min_p_drops_what_is_improbable_beside_the_best():
    logits = np.log(np.array([0.05, 0.5, 0.3, 0.15], np.float32))
    seen = frequencies(logits, np.arange(4, dtype=np.int32), Sampling(min_p=0.29))
    assert seen == pytest.approx(np.array([0, 0.5, 0.3, 0.15]) / 0.95, abs=0.03)


def test_the_cuts_keep_the_best_token_whatever_they_are():
    logits = np.array([1, 2, 3], np.float32)
    seen = frequencies(logits, np.arange(3, dtype=np.int32), Sampling(5, top_p=1e-9, min_p=1), n=50)
    assert seen.tolist() == [0, 0, 1]


def test_a_token_without_probability_is_never_drawn():
    logits = np.array([0, -np.inf, 0], np.float32)
    assert frequencies(logits, np.arange(3, dtype=np.int32), Sampling(100))[1] == 0


def test_no_choice_takes_no_number_from_the_generator():
    rng = np.random.default_rng(0)
    draw(np.zeros(3, np.float32), np.array([2], np.int32), Sampling(), rng)
    assert rng.random() == np.random.default_rng(0).random()


def test_the_widest_logits_are_still_numbers():
    drawn = draw(
        np.array([-3e38, 3e38], np.float32), np.arange(2, dtype=np.int32), Sampling(), np.random.default_rng(0)
    )
    assert (drawn.token, drawn.logprob) == (1, 0.0)


@pytest.mark.parametrize("bad", [[0, np.nan, 0], [0, np.inf, 0], [-np.inf, 0, -np.inf]])
def test_logits_that_are_no_numbers_are_refused(bad):
    with pytest.raises(DecodingError, match="the model must give numbers as logits, got"):
        draw(np.array(bad, np.float32), np.array([0, 2], np.int32), Sampling(), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("allowed", "message"), [([], "must allow a token, got none"), ([-1, 2], "got -1 to 2"), ([3], "got 3 to 3")]
)
def test_ids_out_of_the_vocabulary_are_refused(allowed, message):
    with pytest.raises(DecodingError, match=message):
        draw(np.zeros(3, np.float32), np.array(allowed, np.int32), Sampling(), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1}, "temperature must be 0 or more, got -1"),
        ({"temperature": float("nan")}, "temperature must be 0 or more, got nan"),
        ({"top_p": 0}, "top_p must be above 0 and at most 1, got 0"),
        ({"top_p": float("nan")}, "top_p must be above 0 and at most 1, got nan"),
        ({"min_p": 1.5}, "min_p must be between 0 and 1, got 1.5"),
    ],
)
def test_sampling_out_of_range_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        Sampling(**options)
