"""Periodic embeddings of numbers, each column its own.

After Gorishniy, Rubachev and Babenko, "On Embeddings for Numerical Features in Tabular Deep Learning" (2022), in the
small form of RealMLP: cosines of a number are summed up in a few others, which stand beside the number itself.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from offline_tune.evaluator.batched.layers import uniform
from offline_tune.evaluator.batched.network import Parameters

WAVES, EXTRA = 16, 3  # cosines of each number, and numbers that they become


def initial_embedding(generator: torch.Generator, n: int, frequency: float) -> dict[str, Tensor]:
    """Parameters of the periodic embedding of n columns: cosines of each number, summed up in a few others."""
    normal = torch.randn(n, WAVES, generator=generator, dtype=torch.float64)
    return {
        "embedding.frequency": normal * frequency,
        "embedding.phase": (torch.rand(n, WAVES, generator=generator, dtype=torch.float64) * 2 - 1) * math.pi,
        "embedding.weight": uniform(generator, WAVES, n, WAVES, EXTRA),
        "embedding.bias": uniform(generator, WAVES, n, EXTRA),
    }


def inputs(x: Tensor, parameters: Parameters, first: str) -> Tensor:
    """What the layer whose weight is called `first` reads of the columns (N, b, d): all of them, numbers embedded."""
    width = parameters[first].shape[1]
    if "embedding.weight" not in parameters:
        return x[..., :width]
    n = parameters["embedding.frequency"].shape[1]
    return embedded(x[..., : width - n * EXTRA], parameters)


def embedded(x: Tensor, parameters: Parameters) -> Tensor:
    """The first n columns of x (N, b, d) each with `EXTRA` others, then the others: (N, b, d + n * EXTRA)."""
    n = parameters["embedding.frequency"].shape[1]
    numbers = x[..., :n]
    turns = torch.addcmul(
        parameters["embedding.phase"].unsqueeze(1),
        2 * math.pi * numbers.unsqueeze(-1),
        parameters["embedding.frequency"].unsqueeze(1),
    )
    summed = torch.einsum("rbnw,rnwe->rbne", torch.cos(turns), parameters["embedding.weight"])
    summed = summed + parameters["embedding.bias"].unsqueeze(1)
    return torch.cat([torch.cat([numbers.unsqueeze(-1), summed], dim=-1).flatten(2), x[..., n:]], dim=-1)
