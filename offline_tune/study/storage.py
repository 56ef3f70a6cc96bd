"""Optuna studies in SQLite files: opened safely, with the storage's troubles said in one line."""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.exceptions import StorageInternalError
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from offline_tune.errors import OutputError, StudyError
from offline_tune.space import SearchSpace

SPACE = "offline_tune:space"
SCORES = "offline_tune:scores"
_BUSY_SECONDS = 10


def create_study(path: Path, name: str, space: SearchSpace, metric: str) -> optuna.Study:
    """A new study that maximises; the search space is stored with it.

    Raises:
        StudyError: a study of this name is there with another space, or the file is no database.
    """
    with storage_errors(path):
        study = optuna.create_study(storage=_storage(path), study_name=name, direction="maximize", load_if_exists=True)
        stored = study.user_attrs.get(SPACE)
        if stored is None:
            study.set_user_attr(SPACE, space.to_json())
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.set_metric_names([metric])
        elif not SearchSpace.from_json(stored).is_compatible(space):
            raise StudyError(
                f"the study {name!r} must have the search space it was made with, got another for {path}; "
                "use another --out or the same families and data"
            )
        return study


def load_study(path: Path, sampler: BaseSampler | None = None) -> tuple[optuna.Study, SearchSpace]:
    """The one study of a file, and its space.

    Raises:
        StudyError: no such file, no study of ours in it, damaged or locked.
    """
    if not path.is_file():
        raise StudyError(f"a run must have {path.name}, found none in {path.parent}; start it with `offline-tune run`")
    with storage_errors(path):
        storage = _storage(path)
        names = optuna.get_all_study_names(storage)
        if len(names) != 1:
            raise StudyError(f"{path.name} must hold one study, got {len(names)} in {path}; give another run folder")
        study = optuna.load_study(study_name=names[0], storage=storage, sampler=sampler)
        stored = study.user_attrs.get(SPACE)
        if stored is None:
            raise StudyError(
                f"the study must carry its search space, found none in {path}; it was not made by offline-tune"
            )
        return study, SearchSpace.from_json(stored)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Translate what SQLite and Optuna raise.

    Raises:
        StudyError: locked or damaged.
        OutputError: no space, or no right to write.
    """
    try:
        yield
    except (SQLAlchemyError, StorageInternalError, sqlite3.Error, RuntimeError) as error:
        text = " ".join(str(part) for part in (error, error.__cause__))
        if "locked" in text or "busy" in text:
            raise StudyError(
                f"the storage must be free, got {path} locked by another program; close it and resume"
            ) from error
        if "full" in text or "readonly" in text or "unable to open" in text or "disk I/O" in text:
            raise OutputError(
                f"the storage must be writable, got {_last_line(error)} for {path}; "
                "free space or change its rights, then resume"
            ) from error
        if isinstance(error, RuntimeError) and not isinstance(error, SQLAlchemyError):
            if "schema" not in text and "version" not in text:
                raise
        raise StudyError(
            f"the storage must be an Optuna SQLite file, got {_last_line(error)} for {path}; "
            "restore a copy or start a new run"
        ) from error


def _storage(path: Path) -> RDBStorage:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = RDBStorage(
            f"sqlite:///{path}",
            engine_kwargs={"connect_args": {"timeout": _BUSY_SECONDS}},
            skip_compatibility_check=False,
            skip_table_creation=False,
        )

    # A write-ahead log outlives a killed process and commits in a fraction of a millisecond.
    @event.listens_for(storage.engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    storage.engine.dispose()
    return storage


def _last_line(error: BaseException) -> str:
    cause = error.__cause__ or error
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0][:200]
