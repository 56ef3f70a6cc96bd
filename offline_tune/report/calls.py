"""The language model's prompts and answers, read back from calls.jsonl."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offline_tune.errors import StudyError
from offline_tune.samplers.proposal import Answer, Call


@dataclass(frozen=True, slots=True)
class CallLog:
    """Every call that can be read, in order; `unreadable` lines were torn by a killed process."""

    calls: tuple[Call, ...] = ()
    unreadable: int = 0


def read_calls(path: Path) -> CallLog:
    """Read the log; a run without a model has none.

    Raises:
        StudyError: the file is there and cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return CallLog()
    except OSError as error:
        raise StudyError(
            f"{path.name} must be readable, got {error.strerror or error} for {path}; change its rights"
        ) from error
    # Only line feeds part records: a prompt may hold other separators, which str.splitlines would split at.
    read = [_call(line) for line in content.split(b"\n") if line.strip()]
    calls = tuple(call for call in read if call is not None)
    return CallLog(calls, unreadable=len(read) - len(calls))


def _call(line: bytes) -> Call | None:
    try:
        content = json.loads(line.decode(errors="replace"))
        return Call(
            first_trial=int(content["first_trial"]),
            prompt=str(content["prompt"]),
            grammar_digest=str(content["grammar_digest"]),
            answers=tuple(_answer(answer) for answer in content["answers"]),
            tokens_in=int(content["tokens_in"]),
            tokens_out=int(content["tokens_out"]),
            seconds=float(content["seconds"]),
        )
    except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError):
        return None


def _answer(content: dict[str, Any]) -> Answer:
    return Answer(
        text=str(content["text"]),
        logprob=float(content["logprob"]),
        rejected_mass=float(content["rejected_mass"]),
    )
