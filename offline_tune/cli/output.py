"""The two ways out of a command: results to stdout, which must arrive, and words to stderr, which need not."""

from __future__ import annotations

import json
import math
import os
import sys
from contextlib import suppress
from io import TextIOBase
from typing import Any

import click

from offline_tune.errors import OutputError


def emit(text: str) -> None:
    """Print a result. A reader that has gone (`| head`) wanted no more.

    Raises:
        OutputError: stdout cannot be written, for instance on a full disk.
    """
    try:
        click.echo(text, nl=False)
    except BrokenPipeError:
        _abandon_stdout()
    except OSError as error:
        _abandon_stdout()
        raise OutputError(
            f"the result must reach stdout, got {error.strerror}; free space or send it elsewhere"
        ) from None


def emit_json(content: object) -> None:
    """Print one JSON document. What is not a finite number (a score that is not defined) is null: JSON has no NaN."""
    emit(json.dumps(_finite(content), indent=1) + "\n")


def say(line: str) -> None:
    """A line on stderr. That nobody can hear it is no reason to stop a run."""
    with suppress(OSError):
        click.echo(line, err=True)


class Audience(TextIOBase):
    """Stderr as a text stream that never fails: the terminal may be closed while the run goes on."""

    def __init__(self) -> None:
        self._stream = sys.stderr  # as it is now: a live panel puts itself in its place

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of stderr."""
        return self._stream.encoding

    def isatty(self) -> bool:
        """Whether somebody may be watching."""
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        """Of stderr: the size of the terminal is asked of it."""
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """Write what can be written."""
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush what can be flushed."""
        with suppress(OSError):
            self._stream.flush()


def _abandon_stdout() -> None:
    # What is left in the buffer would be tried again, and complained about, when the process ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
