"""What a run shows while it works, from events alone."""

import io
import os
import pty
import re

import pytest
from rich.console import Console
from small_runs import finished, program, run_arguments

from offline_tune.cli.output import emit_json, say
from offline_tune.cli.progress import LivePanel, PlainLines, shown_values, task_line
from offline_tune.evaluator.contract import Outcome, Result
from offline_tune.samplers.proposal import Answer, Call, Provenance, Source
from offline_tune.study.trials import Asked
from offline_tune.task import Metric, Note, Task, TaskKind
from offline_tune.tuner.events import Standing

TASK = Task(
    name="wine", target="quality", kind=TaskKind.BINARY, metric=Metric("neg_log_loss", "predict_proba"),
    classes=("bad", "good"), n_rows=1200,
)  # fmt: skip
CALL = Call(
    first_trial=2, prompt="", grammar_digest="", answers=(Answer(text="", logprob=0.0, rejected_mass=0.0),) * 16,
    tokens_in=100, tokens_out=400, seconds=0.25,
)  # fmt: skip


def asked(number, **values):
    return Asked(number, values or {"family": "linear", "linear.C": 0.123456}, Provenance(source=Source.MODEL, seed=0))


def scored(score):
    return Result(outcome=Outcome.OK, seconds=1.26, scores={"neg_log_loss": score})


TASK_LINE = "wine: binary task with 2 classes, target quality, 1,200 rows, 0 features, 5 folds"
FAILED = Result(outcome=Outcome.TIMED_OUT, seconds=300.0, detail="stopped after 300 s")


def a_run(listener, earlier=None):
    """Two trials after those of an earlier part."""
    first = earlier.n_finished if earlier else 0
    listener.on_task(TASK, [Note("the classes are uneven")], 5)
    listener.on_stage("loading the model tuner.gguf")
    listener.on_study(earlier or Standing(0, 8))
    listener.on_call(CALL)
    trials = [asked(first), asked(first + 1)]
    listener.on_batch(trials)
    listener.on_result(trials[1], scored(-0.5))
    listener.on_result(trials[0], FAILED)


def panel(width, **options):
    console = Console(file=io.StringIO(), width=width, height=30, force_terminal=False, color_system=None)
    shown = LivePanel(console)
    a_run(shown, **options)
    console.print(shown.live.get_renderable())
    return console.file.getvalue()


def test_plain_lines_tell_the_course_of_a_run(capsys):
    a_run(PlainLines())
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        f"{TASK_LINE}; optimising log loss (lower is better)",
        "note: the classes are uneven",
        "loading the model tuner.gguf",
        "the model wrote 16 candidates in 0.25 s (2,000 tokens/s)",
        "trial 0 starts (model): linear C=0.1235",
        "trial 1 starts (model): linear C=0.1235",
        "trial 1 log loss 0.5000 in 1.3 s (1/8), best 0.5000 (trial 1)",
        f"trial 0 failed: {Outcome.TIMED_OUT} (stopped after 300 s) in 5 min 0 s (2/8), best 0.5000 (trial 1)",
    ]


def test_a_resumed_run_counts_what_was_there_before(capsys):
    a_run(PlainLines(), Standing(5, 8, (-0.4, 3)))
    err = capsys.readouterr().err
    assert "5 of 8 trials were finished before, best 0.4000 (trial 3)\n" in err
    assert "trial 6 log loss 0.5000 in 1.3 s (6/8), best 0.4000 (trial 3)\n" in err


def test_the_panel_shows_trials_incumbent_and_what_the_model_wrote():
    text = panel(110)
    assert "offline-tune: evaluating" in text
    assert "2/8 trials" in text and "best 0.5000 (trial 1)" in text
    assert re.search(r"0 +model +timed out +linear C=0\.1235", text)
    assert re.search(r"1 +model +0\.5000 +linear C=0\.1235", text)
    assert "the model wrote 16 candidates in 0.25 s (2,000 tokens/s)" in text


def test_the_panel_of_a_resumed_run_counts_on():
    text = panel(110, earlier=Standing(5, 8, (-0.4, 3)))
    assert "7/8 trials" in text and "best 0.4000 (trial 3)" in text


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_panel_fits_its_terminal_line_by_line(width):
    lines = [line for line in panel(width).splitlines() if line.startswith(("│", "╭", "╰"))]
    assert len(lines) == 7
    assert {len(line.rstrip()) for line in lines} == {width - 2}


def test_markup_and_control_characters_of_the_data_are_shown_as_they_are(capsys):
    task = Task(name="[red]\x1b[2J", target="a\nb", kind=TaskKind.BINARY, metric=TASK.metric)
    assert "\x1b" not in task_line(task, 3) and "\n" not in task_line(task, 3)
    console = Console(file=io.StringIO(), width=100, color_system=None)
    shown = LivePanel(console)
    shown.on_task(task, [Note("[bold]x[/bold]\x1b]0;title\x07")], 3)
    shown.on_batch([asked(0, family="[blink]f")])
    console.print(shown.live.get_renderable())
    text = console.file.getvalue()
    assert "[red][2J" in text and "note: [bold]x[/bold]" in text and "[blink]f" in text
    assert "\x1b" not in text and "\x07" not in text


def test_long_candidates_are_cut():
    assert len(shown_values({f"p{n}": "word" * 20 for n in range(50)})) <= 300


def test_a_score_that_is_no_number_is_null_in_json(capsys):
    emit_json({"cv": [float("nan"), {"auc": float("inf")}], "n": 1})
    assert re.sub(r"\s", "", capsys.readouterr().out) == '{"cv":[null,{"auc":null}],"n":1}'


def test_words_that_cannot_be_said_are_dropped(monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as broken:
        monkeypatch.setattr("sys.stderr", broken)
        say("nobody listens")
        monkeypatch.undo()
        with pytest.raises(BrokenPipeError):
            broken.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), broken.fileno())


def in_a_terminal(folder, kind):
    """A run with stderr on a terminal: how it ended, and what the terminal was sent."""
    ours, theirs = pty.openpty()
    options = run_arguments(folder, "--sampler", "random", "--ensemble", "none", trials=3)
    process = program(*options, stderr=theirs, env={"TERM": kind})
    os.close(theirs)
    seen = b"".join(iter(lambda: _read(ours), b"")).decode()
    os.close(ours)
    done = finished(process)
    assert done.code == 0, seen
    assert done.out == (folder / "summary.txt").read_text()
    return seen


def test_a_terminal_gets_the_panel_and_stdout_only_the_summary(tmp_path):
    seen = in_a_terminal(tmp_path / "run", "xterm-256color")
    assert "offline-tune: retraining the winner" in seen and "3/3 trials" in seen
    assert "starts (random)" not in seen


@pytest.mark.slow
def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines(tmp_path):
    seen = in_a_terminal(tmp_path / "run", "dumb")
    assert "starts (random)" in seen
    assert "\x1b" not in seen and "╭" not in seen


def _read(descriptor):
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other side has closed
        return b""
