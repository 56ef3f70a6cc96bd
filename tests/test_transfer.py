"""Which entry of a portfolio comes next, given how those before it did."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offline_tune.samplers.transfer import next_entries

# On the first data set entries grow worse, on the second better; entry 1 is middling on both.
OPPOSITE = np.array([[0.0, 0.3, 0.6, 0.9], [0.9, 0.5, 0.3, 0.0]])


def test_with_nothing_tried_the_best_on_average_comes_first():
    assert next_entries(OPPOSITE, {}, 1) == [1]


def test_data_sets_that_ranked_alike_decide():
    assert next_entries(OPPOSITE, {1: 1.0, 2: 2.0}, 1) == [3]
    assert next_entries(OPPOSITE, {1: 2.0, 2: 1.0}, 1) == [0]


def test_the_size_of_scores_says_nothing():
    assert next_entries(OPPOSITE, {1: 1.0, 2: 1.001}, 2) == next_entries(OPPOSITE, {1: -1e9, 2: 1e9}, 2)


def test_one_score_tells_of_no_order():
    assert next_entries(OPPOSITE, {1: 5.0}, 1) == next_entries(OPPOSITE, {1: None}, 1)


def test_a_failure_does_not_count_as_tried():
    regrets = np.array([[0.0, 0.5, 0.1]])
    assert next_entries(regrets, {0: -math.inf}, 1) == [2]
    assert next_entries(regrets, {0: 1.0}, 2) == [1, 2]


def test_without_data_sets_the_order_of_the_list_stands():
    assert next_entries(np.zeros((0, 4)), {1: 3.0}, 2) == [0, 2]


def test_where_no_entry_helps_the_order_of_the_list_stands():
    assert next_entries(np.array([[0.0, 0.2, 0.1]]), {0: 1.0}, 2) == [1, 2]


@given(
    t=st.integers(0, 5),
    k=st.integers(1, 8),
    n=st.integers(0, 9),
    seed=st.integers(0, 99),
    scores=st.lists(st.one_of(st.none(), st.just(-math.inf), st.floats(-1e300, 1e300)), max_size=8),
)
def test_entries_come_once_and_never_again(t, k, n, seed, scores):
    tried = dict(enumerate(scores[:k]))
    found = next_entries(np.random.default_rng(seed).random((t, k)) * 2, tried, n)
    assert len(found) == len(set(found)) == min(n, k - len(tried)) and not set(found) & tried.keys()


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_longer_plan_begins_as_a_shorter_one(n):
    regrets = np.random.default_rng(0).random((6, 8))
    assert next_entries(regrets, {2: 0.1, 5: 0.7}, 4)[:n] == next_entries(regrets, {2: 0.1, 5: 0.7}, n)
