"""The work file of a sweep: JSON lines that are only ever added, so that a kill loses at most the line being written.

The first line holds the settings; then come the facts of each table before its first trial, and the trials.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from offline_tune import __version__
from offline_tune.data.wording import quoted
from offline_tune.errors import OutputError, StudyError

SETTINGS, TABLE, TRIAL = "settings", "table", "trial"

FIRST_ENTRY = 10_000  # the number of the first candidate that is no even draw but an entry of a portfolio

Line = Mapping[str, Any]


@dataclass
class SweepLog:
    """What the lines say so far, and the way to add one."""

    path: Path
    settings: Line | None = None
    tables: dict[str, Line] = field(default_factory=dict)
    trials: dict[tuple[str, str, int], Line] = field(default_factory=dict)

    def add(self, kind: str, **fields: Any) -> None:
        """Write a line and take it in.

        Raises:
            OutputError: the file cannot be written.
        """
        line = {"kind": kind, **fields}
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise OutputError(
                f"the work file must be writable, got {error.strerror} for {self.path}; choose another"
            ) from error
        self._take(line)

    def _take(self, line: Line) -> None:
        if line["kind"] == SETTINGS:
            self.settings = line
        elif line["kind"] == TABLE:
            self.tables[line["table"]] = line
        else:
            self.trials[line["table"], line["family"], line["number"]] = line


def read_log(path: Path) -> SweepLog:
    """The lines of a work file, which may be growing; a half-written last line is not looked at.

    Raises:
        StudyError: the file cannot be read or is no work file.
    """
    log = SweepLog(path)
    try:
        for line in _whole_lines(path).splitlines():
            log._take(json.loads(line))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StudyError(
            f"a work file must hold the lines that a sweep wrote, got {type(error).__name__} for {quoted(path)}; "
            "restore it or choose another"
        ) from error
    return log


@contextmanager
def opened(path: Path, settings: Line) -> Iterator[SweepLog]:
    """A work file to go on with, or a new one, held against other processes.

    Raises:
        StudyError: it is in use, damaged, or of a sweep with other settings.
        OutputError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise OutputError(f"the work file must be writable, got {error.strerror} for {path}; choose another") from error
    try:
        _lock(handle, path)
        log = read_log(path)
        os.truncate(handle, len(_whole_lines(path).encode()))
        _settle(log, settings)
        yield log
    finally:
        os.close(handle)


def _settle(log: SweepLog, settings: Line) -> None:
    if log.settings is None:
        log.add(SETTINGS, version=__version__, **settings)
        return
    for name, value in settings.items():
        if log.settings.get(name) != value:
            raise StudyError(
                f"a sweep must go on with the {name} it began with, {quoted(log.settings.get(name))}, got "
                f"{quoted(value)}; give that or another work file"
            )


def _whole_lines(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    return text[: text.rfind("\n") + 1]


def _lock(handle: int, path: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise StudyError(
            f"one sweep at a time may write a work file, got {path} in use; wait for it or end it"
        ) from error
