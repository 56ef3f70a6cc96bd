"""Who is stopped: halving and the rule of the median, from losses alone."""

import math

import pytest

from offline_tune.evaluator.batched.stopping import Halving, Median


def everybody(losses):
    return frozenset(losses)


@pytest.mark.parametrize(
    ("halving", "epochs", "rungs"),
    [(Halving(3, 3), 81, (3, 9, 27)), (Halving(2, 1), 8, (1, 2, 4)), (Halving(3, 3), 8, ()), (Halving(4, 2), 1, ())],
)
def test_halving_has_geometric_rungs(halving, epochs, rungs):
    assert halving.rungs(epochs) == rungs


def test_halving_keeps_the_best_third_and_the_earlier_of_equals():
    losses = {place: [1.0, loss] for place, loss in enumerate((0.5, 0.2, 0.2, 0.9, math.nan, 0.7))}
    assert Halving(3).survivors(losses, everybody(losses)) == {1, 2}


def test_halving_always_keeps_one():
    assert Halving(3).survivors({0: [math.nan]}, frozenset({0})) == {0}


def test_a_candidate_that_has_finished_takes_a_place_but_does_not_go_on():
    losses = {0: [0.1], 1: [0.2, 0.2], 2: [0.3, 0.3]}
    assert Halving(2).survivors(losses, frozenset({1, 2})) == {1}


def test_a_loss_counts_at_its_best():
    losses = {0: [0.1, 5.0], 1: [0.3, 0.2]}
    assert Halving(2).survivors(losses, everybody(losses)) == {0}


def test_the_median_stops_who_was_never_better_than_the_others_on_average():
    losses = {place: [loss] * 3 for place, loss in enumerate((0.1, 0.2, 0.3, 0.4, 0.9))}
    assert Median().survivors(losses, everybody(losses)) == {0, 1, 2}


def test_the_median_waits_for_enough_candidates():
    losses = {0: [0.1], 1: [0.9]}
    assert Median(least=5).survivors(losses, everybody(losses)) == {0, 1}


def test_the_median_decides_every_few_epochs():
    assert Median(first=4, every=3).rungs(12) == (4, 7, 10)
