"""Optuna's samplers and the grid on the same spaces and loop as the language model."""

import itertools
import sys

import optuna
import pytest
from contracts_samplers import KINDS, SamplerContract
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution as Cat
from optuna.distributions import FloatDistribution as Float
from optuna.distributions import IntDistribution as Int
from spaces import SPACES, spaces

from offline_tune.errors import UsageError
from offline_tune.samplers.classic import GRID_POINTS, NAMES, LatticeSampler, classic_sampler
from offline_tune.space import SearchSpace


class TestRandom(SamplerContract):
    def make(self, space, seed, trial_number):
        return classic_sampler("random", space, seed, trial_number)


class TestTpe(SamplerContract):
    def make(self, space, seed, trial_number):
        return classic_sampler("tpe", space, seed, trial_number)


class TestGaussianProcess(SamplerContract):
    n = 6  # the first five are random

    def make(self, space, seed, trial_number):
        return classic_sampler("gp", space, seed, trial_number)


class TestGrid(SamplerContract):
    def make(self, space, seed, trial_number):
        return classic_sampler("grid", space, seed, trial_number)


def keys(space, sampler, places):
    return [space.key(sampler.combination(place)) for place in places]


@given(space=spaces(), seed=st.integers(0, 99))
def test_no_two_places_of_the_grid_are_one_candidate(space, seed):
    sampler = LatticeSampler(space, seed, points=3)
    places = range(min(sampler.size, 500))
    assert len(set(keys(space, sampler, places))) == len(places)


@given(space=spaces(), seed=st.integers(0, 99), place=st.floats(0, 1, exclude_max=True))
def test_every_place_of_the_grid_lies_in_the_space(space, seed, place):
    sampler = LatticeSampler(space, seed)
    assert space.contains(sampler.combination(int(place * sampler.size)))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["nested conditions", "families", "mixed", "log floats"])
def test_the_grid_visits_every_combination_once_and_starts_again(name, seed):
    space, study = SPACES[name], optuna.create_study()
    sampler = LatticeSampler(space, seed, points=2)
    trials = [study.ask(space.distributions)._cached_frozen_trial for _ in range(2 * sampler.size)]
    visited = [space.key(sampler.sample_relative(study, t, space.distributions)) for t in trials]
    assert len(set(visited[: sampler.size])) == sampler.size == len(set(visited))
    assert visited[: sampler.size] == visited[sampler.size :]


def test_a_branch_multiplies_only_itself():
    ridge, forest, xgboost, scale = 4, 4 * 2, 4 * 4, 3
    assert LatticeSampler(SPACES["families"], 0).size == (ridge + forest + xgboost) * scale


def test_a_number_has_few_points_from_end_to_end():
    space = SearchSpace.from_distributions({"x": Float(0, 1), "n": Int(1, 2)})
    sampler = LatticeSampler(space, 0)
    points = [sampler.combination(place) for place in range(sampler.size)]
    assert sorted({p["x"] for p in points}) == pytest.approx([0, 1 / 3, 2 / 3, 1], abs=1e-3)
    assert {p["n"] for p in points} == {1, 2} and sampler.size == GRID_POINTS * 2


def test_a_grid_larger_than_any_double_can_be_visited():
    space = SearchSpace.from_distributions({f"x{i}": Float(0, 1) for i in range(600)})
    sampler = LatticeSampler(space, 0)
    places = [(sampler._start + number * sampler._stride) % sampler.size for number in range(50)]
    assert sampler.size == 4**600 and len(set(keys(space, sampler, places))) == 50


def test_neighbours_in_time_are_no_neighbours_in_space():
    space = SearchSpace.from_distributions({"a": Float(0, 1), "b": Float(0, 1), "c": Cat(["u", "v", "w"])})
    sampler = LatticeSampler(space, 0)
    visited = [sampler.combination((number * sampler._stride) % sampler.size) for number in range(8)]
    assert all(one["c"] != two["c"] or one["b"] != two["b"] for one, two in itertools.pairwise(visited))


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_study_goes_on_as_if_it_had_never_stopped(name):
    space = KINDS["flat"]
    one = optuna.create_study(sampler=classic_sampler(name, space, 5, 3))
    two = optuna.create_study(sampler=classic_sampler(name, space, 5, 3))
    assert space.suggest(one.ask()) == space.suggest(two.ask())


def test_trials_have_streams_of_their_own():
    space = KINDS["flat"]
    asked = [optuna.create_study(sampler=classic_sampler("random", space, 5, number)).ask() for number in range(5)]
    assert len({space.key(space.suggest(trial)) for trial in asked}) == 5


def test_the_gaussian_process_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UsageError, match="the sampler gp needs torch, got none installed; install it or choose tpe"):
        classic_sampler("gp", KINDS["flat"], 0, 0)
