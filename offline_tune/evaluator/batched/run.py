"""One job under way, parked: its numbers in its own shapes, its age, its curve; a stack takes it up and parks it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from offline_tune.evaluator.batched.job import Job
from offline_tune.evaluator.batched.layout import Shapes, shapes_of, zeros_like
from offline_tune.evaluator.batched.randomness import generator, mixed

Values = dict[str, Tensor]

_INITIAL, _DROPOUT = 1, 2  # purposes of a seed


class Diverged(Exception):  # noqa: N818  # an event that becomes an outcome
    """Training ended before there were any numbers worth keeping."""


@dataclass(eq=False)
class State:
    """What training changes: parameters, gradients' first and second averages, and the parameters that did best."""

    values: Values
    first: Values
    second: Values
    best: Values

    @classmethod
    def fresh(cls, values: Values) -> State:
        """Before the first step."""
        return cls(values, zeros_like(values), zeros_like(values), {name: v.clone() for name, v in values.items()})


@dataclass(eq=False)
class Spending:
    """The seconds that the runs of one candidate have taken together, and how many they may."""

    limit: float = math.inf
    seconds: float = 0.0

    @property
    def over(self) -> bool:
        """Whether it is too much."""
        return self.seconds > self.limit


@dataclass(eq=False)
class Run:
    """One job under way.

    Attributes:
        job: what is trained.
        state: its numbers; None before the first step.
        epoch: passes over the training rows so far.
        losses: validation loss after each epoch; empty where there are no validation rows.
        best_epoch: the epoch whose parameters are kept.
        spending: of its candidate; its share of the time of each stack is added there.
        failure: why it cannot go on.
    """

    job: Job
    state: State | None = None
    epoch: int = 0
    losses: list[float] = field(default_factory=list)
    best_epoch: int = 0
    spending: Spending = field(default_factory=Spending)
    failure: Exception | None = None

    def started(self) -> State:
        """The state, drawn from the job's seed where there is none yet."""
        if self.state is None:
            self.state = State.fresh(self.job.network.initial(generator(self.job.seed, _INITIAL)))
        return self.state

    @cached_property
    def shapes(self) -> Shapes:
        """The shapes of the job's own parameters."""
        return shapes_of(self.started().values)

    @cached_property
    def rooms(self) -> Shapes:
        """The shapes that a stack pads each parameter to at least."""
        return {name: self.job.network.room(name, shape) for name, shape in self.shapes.items()}

    @cached_property
    def dropout_seed(self) -> int:
        """What dropout is keyed by, unsigned."""
        return mixed(self.job.seed, _DROPOUT)

    @property
    def step(self) -> int:
        """Optimiser steps so far."""
        return self.epoch * self.job.steps

    @property
    def best_loss(self) -> float:
        """The lowest validation loss so far; infinite before the first epoch."""
        return self.losses[self.best_epoch - 1] if self.losses and self.best_epoch else math.inf

    @property
    def diverged(self) -> bool:
        """Whether the last validation loss was no finite number."""
        return bool(self.losses) and not math.isfinite(self.losses[-1])

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train."""
        waited = self.epoch - self.best_epoch if self.losses else 0
        recipe = self.job.recipe
        return self.failure is not None or self.diverged or self.epoch >= recipe.epochs or waited >= recipe.patience

    def note(self, loss: float | None) -> bool:
        """Note the end of an epoch and its validation loss; whether the present parameters are the ones to keep."""
        self.epoch += 1
        if loss is None:
            self.best_epoch = self.epoch
            return True
        improved = loss < self.best_loss
        self.losses.append(loss)
        if improved:
            self.best_epoch = self.epoch
        return improved

    def bookmark(self) -> Callable[[], None]:
        """A function that takes the run back to where it is now; its state is as it was parked."""
        epoch, n_losses, best_epoch = self.epoch, len(self.losses), self.best_epoch

        def go_back() -> None:
            self.epoch, self.best_epoch = epoch, best_epoch
            del self.losses[n_losses:]

        return go_back


def kept_numbers(run: Run) -> Values:
    """The parameters that did best, of a run that has ended.

    Raises:
        Diverged: the loss was never finite.
        Exception: whatever kept the run from being trained.
    """
    if run.failure is not None:
        raise run.failure
    if run.losses and not run.best_epoch:
        raise Diverged(f"the loss was not finite after epoch {run.epoch}; lower learning_rate")
    return run.started().best
