"""One run from its settings to its result: prepares the parts, runs the loop, finishes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import optuna

from offline_tune import airgap
from offline_tune.errors import StudyError
from offline_tune.evaluator.families import default_of
from offline_tune.evaluator.pool import PoolEvaluator
from offline_tune.samplers.llama import LlamaSampler
from offline_tune.samplers.portfolio import portfolio
from offline_tune.samplers.proposal import Provenance, Source
from offline_tune.samplers.recipe import Recipe
from offline_tune.space import SearchSpace
from offline_tune.study import trials
from offline_tune.study.folder import RunFolder
from offline_tune.study.result import RunResult
from offline_tune.study.settings import RunSettings
from offline_tune.study.storage import create_study, load_study, storage_errors
from offline_tune.tuner.askers import Asker, ClassicAsker, LlamaAsker
from offline_tune.tuner.events import Listener, Standing
from offline_tune.tuner.facts import facts_of
from offline_tune.tuner.finish import Finish, contestants, finish
from offline_tune.tuner.ledger import Ledger
from offline_tune.tuner.loop import ENQUEUED, INTERRUPTED, Loop
from offline_tune.tuner.parts import Parts, prepared


def start(settings: RunSettings, listener: Listener) -> RunResult:
    """Run from the beginning.

    Raises:
        OfflineTuneError: of the kind of what is wrong; nothing is written before data, options and model are checked.
        KeyboardInterrupt: Ctrl-C; finished trials are stored and the run can be resumed.
    """
    began, folder = time.monotonic(), RunFolder(settings.out)
    if folder.settings.exists() or folder.storage.exists():
        folder.create()  # refuses; asked here already, so that nobody waits for large data in vain
    with prepared(settings, listener) as parts:
        folder.create()
        with folder.locked():
            parts.settings.save(folder)
            return _go(_new_study(folder, parts), folder, parts, began, listener)


def resume(path: Path, listener: Listener, change: Callable[[RunSettings], RunSettings] = lambda s: s) -> RunResult:
    """Go on with a run, finished or not; `change` may raise its budget.

    Raises:
        StudyError: the data file or the model is not the one that the run began with.
    """
    began, folder = time.monotonic(), RunFolder(path)
    folder.check_exists()
    with folder.locked():
        before = RunSettings.load(folder)
        opened = load_study(folder.storage) if _has_trials(folder) else None
        with prepared(change(before), listener) as parts:
            _check_unchanged("data file", parts.settings.data, before.data_digest, parts.settings.data_digest)
            model = parts.settings.model or Path("the shipped model")
            _check_unchanged("model", model, before.model_sha256, parts.settings.model_sha256)
            if opened is not None:
                _check_space(opened[1], parts.space, folder, before.version)
            parts.settings.save(folder)
            return _go(opened[0] if opened else _new_study(folder, parts), folder, parts, began, listener)


def _new_study(folder: RunFolder, parts: Parts) -> optuna.Study:
    """Make the study, or what a kill has left unmade of it: it has no trial that was evaluated yet."""
    metric = parts.dataset.task.metric.name
    study = create_study(folder.storage, parts.settings.data.name, parts.space, metric)
    with storage_errors(folder.storage):
        if ENQUEUED not in study.user_attrs:
            # The default configuration of each family comes first.
            defaults = [default_of(family.name, parts.space) for family in parts.families]
            trials.enqueue(study, defaults, Provenance(source=Source.DEFAULT, seed=parts.settings.seed))
            study.set_user_attr(ENQUEUED, len(defaults))
    return study


def _has_trials(folder: RunFolder) -> bool:
    """Whether the run came as far as its first candidates, so that its study must be there."""
    return folder.calls.exists() or any(folder.oof(0).parent.glob("*"))


def _go(study: optuna.Study, folder: RunFolder, parts: Parts, began: float, listener: Listener) -> RunResult:
    settings = parts.settings
    ledger = Ledger(study, began, listener, folder)
    with PoolEvaluator(parts.dataset, settings.limits, parts.n_workers, initializer=airgap.engage) as evaluator:
        listener.on_study(_standing(study, folder, settings.budget.trials))
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
        with storage_errors(folder.storage):
            try:
                reason = loop.run()
                listener.on_stage("retraining the winner on all training rows")
                found = finish(study, parts.dataset, evaluator, folder, settings.ensemble, settings.seed)
            except KeyboardInterrupt:
                ledger.interrupt(INTERRUPTED)
                raise
            return _result(found, reason, ledger, parts, folder)


def _result(found: Finish, reason: str, ledger: Ledger, parts: Parts, folder: RunFolder) -> RunResult:
    result = RunResult(
        winner=found.winner,
        best_default=found.best_default,
        ensemble=found.ensemble,
        spent=ledger.save(reason),
        stopped=reason,
        facts=facts_of(parts),
    )
    result.save(folder)
    return result


def _standing(study: optuna.Study, folder: RunFolder, n_wanted: int) -> Standing:
    with storage_errors(folder.storage):
        ranked = contestants(study)
        best = (ranked[0].score, ranked[0].number) if ranked else None
        return Standing(trials.n_finished(study), n_wanted, best)


def _asker(parts: Parts, ledger: Ledger) -> Asker:
    settings = parts.settings
    if parts.model is None or parts.drafter is None:
        return ClassicAsker(settings.sampler, parts.space, settings.seed)
    is_compact = parts.model.info.dialect == "compact"
    drafts = settings.drafts if is_compact else min(settings.drafts, 2 * settings.batch)
    sampler = LlamaSampler(
        parts.drafter,
        settings.seed,
        recipe=Recipe(drafts=drafts),
        portfolio=portfolio(parts.space),
        model_sha256=parts.model.info.sha256,
        on_call=ledger.on_call,
        may_call=lambda: ledger.may_call(settings.budget),
    )
    return LlamaAsker(sampler, Provenance(source=Source.RANDOM, seed=settings.seed))


def _check_unchanged(what: str, path: Path, before: str, now: str) -> None:
    if before != now:
        raise StudyError(
            f"a run must be resumed with the {what} it began with, got another content in {path}; "
            "restore it or start a new run"
        )


def _check_space(before: SearchSpace, now: SearchSpace, folder: RunFolder, version: str) -> None:
    if not before.is_compatible(now):
        raise StudyError(
            f"the study must have the search space of this version, got another in {folder.storage}; "
            f"resume it with version {version}"
        )
