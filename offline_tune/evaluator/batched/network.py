"""What a kind of network must offer to be trained in a stack.

A `Network` is one candidate's network before training: its sizes and rates, no numbers. `stacked` makes of many of
them one `Forward`, which computes all of them at once. Everything else (initial numbers in the stack's layout,
shuffles, optimisers, schedules, early stopping, packing) is the trainer's business.

The rules that keep neighbours apart:

- the parameters of a row fill the leading corner of the stack's tensors and the rest is zero, so what stands there
  must stay zero: activations need f(0) = 0, and statistics over units must leave the padding out (`layers.LayerNorm`);
- rows come sorted so that each parameter belongs to the first n rows; `layers.deep` leaves the others as they are;
- nothing may mix rows, and random numbers come from `Noise` alone.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from offline_tune.evaluator.batched.randomness import Noise

Parameters = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False, slots=True)
class Batch:
    """One micro-batch for each row of a stack.

    Attributes:
        x: inputs, shape (N, b, ...).
        y: targets, shape (N, b) or (N, b, ...).
        weight: by what each sample's loss is multiplied before the sum, shape (N, b) or (N, 1).
        smoothing: label smoothing of each row, shape (N, 1); None for none.
        noise: the source of dropout and augmentation.
    """

    x: Tensor
    y: Tensor
    weight: Tensor
    smoothing: Tensor | None
    noise: Noise


class Forward(Protocol):
    """Many networks of one kind as one function."""

    def __call__(self, parameters: Parameters, x: Tensor, noise: Noise | None) -> Tensor:
        """Outputs (N, b, ...) for inputs (N, b, ...).

        Args:
            parameters: each of shape (n, ...) for the first n rows of the stack that have it.
            x: one micro-batch for each row.
            noise: the source of dropout and augmentation; None in evaluation.
        """
        ...

    def loss(self, outputs: Tensor, y: Tensor, smoothing: Tensor | None) -> Tensor:
        """Loss of each sample, shape (N, b).

        Args:
            outputs: of `__call__`.
            y: targets, shape (N, b) or (N, b, ...).
            smoothing: label smoothing of each row, shape (N, 1); None for none.
        """
        ...

    def gradients(self, parameters: Parameters, batch: Batch, into: Parameters, add: bool) -> bool:
        """Write the gradients of all rows' losses by hand, where that is quicker than autograd.

        Args:
            parameters: as for `__call__`.
            batch: one micro-batch for each row.
            into: where the gradients go, of the shapes of the parameters.
            add: add to what stands there, or replace it.

        Returns:
            Whether they were written; if not, autograd is used.
        """
        ...

    def predictions(self, outputs: Tensor) -> Tensor:
        """Probabilities (N, b, c), or numbers (N, b) of a regression, from outputs."""
        ...


class Network(Protocol):
    """One candidate's network: hashable, equal when it is the same function of the same parameters."""

    @property
    def key(self) -> Hashable:
        """What must be equal for two networks to stand in one stack, whatever it costs to pad them."""
        ...

    @property
    def size(self) -> Hashable:
        """What is equal among networks that waste little when padded together; depends on this network alone."""
        ...

    def initial(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Fresh parameters in double precision on the CPU, drawn from the candidate's own generator.

        Weight decay holds for the names that end in "weight".
        """
        ...

    def room(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape to which a parameter is padded at least; depends on this network alone."""
        ...

    def stacked(self, networks: Sequence[Any], device: torch.device, dtype: torch.dtype) -> Forward:
        """The function of several networks of this kind, this one among them."""
        ...
