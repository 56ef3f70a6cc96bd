"""How much each hyperparameter of one family mattered for reaching the best scores.

PED-ANOVA (Watanabe, Bansal and Hutter, IJCAI 2023) in Optuna's conditional form, over the trials of one family only:
across families the choice of family would drown everything else.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence

import optuna

from offline_tune.report.trial import ROOT, TrialFacts

LEAST_TRIALS = 8  # fewer scored trials than this say nothing about importance
_WISHED_AT_TOP = 5  # Optuna's advice: this many trials above the quantile, where there are enough


def importances_of(study: optuna.Study, trials: Sequence[TrialFacts], family: str) -> dict[str, float]:
    """Shares that sum to one, the largest first, by full parameter name; empty below `LEAST_TRIALS`."""
    scores = {t.number: t.score for t in trials if t.score is not None and t.family == family}
    names = _varied([t for t in trials if t.number in scores])
    if len(scores) < LEAST_TRIALS or not names:
        return {}
    return _shares(study, scores, names)


def _varied(trials: Sequence[TrialFacts]) -> list[str]:
    """Parameters that took at least two values, in order of appearance."""
    seen: dict[str, set[object]] = {}
    for trial in trials:
        for name, value in trial.values.items():
            seen.setdefault(name, set()).add(value)
    return [name for name, values in seen.items() if len(values) > 1 and name != ROOT]


def _shares(study: optuna.Study, scores: Mapping[int, float], names: list[str]) -> dict[str, float]:
    quantile = min(0.5, max(0.1, _WISHED_AT_TOP / len(scores)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of every custom target and of small regimes
        found = optuna.importance.get_param_importances(
            study,
            evaluator=optuna.importance.PedAnovaImportanceEvaluator(target_quantile=quantile),
            params=names,
            # Lower is better here, and a trial without a finite target is left out.
            target=lambda trial: -scores.get(trial.number, math.nan),
        )
    return found if all(map(math.isfinite, found.values())) else {}
