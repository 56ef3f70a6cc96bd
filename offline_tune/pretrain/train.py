"""Training of the shipped model: next candidate and outcome in one, resumable, on a CPU or a CUDA GPU.

The rate warms up, stays, and decays to nothing over the last tokens of the plan, so a run can be lengthened or ended
early by changing the plan and resuming from its checkpoint.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from offline_tune.errors import ModelError
from offline_tune.pretrain.llama import Llama, LlamaConfig
from offline_tune.pretrain.sequences import IGNORED, Batch, make_batch
from offline_tune.pretrain.sources import Sources
from offline_tune.prompt.vocabulary import DIALECT_VERSION, N_LEVELS, N_OUTCOMES, VOCABULARY

_WARM_UP_STEPS = 150
_REPORT_EVERY = 50
_SHORT, _LONG = 0.15, 8  # share of histories that have fewer trials than this
# A file that torch did not write, or half wrote, gives one of these.
_DAMAGES = (OSError, RuntimeError, EOFError, UnpicklingError, ValueError, KeyError, IndexError, AttributeError)
_PARTS = {"dialect_version", "config", "model", "optimizer", "progress"}
_LEVEL_WIDTH, _OUTCOME_WIDTH = 0.8, 1.2  # standard deviations of the soft targets, in levels


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long and how fast to train. Token counts include padding-free prompt tokens that carry no loss."""

    tokens: int
    decay_tokens: int
    batch_tokens: int = 8192
    rate: float = 1.2e-3
    weight_decay: float = 0.05
    max_trials: int = 32
    seed: int = 0
    checkpoint_every: int = 200


@dataclass
class Progress:
    """Where a run stands; the only mutable value of this package, saved with every checkpoint."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)


def train(
    config: LlamaConfig,
    plan: Plan,
    sources: Sources,
    checkpoint: Path,
    device: str = "cpu",
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Llama, Progress]:
    """Train, or continue from `checkpoint` where it exists; the checkpoint is replaced atomically.

    Raises:
        ModelError: the checkpoint is damaged, or belongs to another vocabulary or shape.
    """
    torch.manual_seed(plan.seed)
    model = Llama(config).to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=plan.rate, weight_decay=plan.weight_decay, betas=(0.9, 0.98), fused=True
    )
    progress = _restore(checkpoint, model, optimizer) if checkpoint.exists() else Progress()
    started, window = time.perf_counter() - progress.seconds, []
    while progress.tokens < plan.tokens:
        rate = _rate(plan, progress)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = _draw(sources, plan, progress.step)
        losses = _step(model, optimizer, batch, device)
        window.append(losses)
        progress.step += 1
        progress.tokens += int((batch.blocks >= 0).sum())
        progress.seconds = time.perf_counter() - started
        at_checkpoint = progress.step % plan.checkpoint_every == 0
        if at_checkpoint or progress.step % _REPORT_EVERY == 0:
            _report(progress, window, rate, say)
            window = []
        if at_checkpoint:
            progress.curve[-1] |= development_loss(model, sources, device)
            say(json.dumps(progress.curve[-1]))
            save_checkpoint(checkpoint, model, optimizer, progress)
    save_checkpoint(checkpoint, model, optimizer, progress)
    return model, progress


@torch.no_grad()
def development_loss(model: Llama, sources: Sources, device: str = "cpu") -> dict[str, float]:
    """Mean cross-entropy in nats on pools that training never sees, after 12 trials of history."""
    rng, found = np.random.default_rng(7), {}
    for name, pools in sources.development_pools().items():
        batch = make_batch(pools[:8], 12, rng)
        values, outcomes = _losses(model, batch, device)
        found[f"{name}/value"], found[f"{name}/outcome"] = float(values), float(outcomes)
    return found


def load_checkpoint(path: Path) -> tuple[Llama, Progress]:
    """A model for export or measurement.

    Raises:
        ModelError: the file is no checkpoint, or belongs to another dialect version.
    """
    stored = _read(path)
    if stored["dialect_version"] != DIALECT_VERSION:
        raise ModelError(
            f"a checkpoint must be of dialect version {DIALECT_VERSION}, got {stored['dialect_version']} in {path}; "
            "train a new one"
        )
    model = Llama(LlamaConfig(**stored["config"]))
    model.load_state_dict(stored["model"])
    return model, Progress(**stored["progress"])


def save_checkpoint(path: Path, model: Llama, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Write to a file beside it, then rename: a kill leaves the last whole checkpoint."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(
        {
            "dialect_version": DIALECT_VERSION,
            "config": model.config.to_dict(),
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "progress": {
                "step": progress.step,
                "tokens": progress.tokens,
                "seconds": progress.seconds,
                "curve": progress.curve,
            },
        },
        partial,
    )
    partial.replace(path)


def _read(path: Path) -> dict[str, Any]:
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGES as error:
        raise ModelError(
            f"a checkpoint must be a file that the trainer wrote, got {type(error).__name__} for {path}; "
            "restore it, or remove it and train again"
        ) from error
    if not isinstance(stored, dict) or not _PARTS <= stored.keys():
        raise ModelError(
            f"a checkpoint must hold {', '.join(sorted(_PARTS))}, got something else in {path}; choose another file"
        )
    return stored


def _restore(path: Path, model: Llama, optimizer: torch.optim.Optimizer) -> Progress:
    stored = _read(path)
    if stored["dialect_version"] != DIALECT_VERSION or stored["config"] != model.config.to_dict():
        raise ModelError(
            f"a checkpoint must have the shape {model.config.to_dict()} and dialect {DIALECT_VERSION}, got "
            f"{stored['config']} and {stored['dialect_version']} in {path}; choose another file or remove it"
        )
    model.load_state_dict(stored["model"])
    optimizer.load_state_dict(stored["optimizer"])
    return Progress(**stored["progress"])


def _rate(plan: Plan, progress: Progress) -> float:
    warm = min(1.0, (progress.step + 1) / _WARM_UP_STEPS)
    left = (plan.tokens - progress.tokens) / max(plan.decay_tokens, 1)
    return plan.rate * warm * min(1.0, max(0.02, left))


def _draw(sources: Sources, plan: Plan, step: int) -> Batch:
    # Every step has its own stream, so a resumed run sees the same batches as one that was never stopped.
    rng = np.random.default_rng([plan.seed, step])
    # Few of the short histories: their scale is chance, so most of what they would teach is noise.
    short = rng.random() < _SHORT
    n_trials = int(rng.integers(0, _LONG) if short else rng.integers(_LONG, plan.max_trials + 1))
    parameters = 10
    length = (n_trials + 11) * (parameters + 3) + 3 * parameters
    return make_batch(sources.draw(max(4, plan.batch_tokens // length), rng), n_trials, rng)


def _step(model: Llama, optimizer: torch.optim.Optimizer, batch: Batch, device: str) -> tuple[float, float]:
    values, outcomes = _losses(model, batch, device)
    loss = values + torch.nan_to_num(outcomes)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(values.detach()), float(outcomes.detach())


def _losses(model: Llama, batch: Batch, device: str) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of values and of outcomes, nats; the second is NaN where no outcome is asked."""
    tokens, positions, targets = (
        torch.from_numpy(a).to(device) for a in (batch.tokens, batch.positions, batch.targets)
    )
    wanted = targets != IGNORED
    with torch.autocast(device, torch.bfloat16):
        hidden = model(tokens, positions, batch.prefix, torch.from_numpy(batch.mask).to(device), wanted)
    hidden, asked = hidden.float(), targets[wanted]
    is_outcome = torch.from_numpy(batch.is_outcome).to(device)[wanted]
    logits, level = model.embedding.value_logits(hidden[~is_outcome], asked[~is_outcome])
    is_number = model.embedding.kinds[(asked[~is_outcome] - VOCABULARY.first_value) // N_LEVELS] == 0
    near, exact = _neighbours(N_LEVELS, _LEVEL_WIDTH).to(device), torch.eye(N_LEVELS, device=device)
    values = functional.cross_entropy(logits, torch.where(is_number[:, None], near[level], exact[level]))
    outcomes = functional.cross_entropy(
        model.embedding.outcome_logits(hidden[is_outcome]),
        _neighbours(N_OUTCOMES, _OUTCOME_WIDTH).to(device)[asked[is_outcome] - VOCABULARY.first_outcome],
    )
    return values, outcomes


@cache
def _neighbours(count: int, width: float) -> Tensor:
    """(count, count) the distribution to learn for each level: it shares with its neighbours."""
    place = torch.arange(count).float()
    near = torch.exp(-0.5 * ((place[:, None] - place[None, :]) / width) ** 2)
    return near / near.sum(dim=1, keepdim=True)


def _report(progress: Progress, window: list[tuple[float, float]], rate: float, say: Callable[[str], None]) -> None:
    values = float(np.mean([value for value, _ in window]))
    outcomes = [outcome for _, outcome in window if math.isfinite(outcome)]
    progress.curve.append(
        {
            "step": progress.step,
            "tokens": progress.tokens,
            "seconds": round(progress.seconds, 1),
            "rate": rate,
            "value": values,
            "outcome": float(np.mean(outcomes)) if outcomes else math.nan,
        }
    )
    speed = progress.tokens / max(progress.seconds, 1e-9)
    done = f"{progress.step} steps, {progress.tokens / 1e6:.2f} M tokens, {speed:.0f}/s"
    say(f"{done}: value {values:.3f} outcome {progress.curve[-1]['outcome']:.3f}")
