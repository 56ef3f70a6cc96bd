"""What a run shows while it works: a live panel on a terminal, plain lines elsewhere, always on stderr."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, cast

import optuna
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from offline_tune.cli.output import Audience, say
from offline_tune.evaluator.contract import Result
from offline_tune.report.metric import ShownMetric
from offline_tune.report.wording import duration, printable, value_text
from offline_tune.samplers.proposal import Call
from offline_tune.space import Values
from offline_tune.study.folder import RunFolder
from offline_tune.study.trials import Asked
from offline_tune.task import Note, Task
from offline_tune.tuner.events import Listener, Standing

_ROWS = 8  # trials that the panel shows


@contextmanager
def watched() -> Iterator[Listener]:
    """A listener for this terminal, or for none."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # else it would tell of every trial beside us
    audience = Audience()
    console = Console(file=cast(TextIO, audience)) if audience.isatty() else None
    if console is None or console.is_dumb_terminal:
        yield PlainLines()
        return
    panel = LivePanel(console)
    with panel.live:
        yield panel


@contextmanager
def resumable(folder: Path) -> Iterator[None]:
    """Say how to go on after Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        if RunFolder(folder).settings.is_file():
            say(f"stopped; finished trials are kept, go on with: {shlex.join(['offline-tune', 'resume', str(folder)])}")
        else:
            say("stopped before the first trial; nothing was written")
        raise


class Tally:
    """How far the run is: trials ended, trials wanted, the incumbent."""

    def __init__(self) -> None:
        self.metric = ShownMetric("")
        self.standing = Standing(0, 0)

    def count(self, asked: Asked, result: Result) -> None:
        """One trial more."""
        before, score = self.standing, (result.scores or {}).get(self.metric.name)
        is_better = score is not None and (before.best is None or score > before.best[0])
        best = (score, asked.number) if score is not None and is_better else before.best
        self.standing = Standing(before.n_finished + 1, before.n_wanted, best)

    @property
    def best_text(self) -> str:
        """The incumbent, or nothing."""
        best = self.standing.best
        return "" if best is None else f"best {self.metric.text(best[0])} (trial {best[1]})"


class PlainLines:
    """One line an event."""

    def __init__(self) -> None:
        self._tally = Tally()

    def on_task(self, task: Task, notes: Sequence[Note], n_folds: int) -> None:
        """The task and what is noteworthy."""
        self._tally.metric = ShownMetric(task.metric.name)
        say(task_line(task, n_folds))
        for note in notes:
            say(note_line(note))

    def on_stage(self, text: str) -> None:
        """What begins."""
        say(text)

    def on_study(self, standing: Standing) -> None:
        """What an earlier part of the run has left."""
        self._tally.standing = standing
        if standing.n_finished:
            earlier = f"{standing.n_finished} of {standing.n_wanted} trials were finished before"
            say(", ".join(filter(None, [earlier, self._tally.best_text])))

    def on_call(self, call: Call) -> None:
        """What the model did."""
        say(call_line(call))

    def on_batch(self, asked: Sequence[Asked]) -> None:
        """What is tried."""
        for trial in asked:
            say(f"trial {trial.number} starts ({trial.provenance.source.value}): {shown_values(trial.values)}")

    def on_result(self, asked: Asked, result: Result) -> None:
        """What came of it."""
        self._tally.count(asked, result)
        standing = self._tally.standing
        course = f"{standing.n_finished}/{standing.n_wanted}"
        what = f"trial {asked.number} {result_text(result, self._tally.metric)} in {duration(result.seconds)}"
        say(", ".join(filter(None, [f"{what} ({course})", self._tally.best_text])))


class LivePanel:
    """Trials, incumbent, time left, speed of the model, what it just proposed."""

    def __init__(self, console: Console) -> None:
        self._console, self._began = console, time.monotonic()
        self._tally, self._stage, self._call = Tally(), "starting", ""
        self._rows: dict[int, tuple[Asked, Result | None]] = {}
        self._here, self._opened = 0, self._began  # of this part of the run: earlier ones tell nothing of its speed
        self.live = Live(console=console, refresh_per_second=4, get_renderable=self._draw)

    def on_task(self, task: Task, notes: Sequence[Note], n_folds: int) -> None:
        """Above the panel, once."""
        self._tally.metric = ShownMetric(task.metric.name)
        self.live.console.print(Text(task_line(task, n_folds), style="bold"))
        for note in notes:
            self.live.console.print(Text(note_line(note), style="dim"))

    def on_stage(self, text: str) -> None:
        """In the title."""
        self._stage = text

    def on_study(self, standing: Standing) -> None:
        """In the bar."""
        self._tally.standing, self._opened = standing, time.monotonic()

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
        self._here += 1
        self._tally.count(asked, result)
        self._rows[asked.number] = (asked, result)

    def _draw(self) -> Panel:
        parts: list[RenderableType] = [self._head()]
        if self._rows:
            parts.append(self._body())
        if self._call:
            parts.append(Text(self._call, style="dim", no_wrap=True, overflow="ellipsis"))
        # Two columns stay free for the ^C that a terminal shows: it must not break the last line in two.
        title = Text(f"offline-tune: {self._stage}")
        return Panel(Group(*parts), title=title, title_align="left", width=max(self._console.width - 2, 20))

    def _head(self) -> Table:
        standing, now = self._tally.standing, time.monotonic()
        to_do = standing.n_wanted - standing.n_finished
        left = (now - self._opened) / self._here * to_do if self._here else 0
        clock = _clock(now - self._began) + (f", about {_clock(left)} left" if left >= 1 else "")
        counts = f"{standing.n_finished}/{standing.n_wanted} trials" if standing.n_wanted else ""
        text = "  ".join(filter(None, [counts, clock, self._tally.best_text]))
        room = self._console.width - len(text) - 8
        head = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=max(standing.n_wanted, 1), completed=standing.n_finished, width=min(max(room, 4), 30))
        head.add_row(bar, Text(text, no_wrap=True, overflow="ellipsis"))
        return head

    def _body(self) -> Table:
        body = Table(box=None, pad_edge=False, expand=True)
        for name in ("trial", "proposed by", self._tally.metric.title or "score"):
            body.add_column(name, no_wrap=True)
        body.add_column("candidate", no_wrap=True, overflow="ellipsis", ratio=1)
        for number in sorted(self._rows)[-_ROWS:]:
            trial, result = self._rows[number]
            score = "..." if result is None else result_text(result, self._tally.metric, brief=True)
            body.add_row(str(number), trial.provenance.source.value, Text(score), Text(shown_values(trial.values)))
        return body


def task_line(task: Task, n_folds: int) -> str:
    """The task in one line."""
    metric = ShownMetric(task.metric.name)
    kind = f"{task.kind.value} task" + (f" with {len(task.classes)} classes" if task.classes else "")
    return (
        f"{printable(task.name)}: {kind}, target {printable(task.target)}, {task.n_rows:,} rows, "
        f"{len(task.features)} features, {n_folds} folds; optimising {metric.title} ({metric.direction})"
    )


def note_line(note: Note) -> str:
    """What is noteworthy of the data, in one line."""
    return f"note: {printable(note.text, 400)}"


def call_line(call: Call) -> str:
    """A pass of the model in one line."""
    tokens = call.tokens_in + call.tokens_out
    speed = f"{tokens / call.seconds:,.0f} tokens/s" if call.seconds > 0 else "from its cache"
    return f"the model wrote {len(call.answers)} candidates in {call.seconds:.2f} s ({speed})"


def result_text(result: Result, metric: ShownMetric, brief: bool = False) -> str:
    """A result in a few words; brief: for a column of a table."""
    score = (result.scores or {}).get(metric.name)
    if result.ok and score is not None:
        return metric.text(score) if brief else f"{metric.title} {metric.text(score)}"
    if brief:
        return result.outcome.name.lower().replace("_", " ")
    return f"failed: {result.outcome.value}" + (f" ({printable(result.detail, 100)})" if result.detail else "")


def shown_values(values: Values) -> str:
    """A candidate in one line, without its family's prefix."""
    family = values.get("family")
    rest = [f"{name.rsplit('.', 1)[-1]}={value_text(value)}" for name, value in values.items() if name != "family"]
    return printable(" ".join([*([str(family)] if family else []), *rest]), 300)


def _clock(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 60 else duration(seconds)
