"""The charts of a report as plain plotly.js figures: traces and a layout, no colours of text or paper.

The page adds those from its light or dark theme. Texts are escaped here, because plotly.js reads a subset of HTML in
them. Axes start on the range where the good trials are; nothing that lies beyond is left out.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from offline_tune.report.facts import Report
from offline_tune.report.forecast import Forecasted
from offline_tune.report.metric import size_text
from offline_tune.report.testpart import TestPart
from offline_tune.report.trial import TrialFacts
from offline_tune.report.wording import duration, printable, value_text
from offline_tune.samplers.proposal import Source

MOST_POINTS = 3000  # residuals drawn; more make a browser slow and show no more

# Mid tones that stand out on white and on dark grey alike; symbols tell sources apart without colour.
MARKERS: Mapping[str, tuple[str, str]] = {
    Source.DEFAULT.value: ("#b8558f", "diamond"),
    Source.PORTFOLIO.value: ("#6f7f2a", "square-cross"),
    Source.MODEL.value: ("#3b8fd0", "circle"),
    Source.LOCAL.value: ("#e08a2c", "triangle-up"),
    Source.RANDOM.value: ("#8b93a0", "square"),
    Source.TPE.value: ("#2ba37c", "hexagon"),
    Source.GP.value: ("#8573d8", "star"),
    Source.GRID.value: ("#b39a1d", "cross"),
    Source.USER.value: ("#35a9b5", "pentagon"),
}
_OTHER_MARKER = ("#8b93a0", "circle-open")
FAILED, INCUMBENT = "#d8504d", "#6b7684"
_VALUES_IN_HOVER = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One chart: `key` names its place in the page, `note` is read beside it."""

    key: str
    traces: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any] = field(default_factory=dict)
    height: int = 380
    note: str = ""


def history_figure(report: Report) -> Figure:
    """Scores by trial number, coloured by source, with the incumbent curve and the best default."""
    metric, scored = report.metric, [trial for trial in report.trials if trial.score is not None]
    traces = [
        _points(report, source, [t for t in trials if t.score is not None]) for source, trials in _ordered(report)
    ]
    traces.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": "best so far",
            "x": [number for number, _ in report.incumbents],
            "y": [metric.value(best) for _, best in report.incumbents],
            "line": {"shape": "hv", "width": 2, "color": INCUMBENT},
            "hoverinfo": "skip",
        }
    )
    if report.failed:
        traces.append(_failures(report))
    shown = [metric.value(trial.score) for trial in scored if trial.score is not None]
    axis, beyond = score_range(shown, metric.lower_is_better)
    layout = {
        "xaxis": {"title": {"text": "trial"}, "range": [-0.7, len(report.trials) - 0.3]},
        "yaxis": {"title": {"text": f"{escaped(metric.title)} ({metric.direction})"}, "range": axis},
        "yaxis2": {"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True},
        "shapes": _default_line(report),
        "hovermode": "closest",
    }
    note = f"{beyond} of {len(shown)} scores lie beyond the axis; a double click shows them." if beyond else ""
    return Figure(key="history", traces=[t for t in traces if t["x"]], layout=layout, height=420, note=note)


def forecast_figure(forecasts: Sequence[Forecasted]) -> Figure:
    """Predicted against measured outcome, on the history's scale."""
    sources = dict.fromkeys(f.trial.source for f in forecasts)
    traces: list[Mapping[str, Any]] = [
        _forecast_points(s, [f for f in forecasts if f.trial.source == s]) for s in sources
    ]
    predicted = [f.predicted for f in forecasts]
    line = [min(predicted, default=0.0), max(predicted, default=0.0)]
    traces.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": "as predicted",
            "x": line,
            "y": line,
            "line": {"dash": "dot", "width": 1.5, "color": INCUMBENT},
            "hoverinfo": "skip",
        }
    )
    layout = {
        "xaxis": {"title": {"text": "predicted by the model (0: as good as the best so far)"}},
        "yaxis": {"title": {"text": "measured"}},
        "hovermode": "closest",
    }
    return Figure(key="forecast", traces=traces, layout=layout)


def residual_figure(test: TestPart, target: str) -> Figure:
    """Residuals of the winner on the test part against its predictions."""
    truth, predicted = test.truth.astype(np.float64), test.predicted.astype(np.float64)
    finite = np.flatnonzero(np.isfinite(truth) & np.isfinite(predicted))
    n = len(finite)
    if n > MOST_POINTS:
        finite = np.sort(np.random.default_rng(0).choice(finite, MOST_POINTS, replace=False))
    points = {
        "type": "scatter",
        "mode": "markers",
        "name": "rows of the test part",
        "x": predicted[finite].tolist(),
        "y": (truth[finite] - predicted[finite]).tolist(),
        "text": [f"truth {truth[i]:.5g}<br>predicted {predicted[i]:.5g}" for i in finite],
        "hoverinfo": "text",
        "marker": {"color": MARKERS["model"][0], "size": 6, "opacity": 0.55},
    }
    layout = {
        "xaxis": {"title": {"text": f"predicted {escaped(printable(target, 50))}"}},
        "yaxis": {"title": {"text": "truth minus predicted"}, "zeroline": True},
        "showlegend": False,
        "hovermode": "closest",
    }
    note = f"{MOST_POINTS:,} of {n:,} rows are drawn, chosen evenly at random." if n > MOST_POINTS else ""
    return Figure(key="residuals", traces=[points], layout=layout, note=note)


def score_range(shown: Sequence[float], lower_is_better: bool) -> tuple[list[float] | None, int]:
    """An axis on which the better nine tenths can be told apart, and how many scores lie beyond it.

    None where all fit: the chart then scales itself.
    """
    if len(shown) < 3:
        return None, 0
    distance = np.asarray(shown) - min(shown) if lower_is_better else max(shown) - np.asarray(shown)
    reach = 2.0 * float(np.quantile(distance, 0.7))
    beyond = int((distance > reach).sum())
    if reach <= 0 or not beyond or distance.max() < 1.5 * reach:
        return None, 0
    if lower_is_better:
        return [min(shown) - 0.1 * reach, min(shown) + 1.05 * reach], beyond
    return [max(shown) - 1.05 * reach, max(shown) + 0.1 * reach], beyond


def hover(report: Report, trial: TrialFacts) -> str:
    """What a trial says of itself under the mouse, escaped, lines parted by <br>."""
    head = " · ".join(part for part in (f"trial {trial.number}", trial.family, trial.source) if part)
    spread = f" ± {size_text(trial.fold_spread)}" if trial.fold_spread is not None else ""
    result = (
        trial.outcome if trial.score is None else f"{report.metric.title} {report.metric.text(trial.score)}{spread}"
    )
    seconds = duration(trial.seconds) if trial.seconds is not None else ""
    values = [f"{printable(name, 40)} = {value_text(value)}" for name, value in trial.own.items()]
    more = [f"… and {len(values) - _VALUES_IN_HOVER} more"] if len(values) > _VALUES_IN_HOVER else []
    lines = [printable(head, 80), printable(result, 80), seconds, *values[:_VALUES_IN_HOVER], *more]
    return "<br>".join(escaped(line) for line in lines if line)


def marker(source: str) -> dict[str, Any]:
    """How a source's points look."""
    color, symbol = MARKERS.get(source, _OTHER_MARKER)
    return {"color": color, "symbol": symbol, "size": 9}


def escaped(text: str) -> str:
    """Text that plotly.js shows as it stands."""
    return html.escape(text, quote=False)


def _ordered(report: Report) -> list[tuple[str, tuple[TrialFacts, ...]]]:
    places = {source: place for place, source in enumerate(MARKERS)}
    return sorted(report.sources.items(), key=lambda item: places.get(item[0], len(places)))


def _points(report: Report, source: str, trials: Sequence[TrialFacts]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": escaped(source),
        "x": [trial.number for trial in trials],
        "y": [report.metric.value(trial.score) for trial in trials if trial.score is not None],
        "text": [hover(report, trial) for trial in trials],
        "hoverinfo": "text",
        "marker": marker(source),
    }


def _failures(report: Report) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "failed",
        "x": [trial.number for trial in report.failed],
        "y": [0.03] * len(report.failed),
        "yaxis": "y2",
        "text": [hover(report, trial) for trial in report.failed],
        "hoverinfo": "text",
        "marker": {"color": FAILED, "symbol": "x", "size": 9},
    }


def _default_line(report: Report) -> list[dict[str, Any]]:
    default = report.result.best_default
    score = default.cv.get(report.metric.name) if default else None
    if score is None:
        return []
    y = report.metric.value(score)
    line = {"dash": "dash", "width": 1, "color": MARKERS["default"][0]}
    return [{"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": line, "layer": "below"}]


def _forecast_points(source: str, forecasts: Sequence[Forecasted]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": escaped(source),
        "x": [f.predicted for f in forecasts],
        "y": [f.measured for f in forecasts],
        "text": [
            f"trial {f.trial.number}<br>predicted {f.predicted:+.2f}<br>measured {f.measured:+.2f}" for f in forecasts
        ],
        "hoverinfo": "text",
        "marker": marker(source),
    }
