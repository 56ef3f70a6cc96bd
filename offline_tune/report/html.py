"""The report for a browser: one file that needs nothing else.

plotly.js is inlined once. A content security policy with the digests of the page's own scripts forbids every other
script and every connection, so that text from data, users or models stays text even where escaping should fail.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offline_tune.report.command import predict_command, repeat_command
from offline_tune.report.confusion import Confusion, confusion_of
from offline_tune.report.facts import Report
from offline_tune.report.figures import MARKERS, Figure, forecast_figure, history_figure, residual_figure
from offline_tune.report.forecast import Forecasted, forecasts_of, rank_correlation
from offline_tune.report.metric import size_text
from offline_tune.report.parallel import parallel_figure
from offline_tune.report.sections import (
    card_of,
    families_of,
    headline_of,
    importances_of,
    members_of,
    parameters_of,
    settings_of,
    shares_of_time,
    sources_of,
)
from offline_tune.report.wording import amount, duration, printable, value_text

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
MOST_ROWS = 200  # trials in a table of the page; leaderboard.csv has all
MOST_COLUMNS = 200
OPEN_CALLS = 40  # calls that stand in the page as HTML; the others wait as data until a button shows them
MOST_CALL_BYTES = 24_000_000
LIBRARIES = ("optuna", "scikit-learn", "xgboost", "lightgbm", "catboost", "llama-cpp-python", "numpy", "pandas")


def render(report: Report) -> str:
    """The whole page, about 5 MB of it plotly.js."""
    forecasts = forecasts_of(report.trials)
    confusion = _confusion(report)
    figures = _figures(report, forecasts, confusion)
    later = _later_calls(report)
    scripts = {"plotly": _plotly(), "page": _template_text("report.js")}
    context = {
        **_tables(report),
        "report": report,
        "metric": report.metric,
        "task": report.task,
        "result": report.result,
        "n_forecasts": len(forecasts),
        "correlation": rank_correlation(forecasts),
        "confusion": confusion,
        "figures": figures,
        "figure_data": script_json({key: asdict(figure) for key, figure in figures.items()}),
        "later_calls": script_json(later),
        "n_later": len(later),
        "n_left_out": max(0, len(report.log.calls) - OPEN_CALLS - len(later)),
        "markers": MARKERS,
        "limits": {"rows": MOST_ROWS, "columns": MOST_COLUMNS, "calls": OPEN_CALLS},
        "css": _template_text("report.css"),
        "scripts": scripts,
        "policy": _policy(list(scripts.values())),
    }
    return _environment().get_template("report.html").render(context).lstrip()


def script_json(content: object) -> str:
    r"""JSON that may stand in a script element: nothing in it can end the element or begin a comment.

    >>> script_json("</script>")
    '"\\u003c/script\\u003e"'
    """
    text = json.dumps(_finite(content), ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite(content: Any) -> Any:
    """JSON has no NaN; a chart shows a gap for null."""
    if isinstance(content, float):
        return content if content - content == 0 else None
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    return [_finite(value) for value in content] if isinstance(content, list | tuple) else content


def _figures(report: Report, forecasts: Sequence[Forecasted], confusion: Confusion | None) -> dict[str, Figure]:
    drawn = [history_figure(report) if report.ranked else None, parallel_figure(report)]
    drawn.append(forecast_figure(forecasts) if forecasts else None)
    if report.test is not None and confusion is None and report.test.is_numeric:
        drawn.append(residual_figure(report.test, report.task.target))
    return {figure.key: figure for figure in drawn if figure is not None}


def _tables(report: Report) -> dict[str, object]:
    return {
        "headline": headline_of(report),
        "parameters": parameters_of(report),
        "members": members_of(report),
        "sources": sources_of(report),
        "families": families_of(report),
        "importances": importances_of(report),
        "card": card_of(report),
        "shares": shares_of_time(report.result.spent),
        "settings": settings_of(report),
        "versions": _versions(),
        "repeat": repeat_command(report.settings),
        "predict": predict_command(report.folder.path),
    }


def _confusion(report: Report) -> Confusion | None:
    test, kind = report.test, report.task.kind
    if test is None or not len(test.truth):
        return None
    is_classification = kind.is_classification if kind else test.truth.dtype.kind in "biuUS"
    return confusion_of(test, report.task.classes) if is_classification else None


def _later_calls(report: Report) -> list[dict[str, Any]]:
    """Calls beyond those that stand in the page, as data, until they would make the page too heavy."""
    room, kept = MOST_CALL_BYTES, list[dict[str, Any]]()
    for call in report.log.calls[OPEN_CALLS:]:
        room -= len(call.prompt) + sum(len(answer.text) for answer in call.answers)
        if room < 0:
            break
        kept.append(asdict(call))
    return kept


def _versions() -> list[tuple[str, str]]:
    found = []
    for library in LIBRARIES:
        try:
            found.append((library, version(library)))
        except PackageNotFoundError:
            continue
    return found


@lru_cache(maxsize=1)
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    # A browser reads line ends as \n, and the policy's digest is taken of what it reads.
    return str(get_plotlyjs()).replace("\r\n", "\n")


def _template_text(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _policy(scripts: Sequence[str]) -> str:
    digests = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {digests}; style-src 'unsafe-inline'; img-src data: blob:; form-action 'none'"
    )


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "printable": printable,
        "value": value_text,
        "size": size_text,
        "duration": duration,
        "amount": amount,
        "percent": lambda share: f"{share:.1%}".replace("%", " %"),
        "script": Markup,  # for the page's own scripts and for script_json only
    }
    return environment
