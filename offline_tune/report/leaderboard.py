"""Every trial in one table, for people with a spreadsheet and for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from offline_tune.report.facts import Report
from offline_tune.report.metric import ShownMetric
from offline_tune.report.trial import TrialFacts

if TYPE_CHECKING:
    import pandas as pd

PARAMETER = "params_"


def table(report: Report) -> pd.DataFrame:
    """One row for each trial, the best first, then those without a score by number.

    Scores have the sign that is shown: `log_loss` is a loss. Columns `params_<name>` follow, empty where a trial has
    no such parameter.
    """
    import pandas as pd

    without = [trial for trial in report.trials if trial.score is None]
    rows = [_row(report.metric, rank, trial) for rank, trial in enumerate(report.ranked, start=1)]
    rows += [_row(report.metric, None, trial) for trial in without]
    columns = dict.fromkeys(name for row in rows for name in row)
    # As objects: a column of integers with gaps would otherwise come out as 6.0.
    fixed = [name for name in columns if not name.startswith(PARAMETER)]
    parameters = [name for name in columns if name.startswith(PARAMETER)]
    return pd.DataFrame(rows, columns=[*fixed, *parameters], dtype=object)


def csv_text(report: Report) -> str:
    """The table as comma-separated values."""
    return table(report).to_csv(index=False, lineterminator="\n")


def _row(metric: ShownMetric, rank: int | None, trial: TrialFacts) -> dict[str, Any]:
    provenance = trial.provenance
    row: dict[str, Any] = {
        "rank": rank,
        "trial": trial.number,
        "family": trial.family,
        "source": trial.source,
        "state": trial.state.name.lower(),
        metric.column: None if trial.score is None else metric.value(trial.score),
        "fold_spread": trial.fold_spread,
        f"train_{metric.column}": None if trial.train_score is None else metric.value(trial.train_score),
        "seconds": trial.seconds,
        "peak_mib": trial.peak_mib,
        "logprob": provenance.logprob if provenance else None,
        "predicted": provenance.predicted if provenance else None,
        "improvement": provenance.improvement if provenance else None,
        "outcome": trial.outcome,
        "detail": trial.detail,
    }
    others = (ShownMetric(name) for name in trial.scores if name != metric.name)
    row |= {other.column: other.value(trial.scores[other.name]) for other in others}
    return row | {f"{PARAMETER}{name}": value for name, value in trial.values.items()}
