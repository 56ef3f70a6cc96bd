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
from offline_tune.space import SearchSpace, quoted

SPACE = "offline_tune:space"
SCORES = "offline_tune:scores"
BUSY_SECONDS = 10.0  # how long a write waits for another program that holds the file
_FILE = "study.db"  # what a URL would say; only its form matters
_BUSY = ("SQLITE_BUSY", "SQLITE_LOCKED")
_UNWRITABLE = ("SQLITE_FULL", "SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_IOERR", "SQLITE_PERM")


def create_study(
    path: Path, name: str, space: SearchSpace, metric: str, busy_seconds: float = BUSY_SECONDS
) -> optuna.Study:
    """A new study that maximises; the search space is stored with it.

    Raises:
        StudyError: a study of this name is there with another space, or the file is no database.
        OutputError: the file cannot be written.
    """
    name = name.encode("utf-8", "replace").decode()  # a file's name may hold bytes that are no text
    with storage_errors(path):
        storage = _storage(path, busy_seconds)
        study = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
        stored = study.user_attrs.get(SPACE)
        if stored is None:
            study.set_user_attr(SPACE, space.to_json())
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.set_metric_names([metric])
        elif not SearchSpace.from_json(stored).is_compatible(space):
            raise StudyError(
                f"the study {quoted(name)} must have the search space it was made with, got another for {path}; "
                "use another --out or the same families and data"
            )
        return study


def load_study(
    path: Path, sampler: BaseSampler | None = None, busy_seconds: float = BUSY_SECONDS
) -> tuple[optuna.Study, SearchSpace]:
    """The one study of a file, and its space.

    Raises:
        StudyError: no such file, no study of ours in it, damaged or locked.
    """
    if not path.is_file():
        raise StudyError(f"a run must have {path.name}, found none in {path.parent}; start it with `offline-tune run`")
    with storage_errors(path):
        try:
            return _only_study(path, sampler, busy_seconds)
        except (KeyError, ValueError) as error:  # a damaged file whose pages are whole: no such row, no such date
            raise _not_ours(error, path) from error


def _only_study(path: Path, sampler: BaseSampler | None, busy_seconds: float) -> tuple[optuna.Study, SearchSpace]:
    storage = _storage(path, busy_seconds)
    names = optuna.get_all_study_names(storage)
    if len(names) != 1:
        raise StudyError(f"{path.name} must hold one study, got {len(names)} in {path}; give another run folder")
    study = optuna.load_study(study_name=names[0], storage=storage, sampler=sampler)
    study.get_trials(deepcopy=False)  # read once, so that damage shows here and not in the middle of a run
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
    except (SQLAlchemyError, StorageInternalError, sqlite3.Error) as error:
        raise _translated(error, path) from error
    except RuntimeError as error:
        if "table schema" not in str(error):  # Optuna's words for a file of another version
            raise
        raise _not_ours(error, path) from error


def _translated(error: Exception, path: Path) -> StudyError | OutputError:
    cause = _sqlite_error(error)
    code = getattr(cause, "sqlite_errorname", "")
    if code.startswith(_BUSY):
        return StudyError(f"the storage must be free, got {path} locked by another program; close it and resume")
    if code.startswith(_UNWRITABLE):
        return OutputError(
            f"the storage must be writable, got {_first_line(cause)} for {path}; "
            "free space or change its rights, then resume"
        )
    return _not_ours(cause, path)


def _not_ours(error: BaseException, path: Path) -> StudyError:
    return StudyError(
        f"the storage must be an Optuna SQLite file, got {_first_line(error)} for {path}; "
        "restore a copy or start a new run"
    )


def _sqlite_error(error: BaseException) -> BaseException:
    """What SQLite said, below what SQLAlchemy and Optuna made of it; the error itself where SQLite said nothing."""
    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, sqlite3.Error):
        inner = getattr(inner, "orig", None) or inner.__cause__
    return inner or error


def _storage(path: Path, busy_seconds: float) -> RDBStorage:
    # Not by URL: there a path with a question mark, a percent sign or braces names another file.
    def connect() -> sqlite3.Connection:
        return sqlite3.connect(path, timeout=busy_seconds, check_same_thread=False)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = RDBStorage(
            f"sqlite:///{_FILE}",
            engine_kwargs={"creator": connect},
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


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
