"""One network to be trained: what it is, how, from which seed, on which rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from offline_tune.evaluator.batched.network import Network
from offline_tune.evaluator.batched.schedule import SCHEDULES

Optimiser = Literal["adamw", "sgd"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How one candidate is trained.

    Attributes:
        batch_size: rows of one step; a power of two.
        epochs: the most passes over the training rows; the schedule ends there.
        optimiser: "adamw" or "sgd" (with momentum).
        learning_rate: before the schedule.
        weight_decay: decoupled with AdamW, an L2 penalty with SGD; of weights, not of biases.
        beta1: AdamW's first average; SGD's momentum.
        beta2: AdamW's second average.
        epsilon: AdamW's.
        schedule: one of `schedule.SCHEDULES`.
        clip: the largest norm of a gradient; infinite for none.
        label_smoothing: share of the label spread over all classes.
        patience: epochs without improvement on the validation rows after which training ends.

    Raises:
        ValueError: a value that no training could use; the sentence names it.
    """

    batch_size: int
    epochs: int
    optimiser: Optimiser = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    schedule: str = "cosine"
    clip: float = math.inf
    label_smoothing: float = 0.0
    patience: int = 1_000_000

    def __post_init__(self) -> None:
        _require(self.batch_size >= 1 and self.batch_size & (self.batch_size - 1) == 0,
                 "batch_size", "a power of two", self.batch_size)  # fmt: skip
        _require(self.epochs >= 1, "epochs", "at least 1", self.epochs)
        _require(self.optimiser in ("adamw", "sgd"), "optimiser", "adamw or sgd", self.optimiser)
        _require(self.schedule in SCHEDULES, "schedule", f"one of {', '.join(SCHEDULES)}", self.schedule)
        for name in ("learning_rate", "weight_decay"):
            value = getattr(self, name)
            _require(0 <= value < math.inf, name, "at least 0 and finite", value)
        for name in ("beta1", "beta2", "label_smoothing"):
            _require(0 <= getattr(self, name) < 1, name, "at least 0 and below 1", getattr(self, name))
        _require(self.epsilon > 0, "epsilon", "above 0", self.epsilon)
        _require(self.clip > 0, "clip", "above 0", self.clip)
        _require(self.patience >= 1, "patience", "at least 1", self.patience)


@dataclass(frozen=True, eq=False)
class Rows:
    """Positions of some rows in the resident data. Jobs that share one object share its shuffles."""

    positions: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.positions)


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """One network to be trained.

    Attributes:
        network: what it is.
        recipe: how it is trained.
        seed: of its initial weights and its dropout.
        order: seed of the shuffles; candidates that are compared have the same.
        train: rows it learns from.
        valid: rows that tell when to stop; None to train to the last epoch.
        class_weights: of each class, mean 1 over the training rows; None where all count the same.

    Raises:
        ValueError: the batch is larger than the training part.
    """

    network: Network
    recipe: Recipe
    seed: int
    train: Rows
    valid: Rows | None = None
    order: int = 0
    class_weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        _require(self.recipe.batch_size <= len(self.train), "batch_size",
                 f"at most the {len(self.train)} training rows", self.recipe.batch_size)  # fmt: skip

    @property
    def steps(self) -> int:
        """Optimiser steps of an epoch; rows that fill no batch wait for the next shuffle."""
        return len(self.train) // self.recipe.batch_size


def _require(holds: bool, name: str, rule: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{name} must be {rule}, got {str(value)[:60]}; choose another value")
