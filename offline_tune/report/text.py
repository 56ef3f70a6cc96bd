"""The report in plain text: what a person reads in a terminal when a run ends.

At most 40 lines of at most 100 columns; only a line that ends in a path may be longer, since a cut path is of no use.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from offline_tune.report.command import predict_command
from offline_tune.report.facts import Report
from offline_tune.report.metric import size_text
from offline_tune.report.trial import TrialFacts
from offline_tune.report.wording import amount, columns, duration, printable, value_text
from offline_tune.study.result import Scored

WIDTH = 100
_LEADERS = 5
_MOST_REASONS = 3
_MOST_SOURCES = 8
_MOST_OTHERS = 3
_PARAMETER_LINES = 4


def summary(report: Report) -> str:
    """The whole run on one screen; ends with a newline."""
    blocks = (_task(report), _winner(report), _scores(report), _leaders(report), _course(report), _ends(report))
    return "\n\n".join("\n".join(block) for block in map(list, blocks) if block) + "\n"


def _task(report: Report) -> Iterator[str]:
    task, settings = report.task, report.settings
    kind = f" ({task.kind.value})" if task.kind else ""
    yield f"{printable(settings.data.name, 30)}, target {printable(task.target or settings.target, 40)}{kind}"
    rows = [f"{n:,} {part} rows" for n, part in ((task.n_train, "training"), (task.n_test, "test")) if n]
    metric = f"metric {report.metric.title}, {report.metric.direction}"
    yield _cut("; ".join([*rows, f"{metric}, {settings.folds} folds"]))


def _winner(report: Report) -> Iterator[str]:
    winner = report.winner
    if winner is None:
        yield "Winner: none"
        return
    family = f"{printable(winner.family, 40)}, " if winner.family else ""
    yield f"Winner: {family}trial {winner.number}, proposed by: {winner.source}"
    values = [f"{printable(name, 30)} {value_text(value)}" for name, value in report.winner_values.items()]
    lines = _packed("  ", values)
    yield from lines[:_PARAMETER_LINES]
    if len(lines) > _PARAMETER_LINES:
        yield "  … (all in report.html)"


def _scores(report: Report) -> Iterator[str]:
    result, name = report.result, report.metric.name
    yield _row(report.metric.title, "cross-validated", "test part")
    yield _score_row(report, "winner", result.winner)
    default = result.best_default
    if default is not None:
        yield _score_row(report, "best default", default)
        cv = report.metric.gain(result.winner.cv.get(name), default.cv.get(name))
        test = report.metric.gain((result.winner.test or {}).get(name), (default.test or {}).get(name))
        yield _row("  winner against default", cv, test)
    if result.ensemble is not None:
        yield _score_row(report, "", result.ensemble)
    test_scores = result.winner.test or {}
    others = [other for other in report.other_metrics if other.name in test_scores]
    if others:
        shown = [f"{other.title} {other.text(test_scores[other.name])}" for other in others]
        yield from _packed("  winner on the test part: ", shown)[:2]


def _leaders(report: Report) -> Iterator[str]:
    if not report.ranked:
        return
    yield f"Best {min(_LEADERS, len(report.ranked))} of {amount(len(report.trials), 'trial')}"
    for trial in report.ranked[:_LEADERS]:
        score = f"{report.metric.text(trial.score)}{_spread(trial)}"
        seconds = duration(trial.seconds) if trial.seconds is not None else ""
        family = printable(trial.family, 24) if trial.family else ""
        yield f"  {trial.number:>5}  {_padded(family, 24)}  {trial.source:<10}  {score:>18}  {seconds:>14}"


def _course(report: Report) -> Iterator[str]:
    sources = [_source(report, source, trials) for source, trials in report.sources.items()]
    if sources:
        yield from _packed("Candidates: ", sources[:_MOST_SOURCES])[:2]
    spent = report.result.spent
    calls = f"{amount(spent.calls, 'call')}; tokens: {spent.tokens_in:,} in, {spent.tokens_out:,} out"
    yield from _packed(
        "Time: ",
        [
            f"{duration(spent.total)} in all",
            f"{duration(spent.evaluation)} training",
            f"{duration(spent.model)} language model ({calls})",
        ],
    )
    if report.result.stopped:
        yield f"Stopped: {printable(report.result.stopped, 80)}"
    if report.failed:
        yield f"Failed: {len(report.failed)} of {amount(len(report.trials), 'trial')}"
    for sentence, trials in list(report.reasons.items())[:_MOST_REASONS]:
        detail = next((trial.detail for trial in trials if trial.detail), "")
        yield _cut(f"  {len(trials)} {printable(sentence, 60)}" + (f": {detail}" if detail else ""))


def _ends(report: Report) -> Iterator[str]:
    yield f"Files: report.html, summary.txt, leaderboard.csv, study.db, model/ in {_path(report)}"
    command = predict_command(report.folder.path)
    yield f"Predict: {command}"


def _source(report: Report, source: str, trials: Sequence[TrialFacts]) -> str:
    best = max((trial.score for trial in trials if trial.score is not None), default=None)
    return f"{source} {len(trials)}" + (f" (best {report.metric.text(best)})" if best is not None else "")


def _label(report: Report, name: str, scored: Scored) -> str:
    trial = report.trial_of(scored)
    if not name:
        return printable(scored.label, 28)
    return printable(f"{name}, trial {trial.number}" if trial else name, 28)


def _score_row(report: Report, name: str, scored: Scored) -> str:
    metric = report.metric
    cv = f"{metric.text(scored.cv.get(metric.name))}{_spread(report.trial_of(scored))}"
    return _row(f"  {_label(report, name, scored)}", cv, metric.text((scored.test or {}).get(metric.name)))


def _row(label: str, cv: str, test: str) -> str:
    return f"{_padded(_indented(label, 32), 32)}  {cv:>28}  {test:>28}".rstrip()


def _spread(trial: TrialFacts | None) -> str:
    spread = trial.fold_spread if trial else None
    return "" if spread is None else f" ± {size_text(spread)}"


def _packed(title: str, parts: Iterable[str]) -> list[str]:
    """Parts joined by commas, broken between parts only; further lines are indented by two."""
    lines = [title]
    for part in parts:
        fresh = lines[-1] in (title, "  ")
        joined = f"{lines[-1]}{part}" if fresh else f"{lines[-1]}, {part}"
        if columns(joined) < WIDTH or fresh:
            lines[-1] = joined
        else:
            lines[-1] += ","
            lines.append(f"  {part}")
    return [_cut(line) for line in lines]


def _padded(text: str, width: int) -> str:
    return text + " " * (width - columns(text))


def _path(report: Report) -> str:
    return "".join(c for c in str(report.folder.path) if c.isprintable())


def _cut(line: str) -> str:
    return _indented(line, WIDTH)


def _indented(line: str, limit: int) -> str:
    indent = len(line) - len(line.lstrip(" "))
    return " " * indent + printable(line, limit - indent)
