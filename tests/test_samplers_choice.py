"""Ranking: the surrogate finds an obvious optimum, a batch is spread out, odd histories give numbers all the same."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution as Cat
from optuna.distributions import FloatDistribution as Float
from optuna.distributions import IntDistribution as Int
from spaces import SMALL, SPACES, candidates, spaces

from offline_tune.errors import UsageError
from offline_tune.history import History, Observation
from offline_tune.samplers.choice import Contender, choose, most_promising
from offline_tune.samplers.draft import Forecast
from offline_tune.samplers.neighbours import all_candidates, even_draws, local_steps
from offline_tune.samplers.proposal import Source
from offline_tune.samplers.recipe import Recipe
from offline_tune.samplers.surrogate import LEAST, Surrogate, features, log_expected_improvement
from offline_tune.space import SearchSpace

LINE = SearchSpace.from_distributions({"x": Float(0, 1)})
FAMILIES = SPACES["families"]
GRID = [{"x": round(x, 3)} for x in np.linspace(0, 1, 101)]


def parabola(*places, best=0.7):
    """Scores of a bowl round `best`."""
    return History(LINE, tuple(Observation(i, {"x": x}, -((x - best) ** 2)) for i, x in enumerate(places)))


def scored(space, scores, seed=0):
    rng = np.random.default_rng(seed)
    return History(space, tuple(Observation(i, space.sample(rng), float(s)) for i, s in enumerate(scores)))


def take(every, history, n):
    surrogate = Surrogate(history) if len(history.scored) >= LEAST else None
    return choose(every, history, n, surrogate, Recipe().share(len(history.scored), True, LEAST))


def contenders(values, source=Source.MODEL, **fields):
    return [Contender(v, source, **fields) for v in values]


# --- the surrogate


def test_expected_improvement_is_greatest_near_the_optimum_of_a_bowl():
    surrogate = Surrogate(parabola(0.05, 0.3, 0.5, 0.62, 0.8, 0.95))
    best = GRID[int(np.argmax(surrogate.log_improvement(features(LINE, GRID))))]
    assert best["x"] == pytest.approx(0.7, abs=0.06)


def test_what_was_tried_promises_less_than_what_lies_between():
    surrogate = Surrogate(parabola(0.1, 0.4, 0.6, 0.9))
    tried, between = surrogate.log_improvement(features(LINE, [{"x": 0.6}, {"x": 0.72}]))
    assert tried < between


def test_a_candidate_that_is_taken_as_tried_promises_less():
    surrogate, point = Surrogate(parabola(0.1, 0.4, 0.6, 0.9)), features(LINE, [{"x": 0.72}])
    before = surrogate.log_improvement(point)
    surrogate.pretend(point[0])
    assert surrogate.log_improvement(point) < before


@pytest.mark.parametrize(
    "scores",
    [
        [1.0] * 6,
        [0.0] * 6,
        [1.0, 1.0, 1.0, 1.0, 1.0, 0.0],
        [0.7, 0.71, 0.72, 0.73, 0.74, -1e12],
        [-1.7e308, 1.7e308, 0.0, 1.0, 2.0, 3.0],
        [1e-300, 2e-300, 3e-300, 4e-300, 5e-300, 6e-300],
        [1e15, 1e15 + 1, 1e15 + 2, 1e15 + 3, 1e15 + 4, 1e15 + 5],
    ],
)
def test_odd_scores_give_numbers(scores):
    surrogate = Surrogate(scored(FAMILIES, scores))
    improvement = surrogate.log_improvement(features(FAMILIES, even_draws(FAMILIES, 9, np.random.default_rng(1))))
    assert np.isfinite(improvement).all()


def test_one_terrible_score_does_not_hide_the_others():
    places = (0.05, 0.3, 0.5, 0.62, 0.8, 0.95)
    history = parabola(*places).extended([Observation(6, {"x": 0.0}, -1e9)])
    best = GRID[int(np.argmax(Surrogate(history).log_improvement(features(LINE, GRID))))]
    assert best["x"] == pytest.approx(0.7, abs=0.08)


def test_many_ties_at_the_top_do_not_hide_what_is_bad():
    scores = [1.0] * 5 + [0.2, 0.2, 0.2]
    places = [0.8, 0.85, 0.9, 0.95, 1.0, 0.0, 0.1, 0.2]
    history = History(
        LINE, tuple(Observation(i, {"x": x}, s) for i, (x, s) in enumerate(zip(places, scores, strict=True)))
    )
    bad, good = Surrogate(history).log_improvement(features(LINE, [{"x": 0.05}, {"x": 0.75}]))
    assert bad < good


def test_ties_at_the_top_and_a_terrible_score_do_not_hide_what_is_bad():
    places = [0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 0.0, 0.1, 0.2, 0.5]
    scores = [1.0] * 6 + [0.5, 0.5, 0.5, -1e9]
    pairs = enumerate(zip(places, scores, strict=True))
    history = History(LINE, tuple(Observation(i, {"x": x}, score) for i, (x, score) in pairs))
    bad, good = Surrogate(history).log_improvement(features(LINE, [{"x": 0.05}, {"x": 0.97}]))
    assert bad < good


def test_a_tried_point_that_comes_twice_is_no_obstacle():
    history = parabola(0.2, 0.2, 0.2, 0.7, 0.7)
    assert np.isfinite(Surrogate(history).log_improvement(features(LINE, GRID))).all()


def test_choices_are_one_hot_and_inactive_numbers_sit_in_the_middle():
    h = math.sqrt(0.5)  # so that two choices are one apart
    ridge = {"family": "ridge", "ridge.alpha": 1e-4, "scale": "none"}
    assert features(FAMILIES, [ridge]).tolist() == [[h, 0, 0, 0, 0.5, 0, 0, 0.5, 0.5, h, 0, 0]]


@given(space=spaces(), seed=st.integers(0, 99))
def test_features_of_any_space_are_places_in_the_unit_cube(space, seed):
    points = features(space, even_draws(space, 5, np.random.default_rng(seed)))
    assert np.isfinite(points).all() and (points >= 0).all() and (points <= 1).all()


def test_a_parameter_that_does_not_matter_is_ignored():
    space = SearchSpace.from_distributions({"x": Float(0, 1), "y": Float(0, 1)})
    rng = np.random.default_rng(0)
    places = [{"x": float(x), "y": float(y)} for x, y in rng.random((14, 2)).round(3)]
    history = History(space, tuple(Observation(i, v, math.sin(6 * v["x"])) for i, v in enumerate(places)))
    mean, _ = Surrogate(history).predict(features(space, [{"x": 0.5, "y": y} for y in (0.05, 0.5, 0.95)]))
    assert np.ptp(mean) < 0.1


def test_the_logarithm_of_the_improvement_is_smooth_and_right_near_the_best():
    z = np.linspace(-30, 5, 20_001)
    steps = np.diff(log_expected_improvement(z))
    assert (steps > 0).all() and np.abs(np.diff(steps)).max() < 0.01
    assert math.exp(log_expected_improvement(np.zeros(1))[0]) == pytest.approx(1 / math.sqrt(2 * math.pi))


# --- the choice


def test_the_model_leads_first_and_the_surrogate_later():
    shares = [Recipe().share(n, is_familiar=True, least=LEAST) for n in (0, LEAST - 1, LEAST, 8, 14, 100)]
    assert shares[:2] == [0, 0] and shares[2] == 0.3 and shares[-2:] == [0.9, 0.9] and 0.3 < shares[3] < 0.9


def test_the_surrogate_leads_where_the_names_mean_nothing():
    known, unknown = ([Recipe().share(n, familiar, LEAST) for n in (4, 12, 30)] for familiar in (True, False))
    assert all(np.greater(unknown, known))


@pytest.mark.parametrize("changes", [{"local": -1}, {"classical": (0.3, 1.1)}, {"drafts": 0, "even": 0}])
def test_a_recipe_without_sense_is_refused(changes):
    with pytest.raises(UsageError, match="a recipe must have counts from 0 and shares from 0 to 1, got Recipe"):
        Recipe(**changes)


def test_without_scores_the_likeliest_draft_is_chosen():
    drafts = [Contender({"x": x}, Source.MODEL, logprob=-abs(x - 0.4)) for x in (0.1, 0.4, 0.9)]
    (best,) = take(drafts, History(LINE), 1)
    assert best.values == {"x": 0.4}


def test_a_forecast_counts_more_than_a_likelihood():
    drafts = [
        Contender({"x": x}, Source.MODEL, logprob=-x, forecast=Forecast(0.0, gain))
        for x, gain in ((0.1, 0.2), (0.9, 0.3))
    ]
    (best,) = take(drafts, parabola(0.2, 0.5), 1)
    assert best.values == {"x": 0.9}


def test_the_obvious_optimum_is_chosen_where_the_model_has_no_opinion():
    history = parabola(0.05, 0.3, 0.5, 0.62, 0.8, 0.95, 0.2, 0.4, 0.55, 0.9)
    (best,) = take(contenders(GRID, logprob=-1.0), history, 1)
    assert best.values["x"] == pytest.approx(0.7, abs=0.06)


@pytest.mark.parametrize("n_tried", [0, 2, 6])
def test_a_batch_is_spread_out(n_tried):
    history = parabola(*np.linspace(0.1, 0.9, n_tried).round(3))
    chosen = take(contenders(GRID, logprob=-1.0), history, 5)
    places = sorted(c.values["x"] for c in chosen)
    assert len(places) == 5 and np.diff(places).min() >= 0.03 - 1e-9


def test_the_second_peak_has_its_turn_in_the_same_batch():
    peaks = enumerate([(0.0, 0.0), (0.2, 1.0), (0.4, 0.0), (0.6, 0.0), (0.8, 0.9), (1.0, 0.0)])
    history = History(LINE, tuple(Observation(i, {"x": x}, score) for i, (x, score) in peaks))
    chosen = take(contenders(GRID, logprob=-1.0), history, 3)
    assert min(abs(c.values["x"] - 0.8) for c in chosen) < 0.1


def test_alike_candidates_are_chosen_where_there_are_no_others():
    alike = contenders([{"x": 0.5}, {"x": 0.501}, {"x": 0.502}], logprob=-1.0)
    assert len(take(alike, History(LINE), 3)) == 3


def test_other_choices_are_never_alike():
    space = SPACES["300 categories"]
    drafts = contenders([{"x": f"category {i}"} for i in range(20)], logprob=-1.0)
    assert len(take([*drafts, *contenders([{"x": "category 299"}], Source.RANDOM)], History(space), 20)) == 20


@settings(max_examples=30)
@given(n_model=st.integers(0, 8), n_other=st.integers(0, 8), n=st.integers(1, 9), seed=st.integers(0, 9))
def test_as_many_as_are_wanted_are_chosen_each_once(n_model, n_other, n, seed):
    rng = np.random.default_rng(seed)
    places = [{"x": float(x)} for x in rng.permutation(1001)[: n_model + n_other] / 1000]
    every = contenders(places[:n_model], logprob=-1.0) + contenders(places[n_model:], Source.LOCAL)
    chosen = take(every, parabola(*rng.random(seed).round(3)), n)
    assert len({c.values["x"] for c in chosen}) == len(chosen) == min(n, len(every))


def test_the_most_promising_are_let_through_in_their_order():
    history = parabola(0.05, 0.3, 0.5, 0.62, 0.8, 0.95)
    through = most_promising(contenders(GRID), 9, Surrogate(history), history)
    places = [c.values["x"] for c in through]
    assert len(places) == 9 and places == sorted(places) and all(abs(x - 0.7) < 0.12 for x in places)


def test_nothing_is_chosen_from_nothing():
    assert take([], parabola(0.1, 0.2, 0.3, 0.4), 3) == ()


def test_nothing_is_chosen_from_a_space_without_coordinates():
    space = SPACES["one integer"]
    assert take([], scored(space, [1.0] * 5), 1) == ()


def test_a_choice_can_be_made_again():
    history, every = scored(FAMILIES, range(8)), contenders(even_draws(FAMILIES, 30, np.random.default_rng(5)))
    assert take(every, history, 6) == take(every, history, 6)


# --- candidates beside the model's


def test_there_are_no_steps_before_the_first_score():
    history = History(FAMILIES, (Observation(0, FAMILIES.default), Observation(1, FAMILIES.default, pending=True)))
    assert local_steps(history, 5, np.random.default_rng(0)) == []


@given(space=spaces(), seed=st.integers(0, 99))
def test_a_step_stays_in_the_space(space, seed):
    rng = np.random.default_rng(seed)
    history = scored(space, rng.normal(size=4), seed)
    steps = local_steps(history, 6, rng)
    assert len(steps) == 6 and all(space.contains(values) for values in steps)


def test_steps_are_near_the_best_trials():
    history = parabola(0.0, 0.1, 0.2, 0.68, 0.7, 0.72)
    places = [v["x"] for v in local_steps(history, 200, np.random.default_rng(0))]
    assert np.median(np.abs(np.array(places) - 0.7)) < 0.1


def test_a_step_stays_with_its_family():
    history = History(FAMILIES, (Observation(0, {**FAMILIES.default}, 1.0),))
    steps = local_steps(history, 100, np.random.default_rng(0))
    assert {v["family"] for v in steps} == {FAMILIES.default["family"]}


def test_a_step_may_change_a_choice_without_branches():
    space = SearchSpace.from_distributions({"x": Float(0, 1), "booster": Cat(["gbtree", "dart"])})
    history = History(space, (Observation(0, {"x": 0.5, "booster": "dart"}, 1.0),))
    boosters = [v["booster"] for v in local_steps(history, 300, np.random.default_rng(0))]
    assert 0 < boosters.count("gbtree") < 60


def test_a_step_from_a_score_below_zero_prefers_the_better():
    space = SearchSpace.from_distributions({"n": Int(0, 1000)})
    history = History(space, tuple(Observation(i, {"n": 100 * i}, -10.0 + i) for i in range(10)))
    steps = [v["n"] for v in local_steps(history, 100, np.random.default_rng(0))]
    assert np.median(steps) > 700


@pytest.mark.parametrize("name", SMALL)
def test_all_candidates_of_a_small_space_are_listed_once(name):
    listed = list(all_candidates(SMALL[name]))
    assert listed == list(candidates(SMALL[name])) and len(listed) == SMALL[name].size


def test_even_draws_reach_every_family():
    draws = even_draws(FAMILIES, 40, np.random.default_rng(0))
    assert {v["family"] for v in draws} == {"ridge", "forest", "xgboost"}
