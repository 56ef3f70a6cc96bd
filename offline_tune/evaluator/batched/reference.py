"""Training one network alone, in plain torch.nn and torch.optim: what a stack must equal.

Written without the stack's parts, so that one cannot share the other's mistakes: layers are torch's modules, batches
are whole, gradients come from `backward`, the optimiser and the clipping are torch's. Only what has to be the same
numbers is shared: the initial weights, the shuffles, and the bits of dropout.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from offline_tune.evaluator.batched.job import Job
from offline_tune.evaluator.batched.networks.mlp import MLP
from offline_tune.evaluator.batched.networks.resnet import ResNet
from offline_tune.evaluator.batched.networks.tabm import TabM
from offline_tune.evaluator.batched.randomness import Noise, Rates, generator, mixed, order, step_keys

Drop = Callable[[Tensor, int], Tensor]
_ACTIVATIONS = {"relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU, "tanh": nn.Tanh}


@dataclass(frozen=True, eq=False)
class Alone:
    """What came of training one network: its last and its best parameters, and its validation losses."""

    last: dict[str, Tensor]
    best: dict[str, Tensor]
    losses: list[float]


class Plain(nn.Module):
    """A network as torch's modules; `names` gives its parameters the names that a stack knows them by."""

    def forward(self, x: Tensor, drop: Drop) -> Tensor:
        """Outputs (b, c), or (b, members, c), of inputs (b, d); `drop(h, layer)` is dropout."""
        raise NotImplementedError

    def names(self) -> dict[str, _Named]:
        """Each parameter by the stack's name; torch.nn.Linear holds its weight transposed."""
        raise NotImplementedError

    def write(self, values: dict[str, Tensor]) -> None:
        """Take the stack's numbers."""
        with torch.no_grad():
            for name, named in self.names().items():
                for place, parameter in enumerate(named.parameters):
                    value = values[name][place] if named.is_list else values[name]
                    parameter.copy_(value.mT if named.transposed else value)

    def read(self) -> dict[str, Tensor]:
        """Copies in the stack's form."""
        return {name: named.read() for name, named in self.names().items()}


@dataclass(frozen=True, eq=False)
class _Named:
    """One parameter of a stack: one of torch's, or a list of them along the first axis."""

    parameters: list[Tensor]
    transposed: bool
    is_list: bool

    def read(self) -> Tensor:
        found = [p.detach().mT if self.transposed else p.detach() for p in self.parameters]
        return torch.stack(found) if self.is_list else found[0].clone()


def _one(parameter: nn.Parameter) -> _Named:
    return _Named([parameter], transposed=False, is_list=False)


def _linear(name: str, layer: nn.Module) -> dict[str, _Named]:
    assert isinstance(layer, nn.Linear)
    found = {f"{name}.weight": _Named([layer.weight], transposed=True, is_list=False)}
    return found if layer.bias is None else found | {f"{name}.bias": _one(layer.bias)}


def _linears(name: str, layers: nn.ModuleList) -> dict[str, _Named]:
    each = [layer for layer in layers if isinstance(layer, nn.Linear)]
    return {
        f"{name}.weight": _Named([layer.weight for layer in each], transposed=True, is_list=True),
        f"{name}.bias": _Named([layer.bias for layer in each], transposed=False, is_list=True),
    }


class PlainEmbedding(Plain):
    """`networks.embedding`, column by column; of no column it changes nothing."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n
        self.frequency = nn.ParameterList(nn.Parameter(torch.empty(16)) for _ in range(n))
        self.phase = nn.ParameterList(nn.Parameter(torch.empty(16)) for _ in range(n))
        self.summing = nn.ModuleList(nn.Linear(16, 3) for _ in range(n))

    def forward(self, x: Tensor, drop: Drop) -> Tensor:
        """Outputs of inputs (b, d)."""
        parts = []
        for column in range(self.n):
            number = x[:, column : column + 1]
            waves = torch.cos(2 * math.pi * number * self.frequency[column] + self.phase[column])
            parts += [number, self.summing[column](waves)]
        return torch.cat([*parts, x[:, self.n :]], dim=1)

    def names(self) -> dict[str, _Named]:
        """As in `Plain`."""
        if not self.n:
            return {}
        return _linears("embedding", self.summing) | {
            "embedding.frequency": _Named(list(self.frequency), transposed=False, is_list=True),
            "embedding.phase": _Named(list(self.phase), transposed=False, is_list=True),
        }


class PlainMLP(Plain):
    """`networks.mlp.MLP`."""

    def __init__(self, network: MLP) -> None:
        super().__init__()
        self.embedding = PlainEmbedding(network.n_embedded)
        widths = [network.n_inputs + 3 * network.n_embedded] + [network.width] * network.depth
        self.hidden = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(widths))
        self.head = nn.Linear(network.width, network.n_outputs)
        self.activation = _ACTIVATIONS[network.activation]()

    def forward(self, x: Tensor, drop: Drop) -> Tensor:
        """Outputs of inputs (b, d)."""
        x = self.embedding(x, drop)
        for layer, linear in enumerate(self.hidden):
            x = drop(self.activation(linear(x)), layer)
        found: Tensor = self.head(x)
        return found

    def names(self) -> dict[str, _Named]:
        """As in `Plain`."""
        found = self.embedding.names() | _linear("head", self.head)
        for layer, linear in enumerate(self.hidden):
            found |= _linear(f"hidden.{layer}" if layer else "first", linear)
        return found


class PlainResNet(Plain):
    """`networks.resnet.ResNet`."""

    def __init__(self, network: ResNet) -> None:
        super().__init__()
        width, inner, depth = network.width, network.inner, range(network.depth)
        self.embedding = PlainEmbedding(network.n_embedded)
        self.first = nn.Linear(network.n_inputs + 3 * network.n_embedded, width)
        self.norm = nn.ModuleList(nn.LayerNorm(width) for _ in depth)
        self.up = nn.ModuleList(nn.Linear(width, inner) for _ in depth)
        self.down = nn.ModuleList(nn.Linear(inner, width) for _ in depth)
        self.last_norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, network.n_outputs)
        self.activation = _ACTIVATIONS[network.activation]()

    def forward(self, x: Tensor, drop: Drop) -> Tensor:
        """Outputs of inputs (b, d)."""
        x = self.first(self.embedding(x, drop))
        for layer, (norm, up, down) in enumerate(zip(self.norm, self.up, self.down, strict=True)):
            x = x + down(drop(self.activation(up(norm(x))), layer))
        found: Tensor = self.head(self.activation(self.last_norm(x)))
        return found

    def names(self) -> dict[str, _Named]:
        """As in `Plain`."""
        found = self.embedding.names() | _linear("first", self.first) | _linear("head", self.head)
        found |= {"head.scale": _one(self.last_norm.weight), "head.shift": _one(self.last_norm.bias)}
        for layer, (norm, up, down) in enumerate(zip(self.norm, self.up, self.down, strict=True)):
            assert isinstance(norm, nn.LayerNorm)
            name = f"block.{layer}"
            found |= {f"{name}.scale": _one(norm.weight), f"{name}.shift": _one(norm.bias)}
            found |= _linear(f"{name}.up", up) | _linear(f"{name}.down", down)
        return found


class PlainTabM(Plain):
    """`networks.tabm.TabM`, member by member."""

    def __init__(self, network: TabM) -> None:
        super().__init__()
        k = network.members
        self.embedding = PlainEmbedding(network.n_embedded)
        widths = [network.n_inputs + 3 * network.n_embedded] + [network.width] * network.depth
        self.hidden = nn.ModuleList(nn.Linear(i, o, bias=False) for i, o in pairwise(widths))
        self.entry = nn.ParameterList(nn.Parameter(torch.empty(k, i)) for i in widths[:-1])
        self.exit = nn.ParameterList(nn.Parameter(torch.empty(k, o)) for o in widths[1:])
        self.bias = nn.ParameterList(nn.Parameter(torch.empty(k, o)) for o in widths[1:])
        self.heads = nn.ModuleList(nn.Linear(network.width, network.n_outputs) for _ in range(k))
        self.activation = _ACTIVATIONS[network.activation]()

    def forward(self, x: Tensor, drop: Drop) -> Tensor:
        """Outputs of inputs (b, d)."""
        x = self.embedding(x, drop)
        members = [x] * len(self.heads)
        for layer, linear in enumerate(self.hidden):
            entry, exit_, bias = self.entry[layer], self.exit[layer], self.bias[layer]
            members = [
                self.activation(linear(h * entry[place]) * exit_[place] + bias[place])
                for place, h in enumerate(members)
            ]
            members = list(drop(torch.stack(members, dim=1), layer).unbind(1))
        return torch.stack([head(h) for head, h in zip(self.heads, members, strict=True)], dim=1)

    def names(self) -> dict[str, _Named]:
        """As in `Plain`."""
        found = self.embedding.names() | _linears("head", self.heads)
        for layer, linear in enumerate(self.hidden):
            name = f"hidden.{layer}" if layer else "first"
            found |= _linear(name, linear) | {
                f"{name}.entry": _one(self.entry[layer]),
                f"{name}.exit": _one(self.exit[layer]),
                f"{name}.bias": _one(self.bias[layer]),
            }
        return found


def train_alone(job: Job, X: Tensor, y: Tensor, weight: Tensor | None = None) -> Alone:
    """Train one job by the book.

    Args:
        job: one network.
        X: inputs, shape (rows, d); the type is that of the training.
        y: targets, shape (rows,).
        weight: of each row; None where all count the same.
    """
    model = plain(job.network).to(X.dtype)
    model.write(job.network.initial(generator(job.seed, 1)))
    training = _Training(job, model, X[:, : job.network.n_inputs], y, weight)  # type: ignore[attr-defined]
    losses: list[float] = []
    best, best_loss, best_epoch = model.read(), math.inf, 0
    for epoch in range(job.recipe.epochs):
        training.epoch(epoch)
        if job.valid is None:
            best = model.read()
            continue
        losses.append(training.validation_loss())
        if losses[-1] < best_loss:
            best, best_loss, best_epoch = model.read(), losses[-1], epoch + 1
        if not math.isfinite(losses[-1]) or epoch + 1 - best_epoch >= job.recipe.patience:
            break
    return Alone(model.read(), best, losses)


def plain(network: Any) -> Plain:
    """A network as torch's modules, its numbers undefined."""
    return _PLAIN[type(network)](network)


_PLAIN: dict[type, Callable[[Any], Plain]] = {MLP: PlainMLP, ResNet: PlainResNet, TabM: PlainTabM}


class _Training:
    """The loop that everybody writes."""

    def __init__(self, job: Job, model: Plain, X: Tensor, y: Tensor, weight: Tensor | None) -> None:
        self.job, self.model, self.X, self.y, self.weight = job, model, X, y, weight
        recipe = job.recipe
        decayed = {id(p) for name, named in model.names().items() if name.endswith("weight") for p in named.parameters}
        groups = [
            {"params": [p for p in model.parameters() if id(p) in decayed], "weight_decay": recipe.weight_decay},
            {"params": [p for p in model.parameters() if id(p) not in decayed], "weight_decay": 0.0},
        ]
        self.optimiser: torch.optim.Optimizer = (
            torch.optim.AdamW(groups, lr=1.0, betas=(recipe.beta1, recipe.beta2), eps=recipe.epsilon)
            if recipe.optimiser == "adamw"
            else torch.optim.SGD(groups, lr=1.0, momentum=recipe.beta1)
        )

    @property
    def n_steps(self) -> int:
        return len(self.job.train) // self.job.recipe.batch_size * self.job.recipe.epochs

    def factor(self, step: int) -> float:
        """What the schedule multiplies the rate by, from its definition."""
        fall = 0.5 * (1 + math.cos(math.pi * step / self.n_steps))
        return {
            "constant": 1.0,
            "linear": 1 - step / self.n_steps,
            "cosine": fall,
            "warmup_cosine": fall * min(1.0, (step + 1) / max(1, round(0.1 * self.n_steps))),
        }[self.job.recipe.schedule]

    def epoch(self, epoch: int) -> None:
        size = self.job.recipe.batch_size
        per_epoch = len(self.job.train) // size
        shuffled = self.job.train.positions[order(self.job.order, epoch, len(self.job.train))]
        self.model.train()
        for at in range(per_epoch):
            self.step(torch.as_tensor(shuffled[at * size : (at + 1) * size]), epoch * per_epoch + at)

    def step(self, rows: Tensor, step: int) -> None:
        recipe = self.job.recipe
        outputs = self.model(self.X[rows], self.dropout(step))
        self.optimiser.zero_grad()
        self.loss(outputs, rows, recipe.label_smoothing).mean().backward()  # type: ignore[no-untyped-call]
        if math.isfinite(recipe.clip):
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip)
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.learning_rate * self.factor(step)
        self.optimiser.step()

    @torch.no_grad()
    def validation_loss(self) -> float:
        assert self.job.valid is not None
        rows = torch.as_tensor(self.job.valid.positions)
        self.model.eval()
        return float(self.loss(self.model(self.X[rows], lambda h, layer: h), rows, 0.0).mean())

    def loss(self, outputs: Tensor, rows: Tensor, smoothing: float) -> Tensor:
        y = self.y[rows]
        if outputs.dim() == 3:  # members of an ensemble: the mean of their losses
            return torch.stack([self.loss(member, rows, smoothing) for member in outputs.unbind(1)]).mean(0)
        if self.job.network.is_classifier:  # type: ignore[attr-defined]
            losses = functional.cross_entropy(outputs, y, reduction="none", label_smoothing=smoothing)
        else:
            losses = functional.mse_loss(outputs, y.view(len(y), -1), reduction="none").mean(1)
        if self.weight is not None:
            losses = losses * self.weight[rows]
        if self.job.class_weights is not None:
            losses = losses * torch.tensor(self.job.class_weights, dtype=losses.dtype)[y]
        return losses

    def dropout(self, step: int) -> Drop:
        seed = np.array([mixed(self.job.seed, 2)], dtype=np.uint64)
        noise = Noise(torch.as_tensor(step_keys(seed, np.array([step]), np.array([0]))))
        rates = Rates.of([self.job.network.dropout], torch.device("cpu"), self.X.dtype)  # type: ignore[attr-defined]
        return lambda h, layer: h * noise.multiplier(h[None], layer, rates)[0]
