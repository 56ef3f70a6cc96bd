"""Parallel coordinates of one family's trials, the score as the last axis.

Drawn with plain lines: plotly's own parallel coordinates need WebGL, which a workstation without a graphics driver
may lack and which does not print.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from offline_tune.report.facts import Report
from offline_tune.report.figures import Figure, escaped, hover, score_range
from offline_tune.report.trial import TrialFacts
from offline_tune.report.wording import printable, value_text
from offline_tune.space import Parameter

MOST_AXES = 12
MOST_LINES = 200
_MOST_TICKS = 8
_OFF = -0.12  # where a line passes an axis whose parameter it does not have
_LEAST_LINES = 2

# From the worst fifth to the best; faint to strong, readable on white and on dark grey.
_SHADES = ("#9aa3af", "#8fa5bd", "#7ea9cd", "#5b9ed6", "#2f7fc4")
_OPACITIES = (0.35, 0.4, 0.5, 0.65, 0.85)
_FIFTHS = ("worst fifth", "fourth", "middle", "second", "best fifth")
_WINNER = "#e08a2c"


@dataclass(frozen=True, slots=True)
class Axis:
    """One vertical axis: its title, labelled places on [0, 1], and where a trial crosses it."""

    title: str
    ticks: tuple[tuple[float, str], ...]
    place: Callable[[TrialFacts], float]


def parallel_figure(report: Report) -> Figure | None:
    """The winner's family; None below two scored trials or without a parameter that varies."""
    trials = report.family_trials
    varied = _varied(report)
    axes = [_parameter_axis(parameter, report.winner_family) for parameter in varied[:MOST_AXES]]
    if len(trials) < _LEAST_LINES or not axes:
        return None
    axes.append(_score_axis(report))
    drawn = _drawn(trials)
    ranks = {trial.number: rank for rank, trial in enumerate(trials)}
    fifths: list[list[TrialFacts]] = [[] for _ in _SHADES]
    for trial in reversed(drawn):
        fifths[4 - 5 * ranks[trial.number] // len(trials)].append(trial)
    lines = [_lines(report, axes, fifth, level) for level, fifth in enumerate(fifths) if fifth]
    if report.winner in trials and report.winner is not None:
        lines.append(_winner_line(report, axes, report.winner))
    note = " ".join(_notes(varied, trials, drawn))
    return Figure(key="parallel", traces=lines, layout=_layout(axes), height=450, note=note)


def _varied(report: Report) -> Sequence[Parameter]:
    """Those that varied, the most important first where that is known, else in written order."""
    seen: dict[str, set[object]] = {}
    for trial in report.family_trials:
        for name in trial.values:
            seen.setdefault(name, set()).add(trial.values[name])
    varied = [p for p in report.space.parameters if len(seen.get(p.name, ())) > 1]
    return sorted(varied, key=lambda p: -report.importances.get(p.name, 0.0))


def _parameter_axis(parameter: Parameter, family: str) -> Axis:
    def place(trial: TrialFacts) -> float:
        if parameter.name not in trial.values or not parameter.contains(trial.values[parameter.name]):
            return _OFF
        return parameter.to_unit(trial.values[parameter.name])

    return Axis(printable(parameter.name.removeprefix(f"{family}."), 26), _ticks(parameter), place)


def _ticks(parameter: Parameter) -> tuple[tuple[float, str], ...]:
    lattice = parameter.lattice
    if parameter.is_categorical:
        step = max(1, math.ceil(lattice.size / _MOST_TICKS))
        values = [lattice.value(index) for index in range(0, lattice.size, step)]
    else:
        values = list(dict.fromkeys(lattice.from_unit(unit) for unit in (0.0, 0.25, 0.5, 0.75, 1.0)))
    return tuple((parameter.to_unit(value), value_text(value, 12)) for value in values)


def _score_axis(report: Report) -> Axis:
    metric = report.metric
    shown = [metric.value(trial.score) for trial in report.family_trials if trial.score is not None]
    reach, beyond = score_range(shown, metric.lower_is_better)
    best, worst = (min(shown), max(shown)) if metric.lower_is_better else (max(shown), min(shown))
    if reach is not None:
        worst = reach[1] if metric.lower_is_better else reach[0]
    span = (best - worst) or 1.0

    def place(trial: TrialFacts) -> float:
        return max(0.0, (metric.value(trial.score or 0.0) - worst) / span)

    def label(unit: float) -> str:
        text = metric.text(metric.value(worst + unit * span))
        return f"{text} or worse" if unit == 0 and beyond else text

    units = (0.0, 0.5, 1.0) if best != worst else (0.0,)
    return Axis(metric.title, tuple((unit, label(unit)) for unit in units), place)


def _drawn(trials: Sequence[TrialFacts]) -> Sequence[TrialFacts]:
    """The best half of what can be drawn, and an even choice of the rest."""
    if len(trials) <= MOST_LINES:
        return trials
    best, rest = trials[: MOST_LINES // 2], trials[MOST_LINES // 2 :]
    step = len(rest) / (MOST_LINES - len(best))
    return [*best, *(rest[int(index * step)] for index in range(MOST_LINES - len(best)))]


def _lines(report: Report, axes: Sequence[Axis], trials: Sequence[TrialFacts], level: int) -> dict[str, Any]:
    """One trace for many lines, parted by gaps."""
    x: list[float | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for trial in trials:
        x += [*range(len(axes)), None]
        y += [*(axis.place(trial) for axis in axes), None]
        text += [hover(report, trial)] * len(axes) + [""]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": _FIFTHS[level],
        "x": x,
        "y": y,
        "text": text,
        "hoverinfo": "text",
        "line": {"color": _SHADES[level], "width": 1.5},
        "marker": {"size": 4, "color": _SHADES[level]},
        "opacity": _OPACITIES[level],
    }


def _winner_line(report: Report, axes: Sequence[Axis], winner: TrialFacts) -> dict[str, Any]:
    line = _lines(report, axes, [winner], 4)
    look = {"line": {"color": _WINNER, "width": 3}, "marker": {"size": 7, "color": _WINNER}, "opacity": 1}
    return {**line, **look, "name": f"winner, trial {winner.number}"}


def _layout(axes: Sequence[Axis]) -> Mapping[str, Any]:
    lines = [
        {"type": "line", "x0": i, "x1": i, "y0": 0, "y1": 1, "line": {"width": 1, "color": "#8b93a0"}, "layer": "below"}
        for i in range(len(axes))
    ]
    titles = [
        {
            "x": i,
            "y": 1.05,
            "text": escaped(axis.title),
            "showarrow": False,
            "textangle": -22,
            "xanchor": "left",
            "yanchor": "bottom",
            "font": {"size": 12},
        }
        for i, axis in enumerate(axes)
    ]
    ticks = [
        {
            "x": i,
            "y": place,
            "text": escaped(label),
            "showarrow": False,
            "xanchor": "left",
            "xshift": 4,
            "font": {"size": 10},
        }
        for i, axis in enumerate(axes)
        for place, label in axis.ticks
    ]
    hidden = {"visible": False, "fixedrange": True}
    return {
        "xaxis": {**hidden, "range": [-0.03 * len(axes), len(axes) - 1 + 0.03 * len(axes)]},
        "yaxis": {**hidden, "range": [_OFF - 0.06, 1.05]},
        "shapes": lines,
        "annotations": [*titles, *ticks],
        "hovermode": "closest",
        "margin": {"t": 100, "l": 20, "r": 90, "b": 20},
        "legend": {"orientation": "h", "y": -0.02},
    }


def _notes(varied: Sequence[Parameter], trials: Sequence[TrialFacts], drawn: Sequence[TrialFacts]) -> Iterator[str]:
    if len(drawn) < len(trials):
        yield f"{len(drawn)} of {len(trials)} trials are drawn: the best half and an even choice of the others."
    if len(varied) > MOST_AXES:
        yield f"{MOST_AXES} of {len(varied)} hyperparameters that varied are drawn, the most important first."
    if any(parameter.name not in trial.values for parameter in varied[:MOST_AXES] for trial in drawn):
        yield "A line below an axis belongs to a trial without that parameter."
