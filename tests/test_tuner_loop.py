"""The loop alone: batches, budgets, what the sampler is shown, and that a stop changes nothing."""

import sqlite3

import numpy as np
import pytest
from formula import SPACE, TINY, Clock, Interrupting, Slow, a_loop, told
from optuna.trial import TrialState

from offline_tune.errors import StudyError
from offline_tune.history import PROVENANCE
from offline_tune.samplers.proposal import Provenance, Source
from offline_tune.study import trials
from offline_tune.study.storage import create_study
from offline_tune.task import Budget
from offline_tune.tuner.events import Silence
from offline_tune.tuner.loop import EXHAUSTED, FINISHED, OUT_OF_TIME, trial_seed


def numbers(history):
    return [o.number for o in history.observations]


def test_the_budget_is_exact_where_it_is_no_multiple_of_the_batch(tmp_path):
    loop, _ = a_loop(tmp_path, n_trials=10, batch=4)
    assert loop.run() == FINISHED
    assert len(loop.study.trials) == 10
    assert loop.evaluator.batches == [4, 4, 2]


@pytest.mark.parametrize(("batch", "batches"), [(1, [1, 1, 1]), (3, [3]), (50, [3])])
def test_batches_are_as_large_as_asked(tmp_path, batch, batches):
    loop, _ = a_loop(tmp_path, n_trials=3, batch=batch)
    loop.run()
    assert loop.evaluator.batches == batches


def test_a_batch_is_planned_from_earlier_batches_alone(tmp_path):
    loop, drafter = a_loop(tmp_path, n_trials=11, batch=4)
    loop.run()
    assert {first: numbers(history) for first, (history,) in drafter.shown.items()} == {
        0: [],
        4: [0, 1, 2, 3],
        8: [0, 1, 2, 3, 4, 5, 6, 7],
    }
    assert not any(o.pending for (history,) in drafter.shown.values() for o in history.observations)


def test_defaults_come_first_and_are_pending_in_their_own_batch(tmp_path):
    loop, drafter = a_loop(tmp_path, defaults=6, n_trials=12, batch=4)
    loop.run()
    assert list(drafter.shown) == [6, 8]
    (history,) = drafter.shown[6]
    assert [o.number for o in history.pending] == [4, 5]
    assert [o.number for o in history.scored] == [0, 1, 2, 3]


def test_defaults_are_labelled_as_such_and_the_rest_by_who_proposed_it(tmp_path):
    loop, _ = a_loop(tmp_path, defaults=2, n_trials=8, batch=4)
    loop.run()
    sources = [Provenance.from_json(t.user_attrs[PROVENANCE]).source for t in loop.study.trials]
    assert sources[:2] == [Source.DEFAULT] * 2
    assert set(sources[2:]) <= {Source.MODEL, Source.LOCAL, Source.RANDOM}
    assert sources.count(Source.MODEL) >= 3


def test_fewer_trials_than_defaults_try_only_the_first_of_them(tmp_path):
    loop, drafter = a_loop(tmp_path, defaults=6, n_trials=3, batch=4)
    loop.run()
    states = [t.state for t in loop.study.get_trials(deepcopy=False)]
    assert states == [TrialState.COMPLETE] * 3 + [TrialState.WAITING] * 3
    assert not drafter.shown


def test_no_candidate_is_tried_twice(tmp_path):
    loop, _ = a_loop(tmp_path, defaults=2, n_trials=40, batch=4)
    loop.run()
    assert len({SPACE.key(t.params) for t in loop.study.trials}) == 40


def test_a_failed_trial_counts_and_is_told_as_a_failure(tmp_path):
    loop, drafter = a_loop(tmp_path, n_trials=60, batch=4)
    loop.run()
    failed = [t for t in loop.study.trials if t.state is TrialState.FAIL]
    (last,) = drafter.shown[56]
    assert failed
    assert {t.number for t in failed if t.number < 56} == {o.number for o in last.failed}


def test_the_space_is_used_up_and_no_more(tmp_path):
    loop, _ = a_loop(tmp_path, space=TINY, n_trials=50, batch=4)
    assert loop.run() == EXHAUSTED
    assert sorted(t.params["n"] for t in loop.study.trials) == [1, 2, 3, 4, 5, 6]


def test_a_grid_stops_when_it_is_used_up(tmp_path):
    loop, _ = a_loop(tmp_path, n_trials=99, batch=5, sampler="grid")
    assert loop.run() == EXHAUSTED
    assert len(loop.study.trials) == len({SPACE.key(t.params) for t in loop.study.trials}) == 32


@pytest.mark.parametrize(("before", "n_trials"), [(0, 12), (20, 4), (1000, 4)])
def test_no_batch_starts_after_the_time_limit_but_the_first_always_does(tmp_path, before, n_trials):
    clock = Clock(before)
    budget = Budget(trials=100, seconds=25)
    loop, _ = a_loop(tmp_path, budget=budget, elapsed=clock, evaluator=Slow(clock))
    assert loop.run() == OUT_OF_TIME
    assert len(loop.study.trials) == n_trials


@pytest.mark.parametrize("name", ["random", "tpe", "grid"])
def test_classic_samplers_run_in_the_same_loop(tmp_path, name):
    loop, _ = a_loop(tmp_path, n_trials=9, sampler=name)
    assert loop.run() == FINISHED
    assert {Provenance.from_json(t.user_attrs[PROVENANCE]).source for t in loop.study.trials} == {Source(name)}


@pytest.mark.parametrize("sampler", ["llama", "random", "tpe", "grid"])
@pytest.mark.parametrize("after", [0, 1, 3, 4, 6, 9])
def test_an_interrupted_loop_ends_as_one_that_was_not(tmp_path, sampler, after):
    options = {"defaults": 2, "n_trials": 11, "sampler": sampler}
    whole, _ = a_loop(tmp_path, **options)
    whole.run()
    part, _ = a_loop(tmp_path, evaluator=Interrupting(after), **options)
    with pytest.raises(KeyboardInterrupt):
        part.run()
    rest, _ = a_loop(tmp_path, study=part.study, **options)
    rest.run()
    assert told(rest.study) == told(whole.study)
    assert sum(rest.evaluator.batches) == 11 - after


def test_a_longer_run_begins_as_a_shorter_one(tmp_path):
    short, long = (a_loop(tmp_path, n_trials=n)[0] for n in (6, 14))
    short.run()
    long.run()
    assert told(long.study)[:6] == told(short.study)


def test_a_run_that_is_extended_ends_as_one_that_was_long_from_the_start(tmp_path):
    short, whole = (a_loop(tmp_path, n_trials=n)[0] for n in (6, 14))
    short.run()
    whole.run()
    extended, _ = a_loop(tmp_path, study=short.study, n_trials=14)
    extended.run()
    assert told(extended.study) == told(whole.study)


def test_another_seed_gives_other_candidates(tmp_path):
    one, other = (a_loop(tmp_path, seed=seed)[0] for seed in (0, 1))
    one.run()
    other.run()
    assert told(one.study) != told(other.study)


def test_the_listener_hears_of_each_trial_once_after_it_is_stored(tmp_path):
    heard = []

    class Ear(Silence):
        def on_result(self, asked, result):
            heard.append((asked.number, loop.study.get_trials(deepcopy=False)[asked.number].state))

    loop, _ = a_loop(tmp_path, n_trials=6, listener=Ear())
    loop.run()
    assert sorted(number for number, _ in heard) == list(range(6))
    assert {state for _, state in heard} <= {TrialState.COMPLETE, TrialState.FAIL}


def test_out_of_fold_predictions_are_kept_by_trial(tmp_path):
    loop, _ = a_loop(tmp_path, n_trials=5)
    loop.run()
    finished = loop.study.get_trials(states=(TrialState.COMPLETE,))
    assert finished
    for trial in finished:
        np.testing.assert_allclose(loop.folder.load_oof(trial.number), trial.value, rtol=1e-6)


def test_a_storage_that_another_program_holds_is_said_in_one_line(tmp_path):
    study = create_study(tmp_path / "study.db", "formula", SPACE, "accuracy", busy_seconds=0.1)
    trials.enqueue(study, [SPACE.default], Provenance(source=Source.USER, seed=0))
    loop, _ = a_loop(tmp_path, study=study)
    with sqlite3.connect(tmp_path / "study.db") as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StudyError, match=r"the storage must be free, got .*study.db locked by another program"):
            loop.run()
    other.close()


def test_seeds_of_trials_differ_and_depend_on_seed_and_number_alone():
    seeds = {(seed, number): trial_seed(seed, number) for seed in range(20) for number in range(50)}
    assert len(set(seeds.values())) > 990
    assert all(0 <= value < 2**31 for value in seeds.values())
    assert trial_seed(3, 4) == seeds[3, 4]
