"""An ensemble inside one network: members share the weights and have their own scales of what enters and leaves.

After Gorishniy, Kotelnikov and Babenko, "TabM: Advancing Tabular Deep Learning with Parameter-Efficient Ensembling"
(2024). Members are trained by the mean of their losses, never by the loss of their mean.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from offline_tune.evaluator.batched.layers import deep, padded, uniform
from offline_tune.evaluator.batched.network import Parameters
from offline_tune.evaluator.batched.networks.embedding import inputs
from offline_tune.evaluator.batched.networks.heads import Head
from offline_tune.evaluator.batched.networks.table import TableNetwork
from offline_tune.evaluator.batched.randomness import Noise


@dataclass(frozen=True, slots=True, kw_only=True)
class TabM(TableNetwork):
    """Perceptrons of one width that share their weights; the members' heads are their own.

    Attributes:
        members: perceptrons.
    """

    members: int

    @property
    def own_sizes(self) -> Mapping[str, int]:
        """The perceptrons."""
        return {"ensemble_size": self.members}

    @property
    def size(self) -> Hashable:
        """The padded sizes, and the members."""
        return (padded(self.width), padded(self.n_inputs), self.n_outputs, self.members)

    def initial(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Weights as torch.nn.Linear draws them; the first scales are signs, the others one."""
        found = self.initial_embedding(generator)
        layers = [("first", self.n_read), *((f"hidden.{layer}", self.width) for layer in range(1, self.depth))]
        for name, i in layers:
            found[f"{name}.weight"] = uniform(generator, i, i, self.width)
            found[f"{name}.bias"] = uniform(generator, i, self.members, self.width)
            found[f"{name}.entry"] = torch.ones(self.members, i, dtype=torch.float64)
            found[f"{name}.exit"] = torch.ones(self.members, self.width, dtype=torch.float64)
        signs = torch.rand(self.members, self.n_read, generator=generator, dtype=torch.float64) < 0.5
        found["first.entry"][signs] = -1.0
        found["head.weight"] = uniform(generator, self.width, self.members, self.width, self.n_outputs)
        found["head.bias"] = uniform(generator, self.width, self.members, self.n_outputs)
        return found

    def room(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Widths are padded; embeddings, members and outputs are not."""
        if name.startswith("embedding."):
            return shape
        if name == "head.weight":
            return (shape[0], padded(shape[1]), shape[2])
        if name == "head.bias":
            return shape
        sides = tuple(padded(side) for side in shape)
        fixed = shape[0] if not name.endswith("weight") or (name == "first.weight" and self.n_embedded) else sides[0]
        return (fixed, shape[1] if name == "first.entry" and self.n_embedded else sides[1])

    def stacked(self, networks: Sequence[TabM], device: torch.device, dtype: torch.dtype) -> StackedTabM:
        """Many of them."""
        return StackedTabM(networks, device, dtype)


class StackedTabM(Head):
    """Many ensembles; inputs (N, b, columns), outputs (N, b, members, outputs)."""

    def __init__(self, networks: Sequence[TabM], device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(networks, device, dtype)
        members = torch.tensor([n.members for n in networks], device=device)[:, None, None]
        inside = torch.arange(int(members.max()), device=device) < members
        self._share = inside.to(dtype) / members  # (N, 1, members): what each counts in a mean

    def __call__(self, parameters: Parameters, x: Tensor, noise: Noise | None) -> Tensor:
        """Logits, or numbers, of each member."""
        x = inputs(x, parameters, "first.weight").unsqueeze(2)
        h = self._layer(parameters, "first", noise, 0, x)
        for layer in range(1, self._depth):
            n = parameters[f"hidden.{layer}.weight"].shape[0]
            h = deep(h, n, partial(self._layer, parameters, f"hidden.{layer}", noise, layer))
        found = h.transpose(1, 2) @ parameters["head.weight"]  # (N, members, b, outputs)
        return found.transpose(1, 2) + parameters["head.bias"].unsqueeze(1)

    def loss(self, outputs: Tensor, y: Tensor, smoothing: Tensor | None) -> Tensor:
        """(N, b): the mean of the members' losses."""
        each = y.unsqueeze(2).expand(*y.shape[:2], outputs.shape[2], *y.shape[2:])
        losses = super().loss(outputs, each, None if smoothing is None else smoothing.unsqueeze(2))
        return torch.where(self._share > 0, losses * self._share, 0.0).sum(2)

    def predictions(self, outputs: Tensor) -> Tensor:
        """The mean of the members' probabilities (N, b, c), or of their numbers (N, b)."""
        found = super().predictions(outputs)
        return (found * self._share.view(*self._share.shape, *(1,) * (found.dim() - 3))).sum(2)

    def _layer(self, parameters: Parameters, name: str, noise: Noise | None, layer: int, h: Tensor) -> Tensor:
        h = h * parameters[f"{name}.entry"].unsqueeze(1)
        n, b, members, units = h.shape
        mixed = torch.bmm(h.reshape(n, b * members, units), parameters[f"{name}.weight"]).view(n, b, members, -1)
        h = torch.addcmul(parameters[f"{name}.bias"].unsqueeze(1), mixed, parameters[f"{name}.exit"].unsqueeze(1))
        h = self._activation(h)
        return h if noise is None else noise.dropped(h, layer, self._rates)
