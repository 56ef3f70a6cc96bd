"""The history of a study: greater is better, the earliest of equals leads, nothing outside the space."""

import doctest
import json
import math

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution as Float
from optuna.distributions import IntDistribution as Int
from optuna.trial import TrialState, create_trial
from spaces import SPACES

import offline_tune.history
from offline_tune.history import OUTCOME, History, Observation, of_study
from offline_tune.space import SearchSpace

X = SearchSpace.from_distributions({"x": Int(0, 9)})
SCORES = st.lists(st.none() | st.integers(-5, 5).map(float), max_size=12)


def a_history(*scores, space=X):
    return History(space, tuple(Observation(i, {"x": i % 10}, score) for i, score in enumerate(scores)))


def a_study(direction="maximize", **trials):
    study = optuna.create_study(direction=direction)
    study.add_trial(create_trial(params={"x": 3}, distributions={"x": Int(0, 9)}, **trials))
    return study


def only(study, space=X):
    (observation,) = of_study(study, space).observations
    return observation


@given(scores=SCORES)
def test_the_incumbent_is_the_earliest_of_the_best(scores):
    incumbent, known = a_history(*scores).incumbent, [score for score in scores if score is not None]
    assert (incumbent is None) == (not known)
    if incumbent is not None:
        assert incumbent.score == max(known) and incumbent.number == scores.index(max(known))


@given(scores=SCORES)
def test_the_incumbent_curve_rises_to_the_incumbent(scores):
    history = a_history(*scores)
    curve = history.incumbent_curve()
    assert len(curve) == len(history.scored) and list(curve) == sorted(curve)
    assert not curve or curve[-1] == history.incumbent.score


@given(scores=SCORES)
def test_every_trial_is_scored_pending_or_failed(scores):
    trials = [Observation(i, {"x": 0}, s, pending=s is None and i % 2 == 0) for i, s in enumerate(scores)]
    history = History(X, tuple(trials))
    parts = [*history.scored, *history.pending, *history.failed]
    assert sorted(o.number for o in parts) == list(range(len(scores)))


def test_the_example_of_the_curve_holds():
    assert doctest.testmod(offline_tune.history).failed == 0


def test_keys_name_failed_and_pending_trials_too():
    history = History(
        X, (Observation(0, {"x": 1}), Observation(1, {"x": 2}, pending=True), Observation(2, {"x": 3}, 1.0))
    )
    assert history.keys == {X.key({"x": value}) for value in (1, 2, 3)}


def test_values_that_are_written_alike_have_one_key():
    space = SearchSpace.from_distributions({"x": Float(0, 1)})
    history = History(space, (Observation(0, {"x": 0.5}), Observation(1, {"x": 0.5 + 1e-9})))
    assert len(history.keys) == 1


def test_an_extended_history_leaves_the_first_as_it_was():
    first = a_history(1.0)
    longer = first.extended([Observation(1, {"x": 5}, 2.0)])
    assert len(first.observations) == 1 and longer.incumbent.number == 1


def test_a_minimised_study_is_turned_round():
    study = a_study("minimize", value=2.5)
    assert only(study).score == -2.5


def test_a_trial_that_was_asked_for_is_pending():
    study = optuna.create_study()
    study.ask().suggest_int("x", 0, 9)
    assert only(study).pending and not only(study).failed


@pytest.mark.parametrize("state", [TrialState.FAIL, TrialState.PRUNED])
def test_a_trial_that_ended_without_a_value_has_failed(state):
    assert only(a_study(state=state)).failed


def test_a_pruned_trial_counts_with_its_last_value():
    study = optuna.create_study(direction="maximize")
    trial = study.ask()
    trial.suggest_int("x", 0, 9)
    trial.report(0.25, step=1)
    study.tell(trial, state=TrialState.PRUNED)
    assert only(study).score == 0.25


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_a_failure(value):
    assert only(a_study(value=value)).failed


def test_the_sentence_of_a_failure_is_kept():
    record = json.dumps({"sentence": "its worker process died", "detail": "SIGKILL"})
    assert only(a_study(state=TrialState.FAIL, user_attrs={OUTCOME: record})).reason == "its worker process died"


def test_an_enqueued_trial_without_parameters_is_not_in_the_history():
    study = optuna.create_study()
    study.enqueue_trial({"x": 3})
    assert of_study(study, X).observations == ()


@pytest.mark.parametrize("space", [{"x": Int(0, 2)}, {"x": Int(0, 9), "y": Int(0, 9)}])
def test_a_trial_outside_the_space_is_left_out(space):
    assert of_study(a_study(value=1.0), SearchSpace.from_distributions(space)).observations == ()


def test_parameters_that_the_space_does_not_know_are_not_looked_at():
    study = optuna.create_study(direction="maximize")
    study.optimize(lambda trial: trial.suggest_int("x", 0, 9) + trial.suggest_float("other", 0, 1), n_trials=3)
    assert [set(o.values) for o in of_study(study, X).observations] == [{"x"}] * 3


def test_a_conditional_trial_keeps_its_branch():
    space = SPACES["families"]
    study, rng = optuna.create_study(direction="maximize"), np.random.default_rng(0)
    drawn = [space.sample(rng) for _ in range(5)]
    for values in drawn:
        study.enqueue_trial(values)
        study.tell(_suggested(study, space), 1.0)
    assert [dict(o.values) for o in of_study(study, space).observations] == drawn


def _suggested(study, space):
    trial = study.ask()
    space.suggest(trial)
    return trial
