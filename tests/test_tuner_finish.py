"""The end of a run when something is wrong with it: no score at all, a winner that cannot be trained again."""

import json

import optuna
import pytest
from small_runs import command, copy_of_run, finished_folder, finished_run, run_arguments

from offline_tune.errors import EvaluationError
from offline_tune.evaluator.contract import Outcome, Result
from offline_tune.samplers.proposal import Provenance, Source
from offline_tune.study import trials
from offline_tune.study.folder import RunFolder
from offline_tune.study.trials import Asked
from offline_tune.tuner.finish import contestants, finish


def a_study(*results):
    study = optuna.create_study(direction="maximize")
    for result in results:
        number = study.ask().number
        label = Provenance(source=Source.MODEL, seed=0)
        study._storage.set_trial_user_attr(number, "offline_tune:provenance", label.to_json())
        trials.tell(study, Asked(number, {}, label), result, "r2")
    return study


def scored(score):
    return Result(outcome=Outcome.OK, seconds=1.0, scores={"r2": score, "neg_max_error": -1.0})


def test_contestants_are_the_scored_trials_the_best_first_the_earlier_of_equals_first():
    failed = Result(outcome=Outcome.FAILED, seconds=1.0, detail="no")
    study = a_study(scored(0.2), scored(0.5), failed, scored(0.5))
    assert [c.number for c in contestants(study)] == [1, 3, 0]
    assert contestants(study)[0].scores == {"r2": 0.5, "neg_max_error": -1.0}


def test_a_trial_that_another_program_told_the_study_is_no_contestant():
    study = a_study(scored(0.2))
    study.add_trial(optuna.trial.create_trial(params={}, value=0.9))
    assert [c.number for c in contestants(study)] == [0]


@pytest.mark.parametrize(
    ("results", "reasons"),
    [
        ([], "no trial ran"),
        (
            [Result(outcome=Outcome.TIMED_OUT, seconds=9.0, detail="stopped after 9 s")] * 3,
            "took longer than the time limit of one trial stopped after 9 s",
        ),
    ],
)
def test_without_a_score_there_is_no_winner(results, reasons, tmp_path):
    message = rf"a run needs one trial with a score, got none \({reasons}\); change what failed, .* resume with more"
    with pytest.raises(EvaluationError, match=message):
        finish(a_study(*results), None, None, RunFolder(tmp_path), "none", 0)


def test_a_run_whose_trials_all_failed_says_so_and_goes_on_with_more(tmp_path):
    options = ["--sampler", "random", "--ensemble", "none"]
    done = command(*run_arguments(tmp_path / "run", *options, "--trial-memory", "64m", trials=2))
    assert (done.code, done.out) == (11, "")
    assert done.last_line.startswith(
        "error: a run needs one trial with a score, got none (needed more memory than the limit of one trial resident "
    )
    again = command("resume", tmp_path / "run", "--trial-memory", "4g", "--trials", 4, "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out)["winner"]["trials"][0] in (2, 3)


def test_a_winner_that_cannot_be_trained_again_costs_nothing_that_was_there(tmp_path):
    assert finished_run().code == 0
    folder = copy_of_run(tmp_path / "run")
    done = command("resume", folder, "--trial-memory", "64m")
    assert (done.code, done.out) == (11, "")
    assert done.last_line.startswith("error: the winner must train on all rows, got needed more memory than the limit ")
    assert done.last_line.endswith("; raise --trial-time-limit or --trial-memory and resume")
    names = ("result.json", "report.html", "test.npz")
    assert all((folder / name).read_bytes() == (finished_folder() / name).read_bytes() for name in names)
    assert sorted(p.name for p in (folder / "model").rglob("*")) == sorted(
        p.name for p in (finished_folder() / "model").rglob("*")
    )
    assert not (folder / ".members").exists()
