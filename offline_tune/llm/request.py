"""What every language model asks of its callers: sound arguments, one call at a time, always the same thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from offline_tune.errors import UsageError


class Turns:
    """Belongs to the thread that makes it, and gives it one turn at a time."""

    def __init__(self) -> None:
        self._owner = _whoami()
        self._busy = False

    @contextmanager
    def take(self) -> Iterator[None]:
        """One call.

        Raises:
            UsageError: another thread or process calls, or a call has not ended.
        """
        if _whoami() != self._owner:
            raise UsageError(
                "a model must be called by the thread that loaded it, got thread "
                f"{threading.current_thread().name!r}; load one model in each, or run with one job"
            )
        self.refuse_within("called")
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    def refuse_within(self, what: str) -> None:
        """Refuse what cannot be done in the middle of a call.

        Raises:
            UsageError: a call has not ended.
        """
        if self._busy:
            raise UsageError(f"a model must be idle to be {what}, got one in the middle of a call; wait for its end")


def check_request(k: int, seeds: Sequence[int], max_tokens: int) -> None:
    """Check the numbers of a request for completions.

    Raises:
        UsageError: one is out of range.
    """
    if k < 1 or len(seeds) != k:
        raise UsageError(f"k must be at least 1 with one seed each, got {k} and {len(seeds)} seeds; give k seeds")
    if min(seeds) < 0:
        raise UsageError(f"seeds must be 0 or more, got {min(seeds)}; derive them with a SeedSequence")
    if max_tokens < 1:
        raise UsageError(f"max_tokens must be at least 1, got {max_tokens}; give the longest text of the grammar")


def _whoami() -> tuple[int, int]:
    # a forked process has the thread's identity, but not llama.cpp's other threads
    return os.getpid(), threading.get_ident()
