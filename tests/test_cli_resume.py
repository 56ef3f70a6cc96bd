"""Runs that stop half-way: by Ctrl-C, by SIGKILL at any moment, by the user's own budget; and how they go on."""

import fcntl
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import time
from functools import cache

import psutil
import pytest
from small_runs import (
    command,
    copy_of_run,
    finished,
    finished_folder,
    finished_run,
    program,
    run_arguments,
    shop,
    tiny_model,
    told,
)

RUNS = {"short": (["--seed", 3], 7), "llama": ([], 11), "tpe": (["--sampler", "tpe"], 11)}  # options, trials


@pytest.fixture(scope="session", autouse=True)
def run():
    assert finished_run().code == 0, finished_run().err


def arguments(folder, kind):
    options, trials = RUNS[kind]
    return run_arguments(folder, *options, trials=trials)


@cache
def uninterrupted(kind):
    """What the interrupted runs of that kind must become."""
    if kind == "short":
        return finished_folder()
    folder = shop().folder / f"whole-{kind}"
    done = command(*arguments(folder, kind))
    assert done.code == 0, done.err
    return folder


def started(folder, kind="llama"):
    return program(*arguments(folder, kind), start_new_session=True)


def n_finished(folder):
    """How many trials have ended, read from outside while the run goes on."""
    if not (folder / "study.db").exists():
        return -1
    database = sqlite3.connect(f"file:{folder / 'study.db'}?mode=ro", uri=True, timeout=5)
    try:
        return database.execute("SELECT count(*) FROM trials WHERE state IN ('COMPLETE', 'FAIL')").fetchone()[0]
    except sqlite3.OperationalError:
        return -1  # the tables are being made
    finally:
        database.close()


def wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        if process.poll() is not None:
            return
        time.sleep(0.01)


def family_of(process):
    return [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]


def kill(process):
    """The program and its workers, at once."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def ended_as_if_never_stopped(folder, kind="llama"):
    before = (
        {t[0]: t for t in told(folder) if t[1] != "RUNNING" and t[1] != "WAITING"} if n_finished(folder) > 0 else {}
    )
    done = command("resume", folder)
    assert done.code == 0, done.err
    after = told(folder)
    assert {number: after[number] for number in before} == before
    assert after == told(uninterrupted(kind))
    assert len(after) == RUNS[kind][1]
    ours, whole = (json.loads((path / "result.json").read_text()) for path in (folder, uninterrupted(kind)))
    assert (ours["winner"], ours["ensemble"]) == (whole["winner"], whole["ensemble"])
    return done


def test_ctrl_c_stops_cleanly_and_the_run_goes_on(tmp_path):
    process = started(tmp_path / "run", "short")
    wait_for(lambda: n_finished(tmp_path / "run") >= 1, process)
    family = family_of(process)
    process.send_signal(signal.SIGINT)
    done = finished(process)
    assert (done.code, done.out) == (130, "")
    assert done.last_line == f"stopped; finished trials are kept, go on with: offline-tune resume {tmp_path / 'run'}"
    assert "Traceback" not in done.err
    assert not psutil.wait_procs(family, timeout=20)[1]
    again = ended_as_if_never_stopped(tmp_path / "run", "short")
    assert re.search(r"^\d+ of 7 trials were finished before, best [\d.]+ \(trial \d+\)$", again.err, re.MULTILINE)


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_reaches_workers_too_and_may_be_pressed_twice(tmp_path):
    process = started(tmp_path / "run")
    wait_for(lambda: n_finished(tmp_path / "run") >= 2, process)
    family = family_of(process)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    done = finished(process)
    assert done.code == 130
    assert "Traceback" not in done.err
    assert not psutil.wait_procs(family, timeout=20)[1]
    ended_as_if_never_stopped(tmp_path / "run")


@pytest.mark.slow
def test_ctrl_c_pressed_again_and_again_until_the_end_keeps_the_exit_code(tmp_path):
    process = started(tmp_path / "run", "short")
    wait_for(lambda: n_finished(tmp_path / "run") >= 1, process)
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    done = finished(process)
    assert done.code == 130, done.err


def test_ctrl_c_before_the_first_trial_leaves_nothing(tmp_path):
    process = started(tmp_path / "run")
    assert process.stderr.readline() == "reading the data\n"
    process.send_signal(signal.SIGINT)
    done = finished(process)
    assert done.code == 130
    if not (tmp_path / "run").exists():
        assert done.last_line == "stopped before the first trial; nothing was written"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "after"), [("llama", 0), ("llama", 1), ("llama", 3), ("llama", 6), ("tpe", 0), ("tpe", 6)]
)
def test_killed_after_so_many_trials(tmp_path, kind, after):
    process = started(tmp_path / "run", kind)
    wait_for(lambda: n_finished(tmp_path / "run") >= after, process)
    kill(process)
    ended_as_if_never_stopped(tmp_path / "run", kind)


@pytest.mark.slow
def test_killed_alone_its_workers_go_too(tmp_path):
    process = started(tmp_path / "run")
    wait_for(lambda: n_finished(tmp_path / "run") >= 1, process)
    family = family_of(process)
    process.kill()
    process.communicate()
    assert not psutil.wait_procs(family, timeout=20)[1]
    ended_as_if_never_stopped(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(6))
def test_killed_at_any_moment(tmp_path, moment):
    """In one run the moments lie in its start, in the others anywhere up to its end, the exports included."""
    chance = random.Random(moment)
    folder = tmp_path / "run"
    process = started(folder)
    wait_for(lambda: folder.exists() or moment % 4 == 0, process)
    time.sleep(chance.uniform(0, 1.5 if moment % 2 else 4))
    kill(process)
    if not (folder / "run.json").exists():
        assert command(*arguments(folder, "llama")).code == 0
        assert told(folder) == told(uninterrupted("llama"))
    else:
        ended_as_if_never_stopped(folder)


@pytest.mark.slow
def test_killed_again_and_again(tmp_path):
    folder = tmp_path / "run"
    process = started(folder)
    for goal in (1, 6):
        wait_for(lambda goal=goal: n_finished(folder) >= goal, process)
        kill(process)
        process = program("resume", folder, start_new_session=True)
    finished(process)
    ended_as_if_never_stopped(folder)


@pytest.mark.slow
def test_killed_before_the_study_was_made(tmp_path):
    """The settings are there, the study is not: the first trials are still to come."""
    folder = tmp_path / "run"
    shutil.copytree(finished_folder(), folder)
    for name in ("study.db", "study.db-wal", "study.db-shm", "calls.jsonl", "result.json"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "oof")
    (folder / "oof").mkdir()
    ended_as_if_never_stopped(folder, "short")


def test_a_finished_run_only_does_its_ends_again(tmp_path):
    folder = copy_of_run(tmp_path / "run")
    for name in ("report.html", "result.json"):
        (folder / name).unlink()
    shutil.rmtree(folder / "model")
    done = command("resume", folder)
    assert done.code == 0, done.err
    assert " starts " not in done.err
    assert told(folder) == told(finished_folder())
    assert (folder / "model").is_dir() and (folder / "report.html").is_file()
    assert json.loads((folder / "result.json").read_text())["spent"]["calls"] == 1


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A run whose log a kill has torn, and that went on to ten trials."""
    folder = copy_of_run(tmp_path_factory.mktemp("extended") / "run")
    with (folder / "calls.jsonl").open("a") as log:
        log.write('{"first_trial": 8, "prom')
    done = command("resume", folder, "--trials", 10, "--json")
    assert done.code == 0, done.err
    return folder, json.loads(done.out)


def test_more_trials_go_on_where_the_run_ended(extended):
    folder, result = extended
    after = told(folder)
    assert (len(after), after[:7]) == (10, told(finished_folder()))
    assert json.loads((folder / "run.json").read_text())["budget"]["trials"] == 10
    assert result["facts"]["n_train"] == 96


def test_a_log_line_that_a_kill_tore_off_costs_no_other(extended):
    lines = (extended[0] / "calls.jsonl").read_text().splitlines()
    whole = (finished_folder() / "calls.jsonl").read_text().splitlines()
    assert lines[: len(whole)] == whole
    assert [json.loads(line)["first_trial"] for line in lines[len(whole) + 1 :]] == [5, 8]


@pytest.mark.slow
def test_a_run_in_two_parts_is_the_run_in_one(tmp_path):
    assert command(*run_arguments(tmp_path / "run", "--ensemble", "none", trials=6)).code == 0
    assert command("resume", tmp_path / "run", "--trials", 11).code == 0
    assert told(tmp_path / "run") == told(uninterrupted("llama"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trials", "0"], "--trials must be at least 1, got 0; raise it or leave it out"),
        (["--workers", "-1"], "--workers must be from 0 to 4096, got -1; choose a number inside"),
        (["--time-limit", "0"], "--time-limit must be at least 1, got 0; raise it or leave it out"),
    ],
)
def test_a_budget_that_makes_no_sense_changes_nothing(tmp_path, options, message):
    folder = copy_of_run(tmp_path / "run")
    before = (folder / "run.json").read_bytes()
    done = command("resume", folder, *options)
    assert (done.code, done.err) == (2, f"error: {message}\n")
    assert (folder / "run.json").read_bytes() == before


def change_data(folder):
    settings = json.loads((folder / "run.json").read_text())
    changed = folder / "changed.csv"
    changed.write_text(shop().data.read_text() + "0.1,0.2,red,yes\n")
    (folder / "run.json").write_text(json.dumps(settings | {"data": str(changed)}))


def lose_data(folder):
    settings = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(settings | {"data": str(folder / "lost.csv")}))


def change_model(folder):
    settings = json.loads((folder / "run.json").read_text())
    other = tiny_model(folder / "other.gguf", context=2048)
    (folder / "run.json").write_text(json.dumps(settings | {"model": str(other)}))


def change_space(folder):
    settings = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(settings | {"families": ["knn"], "version": "0.0.9"}))


def spoil(folder):
    (folder / "study.db").write_bytes(b"this was a study once " * 1000)
    for name in ("study.db-wal", "study.db-shm"):
        (folder / name).unlink(missing_ok=True)


def lose(folder):
    (folder / "study.db").unlink()


DAMAGES = {
    change_data: (
        9,
        r"a run must be resumed with the data file it began with, got another content in .*; restore it .*",
    ),
    lose_data: (3, r"the data file must exist, got '.*lost\.csv'; check the path"),
    change_model: (9, r"a run must be resumed with the model it began with, got another content in .*; restore it .*"),
    change_space: (
        9,
        r"the study must have the search space of this version, got another .*; resume it with version .*",
    ),
    spoil: (9, r"the storage must be an Optuna SQLite file, got .* for .*; restore a copy or start a new run"),
    lose: (9, r"a run must have study\.db, found none in .*; start it with `offline-tune run`"),
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_what_does_not_fit_the_run_any_more(tmp_path, damage):
    folder = copy_of_run(tmp_path / "run")
    damage(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "study.db-" not in path.name}
    done = command("resume", folder)
    code, message = DAMAGES[damage]
    assert (done.code, done.out) == (code, "")
    assert re.fullmatch(f"error: {message}", done.last_line), done.last_line
    assert {path: path.read_bytes() for path in before} == before


def test_two_processes_cannot_work_in_one_run(tmp_path):
    folder = copy_of_run(tmp_path / "run")
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = command("resume", folder)
    assert done.code == 9
    assert re.fullmatch(r"error: one process at a time may work in a run folder, got .* in use; .*\n", done.err)


@pytest.mark.slow
def test_a_study_that_another_program_holds(tmp_path):
    folder = copy_of_run(tmp_path / "run")
    with sqlite3.connect(folder / "study.db") as other:
        other.execute("BEGIN EXCLUSIVE")
        done = command("resume", folder)
    other.close()
    assert done.code == 9, done.err
    assert re.fullmatch(r"error: the storage must be free, got .* locked by another program; .*", done.last_line)
    assert command("resume", folder).code == 0
