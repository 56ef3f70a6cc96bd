"""What every evaluator asks of a round of candidates before it trains them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from offline_tune.errors import EvaluationError, OutputError, UsageError
from offline_tune.space import Values


def check_round(is_open: bool, candidates: Sequence[Values], seeds: Sequence[int]) -> None:
    """Refuse work for a closed evaluator, and candidates without seeds of their own.

    Raises:
        EvaluationError: the evaluator is closed.
        UsageError: candidates and seeds differ in number.
    """
    if not is_open:
        raise EvaluationError("trials need an open evaluator, got one that is closed; create a new one")
    if len(candidates) != len(seeds):
        raise UsageError(
            f"each candidate needs one seed, got {len(candidates)} candidates and {len(seeds)} seeds; pass as many"
        )


def member_folders(folder: Path, count: int) -> list[Path]:
    """The folders that members will be written to, not there yet, under `folder`, which is made.

    Raises:
        OutputError: `folder` cannot be written, or holds earlier members.
    """
    targets = [folder / f"member-{place:03d}" for place in range(count)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"members need a folder to be written to, got {error}; choose another") from None
    for target in targets:
        if target.exists():
            raise OutputError(f"members must not replace earlier ones, got {str(target)!r}; choose another folder")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"members need a folder that can be written, got {str(folder)!r}; choose another")
    return targets
