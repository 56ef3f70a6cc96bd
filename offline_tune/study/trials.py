"""Asking for trials and telling their results: the only writer of a study.

A trial's life: WAITING (a default, enqueued) or asked of the sampler -> RUNNING with its parameters stored one by
one -> COMPLETE or FAIL, told once. A killed process leaves RUNNING trials; `unfinished` finds them, and what they
lack is asked of the sampler again, so that nothing is lost and nothing repeated.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import optuna
from optuna.trial import TrialState

from offline_tune.evaluator.contract import Result
from offline_tune.history import OUTCOME, PROVENANCE
from offline_tune.samplers.proposal import Provenance
from offline_tune.space import SearchSpace, Values

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass(frozen=True, slots=True)
class Asked:
    """A trial with its candidate, ready to be evaluated."""

    number: int
    values: Values
    provenance: Provenance


def enqueue(study: optuna.Study, candidates: Sequence[Values], provenance: Provenance) -> None:
    """Put candidates before everything that the sampler will say."""
    for values in candidates:
        study.enqueue_trial(dict(values), user_attrs={PROVENANCE: provenance.to_json()}, skip_if_exists=True)


def ask(study: optuna.Study, space: SearchSpace, fallback: Provenance) -> Asked:
    """The next trial, enqueued ones first. `fallback` is noted where the sampler says nothing of itself."""
    return _complete(study, space, study.ask(), fallback)


def unfinished(study: optuna.Study) -> tuple[int, ...]:
    """Numbers of the trials that were running when their process ended."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return tuple(trial.number for trial in trials)


def take_up(study: optuna.Study, space: SearchSpace, number: int, fallback: Provenance) -> Asked:
    """A running trial again; parameters that were not stored yet are asked of the sampler."""
    frozen = study.get_trials(deepcopy=False)[number]
    return _complete(study, space, optuna.trial.Trial(study, frozen._trial_id), fallback)


def tell(study: optuna.Study, asked: Asked, result: Result, metric: str) -> None:
    """Store a result; the outcome and all scores stay with the trial."""
    record = {
        "outcome": result.outcome.name,
        "sentence": result.outcome.value,
        "detail": result.detail,
        "seconds": result.seconds,
        "scores": dict(result.scores or {}),
        "fold_scores": list(result.fold_scores),
        "train_score": result.train_score,
        "peak_mib": result.peak_mib,
    }
    trial_id = study.get_trials(deepcopy=False)[asked.number]._trial_id
    study._storage.set_trial_user_attr(trial_id, OUTCOME, json.dumps(record))
    if result.ok and result.scores is not None:
        study.tell(asked.number, result.scores[metric])
    else:
        study.tell(asked.number, state=TrialState.FAIL)


def n_finished(study: optuna.Study) -> int:
    """How many trials have ended, failed ones too."""
    return len(study.get_trials(deepcopy=False, states=FINISHED))


def n_waiting(study: optuna.Study) -> int:
    """How many enqueued candidates nobody has asked for yet."""
    return len(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))


def _complete(study: optuna.Study, space: SearchSpace, trial: optuna.Trial, fallback: Provenance) -> Asked:
    values = space.suggest(trial)
    # The sampler wrote to the storage behind this trial object, which remembers what it first read.
    stored = study._storage.get_trial(trial._trial_id).user_attrs.get(PROVENANCE)
    if stored is None:
        stored = fallback.to_json()
        trial.set_user_attr(PROVENANCE, stored)
    return Asked(trial.number, values, Provenance.from_json(stored))
