"""Where the output goes: closed streams, full disks, a reader that has gone; and that the run survives them."""

import os
import re
import resource
import signal
import subprocess
import sys

import pytest
from small_runs import (
    ROOT,
    command,
    copy_of_run,
    finished,
    finished_folder,
    finished_run,
    program,
    run_arguments,
    shop,
    told,
)

QUICK = ("--sampler", "random", "--ensemble", "none")


@pytest.fixture(scope="session", autouse=True)
def run():
    assert finished_run().code == 0, finished_run().err


def shell(line, *arguments):
    """A shell line in which $OT is the program; what it printed and how it ended."""
    program = f"'{sys.executable}' -m offline_tune"
    environment = os.environ | {"OT": program, "OMP_NUM_THREADS": "1"}
    line = line.replace("$OT", program)
    return subprocess.run(
        ["bash", "-c", line, "bash", *map(str, arguments)], cwd=ROOT, env=environment, capture_output=True, text=True
    )


def test_a_reader_that_wants_no_more_is_no_error():
    done = shell('set -o pipefail; $OT report "$1" | head -n 1', finished_folder())
    assert (done.returncode, done.stdout, done.stderr) == (0, "small.csv, target y (binary)\n", "")


@pytest.mark.slow
def test_a_reader_that_went_before_the_first_word_is_no_error_either():
    done = shell('set -o pipefail; $OT report "$1" | true', finished_folder())
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_result_that_cannot_be_written_is_an_error():
    done = shell('$OT report "$1" > /dev/full', finished_folder())
    assert done.returncode == 10
    assert (
        done.stderr
        == "error: the result must reach stdout, got No space left on device; free space or send it elsewhere\n"
    )


def test_a_run_without_any_standard_stream_ends_well(tmp_path):
    """With stderr closed, the next file opened would be number 2; what libraries print must not go there."""
    options = run_arguments(tmp_path / "run", *QUICK, trials=2)
    done = shell('$OT "$@" 0<&- 1>&- 2>&-', *options)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [state for _, state, *_ in told(tmp_path / "run")] == ["COMPLETE"] * 2
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.slow
def test_progress_that_nobody_reads_does_not_stop_the_run(tmp_path):
    options = run_arguments(tmp_path / "run", *QUICK, trials=2)
    done = shell('set -o pipefail; $OT "$@" 2> >(true)', *options)
    assert done.returncode == 0
    assert done.stdout == (tmp_path / "run" / "summary.txt").read_text()


def test_a_terminal_that_lacks_a_letter_sees_its_number():
    done = finished(program("report", finished_folder(), env={"PYTHONIOENCODING": "koi8-r"}))
    assert (done.code, done.err) == (0, "")
    assert r"\xb1" in done.out


def small_files_only(limit):
    def prepare():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return prepare


@pytest.mark.parametrize(
    ("limit", "what"),
    [
        (0, "the (output|storage) must be writable, got .*"),
        pytest.param(
            60_000,
            "the storage must be writable, got .*; free space or change its rights, then resume",
            marks=pytest.mark.slow,
        ),
        pytest.param(200_000, "the (output|storage) must be writable, got .*", marks=pytest.mark.slow),
    ],
)
def test_a_full_disk_is_said_in_one_line_and_the_run_can_go_on(tmp_path, limit, what):
    options = run_arguments(tmp_path / "run", "--ensemble", "none", trials=3)
    done = finished(program(*options, preexec_fn=small_files_only(limit)))
    assert done.code == 10, done.err
    assert "Traceback" not in done.err
    assert re.fullmatch(f"error: {what}", done.last_line), done.last_line
    if (tmp_path / "run" / "run.json").is_file():
        again = command("resume", tmp_path / "run")
        assert again.code == 0, again.err


def test_an_older_report_survives_a_full_disk(tmp_path):
    folder = copy_of_run(tmp_path / "run")
    names = ("report.html", "summary.txt", "leaderboard.csv", "result.json", "run.json", "calls.jsonl")
    before = [(folder / name).read_bytes() for name in names]
    done = finished(program("report", folder, preexec_fn=small_files_only(1000)))
    assert done.code == 10
    assert [(folder / name).read_bytes() for name in names] == before
    assert not list(folder.glob("*.partial"))


def test_predictions_survive_a_full_disk(tmp_path):
    (tmp_path / "out.csv").write_text("older predictions")
    done = finished(
        program(
            "predict", finished_folder(), shop().data, "--out", tmp_path / "out.csv", preexec_fn=small_files_only(50)
        )
    )
    assert done.code == 10, done.err
    assert done.last_line.startswith("error: the output must be writable, got File too large for ")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["older predictions"]
