"""What the model foresaw of its proposals beside what came of them, both on the history's scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offline_tune.prompt.outcome import standardise
from offline_tune.report.trial import TrialFacts

_LEAST_KNOWN = 2  # below this a history has no scale


@dataclass(frozen=True, slots=True)
class Forecasted:
    """One trial: the predicted and the measured z (0: as good as the best before it, 1: better by one scale)."""

    trial: TrialFacts
    predicted: float
    measured: float


def forecasts_of(trials: Sequence[TrialFacts]) -> tuple[Forecasted, ...]:
    """The trials that have both a prediction and a score, by number.

    Candidates of one prompt were judged on the history before the first of them, so that is the scale of all.
    """
    numbers = np.array([t.number for t in trials])
    scores = np.array([math.nan if t.score is None else t.score for t in trials])
    first: dict[str, int] = {}
    for trial in trials:
        if trial.provenance and trial.provenance.prompt_digest:
            first.setdefault(trial.provenance.prompt_digest, trial.number)
    found = []
    for trial in trials:
        if trial.provenance is None or trial.provenance.predicted is None or trial.score is None:
            continue
        before = first.get(trial.provenance.prompt_digest, trial.number)
        known = scores[(numbers < before) & ~np.isnan(scores)]
        if len(known) >= _LEAST_KNOWN:
            measured = float(standardise(np.array([trial.score]), known)[0])
            found.append(Forecasted(trial, trial.provenance.predicted, measured))
    return tuple(found)


def rank_correlation(forecasts: Sequence[Forecasted]) -> float | None:
    """Spearman's rank correlation of predicted and measured; None below three trials or where one is constant."""
    if len(forecasts) < 3:
        return None
    predicted = _ranks([f.predicted for f in forecasts])
    measured = _ranks([f.measured for f in forecasts])
    if np.ptp(predicted) == 0 or np.ptp(measured) == 0:
        return None
    correlation = float(np.corrcoef(predicted, measured)[0, 1])
    return correlation if math.isfinite(correlation) else None


def _ranks(values: Sequence[float]) -> NDArray[np.float64]:
    """(n,) ranks from 1; equal values share the mean of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[places], dtype=np.float64)
