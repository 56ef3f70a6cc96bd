"""Finished run folders for tests: real studies told through the real study API, with scores from a formula.

Nothing is trained. The formula has an optimum inside each family, so that curves, importances and gains look like a
search. Every part that a test wants to change is a field of `Recipe`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from offline_tune.cards import DataCard
from offline_tune.evaluator.contract import Outcome, Result
from offline_tune.evaluator.families import ROOT, default_of, families_for, space_of
from offline_tune.samplers.proposal import Answer, Call, Provenance, Source, text_digest
from offline_tune.space import SearchSpace, Values
from offline_tune.study import trials
from offline_tune.study.folder import RunFolder
from offline_tune.study.result import RunResult, Scored, Spent
from offline_tune.study.settings import RunSettings
from offline_tune.study.storage import create_study
from offline_tune.task import Budget, TaskKind

BATCH = 4
_TURNS = (Source.MODEL, Source.MODEL, Source.LOCAL, Source.MODEL, Source.RANDOM)
_FAILURES = (
    (Outcome.TIMED_OUT, "stopped after 300 s"),
    (Outcome.FAILED, "ValueError: Solver lbfgs supports only 'l2' or None penalties"),
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What the run shall be like; `name` goes into every place that a data file's text reaches."""

    kind: TaskKind = TaskKind.BINARY
    families: tuple[str, ...] = ("linear", "lightgbm", "xgboost")
    n_trials: int = 30
    n_failed: int = 2
    name: str = "income"
    classes: tuple[str, ...] = ("<=50K", ">50K")
    space: SearchSpace | None = None
    has_test: bool = True
    has_ensemble: bool = True
    has_calls: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        """The optimised scorer."""
        return "neg_log_loss" if self.kind.is_classification else "neg_root_mean_squared_error"

    @property
    def other(self) -> str:
        """The scorer shown beside it."""
        return "accuracy" if self.kind.is_classification else "r2"


def make_run(path: Path, recipe: Recipe | None = None) -> RunFolder:
    """Write everything that a finished run leaves but the exported models."""
    recipe = recipe or Recipe()
    folder, card = RunFolder(path), _card(recipe)
    space = recipe.space or space_of(families_for(recipe.families, recipe.kind, card), card)
    folder.create()
    settings = {"target": recipe.name, "families": recipe.families, "model_sha256": "ab" * 32, "version": "0.1.0"}
    settings |= {"data": Path("data") / "adult.csv.gz", "out": path, "budget": Budget(trials=recipe.n_trials)}
    RunSettings(**{**settings, **recipe.settings}).save(folder)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = create_study(folder.storage, "adult.csv.gz", space, recipe.metric)
    _run_trials(study, space, recipe, folder)
    _result(study, recipe, card).save(folder)
    if recipe.has_test:
        np.savez_compressed(folder.test, **_test_arrays(recipe))
    return folder


def _run_trials(study: optuna.Study, space: SearchSpace, recipe: Recipe, folder: RunFolder) -> None:
    rng = np.random.default_rng(7)
    best: dict[str, Any] = {}
    for number, (values, source) in enumerate(_plan(space, recipe, rng)):
        if source is Source.LOCAL and best:
            values = _near(space, best["values"], rng)
        first = number - number % BATCH
        prompt = _prompt(recipe, first)
        stamp = Provenance(source=source, seed=0, **_thoughts(source, prompt, space, values, best, rng))
        trials.enqueue(study, [values], stamp)
        asked = trials.ask(study, space, stamp)
        result = _result_of(space, asked.values, recipe, number, rng)
        trials.tell(study, asked, result, recipe.metric)
        if result.scores and result.scores[recipe.metric] > best.get("score", -np.inf):
            best = {"score": result.scores[recipe.metric], "values": asked.values}
        if recipe.has_calls and source is not Source.DEFAULT and number % BATCH == 0:
            _log(folder, space, first, prompt, rng)


def _plan(space: SearchSpace, recipe: Recipe, rng: np.random.Generator) -> list[tuple[Values, Source]]:
    names = recipe.families if ROOT in space.by_name and recipe.space is None else ()
    defaults = [default_of(name, space) for name in names] or [space.default]
    plan: list[tuple[Values, Source]] = [(values, Source.DEFAULT) for values in defaults]
    while len(plan) < recipe.n_trials:
        plan.append((space.sample(rng), _TURNS[len(plan) % len(_TURNS)]))
    return plan[: recipe.n_trials]


def _near(space: SearchSpace, values: Values, rng: np.random.Generator) -> dict[str, Any]:
    unit = space.to_unit(values)
    numeric = np.array([not p.is_categorical for p in space.parameters])
    step = np.where(numeric, 0.12 * rng.standard_normal(len(unit)), 0.0)
    return space.from_unit(np.clip(unit + step, 0, 1))


def _thoughts(
    source: Source, prompt: str, space: SearchSpace, values: Values, best: Mapping[str, Any], rng: np.random.Generator
) -> dict[str, Any]:
    if source is Source.DEFAULT:
        return {}
    predicted = float(np.clip(1.2 - 14 * _height(space, values) + 0.4 * rng.standard_normal(), -4, 2)) if best else None
    return {
        "model_sha256": "ab" * 32,
        "prompt_digest": text_digest(prompt),
        "grammar_digest": "0123456789abcdef",
        "logprob": float(-20 * rng.random()),
        "predicted": predicted,
        "improvement": max(predicted, 0.0) if predicted is not None else None,
        "seconds": 0.21,
    }


def _height(space: SearchSpace, values: Values) -> float:
    """How far a candidate is from its family's optimum; the first parameters matter most."""
    unit = space.to_unit({name: value for name, value in values.items()})
    own = unit[~np.isnan(unit)][1:] if len(unit) > 1 else unit
    goals = 0.3 + 0.5 * np.abs(np.sin(np.arange(len(own)) + len(own)))
    weights = 0.5 ** np.arange(len(own))
    offset = 0.06 * unit[0] if len(unit) > 1 else 0.0
    return float(0.25 * (weights * (own - goals) ** 2).sum() / weights.sum() - offset + 0.06)


def _result_of(space: SearchSpace, values: Values, recipe: Recipe, number: int, rng: np.random.Generator) -> Result:
    failing = range(len(recipe.families) + 2, recipe.n_trials, 7)
    if number in list(failing)[: recipe.n_failed] or recipe.n_failed >= recipe.n_trials:
        outcome, detail = _FAILURES[number % len(_FAILURES)]
        return Result(outcome=outcome, seconds=3.0 + number, detail=f"{detail} {recipe.name}"[:300])
    loss = 0.28 + _height(space, values) + 0.002 * rng.standard_normal()
    folds = tuple(float(-loss + 0.006 * rng.standard_normal()) for _ in range(5))
    score = float(np.mean(folds))
    return Result(
        outcome=Outcome.OK,
        seconds=float(0.5 + 4 * rng.random()),
        scores={recipe.metric: score, recipe.other: 0.95 + 0.25 * score},
        fold_scores=folds,
        train_score=score + 0.03,
        peak_mib=180.0 + number,
    )


def _prompt(recipe: Recipe, first: int) -> str:
    return f"[system]\nYou propose hyperparameters.\n\n[user]\nTarget {recipe.name}, trials so far: {first}."


def _log(folder: RunFolder, space: SearchSpace, first: int, prompt: str, rng: np.random.Generator) -> None:
    answers = [
        Answer(text=space.write(space.snap(space.sample(rng))), logprob=float(-30 * rng.random()), rejected_mass=0.02)
        for _ in range(8)
    ]
    call = Call(
        first_trial=first,
        prompt=prompt,
        grammar_digest="0123456789abcdef",
        answers=tuple(answers),
        tokens_in=400 + 20 * first,
        tokens_out=512,
        seconds=0.2,
    )
    with folder.calls.open("a", encoding="utf-8") as log:
        log.write(call.to_json() + "\n")


def _result(study: optuna.Study, recipe: Recipe, card: DataCard) -> RunResult:
    done = [t for t in study.get_trials(deepcopy=False) if t.values]
    ranked = sorted(done, key=lambda t: (-t.values[0], t.number))
    default = next((t for t in ranked if t.number < len(recipe.families)), None)
    top = ranked[:4]
    members = {"trials": tuple(t.number for t in top), "weights": (0.4, 0.3, 0.2, 0.1)[: len(top)]}
    return RunResult(
        winner=_scored(ranked[0], recipe) if ranked else Scored(label="none", trials=(), weights=()),
        best_default=_scored(default, recipe) if default else None,
        ensemble=Scored(label=f"ensemble of {len(top)}", **members, **_scores(ranked[0], recipe, 0.004))
        if recipe.has_ensemble and ranked
        else None,
        spent=Spent(total=83.2, evaluation=78.9, model=1.9, calls=8, tokens_in=9120, tokens_out=4410)
        if recipe.has_calls
        else Spent(total=80.0, evaluation=79.0),
        stopped="the trials are used up",
        facts=_facts(recipe, card),
    )


def _scored(trial: optuna.trial.FrozenTrial, recipe: Recipe) -> Scored:
    values = {"trials": (trial.number,), "weights": (1.0,), "values": dict(trial.params)}
    return Scored(label=f"trial {trial.number}", **values, **_scores(trial, recipe, 0.0))


def _scores(trial: optuna.trial.FrozenTrial, recipe: Recipe, bonus: float) -> dict[str, Any]:
    score = trial.values[0] + bonus
    cv = {recipe.metric: score, recipe.other: 0.95 + 0.25 * score}
    test = {name: value - 0.003 for name, value in cv.items()} if recipe.has_test else None
    return {"cv": cv, "test": test}


def _facts(recipe: Recipe, card: DataCard) -> dict[str, Any]:
    families = families_for(recipe.families, recipe.kind, card) if recipe.space is None else ()
    return {
        "task": recipe.kind.value,
        "name": recipe.name,
        "target": recipe.name,
        "classes": list(recipe.classes) if recipe.kind.is_classification else [],
        "metric": recipe.metric,
        "metrics": [recipe.metric, recipe.other],
        "n_rows": 5000,
        "n_train": 4000,
        "n_test": 1000 if recipe.has_test else 0,
        "columns": [
            {"name": "age", "kind": "numeric", "unique": 73, "missing": 0},
            {"name": recipe.name, "kind": "categorical", "unique": 9, "missing": 1836},
        ],
        "card": asdict(card),
        "notes": [f"column {recipe.name} is an identifier and is left out"],
        "families": {
            f.name: {"summary": f.card.summary, "hyperparameters": dict(f.card.hyperparameters)} for f in families
        },
        "model": {"file": "tuner.gguf", "sha256": "ab" * 32, "dialect": "compact", "parameters": 9_000_000},
    }


def _card(recipe: Recipe) -> DataCard:
    return DataCard(
        kind=recipe.kind,
        n_rows=4000,
        n_features=14,
        n_numeric=6,
        n_categorical=8,
        n_classes=len(recipe.classes) if recipe.kind.is_classification else 0,
        imbalance=0.76 if recipe.kind.is_classification else 0.0,
        missing_share=0.012,
        max_cardinality=41,
        mean_abs_skew=1.8,
        linear_score=0.71,
        tree_score=0.74,
    )


def _test_arrays(recipe: Recipe, n: int = 1000) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    if not recipe.kind.is_classification:
        truth = rng.gamma(3.0, 20.0, n)
        predicted = truth * (1 + 0.15 * rng.standard_normal(n)) + 2 * rng.standard_normal(n)
        return {"truth": truth, "predicted": predicted}
    classes = len(recipe.classes)
    truth = np.minimum(rng.geometric(0.6, n) - 1, classes - 1)
    logits = 2.2 * np.eye(classes)[truth] + rng.standard_normal((n, classes))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return {"truth": truth, "predicted": shares.argmax(axis=1), "probabilities": shares}
