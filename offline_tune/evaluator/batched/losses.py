"""Losses of each sample, in every row of a stack."""

from __future__ import annotations

import torch
from torch import Tensor


def cross_entropy(logits: Tensor, y: Tensor, smoothing: Tensor | None, present: Tensor | None) -> Tensor:
    """Cross-entropy with label smoothing, shape of y.

    Args:
        logits: (..., c), the first axis the rows.
        y: codes of the classes, shape (...).
        smoothing: (N, 1, ...) share of the label that is spread evenly over the row's classes; None for none.
        present: (N, 1, c) whether the row has the class at all; None where each row has all.
    """
    if present is not None:
        present = aligned(present, logits)
        logits = logits.masked_fill(~present, -torch.inf)
    # By parts: over few classes torch's fused loss takes twice the time.
    total = torch.logsumexp(logits, -1)
    hit = total - logits.gather(-1, y.unsqueeze(-1)).squeeze(-1)
    if smoothing is None:
        return hit
    if present is None:
        spread = total - logits.mean(-1)
    else:
        spread = total - logits.masked_fill(~present, 0.0).sum(-1) / present.sum(-1)
    return torch.lerp(hit, spread, smoothing)


def cross_entropy_slope(logits: Tensor, y: Tensor, smoothing: Tensor | None, present: Tensor | None) -> Tensor:
    """The derivative of `cross_entropy` by the logits (N, b, c); they are overwritten."""
    if present is not None:
        logits.masked_fill_(~present, -torch.inf)
    found = logits.sub_(torch.logsumexp(logits, -1, keepdim=True)).exp_()
    hit = y.unsqueeze(-1)
    if smoothing is None:
        return found.scatter_add_(-1, hit, torch.full_like(hit, -1, dtype=found.dtype))
    share = smoothing.unsqueeze(-1)
    found.sub_(share / found.shape[-1] if present is None else share * present / present.sum(-1, keepdim=True))
    return found.scatter_add_(-1, hit, (share - 1).expand(hit.shape))


def squared_error(outputs: Tensor, y: Tensor) -> Tensor:
    """Mean over outputs (..., t) of the squared distance to y (..., t), or (...) where there is one output."""
    target = y if y.dim() == outputs.dim() else y.unsqueeze(-1)
    return (outputs - target).square().mean(-1)


def squared_error_slope(outputs: Tensor, y: Tensor) -> Tensor:
    """The derivative of `squared_error` by the outputs (N, b, t)."""
    target = y if y.dim() == outputs.dim() else y.unsqueeze(-1)
    return (outputs - target) * (2 / outputs.shape[-1])


def aligned(table: Tensor, like: Tensor) -> Tensor:
    """A table (N, 1, c) with as many axes as `like` (N, ..., c)."""
    return table.view(table.shape[0], *(1,) * (like.dim() - 2), table.shape[-1])
