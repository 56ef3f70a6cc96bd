"""AdamW and SGD over a stack: every row has its own rate, decay, momentum, schedule and age.

torch.optim takes one rate for a tensor; here a rate is a column (N, 1) beside the parameters (N, P). The arithmetic is
that of `torch.optim.AdamW` and `torch.optim.SGD`, and of `torch.nn.utils.clip_grad_norm_` row by row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offline_tune.evaluator.batched.job import Recipe

_CLIP_EPSILON = 1e-6  # torch's


@dataclass(frozen=True, eq=False)
class Rates:
    """What one optimiser step needs to know of each row, shape (steps, N, 1) each.

    AdamW computes p <- p * keep + first / (sqrt(second) * slope + offset), where slope and offset hold the rate and
    both bias corrections; SGD p <- p + first * rate, where rate is negative.
    """

    keep: Tensor
    slope: Tensor
    offset: Tensor
    rate: Tensor

    @classmethod
    def of(
        cls, recipes: Sequence[Recipe], ages: NDArray[np.int64], factors: NDArray[np.float64], like: Tensor
    ) -> Rates:
        """The rates of several steps.

        Args:
            recipes: of each row.
            ages: how many steps each row has behind it, shape (steps, N).
            factors: of the schedule, shape (steps, N).
            like: a tensor of the device and type wanted.
        """
        rate, decay, beta1, beta2, epsilon = np.array(
            [[r.learning_rate, r.weight_decay, r.beta1, r.beta2, r.epsilon] for r in recipes]
        ).T
        rate = rate * factors
        first, second = 1 - beta1 ** (ages + 1), 1 - beta2 ** (ages + 1)
        with np.errstate(divide="ignore"):  # a rate of zero gives an infinite divisor, and so no step
            divisor = -first / rate
        columns = (1 - rate * decay, divisor / np.sqrt(second), divisor * epsilon, -rate)
        return cls(*(torch.as_tensor(c).to(device=like.device, dtype=like.dtype).unsqueeze(-1) for c in columns))


class Optimiser:
    """The averages of a stack's gradients, and the update of its parameters.

    Attributes:
        first: AdamW's first average, SGD's momentum, shape (N, P).
        second: AdamW's second average, shape (N, P).
    """

    def __init__(self, recipes: Sequence[Recipe], n_decayed: int, first: Tensor, second: Tensor) -> None:
        self.first, self.second = first, second
        self._recipes = recipes
        self._n_decayed = n_decayed
        self._adaptive = np.array([r.optimiser == "adamw" for r in recipes])
        self._rest1, self._rest2, self._momentum, self._decay, self._clip = (
            _column(values, first)
            for values in (
                [1 - r.beta1 for r in recipes],
                [1 - r.beta2 for r in recipes],
                [r.beta1 for r in recipes],
                [r.weight_decay for r in recipes],
                [r.clip for r in recipes],
            )
        )
        self._clips = any(math.isfinite(r.clip) for r in recipes)
        self._decays = any(r.weight_decay > 0 for r in recipes)
        self._groups: dict[bytes, Tensor] = {}

    def step(self, values: Tensor, gradients: Tensor, fires: NDArray[np.bool_], rates: Rates, at: int) -> None:
        """Update the rows that fire; `gradients` is overwritten.

        Args:
            values: parameters, shape (N, P).
            gradients: shape (N, P).
            fires: which rows step now, shape (N,).
            rates: of several steps.
            at: which of those steps this is.
        """
        for adaptive in (True, False):
            chosen = fires & (self._adaptive == adaptive)
            if chosen.all():
                self._update(adaptive, values, gradients, self.first, self.second, rates, at, None)
            elif chosen.any():
                self._update_some(adaptive, values, gradients, rates, at, self.positions(chosen))

    def _update_some(
        self, adaptive: bool, values: Tensor, gradients: Tensor, rates: Rates, at: int, rows: Tensor
    ) -> None:
        """The same on copies of some rows, which are then written back."""
        some, first, second = (matrix.index_select(0, rows) for matrix in (values, self.first, self.second))
        self._update(adaptive, some, gradients.index_select(0, rows), first, second, rates, at, rows)
        for matrix, copy in ((values, some), (self.first, first), (self.second, second)):
            matrix.index_copy_(0, rows, copy)

    def _update(
        self,
        adaptive: bool,
        values: Tensor,
        gradients: Tensor,
        first: Tensor,
        second: Tensor,
        rates: Rates,
        at: int,
        rows: Tensor | None,
    ) -> None:
        def of(column: Tensor) -> Tensor:
            return column if rows is None else column.index_select(0, rows)

        if self._clips:
            norms = torch.linalg.vector_norm(gradients, dim=1, keepdim=True)
            gradients.mul_((of(self._clip) / (norms + _CLIP_EPSILON)).clamp_(max=1.0))
        decayed = values[:, : self._n_decayed]
        if adaptive:
            if self._decays:
                decayed.mul_(of(rates.keep[at]))
            first.lerp_(gradients, of(self._rest1))
            second.lerp_(gradients.square_(), of(self._rest2))
            divisor = torch.sqrt(second, out=gradients).mul_(of(rates.slope[at])).add_(of(rates.offset[at]))
            values.addcdiv_(first, divisor)
        else:
            if self._decays:
                gradients[:, : self._n_decayed].addcmul_(decayed, of(self._decay))
            first.mul_(of(self._momentum)).add_(gradients)
            values.addcmul_(first, of(rates.rate[at]))

    def positions(self, chosen: NDArray[np.bool_]) -> Tensor:
        """Which rows are chosen, on the device; remembered, for few choices recur in every epoch."""
        key = chosen.tobytes()
        if key not in self._groups:
            self._groups[key] = torch.as_tensor(np.flatnonzero(chosen)).to(self.first.device)
        return self._groups[key]


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).to(device=like.device, dtype=like.dtype).unsqueeze(-1)
