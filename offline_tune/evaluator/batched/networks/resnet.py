"""The residual network for tables.

After Gorishniy, Rubachev, Khrulkov and Babenko, "Revisiting Deep Learning Models for Tabular Data" (2021), with layer
normalisation in the place of batch normalisation: its statistics are those of one sample, so they know neither
neighbours in the stack nor the size of a micro-batch.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from offline_tune.evaluator.batched.layers import LayerNorm, affine, deep, padded, uniform
from offline_tune.evaluator.batched.network import Parameters
from offline_tune.evaluator.batched.networks.embedding import inputs
from offline_tune.evaluator.batched.networks.heads import Head
from offline_tune.evaluator.batched.networks.table import TableNetwork
from offline_tune.evaluator.batched.randomness import Noise


@dataclass(frozen=True, slots=True, kw_only=True)
class ResNet(TableNetwork):
    """Blocks x + down(dropout(activation(up(norm(x))))) between a linear layer and a normalised head.

    Attributes:
        inner: units inside a block.
    """

    inner: int

    @property
    def own_sizes(self) -> Mapping[str, int]:
        """The units inside a block."""
        return {"inner_width": self.inner}

    @property
    def size(self) -> Hashable:
        """The padded sizes."""
        return (padded(self.width), padded(self.inner), padded(self.n_inputs), self.n_outputs)

    def initial(self, generator: torch.Generator) -> dict[str, Tensor]:
        """As torch.nn.Linear and torch.nn.LayerNorm begin; frequencies are normal."""
        found = self.initial_embedding(generator)
        blocks = [f"block.{layer}" for layer in range(self.depth)]
        for name, i, o in (
            ("first", self.n_read, self.width),
            ("head", self.width, self.n_outputs),
            *((f"{block}.up", self.width, self.inner) for block in blocks),
            *((f"{block}.down", self.inner, self.width) for block in blocks),
        ):
            found[f"{name}.weight"] = uniform(generator, i, i, o)
            found[f"{name}.bias"] = uniform(generator, i, o)
        for name in ("head", *blocks):
            found[f"{name}.scale"] = torch.ones(self.width, dtype=torch.float64)
            found[f"{name}.shift"] = torch.zeros(self.width, dtype=torch.float64)
        return found

    def room(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Widths are padded; embeddings and outputs are not, for all of a stack have as many."""
        if name.startswith("embedding."):
            return shape
        if name in ("head.weight", "head.bias"):
            return (*(padded(side) for side in shape[:-1]), shape[-1])
        if name == "first.weight" and self.n_embedded:
            return (shape[0], padded(shape[1]))
        return tuple(padded(side) for side in shape)

    def stacked(self, networks: Sequence[ResNet], device: torch.device, dtype: torch.dtype) -> StackedResNet:
        """Many of them."""
        return StackedResNet(networks, device, dtype)


class StackedResNet(Head):
    """Many residual networks; inputs (N, b, columns), outputs (N, b, outputs)."""

    def __init__(self, networks: Sequence[ResNet], device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(networks, device, dtype)
        self._norm = LayerNorm([n.width for n in networks], device, dtype)

    def __call__(self, parameters: Parameters, x: Tensor, noise: Noise | None) -> Tensor:
        """Logits, or numbers."""
        h = affine(inputs(x, parameters, "first.weight"), parameters["first.weight"], parameters["first.bias"])
        for layer in range(self._depth):
            n = parameters[f"block.{layer}.up.weight"].shape[0]
            h = deep(h, n, partial(self._block, parameters, noise, layer))
        h = self._activation(self._norm(h, parameters["head.scale"], parameters["head.shift"]))
        return affine(h, parameters["head.weight"], parameters["head.bias"])

    def _block(self, parameters: Parameters, noise: Noise | None, layer: int, x: Tensor) -> Tensor:
        name = f"block.{layer}"
        h = self._norm(x, parameters[f"{name}.scale"], parameters[f"{name}.shift"])
        h = self._activation(affine(h, parameters[f"{name}.up.weight"], parameters[f"{name}.up.bias"]))
        if noise is not None:
            h = noise.dropped(h, layer, self._rates)
        return x + affine(h, parameters[f"{name}.down.weight"], parameters[f"{name}.down.bias"])
