"""Proof that a stack equals its members: mixed candidates trained together, and each alone in plain torch.

In double precision the two must agree to rounding, whatever the neighbours, their order, or a neighbour that diverges.
In single precision rounding grows with training; there the ranking of the candidates is compared, and what a change of
seed does to it stands beside.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from offline_tune.evaluator.batched.job import Job, Recipe, Rows
from offline_tune.evaluator.batched.layers import ACTIVATIONS
from offline_tune.evaluator.batched.network import Network
from offline_tune.evaluator.batched.networks.mlp import MLP
from offline_tune.evaluator.batched.networks.resnet import ResNet
from offline_tune.evaluator.batched.networks.tabm import TabM
from offline_tune.evaluator.batched.reference import train_alone
from offline_tune.evaluator.batched.resident import Resident
from offline_tune.evaluator.batched.run import Run
from offline_tune.evaluator.batched.schedule import SCHEDULES
from offline_tune.evaluator.batched.trainer import Trainer

ALLOWED = 1e-10  # largest difference in double precision

_COLUMNS, _ROOM, _CLASSES = 9, 16, 3
_EPOCHS, _FOLDS = 3, 5

Draw = Callable[[np.random.Generator, dict[str, Any]], Network]


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What was found for one family.

    Attributes:
        family: its name.
        n_candidates: how many were trained together.
        largest_difference: between any parameter or validation loss of a stack and of plain torch, double precision.
        permuted: the same between a stack and one of the candidates in reverse.
        beside_divergence: the same between a stack and one with a further candidate that diverges.
        rank_correlation: Spearman's, of the final losses in single precision, stack against stacks of one.
        median_difference: of those losses.
        seed_rank_correlation: Spearman's, of the final losses under two seeds.
        seed_median_difference: of those losses.
        seconds: that the proof took.
    """

    family: str
    n_candidates: int
    largest_difference: float
    permuted: float
    beside_divergence: float
    rank_correlation: float
    median_difference: float
    seed_rank_correlation: float
    seed_median_difference: float
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether stacked equals alone, and single precision disturbs less than another seed."""
        exact = max(self.largest_difference, self.permuted, self.beside_divergence) <= ALLOWED
        return exact and self.median_difference <= self.seed_median_difference


def verify(
    families: Sequence[str] = (), *, n_candidates: int = 24, n_rows: int = 240, seed: int = 0
) -> tuple[Proof, ...]:
    """Prove, on data made up here, that stacks of mixed candidates equal their members.

    Args:
        families: names among `DRAWS`; none for all.
        n_candidates: of each family.
        n_rows: of the data.
        seed: of data and candidates.

    Raises:
        KeyError: a family that is not there.
    """
    return tuple(_prove(name, DRAWS[name], n_candidates, n_rows, seed) for name in families or DRAWS)


def _prove(name: str, draw: Draw, n_candidates: int, n_rows: int, seed: int) -> Proof:
    began = time.perf_counter()
    sides = [_Side.drawn(draw, n_candidates // 2, n_rows, seed, is_classifier=c) for c in (True, False)]
    single = np.hstack([side.final_losses(torch.float32) for side in sides])
    again = np.hstack([side.final_losses(torch.float32, most=1) for side in sides])
    other = np.hstack([side.reseeded().final_losses(torch.float32) for side in sides])
    return Proof(
        family=name,
        n_candidates=sum(len(side.jobs) for side in sides),
        largest_difference=max(side.from_plain_torch() for side in sides),
        permuted=max(side.from_reverse() for side in sides),
        beside_divergence=max(side.from_divergence() for side in sides),
        rank_correlation=_spearman(single, again),
        median_difference=float(np.median(np.abs(single - again))),
        seed_rank_correlation=_spearman(single, other),
        seed_median_difference=float(np.median(np.abs(single - other))),
        seconds=time.perf_counter() - began,
    )


@dataclass(frozen=True, eq=False)
class _Side:
    """Classification or regression: the data, and the jobs."""

    X: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    jobs: Sequence[Job]

    @classmethod
    def drawn(cls, draw: Draw, n_jobs: int, n_rows: int, seed: int, *, is_classifier: bool) -> _Side:
        rng = np.random.default_rng([seed, is_classifier])
        X = np.zeros((n_rows, _ROOM))
        X[:, :_COLUMNS] = rng.normal(size=(n_rows, _COLUMNS))
        target = X[:, :_CLASSES] + 0.3 * rng.normal(size=(n_rows, _CLASSES))
        y = target.argmax(axis=1) if is_classifier else target[:, 0] + target[:, 1] ** 2
        weight = rng.uniform(0.5, 1.5, n_rows)
        folds = [np.arange(n_rows) % _FOLDS == fold for fold in range(_FOLDS)]
        parts = [(Rows(np.flatnonzero(~held)), Rows(np.flatnonzero(held)), _CLASSES) for held in folds]
        if is_classifier:  # and a fold whose training part lacks a class
            held, known = folds[0], y < _CLASSES - 1
            parts[0] = (Rows(np.flatnonzero(~held & known)), Rows(np.flatnonzero(held & known)), _CLASSES - 1)
        jobs = [_job(draw, rng, place, parts[place % _FOLDS], is_classifier) for place in range(n_jobs)]
        return cls(X, y, weight, jobs)

    def from_plain_torch(self) -> float:
        data = self.data(torch.float64)
        worst = 0.0
        for run in self.trained(torch.float64):
            alone, state = train_alone(run.job, data.X, data.y, data.weight), run.started()
            worst = max(worst, _distance(run.losses, alone.losses))
            for name, value in state.values.items():
                worst = max(worst, float((value - alone.last[name]).abs().max()))
                worst = max(worst, float((state.best[name] - alone.best[name]).abs().max()))
        return worst

    def from_reverse(self) -> float:
        backward = replace(self, jobs=self.jobs[::-1]).trained(torch.float64)
        return _apart(self.trained(torch.float64), backward[::-1])

    def from_divergence(self) -> float:
        recipe = Recipe(batch_size=8, epochs=_EPOCHS, learning_rate=1e308, optimiser="sgd", schedule="constant")
        wild = replace(self.jobs[1], recipe=recipe)
        beside = replace(self, jobs=[wild, *self.jobs]).trained(torch.float64)
        if not beside[0].diverged:
            return math.inf  # then nothing was shown
        return _apart(self.trained(torch.float64), beside[1:])

    def final_losses(self, dtype: torch.dtype, most: int | None = None) -> np.ndarray:
        return np.array([run.best_loss for run in self.trained(dtype, most)])

    def reseeded(self) -> _Side:
        return replace(self, jobs=[replace(job, seed=job.seed + 1000) for job in self.jobs])

    def trained(self, dtype: torch.dtype, most: int | None = None) -> list[Run]:
        runs = [Run(job) for job in self.jobs]
        Trainer(self.data(dtype), dtype=dtype, by_size=False, most=most or len(runs)).advance(runs)
        for run in runs:
            if run.failure is not None:
                raise run.failure
        return runs

    def data(self, dtype: torch.dtype) -> Resident:
        return Resident.of(self.X, self.y, self.weight, dtype=dtype)


def _job(draw: Draw, rng: np.random.Generator, place: int, part: tuple[Rows, Rows, int], is_classifier: bool) -> Job:
    train, valid, n_classes = part
    common = {
        "n_inputs": _COLUMNS,
        "n_outputs": n_classes if is_classifier else 1,
        "is_classifier": is_classifier,
        "width": int(rng.choice([5, 8, 13, 16, 24])),
        "depth": int(rng.integers(1, 4)),
        "activation": str(rng.choice(list(ACTIVATIONS))),
        "dropout": float(rng.choice([0.0, 0.1, 0.35])),
        "n_embedded": 3 if place % 4 == 0 else 0,
    }
    recipe = Recipe(
        batch_size=int(rng.choice([8, 16, 32, 64])),
        epochs=int(rng.integers(2, _EPOCHS + 1)),
        optimiser="sgd" if place % 3 == 0 else "adamw",
        learning_rate=float(10 ** rng.uniform(-3, -1.7)),
        weight_decay=float(10 ** rng.uniform(-4, -1)),
        beta1=float(rng.uniform(0.8, 0.95)),
        beta2=float(rng.uniform(0.95, 0.999)),
        epsilon=float(10 ** rng.uniform(-9, -7)),
        schedule=SCHEDULES[place % len(SCHEDULES)],
        clip=float(rng.choice([0.5, 2.0, math.inf])),
        label_smoothing=float(rng.choice([0.0, 0.1])) if is_classifier else 0.0,
        patience=int(rng.integers(1, 4)),
    )
    balanced = is_classifier and place % 2 == 0
    return Job(
        network=draw(rng, common),
        recipe=recipe,
        seed=place,
        order=place % 2,
        train=train,
        valid=valid,
        class_weights=tuple(rng.uniform(0.5, 2.0, n_classes).tolist()) if balanced else None,
    )


DRAWS: Mapping[str, Draw] = {
    "tabular_mlp": lambda rng, common: MLP(**common),
    "tabular_resnet": lambda rng, common: ResNet(**common, inner=int(rng.choice([6, 16, 21]))),
    "tabm": lambda rng, common: TabM(**common, members=int(rng.choice([2, 3, 4]))),
}


def _apart(some: Sequence[Run], others: Sequence[Run]) -> float:
    """The largest difference between the parameters and the losses of pairs of runs."""
    worst = 0.0
    for one, other in zip(some, others, strict=True):
        worst = max(worst, _distance(one.losses, other.losses))
        for name, value in one.started().values.items():
            worst = max(worst, float((value - other.started().values[name]).abs().max()))
    return worst


def _distance(some: Sequence[float], others: Sequence[float]) -> float:
    if len(some) != len(others):
        return math.inf
    return float(np.max(np.abs(np.subtract(some, others)), initial=0.0))


def _spearman(some: np.ndarray, others: np.ndarray) -> float:
    ranks = [np.argsort(np.argsort(values)) for values in (some, others)]
    return float(np.asarray(np.corrcoef(ranks))[0, 1])
