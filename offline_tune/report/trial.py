"""The trials of a study as the report shows them: one frozen record each."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from offline_tune.errors import StudyError
from offline_tune.history import OUTCOME, PROVENANCE
from offline_tune.samplers.proposal import Provenance
from offline_tune.space import Values

ROOT = "family"  # the root parameter of a space that spans families
UNKNOWN_SOURCE = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialFacts:
    """One trial. Scores are greater-is-better; `score` is None where it failed or has not ended.

    `values` carry the family's name before a dot as the study stores them, `own` do not.
    """

    number: int
    state: TrialState
    provenance: Provenance | None
    family: str
    values: Values
    score: float | None
    outcome: str = ""
    detail: str = ""
    seconds: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    fold_scores: tuple[float, ...] = ()
    train_score: float | None = None
    peak_mib: float | None = None

    @property
    def source(self) -> str:
        """Who proposed it."""
        return self.provenance.source.value if self.provenance else UNKNOWN_SOURCE

    @property
    def failed(self) -> bool:
        """Whether it ended without a score."""
        return self.state.is_finished() and self.score is None

    @property
    def own(self) -> Values:
        """The values without the family and its prefix."""
        return own_values(self.values)

    @property
    def fold_spread(self) -> float | None:
        """The standard deviation of the score over folds."""
        return statistics.stdev(self.fold_scores) if len(self.fold_scores) > 1 else None


def own_values(values: Values) -> dict[str, Any]:
    """A candidate's values without the family and its prefix."""
    prefix = f"{values.get(ROOT)}."
    return {name.removeprefix(prefix): value for name, value in values.items() if name != ROOT}


def trials_of(study: optuna.Study) -> tuple[TrialFacts, ...]:
    """Every trial, by number.

    Raises:
        StudyError: what this program stored with a trial is damaged.
    """
    sign = -1.0 if study.direction == StudyDirection.MINIMIZE else 1.0
    return tuple(_facts(trial, sign) for trial in study.get_trials(deepcopy=False))


def _facts(trial: FrozenTrial, sign: float) -> TrialFacts:
    try:
        outcome = json.loads(trial.user_attrs.get(OUTCOME, "{}"))
        provenance = trial.user_attrs.get(PROVENANCE)
        return TrialFacts(
            number=trial.number,
            state=trial.state,
            provenance=Provenance.from_json(provenance) if provenance is not None else None,
            family=str(trial.params.get(ROOT, "")),
            values=dict(trial.params),
            score=sign * float(trial.values[0]) if trial.state.is_finished() and trial.values else None,
            outcome=str(outcome.get("sentence", "")),
            detail=str(outcome.get("detail", "")),
            seconds=_number(outcome.get("seconds")),
            scores={str(name): float(score) for name, score in outcome.get("scores", {}).items()},
            fold_scores=tuple(map(float, outcome.get("fold_scores", ()))),
            train_score=_number(outcome.get("train_score")),
            peak_mib=_number(outcome.get("peak_mib")),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StudyError(
            f"trial {trial.number} must carry the record that offline-tune wrote, got {type(error).__name__} "
            "reading it; restore study.db from a copy"
        ) from error


def _number(found: Any) -> float | None:
    return None if found is None else float(found)
