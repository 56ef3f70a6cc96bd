"""The multilayer perceptron for tables, with the extras of RealMLP that pay: numeric embeddings, dropout, smoothing.

After Holzmüller, Grinsztajn and Steinwart, "Better by Default: Strong Pre-Tuned MLPs and Boosted Trees on Tabular
Data" (2024).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from offline_tune.evaluator.batched.layers import affine, deep, padded, uniform
from offline_tune.evaluator.batched.network import Batch, Parameters
from offline_tune.evaluator.batched.networks.embedding import inputs
from offline_tune.evaluator.batched.networks.heads import Head
from offline_tune.evaluator.batched.networks.table import TableNetwork
from offline_tune.evaluator.batched.randomness import Noise


@dataclass(frozen=True, slots=True, kw_only=True)
class MLP(TableNetwork):
    """Hidden layers of one width."""

    @property
    def size(self) -> Hashable:
        """The padded sizes."""
        return (padded(self.width), padded(self.n_inputs), self.n_outputs)

    def initial(self, generator: torch.Generator) -> dict[str, Tensor]:
        """As torch.nn.Linear draws them; frequencies are normal."""
        found = self.initial_embedding(generator)
        for name, i, o in (
            ("first", self.n_read, self.width),
            ("head", self.width, self.n_outputs),
            *((f"hidden.{layer}", self.width, self.width) for layer in range(1, self.depth)),
        ):
            found[f"{name}.weight"] = uniform(generator, i, i, o)
            found[f"{name}.bias"] = uniform(generator, i, o)
        return found

    def room(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Widths are padded; embeddings are not, for all of a stack have as many."""
        if name.startswith("embedding."):
            return shape
        i = shape[0] if name == "first.weight" and self.n_embedded else padded(shape[0])
        o = self.n_outputs if name.startswith("head.") else padded(self.width)
        return (i, o) if name.endswith("weight") else (o,)

    def stacked(self, networks: Sequence[MLP], device: torch.device, dtype: torch.dtype) -> StackedMLP:
        """Many of them."""
        return StackedMLP(networks, device, dtype)


_Store = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False, slots=True)
class _Step:
    """What a hidden layer leaves for the way back; `kept` is what dropout multiplied by."""

    name: str
    entered: Tensor
    before: Tensor
    after: Tensor
    kept: Tensor | None
    left: Tensor


class StackedMLP(Head):
    """Many perceptrons; inputs (N, b, columns), outputs (N, b, outputs)."""

    def __call__(self, parameters: Parameters, x: Tensor, noise: Noise | None) -> Tensor:
        """Logits, or numbers."""
        h = self._layer(parameters, "first", noise, 0, inputs(x, parameters, "first.weight"))
        for layer in range(1, self._depth):
            n = parameters[f"hidden.{layer}.weight"].shape[0]
            h = deep(h, n, partial(self._layer, parameters, f"hidden.{layer}", noise, layer))
        return affine(h, parameters["head.weight"], parameters["head.bias"])

    @torch.no_grad()
    def gradients(self, parameters: Parameters, batch: Batch, into: Parameters, add: bool) -> bool:
        """By hand, unless numbers are embedded: half the operations of autograd, and small ones cost their number."""
        if "embedding.weight" in parameters:
            return False
        store = Tensor.add_ if add else Tensor.copy_
        h, steps = inputs(batch.x, parameters, "first.weight"), []
        for layer in range(self._depth):
            name = f"hidden.{layer}" if layer else "first"
            n = parameters[f"{name}.weight"].shape[0]
            step = self._forth(parameters, name, layer, h[:n], batch.noise)
            steps.append(step)
            h = step.left if n == len(h) else torch.cat([step.left, h[n:]])
        slope = self.slope(affine(h, parameters["head.weight"], parameters["head.bias"]), batch.y, batch.smoothing)
        slope = slope.mul_(batch.weight.unsqueeze(-1))
        self._weigh("head", h, slope, into, store)
        slope = torch.bmm(slope, parameters["head.weight"].mT)
        for step in reversed(steps):
            n = len(step.left)
            through = slope[:n] if step.kept is None else slope[:n] * step.kept
            through = self._activation.back(through, step.before, step.after)
            self._weigh(step.name, step.entered, through, into, store)
            if step is not steps[0]:
                through = torch.bmm(through, parameters[f"{step.name}.weight"].mT)
                slope = through if n == len(slope) else torch.cat([through, slope[n:]])
        return True

    def _forth(self, parameters: Parameters, name: str, layer: int, h: Tensor, noise: Noise) -> _Step:
        before = affine(h, parameters[f"{name}.weight"], parameters[f"{name}.bias"])
        after = self._activation(before)
        kept = noise.multiplier(after, layer, self._rates) if self._rates.any else None
        return _Step(name, h, before, after, kept, after if kept is None else after * kept)

    def _weigh(self, name: str, entered: Tensor, slope: Tensor, into: Parameters, store: _Store) -> None:
        store(into[f"{name}.weight"], torch.bmm(entered.mT, slope))
        store(into[f"{name}.bias"], slope.sum(1))

    def _layer(self, parameters: Parameters, name: str, noise: Noise | None, layer: int, h: Tensor) -> Tensor:
        h = self._activation(affine(h, parameters[f"{name}.weight"], parameters[f"{name}.bias"]))
        return h if noise is None else noise.dropped(h, layer, self._rates)
