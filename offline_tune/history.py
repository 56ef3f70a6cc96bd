"""The history of a study, as frozen values: what was tried, what came of it, which is best so far.

Reads Optuna trials; writes nothing. Scores are greater-is-better inside this package: a minimised study's values
are negated here and nowhere else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from offline_tune.space import SearchSpace, Values

PROVENANCE = "offline_tune:provenance"
OUTCOME = "offline_tune:outcome"


@dataclass(frozen=True)
class Observation:
    """One trial as a sampler sees it. `score` is None while it is pending, and when it failed."""

    number: int
    values: Values
    score: float | None = None
    pending: bool = False
    reason: str = ""

    @property
    def failed(self) -> bool:
        """Whether the trial ended without a score."""
        return self.score is None and not self.pending


@dataclass(frozen=True)
class History:
    """Trials in the order of their numbers, each with parameters inside one space."""

    space: SearchSpace
    observations: tuple[Observation, ...] = field(default=())

    @cached_property
    def scored(self) -> tuple[Observation, ...]:
        """The trials that have a score."""
        return tuple(o for o in self.observations if o.score is not None)

    @cached_property
    def ranked(self) -> tuple[Observation, ...]:
        """The trials that have a score, best first, the earliest of equals first."""
        return tuple(sorted(self.scored, key=lambda o: (-_score(o), o.number)))

    @property
    def pending(self) -> tuple[Observation, ...]:
        """The trials that are being evaluated."""
        return tuple(o for o in self.observations if o.pending)

    @property
    def failed(self) -> tuple[Observation, ...]:
        """The trials that ended without a score."""
        return tuple(o for o in self.observations if o.failed)

    @property
    def incumbent(self) -> Observation | None:
        """The best-scored trial, the earliest of equals; None before the first score."""
        return max(self.scored, key=lambda o: (_score(o), -o.number), default=None)

    @cached_property
    def keys(self) -> frozenset[tuple[tuple[str, int], ...]]:
        """The identities of all trials, pending and failed ones too."""
        return frozenset(self.space.key(o.values) for o in self.observations)

    def incumbent_curve(self) -> tuple[float, ...]:
        """The best score after each trial that has one.

        >>> from optuna.distributions import IntDistribution
        >>> space = SearchSpace.from_distributions({"x": IntDistribution(0, 9)})
        >>> trials = (Observation(0, {"x": 1}, 3.0), Observation(1, {"x": 2}), Observation(2, {"x": 3}, 4.0))
        >>> History(space, trials).incumbent_curve()
        (3.0, 4.0)
        """
        best, curve = float("-inf"), []
        for observation in self.scored:
            best = max(best, _score(observation))
            curve.append(best)
        return tuple(curve)

    def extended(self, more: Iterable[Observation]) -> History:
        """A copy with further observations at the end."""
        return History(self.space, (*self.observations, *more))


def of_study(study: optuna.Study, space: SearchSpace) -> History:
    """Read a single-objective study.

    Parameters that `space` does not know are not looked at; trials that lie outside it in those it knows are left
    out. A score that is not finite counts as a failure.
    """
    sign = -1.0 if study.direction == StudyDirection.MINIMIZE else 1.0
    trials = study.get_trials(deepcopy=False, states=None)
    known = ((trial, {n: v for n, v in trial.params.items() if n in space.by_name}) for trial in trials)
    return History(space, tuple(_observation(t, values, sign) for t, values in known if space.contains(values)))


def _observation(trial: FrozenTrial, values: Values, sign: float) -> Observation:
    done = trial.state in (TrialState.COMPLETE, TrialState.PRUNED) and trial.values is not None
    outcome = trial.user_attrs.get(OUTCOME)
    return Observation(
        number=trial.number,
        values=values,
        score=sign * float(trial.values[0]) if done and math.isfinite(trial.values[0]) else None,
        pending=trial.state in (TrialState.RUNNING, TrialState.WAITING),
        reason=str(json.loads(outcome)["sentence"]) if outcome else "",
    )


def _score(observation: Observation) -> float:
    assert observation.score is not None
    return observation.score
