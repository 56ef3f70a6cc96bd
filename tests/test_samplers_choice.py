"""Ranking: the surrogate finds an obvious optimum, a batch is spread out, odd histories give numbers all the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution as Cat
from optuna.distributions import FloatDistribution as Float
from optuna.distributions import IntDistribution as Int
from spaces import SMALL, SPACES, candidates, spaces

from offline_tune.history import History, Observation
from offline_tune.samplers.choice import Contender, choose, classical_share
from offline_tune.samplers.draft import Forecast
from offline_tune.samplers.neighbours import all_candidates, even_draws, local_steps
from offline_tune.samplers.proposal import Source
from offline_tune.samplers.surrogate import LEAST, Surrogate, features
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


def contenders(values, source=Source.MODEL, **fields):
    return [Contender(v, source, **fields) for v in values]


# --- the surrogate


def test_expected_improvement_is_greatest_near_the_optimum_of_a_bowl():
    surrogate = Surrogate(parabola(0.05, 0.3, 0.5, 0.62, 0.8, 0.95), seed=0)
    best = GRID[int(np.argmax(surrogate.expected_improvement(features(LINE, GRID))))]
    assert best["x"] == pytest.approx(0.7, abs=0.06)


def test_what_was_tried_promises_less_than_what_lies_between():
    surrogate = Surrogate(parabola(0.1, 0.4, 0.6, 0.9), seed=0)
    tried, between = surrogate.expected_improvement(features(LINE, [{"x": 0.6}, {"x": 0.72}]))
    assert 0 <= tried < between


def test_a_candidate_that_is_taken_as_tried_promises_less():
    surrogate, point = Surrogate(parabola(0.1, 0.4, 0.6, 0.9), seed=0), features(LINE, [{"x": 0.72}])
    before = surrogate.expected_improvement(point)
    surrogate.pretend(point[0])
    assert surrogate.expected_improvement(point) < before


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
    surrogate = Surrogate(scored(FAMILIES, scores), seed=0)
    improvement = surrogate.expected_improvement(features(FAMILIES, even_draws(FAMILIES, 9, np.random.default_rng(1))))
    assert np.isfinite(improvement).all() and (improvement >= 0).all()


def test_one_terrible_score_does_not_hide_the_others():
    places = (0.05, 0.3, 0.5, 0.62, 0.8, 0.95)
    history = parabola(*places).extended([Observation(6, {"x": 0.0}, -1e9)])
    best = GRID[int(np.argmax(Surrogate(history, 0).expected_improvement(features(LINE, GRID))))]
    assert best["x"] == pytest.approx(0.7, abs=0.08)


def test_many_ties_at_the_top_do_not_hide_what_is_bad():
    scores = [1.0] * 5 + [0.2, 0.2, 0.2]
    places = [0.8, 0.85, 0.9, 0.95, 1.0, 0.0, 0.1, 0.2]
    history = History(
        LINE, tuple(Observation(i, {"x": x}, s) for i, (x, s) in enumerate(zip(places, scores, strict=True)))
    )
    bad, good = Surrogate(history, 0).expected_improvement(features(LINE, [{"x": 0.05}, {"x": 0.75}]))
    assert bad < good


def test_ties_at_the_top_and_a_terrible_score_do_not_hide_what_is_bad():
    places = [0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 0.0, 0.1, 0.2, 0.5]
    scores = [1.0] * 6 + [0.5, 0.5, 0.5, -1e9]
    pairs = enumerate(zip(places, scores, strict=True))
    history = History(LINE, tuple(Observation(i, {"x": x}, score) for i, (x, score) in pairs))
    bad, good = Surrogate(history, 0).expected_improvement(features(LINE, [{"x": 0.05}, {"x": 0.97}]))
    assert bad < good


def test_a_tried_point_that_comes_twice_is_no_obstacle():
    history = parabola(0.2, 0.2, 0.2, 0.7, 0.7)
    assert np.isfinite(Surrogate(history, 0).expected_improvement(features(LINE, GRID))).all()


def test_choices_are_one_hot_and_inactive_numbers_sit_in_the_middle():
    ridge = {"family": "ridge", "ridge.alpha": 1e-4, "scale": "none"}
    assert features(FAMILIES, [ridge]).tolist() == [[1, 0, 0, 0, 0.5, 0, 0, 0.5, 0.5, 1, 0, 0]]


@given(space=spaces(), seed=st.integers(0, 99))
def test_features_of_any_space_are_places_in_the_unit_cube(space, seed):
    points = features(space, even_draws(space, 5, np.random.default_rng(seed)))
    assert np.isfinite(points).all() and (points >= 0).all() and (points <= 1).all()


# --- the choice


def test_the_model_leads_first_and_the_surrogate_later():
    shares = [classical_share(n) for n in (0, LEAST - 1, LEAST, 12, 20, 100)]
    assert shares[:2] == [0, 0] and shares[2] == 0.3 and shares[-2:] == [0.8, 0.8] and 0.3 < shares[3] < 0.8


def test_without_scores_the_likeliest_draft_is_chosen():
    drafts = [Contender({"x": x}, Source.MODEL, logprob=-abs(x - 0.4)) for x in (0.1, 0.4, 0.9)]
    (best,) = choose(drafts, History(LINE), 1, seed=0, least_from_model=1)
    assert best.values == {"x": 0.4}


def test_a_forecast_counts_more_than_a_likelihood():
    drafts = [
        Contender({"x": x}, Source.MODEL, logprob=-x, forecast=Forecast(0.0, gain))
        for x, gain in ((0.1, 0.2), (0.9, 0.3))
    ]
    (best,) = choose(drafts, parabola(0.2, 0.5), 1, seed=0, least_from_model=1)
    assert best.values == {"x": 0.9}


def test_the_obvious_optimum_is_chosen_where_the_model_has_no_opinion():
    history = parabola(0.05, 0.3, 0.5, 0.62, 0.8, 0.95, 0.2, 0.4, 0.55, 0.9)
    (best,) = choose(contenders(GRID, logprob=-1.0), history, 1, seed=0, least_from_model=1)
    assert best.values["x"] == pytest.approx(0.7, abs=0.06)


@pytest.mark.parametrize("n_tried", [0, 2, 6])
def test_a_batch_is_spread_out(n_tried):
    history = parabola(*np.linspace(0.1, 0.9, n_tried).round(3))
    chosen = choose(contenders(GRID, logprob=-1.0), history, 5, seed=0, least_from_model=5)
    places = sorted(c.values["x"] for c in chosen)
    assert len(places) == 5 and np.diff(places).min() >= 0.03 - 1e-9


def test_the_second_peak_has_its_turn_in_the_same_batch():
    peaks = enumerate([(0.0, 0.0), (0.2, 1.0), (0.4, 0.0), (0.6, 0.0), (0.8, 0.9), (1.0, 0.0)])
    history = History(LINE, tuple(Observation(i, {"x": x}, score) for i, (x, score) in peaks))
    chosen = choose(contenders(GRID, logprob=-1.0), history, 3, seed=0, least_from_model=3)
    assert min(abs(c.values["x"] - 0.8) for c in chosen) < 0.1


def test_alike_candidates_are_chosen_where_there_are_no_others():
    alike = contenders([{"x": 0.5}, {"x": 0.501}, {"x": 0.502}], logprob=-1.0)
    assert len(choose(alike, History(LINE), 3, seed=0, least_from_model=3)) == 3


def test_other_choices_are_never_alike():
    space = SPACES["300 categories"]
    drafts = contenders([{"x": f"category {i}"} for i in range(20)], logprob=-1.0)
    assert len(choose([*drafts, *contenders([{"x": "category 299"}], Source.RANDOM)], History(space), 20, 0, 20)) == 20


@settings(max_examples=30)
@given(
    n_model=st.integers(0, 8),
    n_other=st.integers(0, 8),
    n=st.integers(1, 9),
    least=st.integers(0, 9),
    seed=st.integers(0, 9),
)
def test_the_model_has_its_share_as_long_as_it_has_candidates(n_model, n_other, n, least, seed):
    rng = np.random.default_rng(seed)
    places = [{"x": float(x)} for x in rng.permutation(1001)[: n_model + n_other] / 1000]
    every = contenders(places[:n_model], logprob=-1.0) + contenders(places[n_model:], Source.LOCAL)
    chosen = choose(every, parabola(*rng.random(seed).round(3)), n, seed, min(least, n))
    assert len({c.values["x"] for c in chosen}) == len(chosen) == min(n, len(every))
    assert sum(c.source is Source.MODEL for c in chosen) >= min(least, n, n_model)


def test_nothing_is_chosen_from_nothing():
    assert choose([], parabola(0.1, 0.2, 0.3, 0.4), 3, seed=0, least_from_model=3) == ()


def test_nothing_is_chosen_from_a_space_without_coordinates():
    space = SPACES["one integer"]
    assert choose([], scored(space, [1.0] * 5), 1, seed=0, least_from_model=1) == ()


def test_a_choice_can_be_made_again():
    history, every = scored(FAMILIES, range(8)), contenders(even_draws(FAMILIES, 30, np.random.default_rng(5)))
    assert choose(every, history, 6, 3, 4) == choose(every, history, 6, 3, 4)


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
