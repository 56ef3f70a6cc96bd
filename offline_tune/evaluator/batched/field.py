"""A field of candidates in training: each has several runs (its folds), and some fall behind and are stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from offline_tune.evaluator.batched.run import Run
from offline_tune.evaluator.batched.stopping import Stopping
from offline_tune.evaluator.batched.trainer import Trainer


@dataclass(frozen=True, eq=False)
class Ended:
    """A candidate whose runs have all ended; `pruned` where it was stopped for others."""

    place: int
    runs: Sequence[Run]
    pruned: bool


def train_field(
    trainer: Trainer,
    field: Mapping[int, Sequence[Run]],
    stopping: Stopping | None = None,
    on_end: Callable[[Ended], None] = lambda ended: None,
) -> None:
    """Train all candidates, and report each as it ends, on this thread.

    Args:
        trainer: trains the runs.
        field: the runs of each candidate.
        stopping: who falls behind; None for nobody.
        on_end: called once with each candidate.
    """
    running = dict(field)
    most = max((run.job.recipe.epochs for runs in field.values() for run in runs), default=0)
    for rung in stopping.rungs(most) if stopping else ():
        _advance(trainer, running, rung, on_end)
        assert stopping is not None
        losses = {place: mean_curve(runs) for place, runs in field.items()}
        kept = stopping.survivors(losses, frozenset(running))
        for place in sorted(set(running) - kept):
            on_end(Ended(place, running.pop(place), pruned=True))
    _advance(trainer, running, most, on_end)


def mean_curve(runs: Sequence[Run]) -> tuple[float, ...]:
    """The mean over runs of the loss after each epoch; a run that ended early stays at its best loss."""
    most = max((len(run.losses) for run in runs), default=0)
    if not most or not all(run.losses for run in runs):
        return ()
    held = [[*run.losses, *[run.best_loss] * (most - len(run.losses))] for run in runs]
    return tuple(np.mean(held, axis=0).tolist())


def _advance(trainer: Trainer, running: dict[int, Sequence[Run]], rung: int, on_end: Callable[[Ended], None]) -> None:
    place_of = {id(run): place for place, runs in running.items() for run in runs}
    left = {place: len(runs) for place, runs in running.items()}

    def note(run: Run) -> None:
        place = place_of[id(run)]
        left[place] -= 1
        if not left[place] and all(each.finished for each in running[place]):
            on_end(Ended(place, running.pop(place), pruned=False))

    trainer.advance([run for runs in running.values() for run in runs], rung, note)
