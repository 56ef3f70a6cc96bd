"""One run from its settings to its result: builds the parts, runs the loop, finishes."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna
import psutil

from offline_tune import __version__, airgap
from offline_tune.data.dataset import Dataset
from offline_tune.data.prepare import load_dataset
from offline_tune.errors import StudyError, UsageError
from offline_tune.evaluator.families import Family, default_of, families_for, space_of
from offline_tune.evaluator.pool import PoolEvaluator
from offline_tune.llm.contract import LanguageModel, Sampling
from offline_tune.samplers.chat import ChatDrafter
from offline_tune.samplers.compact import CompactDrafter
from offline_tune.samplers.draft import Drafter
from offline_tune.samplers.llama import LlamaSampler
from offline_tune.samplers.proposal import Provenance, Source
from offline_tune.space import SearchSpace
from offline_tune.study import trials
from offline_tune.study.folder import RunFolder
from offline_tune.study.result import RunResult, Spent
from offline_tune.study.settings import RunSettings
from offline_tune.study.storage import create_study, load_study, storage_errors
from offline_tune.tuner.askers import Asker, ClassicAsker, LlamaAsker
from offline_tune.tuner.events import Listener
from offline_tune.tuner.finish import finish
from offline_tune.tuner.ledger import Ledger
from offline_tune.tuner.loop import ENQUEUED, INTERRUPTED, Loop

SAMPLERS = ("llama", "tpe", "gp", "random", "grid")


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a run is made of, before its first trial."""

    settings: RunSettings
    folder: RunFolder
    dataset: Dataset
    families: tuple[Family, ...]
    space: SearchSpace
    model: LanguageModel | None
    started: float = field(default_factory=time.monotonic)


def start(settings: RunSettings, listener: Listener) -> RunResult:
    """Run from the beginning.

    Raises:
        OfflineTuneError: of the kind of what is wrong; nothing is written before data, options and model are checked.
        KeyboardInterrupt: Ctrl-C; finished trials are stored and the run can be resumed.
    """
    began = time.monotonic()
    folder = RunFolder(settings.out)
    parts = _prepare(settings, folder, listener, began)
    folder.create()
    with folder.locked():
        parts.settings.save(folder)
        study = create_study(folder.storage, settings.data.name, parts.space, parts.dataset.task.metric.name)
        _enqueue_defaults(study, parts)
        return _go(study, parts, listener)


def resume(path: Path, listener: Listener, change: Callable[[RunSettings], RunSettings] = lambda s: s) -> RunResult:
    """Go on with a run, finished or not; `change` may raise its budget.

    Raises:
        StudyError: the data file or the model is not the one that the run began with.
    """
    began = time.monotonic()
    folder = RunFolder(path)
    folder.check_exists()
    with folder.locked():
        old = RunSettings.load(folder)
        settings = change(old)
        study, space = load_study(folder.storage)
        parts = _prepare(settings, folder, listener, began)
        _check_unchanged("data file", settings.data, old.data_digest, parts.settings.data_digest)
        _check_unchanged(
            "model", settings.model or Path("the shipped model"), old.model_sha256, parts.settings.model_sha256
        )
        if not space.is_compatible(parts.space):
            raise StudyError(
                f"the study must have the search space of this version, got another in {folder.storage}; "
                f"resume it with version {old.version}"
            )
        parts.settings.save(folder)
        _enqueue_defaults(study, parts)
        return _go(study, parts, listener)


def _prepare(settings: RunSettings, folder: RunFolder, listener: Listener, began: float) -> Parts:
    if settings.sampler not in SAMPLERS:
        raise UsageError(f"--sampler must be one of {', '.join(SAMPLERS)}, got {settings.sampler!r}; choose one")
    listener.on_stage("reading the data")
    dataset = load_dataset(
        settings.data,
        settings.target,
        kind=settings.task,
        metric=settings.metric,
        test_path=settings.test,
        split_column=settings.split_column,
        group=settings.group,
        time=settings.time,
        test_share=settings.test_share,
        n_folds=settings.folds,
        seed=settings.seed,
        description=settings.description,
    )
    listener.on_task(dataset.task, dataset.notes, len(dataset.folds))
    families = families_for(settings.families, dataset.task.kind, dataset.card)
    model = _load(settings, listener) if settings.sampler == "llama" else None
    facts = replace(
        settings,
        data_digest=dataset.digest,
        model_sha256=model.info.sha256 if model else "",
        version=__version__,
    )
    return Parts(
        settings=facts,
        folder=folder,
        dataset=dataset,
        families=families,
        space=space_of(families, dataset.card),
        model=model,
        started=began,
    )


def _load(settings: RunSettings, listener: Listener) -> LanguageModel:
    # Imported here: llama.cpp's library is loaded only by runs that use it.
    from offline_tune.llm.llama import load_model
    from offline_tune.llm.manifest import shipped_model

    path = settings.model or shipped_model()
    listener.on_stage(f"loading the model {path.name}")
    return load_model(path, k_max=min(max(settings.drafts, 1), 255), device=settings.device)


def _go(study: optuna.Study, parts: Parts, listener: Listener) -> RunResult:
    settings, folder = parts.settings, parts.folder
    ledger = Ledger(study, parts.started, listener, folder)
    with ExitStack() as stack:
        if parts.model is not None:
            stack.callback(parts.model.close)
        evaluator = stack.enter_context(
            PoolEvaluator(
                parts.dataset, settings.limits, settings.workers or psutil.cpu_count() or 1, initializer=airgap.engage
            )
        )
        loop = Loop(
            study=study,
            space=parts.space,
            metric=parts.dataset.task.metric.name,
            asker=_asker(parts, ledger),
            evaluator=evaluator,
            folder=folder,
            budget=settings.budget,
            batch=settings.batch,
            seed=settings.seed,
            listener=ledger,
            elapsed=ledger.elapsed,
        )
        try:
            reason = loop.run()
        except KeyboardInterrupt:
            ledger.save(INTERRUPTED)
            raise
        listener.on_stage("retraining the winner on all training rows")
        with storage_errors(folder.storage):
            found = finish(study, parts.dataset, evaluator, folder, settings.ensemble, settings.seed)
    spent = ledger.save(reason)
    result = RunResult(
        winner=found.winner,
        best_default=found.best_default,
        ensemble=found.ensemble,
        spent=spent,
        stopped=reason,
        facts=_facts(parts),
    )
    result.save(folder)
    return result


def _asker(parts: Parts, ledger: Ledger) -> Asker:
    settings = parts.settings
    if parts.model is None:
        return ClassicAsker(settings.sampler, parts.space, settings.seed)
    sampler = LlamaSampler(
        _drafter(parts, parts.model),
        settings.seed,
        n_drafts=settings.drafts if parts.model.info.dialect == "compact" else min(settings.drafts, 2 * settings.batch),
        model_sha256=parts.model.info.sha256,
        on_call=ledger.on_call,
        may_call=lambda: _may_call(settings, ledger.spent),
    )
    return LlamaAsker(sampler, Provenance(source=Source.RANDOM, seed=settings.seed))


def _drafter(parts: Parts, model: LanguageModel) -> Drafter:
    sampling = Sampling(temperature=parts.settings.temperature)
    if model.info.dialect == "compact":
        return CompactDrafter(model, parts.space, sampling)
    cards = tuple(family.card for family in parts.families)
    return ChatDrafter(model, parts.space, parts.dataset.card, cards, parts.dataset.task.metric, sampling)


def _may_call(settings: RunSettings, spent: Spent) -> bool:
    calls, tokens = settings.budget.llm_calls, settings.budget.llm_tokens
    within_calls = calls is None or spent.calls < calls
    return within_calls and (tokens is None or spent.tokens_in + spent.tokens_out < tokens)


def _enqueue_defaults(study: optuna.Study, parts: Parts) -> None:
    """The default configuration of each family comes first; done once, also where a kill came between."""
    if ENQUEUED in study.user_attrs:
        return
    defaults = [default_of(family.name, parts.space) for family in parts.families]
    trials.enqueue(study, defaults, Provenance(source=Source.DEFAULT, seed=parts.settings.seed))
    study.set_user_attr(ENQUEUED, len(defaults))


def _check_unchanged(what: str, path: Path, before: str, now: str) -> None:
    if before != now:
        raise StudyError(
            f"a run must be resumed with the {what} it began with, got another content in {path}; "
            "restore it or start a new run"
        )


def _facts(parts: Parts) -> dict[str, Any]:
    task, card = parts.dataset.task, parts.dataset.card
    info = parts.model.info if parts.model else None
    return {
        "task": task.kind.value,
        "name": task.name,
        "target": task.target,
        "classes": list(task.classes),
        "metric": task.metric.name,
        "metrics": [metric.name for metric in task.metrics],
        "n_rows": task.n_rows,
        "n_train": len(parts.dataset.X),
        "n_test": 0 if parts.dataset.X_test is None else len(parts.dataset.X_test),
        "columns": [
            {"name": c.name, "kind": c.kind.value, "unique": c.n_unique, "missing": c.n_missing} for c in task.columns
        ],
        "card": {name: getattr(card, name) for name in card.__dataclass_fields__},
        "notes": [note.text for note in parts.dataset.notes],
        "families": {
            f.name: {"summary": f.card.summary, "hyperparameters": dict(f.card.hyperparameters)} for f in parts.families
        },
        "model": None
        if info is None
        else {
            "file": info.path.name,
            "sha256": info.sha256,
            "dialect": info.dialect,
            "architecture": info.architecture,
            "parameters": info.n_parameters,
        },
    }
