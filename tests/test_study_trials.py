"""A trial's life in a study: asked with its provenance, told once, taken up again after a kill, never lost."""

import json

import optuna
import pytest
from optuna.samplers import RandomSampler
from optuna.trial import TrialState
from spaces import SPACES

from offline_tune.evaluator.contract import Outcome, Result
from offline_tune.history import OUTCOME, PROVENANCE, of_study
from offline_tune.samplers.proposal import Provenance, Source
from offline_tune.study import trials
from offline_tune.study.storage import create_study, load_study
from offline_tune.study.trials import Asked, ask, enqueue, take_up, tell, unfinished

SPACE = SPACES["nested conditions"]
RANDOM = Provenance(source=Source.RANDOM, seed=7)
DEFAULT = Provenance(source=Source.DEFAULT, seed=7)
GOOD = Result(outcome=Outcome.OK, seconds=1.5, scores={"accuracy": 0.9, "roc_auc": 0.95}, fold_scores=(0.8, 1.0))
LATE = Result(outcome=Outcome.TIMED_OUT, seconds=300.0, detail="stopped after 300 s")


@pytest.fixture
def study():
    return optuna.create_study(direction="maximize", sampler=RandomSampler(seed=0))


def record(study, number=0):
    return json.loads(study.trials[number].user_attrs[OUTCOME])


FAMILIES = ("ridge", "forest", "xgboost")


# --- asking


def test_a_candidate_is_asked_of_the_sampler_and_lies_in_the_space(study):
    asked = [ask(study, SPACE, RANDOM) for _ in range(20)]
    assert [trial.number for trial in asked] == list(range(20))
    assert (
        all(SPACE.contains(trial.values) for trial in asked) and len({SPACE.key(trial.values) for trial in asked}) > 5
    )


def test_a_trial_of_a_silent_sampler_notes_the_fallback(study):
    asked = ask(study, SPACE, RANDOM)
    assert asked.provenance == RANDOM
    assert Provenance.from_json(study.trials[0].user_attrs[PROVENANCE]) == RANDOM


def test_the_values_that_are_asked_are_the_values_that_are_stored(study):
    asked = ask(study, SPACE, RANDOM)
    assert study.trials[0].params == dict(asked.values) and study.trials[0].state is TrialState.RUNNING


def test_enqueued_candidates_come_first_with_their_own_provenance(study):
    enqueue(study, [SPACE.default], DEFAULT)
    first, second = ask(study, SPACE, RANDOM), ask(study, SPACE, RANDOM)
    assert (first.values, first.provenance, second.provenance) == (SPACE.default, DEFAULT, RANDOM)


def test_a_candidate_is_enqueued_once(study):
    for _ in range(2):
        enqueue(study, [SPACE.default], DEFAULT)
    assert trials.n_waiting(study) == 1


def test_a_default_of_every_family_can_be_enqueued(study):
    space = SPACES["families"]
    defaults = [
        space.assemble(lambda p, f=family: f if p.name == "family" else p.default_or_middle) for family in FAMILIES
    ]
    enqueue(study, defaults, DEFAULT)
    assert [ask(study, space, RANDOM).values for _ in defaults] == defaults


# --- telling


def test_a_good_result_completes_the_trial_with_the_optimised_metric(study):
    tell(study, ask(study, SPACE, RANDOM), GOOD, "accuracy")
    assert (study.trials[0].state, study.trials[0].value) == (TrialState.COMPLETE, 0.9)


def test_all_scores_stay_with_the_trial(study):
    tell(study, ask(study, SPACE, RANDOM), GOOD, "accuracy")
    found = record(study)
    assert found["scores"] == {"accuracy": 0.9, "roc_auc": 0.95} and found["fold_scores"] == [0.8, 1.0]


def test_a_failure_is_a_failed_trial_with_its_sentence(study):
    tell(study, ask(study, SPACE, RANDOM), LATE, "accuracy")
    assert study.trials[0].state is TrialState.FAIL
    assert (record(study)["outcome"], record(study)["detail"]) == ("TIMED_OUT", "stopped after 300 s")


def test_the_sentence_of_a_failure_reaches_the_history(study):
    tell(study, ask(study, SPACE, RANDOM), LATE, "accuracy")
    (observation,) = of_study(study, SPACE).failed
    assert observation.reason == "took longer than the time limit of one trial"


def test_a_trial_is_told_once(study):
    asked = ask(study, SPACE, RANDOM)
    tell(study, asked, GOOD, "accuracy")
    with pytest.raises((ValueError, RuntimeError)):
        tell(study, asked, GOOD, "accuracy")


def test_results_may_come_in_any_order(study):
    asked = [ask(study, SPACE, RANDOM) for _ in range(3)]
    for trial in reversed(asked):
        tell(study, trial, Result(outcome=Outcome.OK, seconds=1.0, scores={"m": float(trial.number)}), "m")
    assert [trial.value for trial in study.trials] == [0.0, 1.0, 2.0]


def test_trials_are_counted_by_their_state(study):
    enqueue(study, [SPACE.default, {**SPACE.default, "n": 1}], DEFAULT)
    tell(study, ask(study, SPACE, RANDOM), LATE, "m")
    ask(study, SPACE, RANDOM), ask(study, SPACE, RANDOM)
    assert (trials.n_finished(study), trials.n_waiting(study), unfinished(study)) == (1, 0, (1, 2))


# --- taking up


def left_behind(path, n_stored):
    """A study whose process ended while trial 0 had only its first parameters; returns these."""
    study = create_study(path, "n", SPACE, "m")
    study.sampler = RandomSampler(seed=1)
    trial, values = study.ask(), {}
    for parameter in SPACE.parameters[:n_stored]:
        choices = parameter.distribution.choices if parameter.is_categorical else None
        values[parameter.name] = (
            trial.suggest_categorical(parameter.name, choices) if choices else trial.suggest_int(parameter.name, 1, 4)
        )
    return values


@pytest.mark.parametrize("n_stored", [0, 2])
def test_a_trial_is_taken_up_where_it_was_left(tmp_path, n_stored):
    stored = left_behind(tmp_path / "study.db", n_stored)
    study, space = load_study(tmp_path / "study.db", RandomSampler(seed=2))
    assert unfinished(study) == (0,)
    asked = take_up(study, space, 0, RANDOM)
    assert space.contains(asked.values) and stored.items() <= asked.values.items()
    tell(study, asked, GOOD, "accuracy")
    assert (len(study.trials), unfinished(study)) == (1, ())


def test_a_trial_that_was_asked_wholly_is_taken_up_as_it_was(study):
    asked = ask(study, SPACE, RANDOM)
    assert take_up(study, SPACE, 0, DEFAULT) == asked


def test_an_enqueued_trial_is_taken_up_with_its_values(study):
    enqueue(study, [SPACE.default], DEFAULT)
    study.ask()  # and the process ended before anything was stored
    assert take_up(study, SPACE, 0, RANDOM) == Asked(0, SPACE.default, DEFAULT)
