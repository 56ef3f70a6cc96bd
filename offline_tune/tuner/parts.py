"""What a run is made of before its first trial: data, families, space, model. Nothing is written here."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from offline_tune import __version__
from offline_tune.data.dataset import Dataset
from offline_tune.data.prepare import load_dataset
from offline_tune.errors import UsageError
from offline_tune.evaluator.families import Family, families_for, space_of
from offline_tune.llm.contract import LanguageModel, Sampling
from offline_tune.llm.threads import usable_cores
from offline_tune.samplers.chat import ChatDrafter
from offline_tune.samplers.compact import CompactDrafter
from offline_tune.samplers.draft import Drafter
from offline_tune.space import SearchSpace
from offline_tune.study.settings import RunSettings
from offline_tune.tuner.events import Listener

if TYPE_CHECKING:
    from offline_tune.llm.llama import LlamaModel

SAMPLERS = ("llama", "tpe", "gp", "random", "grid")


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts of one run; `settings` hold the facts that a resumed run must find again.

    `model` and `drafter` are None where a classic sampler proposes.
    """

    settings: RunSettings
    dataset: Dataset
    families: tuple[Family, ...]
    space: SearchSpace
    model: LanguageModel | None
    drafter: Drafter | None

    @property
    def n_workers(self) -> int:
        """How many trials run at the same time."""
        return self.settings.workers or usable_cores()


@contextmanager
def prepared(settings: RunSettings, listener: Listener) -> Iterator[Parts]:
    """Read the data and load the model, which is closed at the end.

    Raises:
        OfflineTuneError: of the kind of what is wrong with the options, the data or the model.
    """
    _check_sampler(settings.sampler)
    dataset = _read(settings, listener)
    families = families_for(settings.families, dataset.task.kind, dataset.card)
    parts = Parts(
        settings=replace(settings, data_digest=dataset.digest, model_sha256="", version=__version__),
        dataset=dataset,
        families=families,
        space=space_of(families, dataset.card),
        model=None,
        drafter=None,
    )
    with ExitStack() as stack:
        if settings.sampler == "llama":
            model = _load(settings, listener)
            stack.callback(model.close)
            threads = model.placement.n_threads
            known = replace(parts.settings, model_sha256=model.info.sha256, threads=threads)
            parts = replace(parts, settings=known, model=model, drafter=_drafter(parts, model))
        yield parts


def _check_sampler(name: str) -> None:
    if name not in SAMPLERS:
        raise UsageError(f"--sampler must be one of {', '.join(SAMPLERS)}, got {name[:60]!r}; choose one")
    if name == "gp" and importlib.util.find_spec("torch") is None:
        raise UsageError("--sampler gp needs the package torch, got none installed; install it or choose tpe")


def _read(settings: RunSettings, listener: Listener) -> Dataset:
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
    return dataset


def _load(settings: RunSettings, listener: Listener) -> LlamaModel:
    # Imported here: llama.cpp's library is loaded only by runs that use it.
    from offline_tune.llm.llama import load_model
    from offline_tune.llm.manifest import shipped_model

    path = settings.model or shipped_model()
    listener.on_stage(f"loading the model {_name(path)}")
    return load_model(
        path,
        n_threads=settings.threads or None,
        device=settings.device,
        gpu_layers=settings.gpu_layers,
    )


def _drafter(parts: Parts, model: LanguageModel) -> Drafter:
    sampling = Sampling(temperature=parts.settings.temperature)
    if model.info.dialect == "compact":
        return CompactDrafter(model, parts.space, sampling)
    cards = tuple(family.card for family in parts.families)
    return ChatDrafter(model, parts.space, parts.dataset.card, cards, parts.dataset.task.metric, sampling)


def _name(path: Path) -> str:
    return "".join(character for character in path.name if character.isprintable())
