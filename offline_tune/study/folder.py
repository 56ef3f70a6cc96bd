"""The folder of one run: what lies where in it.

run.json            the settings, enough to resume
study.db            the Optuna study (SQLite)
calls.jsonl         every prompt and every answer of the language model
oof/00012.npz       out-of-fold predictions of trial 12
result.json         the winner, the ensemble, their test scores, what was spent
test.npz            the test part's truth and predictions
model/  ensemble/   exported models
report.html  summary.txt  leaderboard.csv
"""

from __future__ import annotations

import fcntl
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from offline_tune.errors import OutputError, StudyError, UsageError


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths inside one run's folder."""

    path: Path

    @property
    def settings(self) -> Path:
        """How the run was started."""
        return self.path / "run.json"

    @property
    def storage(self) -> Path:
        """The Optuna study."""
        return self.path / "study.db"

    @property
    def calls(self) -> Path:
        """The language model's prompts and answers, JSON lines."""
        return self.path / "calls.jsonl"

    @property
    def result(self) -> Path:
        """What came out."""
        return self.path / "result.json"

    @property
    def test(self) -> Path:
        """The test part's truth and predictions."""
        return self.path / "test.npz"

    @property
    def model(self) -> Path:
        """The exported winner."""
        return self.path / "model"

    @property
    def ensemble(self) -> Path:
        """The exported ensemble."""
        return self.path / "ensemble"

    @property
    def report(self) -> Path:
        """The report for a browser."""
        return self.path / "report.html"

    @property
    def summary(self) -> Path:
        """The report in plain text."""
        return self.path / "summary.txt"

    @property
    def leaderboard(self) -> Path:
        """Every trial in a table."""
        return self.path / "leaderboard.csv"

    def oof(self, number: int) -> Path:
        """Out-of-fold predictions of a trial."""
        return self.path / "oof" / f"{number:05d}.npz"

    def create(self) -> None:
        """Make the folder for a new run.

        Raises:
            StudyError: there is a run in it already.
            OutputError: it cannot be written.
        """
        with writing(self.path):
            if self.settings.exists() or self.storage.exists():
                raise StudyError(
                    f"--out must be a folder without a run, got {self.path}; "
                    f"continue it with `offline-tune resume {self.path}` or choose another folder"
                )
            (self.path / "oof").mkdir(parents=True, exist_ok=True)
            probe = self.path / ".write-test"
            probe.write_text("", encoding="utf-8")
            probe.unlink()

    def check_exists(self) -> None:
        """Refuse a folder that holds no run.

        Raises:
            UsageError: no run.json in it.
        """
        try:
            has_run = self.settings.is_file()
        except OSError:  # a name too long, a folder that may not be entered
            has_run = False
        if not has_run:
            raise UsageError(
                f"a run folder must hold run.json, got {self.path}; give the --out folder of an earlier run"
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out of this run.

        Raises:
            StudyError: another process is in it.
            OutputError: it cannot be written, or its file system knows no locks.
        """
        with writing(self.path):
            handle = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            with writing(self.path):
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise StudyError(
                        f"one process at a time may work in a run folder, got {self.path} in use; wait for it or end it"
                    ) from error
            yield
        finally:
            os.close(handle)

    def save_oof(self, number: int, predictions: NDArray[np.float32]) -> None:
        """Keep a trial's out-of-fold predictions; whole or not at all."""
        path = self.oof(number)
        with writing(path):
            path.parent.mkdir(exist_ok=True)
            partial = path.with_suffix(".partial.npz")
            np.savez_compressed(partial, oof=predictions)
            partial.replace(path)

    def load_oof(self, number: int) -> NDArray[np.float32] | None:
        """A trial's out-of-fold predictions, None where there are none.

        Raises:
            StudyError: the file is damaged.
        """
        path = self.oof(number)
        if not path.is_file():
            return None
        try:
            # A file that is no archive gives a bare array, or an error of its own for each way to be broken.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                return np.asarray(stored["oof"], dtype=np.float32)
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile, zlib.error) as error:
            raise StudyError(
                f"out-of-fold predictions must be an .npz of this run, got {type(error).__name__} for {path}; "
                "remove it: its trial then stays out of the ensemble"
            ) from error


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write a record, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    with writing(path):
        partial = path.with_suffix(".partial")
        # Escapes keep names of files that are no text, such as Latin-1 ones.
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        partial.replace(path)


def read_json(path: Path) -> dict[str, object]:
    """Read a record.

    Raises:
        StudyError: missing or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StudyError(f"a run must have {path.name}, found none in {path.parent}; give another folder") from error
    except (OSError, ValueError, RecursionError) as error:
        raise StudyError(f"{path.name} must be readable JSON, got {error}; restore it or start a new run") from error
    if not isinstance(content, dict):
        raise StudyError(
            f"{path.name} must hold an object, got {type(content).__name__}; restore it or start a new run"
        )
    return content


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one line what stopped a write.

    Raises:
        OutputError: the system refused (no permission, no space, read-only, not a folder).
    """
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"the output must be writable, got {error.strerror or error} for {path}; "
            "free space, change its rights or choose another --out"
        ) from error
