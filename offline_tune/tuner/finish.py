"""After the last trial: the winner and an ensemble, retrained on all training rows, exported, tested once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from offline_tune.data.dataset import Dataset
from offline_tune.data.metrics import score_predictions
from offline_tune.ensemble import greedy_ensemble, stack, vote
from offline_tune.errors import EvaluationError
from offline_tune.evaluator.artifact import Member, load_model, save_model
from offline_tune.evaluator.crossval import Refit
from offline_tune.evaluator.pool import PoolEvaluator
from offline_tune.history import OUTCOME, PROVENANCE
from offline_tune.samplers.proposal import Provenance, Source
from offline_tune.space import Value
from offline_tune.study.folder import RunFolder, writing
from offline_tune.study.result import Scored
from offline_tune.tuner.loop import trial_seed

ENSEMBLES = ("none", "caruana", "voting", "stacking")
_MOST_MEMBERS = 50  # best trials that an ensemble may draw from
_VOTERS = 5
_REASONS, _DETAIL = 3, 100  # how many ways to fail are told, and how many characters of a vendor's message

Predictions = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Contestant:
    """A scored trial: its candidate, its stored scores, who proposed it."""

    number: int
    score: float
    values: Mapping[str, Value]
    scores: Mapping[str, float]
    source: Source


@dataclass(frozen=True, eq=False)
class Blend:
    """An ensemble before its members are retrained. `meta` is the stacking model, None for weighted means."""

    members: tuple[Contestant, ...]
    weights: tuple[float, ...]
    cv: Mapping[str, float]
    meta: Any = None


@dataclass(frozen=True, eq=False)
class Finish:
    """What `finish` found; `test` are arrays for test.npz."""

    winner: Scored
    best_default: Scored | None
    ensemble: Scored | None


def contestants(study: optuna.Study) -> tuple[Contestant, ...]:
    """The scored trials, best first, earlier ones first among equals; not those that another program has told."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    ours = [_contestant(trial) for trial in complete if OUTCOME in trial.user_attrs]
    return tuple(sorted(ours, key=lambda c: (-c.score, c.number)))


def finish(
    study: optuna.Study, dataset: Dataset, evaluator: PoolEvaluator, folder: RunFolder, ensemble: str, seed: int
) -> Finish:
    """Choose by cross-validation, retrain, export, and only then look at the test part.

    Args:
        study: with its trials told.
        dataset: the same data.
        evaluator: retrains the members in its workers.
        folder: where out-of-fold predictions lie and exports go; earlier exports are replaced.
        ensemble: one of `ENSEMBLES`.
        seed: the run's.

    Raises:
        EvaluationError: no trial has a score, or the winner cannot be retrained.
    """
    ranked = contestants(study)
    if not ranked:
        raise EvaluationError(
            f"a run needs one trial with a score, got none ({_reasons(study)}); change what failed, for instance "
            "--trial-time-limit or --trial-memory, and resume with more --trials"
        )
    default = next((c for c in ranked if c.source is Source.DEFAULT), None)
    blend = _blend(ranked, dataset, folder, ensemble, seed)
    wanted = {c.number: c for c in (ranked[0], *((default,) if default else ()), *(blend.members if blend else ()))}
    scratch = folder.path / ".members"
    with writing(scratch):
        shutil.rmtree(scratch, ignore_errors=True)
    try:
        refits = _refit(list(wanted.values()), evaluator, folder, seed)
        return _export(ranked[0], default, blend, refits, dataset, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _refit(wanted: Sequence[Contestant], evaluator: PoolEvaluator, folder: RunFolder, seed: int) -> dict[int, Refit]:
    seeds = [trial_seed(seed, c.number) for c in wanted]
    refits = evaluator.refit([c.values for c in wanted], seeds, folder.path / ".members")
    return {c.number: refit for c, refit in zip(wanted, refits, strict=True)}


def _export(
    winner: Contestant,
    default: Contestant | None,
    blend: Blend | None,
    refits: Mapping[int, Refit],
    dataset: Dataset,
    folder: RunFolder,
) -> Finish:
    if not refits[winner.number].ok:
        refit = refits[winner.number]
        raise EvaluationError(
            f"the winner must train on all rows, got {refit.outcome.value} {refit.detail}".rstrip()
            + "; raise --trial-time-limit or --trial-memory and resume"
        )
    arrays: dict[str, NDArray[Any]] = {} if dataset.y_test is None else {"truth": dataset.y_test}
    best = _one(f"trial {winner.number}", winner, refits, dataset, folder, "", arrays, keep=True)
    plain = None
    if default is not None and refits[default.number].ok:
        plain = _one(f"default of {default.values['family']}", default, refits, dataset, folder, "default_", arrays)
    together = None
    if blend is not None and all(refits[c.number].ok for c in blend.members):
        together = _together(blend, refits, dataset, folder, arrays)
    if arrays:
        with writing(folder.test):
            np.savez_compressed(folder.test, **arrays)  # type: ignore[arg-type]
    return Finish(best, plain, together)


def _one(
    label: str,
    contestant: Contestant,
    refits: Mapping[int, Refit],
    dataset: Dataset,
    folder: RunFolder,
    prefix: str,
    arrays: dict[str, NDArray[Any]],
    keep: bool = False,
) -> Scored:
    target = folder.model if keep else folder.path / ".members" / "default"
    member = Member(_folder(refits[contestant.number]), 1.0, contestant.values)
    record = {"trial": contestant.number, "cv": dict(contestant.scores)}
    save_model(target, [member], dataset.task, record=record, replace=keep)
    return Scored(
        label=label,
        trials=(contestant.number,),
        weights=(1.0,),
        values=contestant.values,
        cv=contestant.scores,
        test=_test(target, dataset, prefix, arrays),
    )


def _together(
    blend: Blend, refits: Mapping[int, Refit], dataset: Dataset, folder: RunFolder, arrays: dict[str, NDArray[Any]]
) -> Scored:
    members = [
        Member(_folder(refits[c.number]), weight, c.values)
        for c, weight in zip(blend.members, blend.weights, strict=True)
    ]
    save_model(folder.ensemble, members, dataset.task, meta=blend.meta, record={"cv": dict(blend.cv)}, replace=True)
    return Scored(
        label=f"ensemble of {len(members)}",
        trials=tuple(c.number for c in blend.members),
        weights=blend.weights,
        cv=blend.cv,
        test=_test(folder.ensemble, dataset, "ensemble_", arrays),
    )


def _test(target: Any, dataset: Dataset, prefix: str, arrays: dict[str, NDArray[Any]]) -> dict[str, float] | None:
    """Scores on the test part, with what was exported: what a user will load is what was tested."""
    if dataset.X_test is None or dataset.y_test is None:
        return None
    model = load_model(target)
    found = (
        model.predict_proba(dataset.X_test) if dataset.task.kind.is_classification else model.predict(dataset.X_test)
    )
    classes = len(dataset.task.classes)
    arrays[f"{prefix}predicted"] = found.argmax(axis=1) if found.ndim == 2 else found
    if found.ndim == 2:
        arrays[f"{prefix}probabilities"] = found
    return {m.name: score_predictions(m, dataset.y_test, found, classes) for m in dataset.task.metrics}


def _blend(ranked: Sequence[Contestant], dataset: Dataset, folder: RunFolder, ensemble: str, seed: int) -> Blend | None:
    if ensemble == "none":
        return None
    loaded = [(c, folder.load_oof(c.number)) for c in ranked[:_MOST_MEMBERS]]
    kept = [(c, oof) for c, oof in loaded if oof is not None and len(oof) == len(dataset.y)]
    if len(kept) < 2:
        return None
    members, oof = tuple(c for c, _ in kept), np.stack([oof for _, oof in kept])
    if ensemble == "stacking":
        return _stacked(members[:_VOTERS], oof[:_VOTERS], dataset, seed)
    choose = partial(vote, top=_VOTERS) if ensemble == "voting" else greedy_ensemble
    weights = choose(oof, dataset.y, _scorer(dataset))
    used = np.flatnonzero(weights)
    blended = np.tensordot(weights, oof, axes=1)
    return Blend(
        members=tuple(members[i] for i in used),
        weights=tuple(float(weights[i]) for i in used),
        cv=_cv(blended, dataset),
    )


def _stacked(members: tuple[Contestant, ...], oof: Predictions, dataset: Dataset, seed: int) -> Blend:
    stacked = stack(oof, dataset.y, dataset.task.kind, _scorer(dataset), seed)
    return Blend(members, (1.0 / len(members),) * len(members), _cv(stacked.oof, dataset), stacked.meta)


def _scorer(dataset: Dataset) -> Callable[[NDArray[Any], NDArray[Any]], float]:
    metric, classes = dataset.task.metric, len(dataset.task.classes)
    return lambda truth, predictions: score_predictions(metric, truth, predictions, classes)


def _cv(predictions: NDArray[Any], dataset: Dataset) -> dict[str, float]:
    """Scores of out-of-fold predictions, the mean over folds as for a single trial."""
    classes = len(dataset.task.classes)
    return {
        m.name: float(
            np.mean([score_predictions(m, dataset.y[test], predictions[test], classes) for _, test in dataset.folds])
        )
        for m in dataset.task.metrics
    }


def _contestant(trial: FrozenTrial) -> Contestant:
    record = json.loads(trial.user_attrs[OUTCOME])
    return Contestant(
        number=trial.number,
        score=float(trial.values[0]),
        values=dict(trial.params),
        scores=record["scores"],
        source=Provenance.from_json(trial.user_attrs[PROVENANCE]).source,
    )


def _reasons(study: optuna.Study) -> str:
    failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    records = [json.loads(trial.user_attrs[OUTCOME]) for trial in failed if OUTCOME in trial.user_attrs]
    found = dict.fromkeys(f"{record['sentence']} {record['detail'][:_DETAIL]}".strip() for record in records)
    return "; ".join(list(found)[:_REASONS]) or "no trial ran"


def _folder(refit: Refit) -> Any:
    assert refit.folder is not None
    return refit.folder
