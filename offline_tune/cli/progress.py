"""What a run shows while it works: a live panel on a terminal, plain lines elsewhere, always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from offline_tune.evaluator.contract import Result
from offline_tune.report.metric import ShownMetric
from offline_tune.samplers.proposal import Call
from offline_tune.space import Values
from offline_tune.study.trials import Asked
from offline_tune.task import Note, Task
from offline_tune.tuner.events import Listener

_ROWS = 8  # trials that the panel shows


class PlainLines:
    """One line an event."""

    def __init__(self) -> None:
        self._metric = ShownMetric("")
        self._best: tuple[float, int] | None = None

    def on_task(self, task: Task, notes: Sequence[Note], n_folds: int) -> None:
        """The task and what is noteworthy."""
        self._metric = ShownMetric(task.metric.name)
        _say(task_line(task, n_folds))
        for note in notes:
            _say(f"note: {note.text}")

    def on_stage(self, text: str) -> None:
        """What begins."""
        _say(text)

    def on_call(self, call: Call) -> None:
        """What the model did."""
        _say(call_line(call))

    def on_batch(self, asked: Sequence[Asked]) -> None:
        """What is tried."""
        for trial in asked:
            _say(f"trial {trial.number} starts ({trial.provenance.source.value}): {shown_values(trial.values)}")

    def on_result(self, asked: Asked, result: Result) -> None:
        """What came of it."""
        score = (result.scores or {}).get(self._metric.name)
        self._best = better(self._best, score, asked.number)
        _say(f"trial {asked.number} {result_text(result, self._metric)}{_best_text(self._best, self._metric)}")


class LivePanel:
    """Trials, incumbent, time left, speed of the model, what it just proposed."""

    def __init__(self, console: Console, total: int | None) -> None:
        self._console, self._total, self._began = console, total, time.monotonic()
        self._metric, self._stage, self._call = ShownMetric(""), "", ""
        self._best: tuple[float, int] | None = None
        self._rows: dict[int, tuple[Asked, Result | None]] = {}
        self._finished = 0
        self.live = Live(self._draw(), console=console, refresh_per_second=4, get_renderable=self._draw)

    def on_task(self, task: Task, notes: Sequence[Note], n_folds: int) -> None:
        """Above the panel, once."""
        self._metric = ShownMetric(task.metric.name)
        self.live.console.print(Text(task_line(task, n_folds), style="bold"))
        for note in notes:
            self.live.console.print(Text(f"note: {note.text}", style="dim"))

    def on_stage(self, text: str) -> None:
        """In the title."""
        self._stage = text

    def on_call(self, call: Call) -> None:
        """Below the trials."""
        self._call = call_line(call)

    def on_batch(self, asked: Sequence[Asked]) -> None:
        """New rows."""
        self._stage = "evaluating"
        for trial in asked:
            self._rows[trial.number] = (trial, None)

    def on_result(self, asked: Asked, result: Result) -> None:
        """A row is filled."""
        self._finished += 1
        self._best = better(self._best, (result.scores or {}).get(self._metric.name), asked.number)
        self._rows[asked.number] = (asked, result)

    def _draw(self) -> Panel:
        seconds = time.monotonic() - self._began
        head = Table.grid(padding=(0, 2))
        total = self._total or max(len(self._rows), 1)
        left = seconds / self._finished * (total - self._finished) if self._finished else None
        head.add_row(
            ProgressBar(total=total, completed=self._finished, width=30),
            f"{self._finished}/{total} trials",
            f"{seconds:.0f} s" + (f", about {left:.0f} s left" if left is not None else ""),
            _best_text(self._best, self._metric).strip(" ,"),
        )
        body = Table(box=None, pad_edge=False, expand=True)
        for name in ("trial", "proposed by", self._metric.title or "score", "candidate"):
            body.add_column(name, no_wrap=True, overflow="ellipsis", ratio=1 if name == "candidate" else None)
        for number in sorted(self._rows)[-_ROWS:]:
            trial, result = self._rows[number]
            score = "..." if result is None else result_text(result, self._metric)
            body.add_row(str(number), trial.provenance.source.value, Text(score), Text(shown_values(trial.values)))
        return Panel(
            Group(head, body, Text(self._call, style="dim")), title=f"offline-tune: {self._stage or 'starting'}"
        )


@contextmanager
def watched(folder: Path, trials: int | None) -> Iterator[Listener]:
    """A listener for this terminal, or for none; says how to go on after Ctrl-C."""
    try:
        if sys.stderr.isatty():
            panel = LivePanel(Console(stderr=True), trials)
            with panel.live:
                yield panel
        else:
            yield PlainLines()
    except KeyboardInterrupt:
        _say(f"stopped; finished trials are kept, go on with: offline-tune resume {folder}")
        raise


def task_line(task: Task, n_folds: int) -> str:
    """The task in one line."""
    metric = ShownMetric(task.metric.name)
    kind = f"{task.kind.value} task" + (f" with {len(task.classes)} classes" if task.classes else "")
    return (
        f"{task.name}: {kind}, target {_cut(task.target)}, {task.n_rows:,} rows, {len(task.features)} features, "
        f"{n_folds} folds; optimising {metric.title} ({metric.direction})"
    )


def call_line(call: Call) -> str:
    """A pass of the model in one line."""
    tokens = call.tokens_in + call.tokens_out
    speed = f"{tokens / call.seconds:,.0f} tokens/s" if call.seconds > 0 else "from its cache"
    return f"the model wrote {len(call.answers)} candidates in {call.seconds:.2f} s ({speed})"


def result_text(result: Result, metric: ShownMetric) -> str:
    """A result in a few words."""
    score = (result.scores or {}).get(metric.name)
    if not result.ok or score is None:
        return f"failed: {result.outcome.value}" + (f" ({_cut(result.detail)})" if result.detail else "")
    return f"{metric.title} {metric.value(score):.4g} in {result.seconds:.1f} s"


def shown_values(values: Values) -> str:
    """A candidate in one line, without its family's prefix."""
    family = values.get("family")
    rest = [f"{name.rsplit('.', 1)[-1]}={_number(value)}" for name, value in values.items() if name != "family"]
    return " ".join([*([str(family)] if family else []), *rest])


def better(best: tuple[float, int] | None, score: float | None, number: int) -> tuple[float, int] | None:
    """The incumbent after a result."""
    if score is None or (best is not None and best[0] >= score):
        return best
    return score, number


def _best_text(best: tuple[float, int] | None, metric: ShownMetric) -> str:
    return "" if best is None else f", best {metric.value(best[0]):.4g} (trial {best[1]})"


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cut(text: str, limit: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def _say(line: str) -> None:
    click.echo(line, err=True)
