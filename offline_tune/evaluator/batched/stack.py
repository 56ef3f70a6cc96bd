"""A stack: many runs trained in lockstep, an epoch at a time.

The lockstep is one of samples, not of steps: every row reads the same number of rows in a micro-batch, and a candidate
with a larger batch gathers the gradients of several micro-batches before it steps. A row whose epoch is shorter than
its neighbours' waits for them at its end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offline_tune.evaluator.batched.layout import Layout
from offline_tune.evaluator.batched.network import Batch
from offline_tune.evaluator.batched.optimiser import Optimiser, Rates
from offline_tune.evaluator.batched.randomness import Noise, order, step_keys
from offline_tune.evaluator.batched.resident import Resident
from offline_tune.evaluator.batched.run import Run, State
from offline_tune.evaluator.batched.schedule import factors

MOST_MICRO = 256  # rows of a micro-batch: a larger one trains no faster, and parts candidates that could share a stack
PARTS = ("values", "first", "second", "best")  # of a run's state, one matrix each

_VALIDATION_CHUNK = 2 * MOST_MICRO  # rows


class Stack:
    """Some runs on the device. `epoch` trains each once over its rows, `park` hands their states back.

    Args:
        runs: at least one, of networks that may stand in one stack; their states stay untouched until `park`.
        data: where their rows lie.
        dtype: of parameters and activations.
    """

    def __init__(self, runs: Sequence[Run], data: Resident, dtype: torch.dtype = torch.float32) -> None:
        self._data = data
        self._dtype = dtype
        self.runs = _sorted(runs)
        self._arrange([None] * len(runs), None)

    def epoch(self, stop: Callable[[], bool] = lambda: False) -> None:
        """One pass over the training rows of each run, then over its validation rows.

        Args:
            stop: asked before each step; once it says so the stack is left half-way, of no further use.
        """
        plan = _Plan.of(self.runs, self._data, self._values)
        for at in range(plan.n_steps):
            if stop():
                return
            self._step(plan, at)
        losses = self._validation_losses()
        improved = [run.note(loss) for run, loss in zip(self.runs, losses, strict=True)]
        if any(improved):
            rows = torch.as_tensor(np.flatnonzero(improved)).to(self._values.device)
            self._best.index_copy_(0, rows, self._values.index_select(0, rows))

    def rehearse(self) -> int:
        """Compute the losses of one micro-step; what the rows hold beside what that step saves, in bytes."""
        batch = self._batch(_Plan.of(self.runs, self._data, self._values), 0)
        self._forward.loss(self._forward(self._leaves, batch.x, batch.noise), batch.y, batch.smoothing)
        return sum(matrix.nbytes for matrix in (*self._matrices, self._gradients))

    def park(self, places: Sequence[int]) -> None:
        """Write the numbers of some runs back to their states, on the host."""
        if not places:
            return
        chosen = torch.as_tensor(list(places)).to(self._values.device)
        hosts = [matrix.index_select(0, chosen).cpu() for matrix in self._matrices]
        for row, place in enumerate(places):
            shapes = self.runs[place].shapes
            self.runs[place].state = State(*(self._layout.read(host, row, shapes) for host in hosts))

    def change(self, gone: Sequence[int], joining: Sequence[Run] = ()) -> None:
        """Drop the runs at some places and take up others; those that stay keep their numbers."""
        kept = [place for place in range(len(self.runs)) if place not in set(gone)]
        before = _Matrices(self._layout, self._matrices)
        places = {id(self.runs[place]): place for place in kept}
        self.runs = _sorted([*(self.runs[place] for place in kept), *joining])
        self._arrange([places.get(id(run)) for run in self.runs], before)

    def _arrange(self, sources: Sequence[int | None], before: _Matrices | None) -> None:
        """Lay the runs out anew: numbers come from a row of the matrices before, or from a run's parked state."""
        self._layout = Layout.of([run.shapes for run in self.runs], [run.rooms for run in self.runs])
        matrices = []
        for place, part in enumerate(PARTS):
            host = torch.zeros(len(self.runs), self._layout.width, dtype=self._dtype)
            for row, (run, source) in enumerate(zip(self.runs, sources, strict=True)):
                if source is None:
                    self._layout.write(host, row, getattr(run.started(), part))
            matrices.append(host.to(self._data.device))
            if before is not None:
                self._layout.copy(matrices[-1], before.layout, before.matrices[place], sources)
        self._matrices = matrices
        self._values, first, second, self._best = matrices
        recipes = [run.job.recipe for run in self.runs]
        self._optimiser = Optimiser(recipes, self._layout.n_decayed, first, second)
        self._gradients = torch.zeros_like(self._values)
        self._gathered = False  # whether `_gradients` holds those of earlier micro-batches
        self._gradient_views = self._layout.views(self._gradients)
        # The optimiser leaves its scratch in the gradients; where no gradient will be written again it must not stay.
        self._blanks = self._layout.blanks(self._gradients)
        # Leaves share the matrix's memory: an update of the matrix is an update of what the networks read.
        self._leaves = {n: v.detach().requires_grad_() for n, v in self._layout.views(self._values).items()}
        networks = [run.job.network for run in self.runs]
        self._forward = networks[0].stacked(networks, self._data.device, self._dtype)
        self._ones = torch.ones(len(networks), device=self._data.device, dtype=self._dtype)
        smoothing = [recipe.label_smoothing for recipe in recipes]
        self._smoothing = self._column(smoothing) if any(smoothing) else None
        self._class_weights = self._table_of_class_weights()

    def _batch(self, plan: _Plan, at: int) -> Batch:
        rows = plan.rows(at)
        x, y = self._data.X[rows], self._data.y[rows]
        weight = self._weighed(plan.shares[at].unsqueeze(1), rows, y)
        return Batch(x, y, weight, self._smoothing, Noise(plan.keys[at]))

    def _weighed(self, weight: Tensor, rows: Tensor, y: Tensor) -> Tensor:
        """A weight (N, 1) times those of the samples and of their classes, (N, b) where there are any."""
        if self._data.weight is not None:
            weight = weight * self._data.weight[rows]
        return weight if self._class_weights is None else weight * self._class_weights.gather(1, y)

    def _write_gradients(self, batch: Batch) -> None:
        """Fill the matrix of gradients, or add to it where it holds those of earlier micro-batches."""
        if self._forward.gradients(self._leaves, batch, self._gradient_views, self._gathered):
            return
        outputs = self._forward(self._leaves, batch.x, batch.noise)
        total = (self._forward.loss(outputs, batch.y, batch.smoothing) * batch.weight).sum(1)
        found = torch.autograd.grad(total, list(self._leaves.values()), self._ones)
        store = Tensor.add_ if self._gathered else Tensor.copy_
        for view, gradient in zip(self._gradient_views.values(), found, strict=True):
            store(view, gradient)

    def _step(self, plan: _Plan, at: int) -> None:
        self._write_gradients(self._batch(plan, at))
        fires = plan.fires[at]
        with torch.no_grad():
            self._gathered = not fires.all()
            if fires.any():
                self._optimiser.step(self._values, self._gradients, fires, plan.rates, at)
                for blank in self._blanks:
                    blank.zero_()
                if self._gathered:
                    self._gradients.index_fill_(0, self._optimiser.positions(fires), 0.0)

    @torch.no_grad()
    def _validation_losses(self) -> list[float | None]:
        parts = [run.job.valid for run in self.runs]
        most = max((len(part) for part in parts if part is not None), default=0)
        if not most:
            return [None] * len(parts)
        lengths = np.array([0 if part is None else len(part) for part in parts])
        positions = np.zeros((len(parts), most), dtype=np.int64)
        for row, part in enumerate(parts):
            positions[row, : lengths[row]] = part.positions if part is not None else 0
        counts = self._column(np.maximum(lengths, 1))
        where = torch.as_tensor(positions).to(self._values.device)
        total = torch.zeros_like(counts)
        for start in range(0, most, _VALIDATION_CHUNK):
            total += self._losses_on(where[:, start : start + _VALIDATION_CHUNK], counts, start)
        found = (total / counts).double().flatten().tolist()
        return [None if part is None else loss for part, loss in zip(parts, found, strict=True)]

    def _losses_on(self, rows: Tensor, counts: Tensor, start: int) -> Tensor:
        """Sums of the validation losses of some rows, shape (N, 1); positions beyond a run's own count nothing."""
        outputs = self._forward(self._leaves, self._data.X[rows], None)
        y = self._data.y[rows]
        losses = self._forward.loss(outputs, y, None) * self._weighed(self._ones.unsqueeze(1), rows, y)
        inside = torch.arange(start, start + rows.shape[1], device=rows.device) < counts
        return torch.where(inside, losses, 0.0).sum(1, keepdim=True)

    def _column(self, values: Sequence[float] | NDArray[np.int64]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64).to(self._values.device, self._dtype).unsqueeze(-1)

    def _table_of_class_weights(self) -> Tensor | None:
        tables = [run.job.class_weights for run in self.runs]
        most = max((len(table) for table in tables if table is not None), default=0)
        if not most:
            return None
        table = torch.ones(len(tables), most, dtype=torch.float64)
        for row, weights in enumerate(tables):
            if weights is not None:
                table[row, : len(weights)] = torch.tensor(weights, dtype=torch.float64)
        return table.to(self._values.device, self._dtype)


def _sorted(runs: Sequence[Run]) -> list[Run]:
    """Runs with more parameters first: then those that have a layer are the first n."""
    return sorted(runs, key=lambda run: -len(run.shapes))


@dataclass(frozen=True, eq=False)
class _Matrices:
    """What a stack held before it was rearranged."""

    layout: Layout
    matrices: Sequence[Tensor]


@dataclass(frozen=True, eq=False)
class _Plan:
    """Everything about an epoch that does not depend on its results, so that no step waits for the host.

    `fires` (steps, N) says which rows take an optimiser step after a micro-step, `shares` (steps, N) by what the sum
    of losses is multiplied, `keys` (steps, N) of dropout.
    """

    n_steps: int
    micro: int
    orders: Tensor  # (groups, steps * micro): positions in the data, one line for runs that share rows and shuffle
    group: Tensor  # (N,)
    fires: NDArray[np.bool_]
    shares: Tensor
    keys: Tensor
    rates: Rates

    @classmethod
    def of(cls, runs: Sequence[Run], data: Resident, like: Tensor) -> _Plan:
        sizes = np.array([run.job.recipe.batch_size for run in runs])
        micro = min(MOST_MICRO, int(sizes.min()))
        pieces = sizes // micro
        lengths = np.array([run.job.steps for run in runs]) * pieces
        n_steps = int(lengths.max())
        t = np.arange(n_steps)[:, None]
        live = t < lengths
        fires = live & ((t + 1) % pieces == 0)
        ages = np.array([run.step for run in runs]) + t // pieces
        orders, group = _orders(runs, n_steps * micro)
        seeds = np.array([run.dropout_seed for run in runs], dtype=np.uint64)
        recipes = [run.job.recipe for run in runs]
        totals = [run.job.steps * run.job.recipe.epochs for run in runs]
        schedule = np.column_stack(
            [
                factors(r.schedule, ages[:, row], total)
                for row, (r, total) in enumerate(zip(recipes, totals, strict=True))
            ]
        )
        return cls(
            n_steps=n_steps,
            micro=micro,
            orders=torch.as_tensor(orders).to(data.device),
            group=torch.as_tensor(group).to(data.device),
            fires=fires,
            shares=torch.as_tensor(live / sizes).to(like.device, like.dtype),
            keys=torch.as_tensor(step_keys(seeds, ages, t % pieces * micro)).to(data.device),
            rates=Rates.of(recipes, ages, schedule, like),
        )

    def rows(self, at: int) -> Tensor:
        """The micro-batch of each row, shape (N, micro)."""
        return self.orders[:, at * self.micro : (at + 1) * self.micro].index_select(0, self.group)


def _orders(runs: Sequence[Run], length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The shuffled training rows; runs with the same rows, shuffle and age share one line."""
    lines: dict[tuple[int, int, int], int] = {}
    found: list[NDArray[np.int64]] = []
    group = np.empty(len(runs), dtype=np.int64)
    for row, run in enumerate(runs):
        key = (id(run.job.train), run.job.order, run.epoch)
        if key not in lines:
            lines[key] = len(found)
            shuffled = run.job.train.positions[order(run.job.order, run.epoch, len(run.job.train))]
            found.append(np.resize(shuffled, length))  # a row that waits for the others is given anything
        group[row] = lines[key]
    return np.stack(found), group
