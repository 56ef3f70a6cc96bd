"""`offline-tune run` as a user meets it: what it leaves, what it prints, and that it can be repeated."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from small_runs import (
    a_frame,
    command,
    copy_of_run,
    finished,
    finished_folder,
    finished_regression,
    finished_run,
    program,
    run_arguments,
    shop,
    told,
)

from offline_tune.history import PROVENANCE
from offline_tune.samplers.proposal import Provenance
from offline_tune.study.folder import RunFolder
from offline_tune.study.storage import load_study

FILES = ("run.json", "study.db", "calls.jsonl", "result.json", "report.html", "summary.txt", "leaderboard.csv")


@pytest.fixture(scope="session")
def run():
    done = finished_run()
    assert done.code == 0, done.err
    return done


def sources(folder):
    study, _ = load_study(RunFolder(folder).storage)
    return [Provenance.from_json(t.user_attrs[PROVENANCE]).source.value for t in study.get_trials(deepcopy=False)]


def result(folder):
    return json.loads(RunFolder(folder).result.read_text())


def test_a_run_leaves_its_study_its_result_its_report_and_its_models(run):
    folder = RunFolder(finished_folder())
    assert all((folder.path / name).stat().st_size > 0 for name in FILES)
    assert all((path / "model.json").is_file() or any(path.iterdir()) for path in (folder.model, folder.ensemble))
    assert sorted(path.name for path in (folder.path / "oof").iterdir()) == [f"{n:05d}.npz" for n in range(7)]
    assert not [path for path in folder.path.iterdir() if "partial" in path.name or path.name == ".members"]


def test_stdout_is_the_summary_and_nothing_else(run):
    assert run.out == (finished_folder() / "summary.txt").read_text()
    assert run.out.startswith("small.csv, target y (binary)")


def test_progress_is_plain_lines_on_stderr(run):
    lines = run.err.splitlines()
    assert lines[0] == "reading the data"
    assert "loading the model tiny.gguf" in lines
    start = re.compile(r"trial \d starts \((default|portfolio|model|local step|random)\): ")
    assert sum(bool(start.match(line)) for line in lines) == 7
    assert re.fullmatch(r"trial \d log loss [\d.]+ in [\d.]+ s \(7/7\), best [\d.]+ \(trial \d\)", lines[-2])
    assert "\x1b" not in run.err


def test_defaults_come_first_and_what_did_well_elsewhere_follows(run):
    found = sources(finished_folder())
    assert found[:3] == ["default", "default", "portfolio"]
    assert set(found[3:]) <= {"portfolio", "model", "local step", "random"} and found[-1] != "portfolio"


def test_every_answer_of_the_model_is_logged(run):
    calls = [json.loads(line) for line in (finished_folder() / "calls.jsonl").read_text().splitlines()]
    assert calls and sources(finished_folder())[calls[0]["first_trial"] - 1] == "portfolio"
    assert all(len(call["answers"]) == 16 and call["prompt"] for call in calls)
    assert result(finished_folder())["spent"]["calls"] == len(calls)


def test_the_winner_is_the_best_by_cross_validation(run):
    winner, trials = result(finished_folder())["winner"], told(finished_folder())
    best = max((t for t in trials if t[1] == "COMPLETE"), key=lambda t: t[3])
    assert winner["trials"] == [best[0]]
    assert winner["cv"]["neg_log_loss"] == best[3][0]
    assert set(winner["test"]) == {"neg_log_loss", "accuracy", "balanced_accuracy", "roc_auc", "f1"}


def test_the_same_command_again_gives_the_same_study_in_a_program_of_its_own(run, tmp_path):
    done = finished(program(*run_arguments(tmp_path / "again", "--seed", 3), "--json"))
    assert done.code == 0, done.err
    assert told(tmp_path / "again") == told(finished_folder())
    again, before = json.loads(done.out), result(finished_folder())
    assert again["winner"] == before["winner"]
    assert again["ensemble"] == before["ensemble"]
    assert "Warning" not in done.err and "[I 20" not in done.err


@pytest.mark.slow
def test_another_seed_gives_other_candidates_and_another_test_part(run, tmp_path):
    done = command(*run_arguments(tmp_path / "other", "--seed", 4, "--ensemble", "none"))
    assert done.code == 0, done.err
    assert [t[2] for t in told(tmp_path / "other")] != [t[2] for t in told(finished_folder())]
    assert not (tmp_path / "other" / "ensemble").exists()
    assert result(tmp_path / "other")["ensemble"] is None


def test_the_report_is_written_again_from_what_is_kept(run, tmp_path):
    folder = copy_of_run(tmp_path / "run")
    for name in ("report.html", "summary.txt", "leaderboard.csv"):
        (folder / name).unlink()
    done = command("report", folder)
    assert done.code == 0, done.err
    assert (folder / "summary.txt").read_text() == done.out
    assert (folder / "report.html").stat().st_size > 1000


def test_json_is_one_document_without_nan(run):
    done = command("report", finished_folder(), "--json")
    document = json.loads(done.out, parse_constant=pytest.fail)
    assert document["stopped"] == "all trials done"
    assert done.err == ""


def test_a_regression_with_tpe_a_test_file_and_stacking():
    done, folder = finished_regression(), shop().folder / "regression"
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["facts"]["task"], found["facts"]["n_test"], found["facts"]["model"]) == ("regression", 30, None)
    assert found["winner"]["cv"]["r2"] > 0.5 < found["winner"]["test"]["r2"]
    assert sources(folder)[2:] == ["tpe"] * 3
    assert not (folder / "calls.jsonl").exists()
    np.testing.assert_allclose(found["ensemble"]["weights"], 1 / 5)


def test_when_the_models_budget_is_spent_others_propose_and_say_so(tmp_path):
    done = command(*run_arguments(tmp_path / "run", "--llm-calls", 1, "--ensemble", "none", trials=9))
    assert done.code == 0, done.err
    assert sources(tmp_path / "run")[-1] in {"local step", "random"}
    assert done.err.count("the language model's budget is spent") == 1
    assert result(tmp_path / "run")["spent"]["calls"] == 1


@pytest.mark.slow
def test_one_token_is_a_budget_too(tmp_path):
    done = command(*run_arguments(tmp_path / "run", "--llm-tokens", 1, "--ensemble", "none", trials=6))
    assert done.code == 0, done.err
    assert result(tmp_path / "run")["spent"]["calls"] == 1
    assert set(sources(tmp_path / "run")[6:]) <= {"local step", "random", "model"}


@pytest.mark.slow
def test_the_time_limit_ends_a_run_that_would_be_long(tmp_path):
    options = ["--time-limit", "1", "--sampler", "random", "--ensemble", "none", "--batch", "2"]
    done = command(*run_arguments(tmp_path / "run", *options, trials=5000))
    assert done.code == 0, done.err
    assert result(tmp_path / "run")["stopped"] == "time limit reached"
    assert 2 <= len(told(tmp_path / "run")) < 100


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["gp", "random", "grid"])
def test_every_baseline_runs_to_the_end(tmp_path, sampler):
    done = command(*run_arguments(tmp_path / "run", "--sampler", sampler, "--ensemble", "voting", trials=8))
    assert done.code == 0, done.err
    assert sources(tmp_path / "run") == ["default"] * 2 + [sampler] * 6


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("--split-column", "part", "--metric", "accuracy"),
        ("--group", "g"),
        ("--time", "t", "--ensemble", "voting"),
        ("--time", "t", "--ensemble", "stacking"),
        ("--time", "t"),
        ("--family", "hist_gradient_boosting", "--family", "extra_trees", "--task", "multiclass"),
    ],
    ids=lambda options: " ".join(options),
)
def test_every_way_to_split_and_to_blend(tmp_path, options):
    n = np.arange(120)
    part, day = np.where(n % 5, "train", "test"), pd.date_range("2020-01-01", periods=120).astype(str)
    frame = a_frame().assign(g=n // 6, t=day, part=part)
    if "multiclass" in options:
        frame["y"] = np.where(frame["b"] > 1, "maybe", frame["y"])
    frame.to_csv(tmp_path / "data.csv", index=False)
    done = command(*run_arguments(tmp_path / "run", *options, data=tmp_path / "data.csv"))
    assert done.code == 0, done.err
    assert result(tmp_path / "run")["ensemble"] is not None
    assert all(state == "COMPLETE" for _, state, *_ in told(tmp_path / "run"))
