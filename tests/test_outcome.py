"""Outcome levels: monotone in the score, free of its unit, the best at zero, whatever the numbers look like."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offline_tune.prompt.outcome import CENTRES, Z_HIGH, Z_LOW, expected_improvement, outcome_levels, standardise
from offline_tune.prompt.vocabulary import N_OUTCOMES

ANY = st.floats(-1.7e308, 1.7e308)
PLAIN = st.floats(-1e3, 1e3)


def arrays(elements, least=1, most=20):
    return st.lists(elements, min_size=least, max_size=most).map(np.array)


@given(scores=arrays(ANY), history=arrays(ANY))
def test_any_finite_scores_give_numbers_within_the_cut(scores, history):
    z = standardise(scores, history)
    assert z.shape == scores.shape and (z >= Z_LOW).all() and (z <= Z_HIGH).all()


@given(scores=arrays(ANY, least=2), history=arrays(ANY))
def test_a_better_score_never_has_a_lower_level(scores, history):
    levels = outcome_levels(standardise(np.sort(scores), history))
    assert (np.diff(levels) >= 0).all() and levels.min() >= 0 and levels.max() < N_OUTCOMES


@given(history=arrays(ANY))
def test_the_best_score_of_a_history_is_zero(history):
    z = standardise(history, history)
    assert z.max() == 0.0 and z[history.argmax()] == 0.0


@given(history=arrays(PLAIN, least=2), power=st.integers(-60, 60))
def test_the_unit_of_the_scores_does_not_matter(history, power):
    assert np.array_equal(standardise(history, history), standardise(history * 2.0**power, history * 2.0**power))


def test_an_improvement_by_one_scale_is_one():
    z = standardise(np.array([0.9, 0.8, 0.7, 0.6, 0.4]), np.array([0.6, 0.7, 0.8]))
    assert z == pytest.approx([1, 0, -1, -2, -4])


def test_a_single_score_is_zero_and_only_its_rivals_order_is_known():
    assert standardise(np.array([0.2, 0.5, 0.8]), np.array([0.5])).tolist() == [Z_LOW, 0.0, Z_HIGH]


@pytest.mark.parametrize("score", [0.0, -3.5, 1e-300, 1e300])
def test_equal_scores_are_all_zero(score):
    history = np.full(6, score)
    assert (standardise(history, history) == 0).all()


def test_many_ties_at_the_top_still_tell_the_others_apart():
    history = np.array([1.0, 1.0, 1.0, 1.0, 0.999, 0.99, 0.0])
    z = standardise(history, history)
    assert z[3] > z[4] > z[5] >= z[6]


def test_tiny_differences_of_tiny_scores_are_differences():
    errors = -np.array([3e-14, 2e-14, 1e-14])
    assert standardise(errors, errors) == pytest.approx([-2, -1, 0])


def test_one_terrible_score_does_not_make_the_others_alike():
    history = np.array([0.7, 0.8, 0.9, -1e9, 0.6])
    assert standardise(history, history) == pytest.approx([-0.25, -0.125, 0, -4, -0.375])


def test_a_worst_score_far_from_the_others_widens_the_scale():
    history = np.array([0.99, 1.0, 0.99, 0.0])
    assert standardise(history, history) == pytest.approx([-0.5, 0, -0.5, -4])


def test_histories_in_rows_are_standardised_row_by_row():
    scores, history = np.random.default_rng(0).normal(size=(2, 3, 5))
    rows = [standardise(s, h) for s, h in zip(scores, history, strict=True)]
    assert np.array_equal(standardise(scores, history), np.array(rows))


def test_a_centre_lies_in_its_own_level():
    assert outcome_levels(CENTRES).tolist() == list(range(N_OUTCOMES))


def test_the_ends_of_the_cut_have_the_first_and_the_last_level():
    assert outcome_levels(np.array([Z_LOW, Z_HIGH])).tolist() == [0, N_OUTCOMES - 1]


def test_expected_improvement_grows_with_the_level_that_is_certain():
    assert (np.diff(expected_improvement(np.eye(N_OUTCOMES))) > 0).all()


def test_a_certain_improvement_by_one_is_worth_one():
    certain = np.zeros((1, N_OUTCOMES))
    certain[0, outcome_levels(np.array([1.0]))] = 1
    assert expected_improvement(certain) == pytest.approx(1.0, abs=0.06)


@given(weights=st.lists(st.integers(0, 9), min_size=N_OUTCOMES, max_size=N_OUTCOMES), by=st.integers(1, 20))
def test_a_distribution_moved_upwards_promises_more(weights, by):
    low = np.array(weights, float)
    low[-by:] = 0
    if low.sum() > 0:
        rows = np.array([low, np.roll(low, by)]) / low.sum()
        assert np.diff(expected_improvement(rows)) > 0


def test_a_wager_beats_a_certainty_of_no_gain():
    sure, wager = np.zeros((2, N_OUTCOMES))
    sure[outcome_levels(np.array([-0.1]))] = 1
    wager[outcome_levels(np.array([-2.0, 1.0]))] = 0.5
    gains = expected_improvement(np.array([sure, wager]))
    assert gains[1] > gains[0]
