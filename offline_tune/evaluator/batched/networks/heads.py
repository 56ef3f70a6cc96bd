"""What stacks of networks for tables have in common: above all what outputs mean, and what is lost by them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from offline_tune.evaluator.batched.layers import Activation
from offline_tune.evaluator.batched.losses import (
    aligned,
    cross_entropy,
    cross_entropy_slope,
    squared_error,
    squared_error_slope,
)
from offline_tune.evaluator.batched.network import Batch, Parameters
from offline_tune.evaluator.batched.networks.table import TableNetwork
from offline_tune.evaluator.batched.randomness import Rates


class Head:
    """Classes by softmax, or numbers; the rows may have different numbers of classes."""

    def __init__(self, networks: Sequence[TableNetwork], device: torch.device, dtype: torch.dtype) -> None:
        self._activation = Activation([n.activation for n in networks], device)
        self._rates = Rates.of([n.dropout for n in networks], device, dtype)
        self._depth = max(n.depth for n in networks)
        self._is_classifier = networks[0].is_classifier
        n_outputs = [n.n_outputs for n in networks]
        counts = torch.tensor(n_outputs, device=device)[:, None, None]
        most = max(n_outputs)
        # (N, 1, c), or None where each row has all classes
        self._present = None if min(n_outputs) == most else torch.arange(most, device=device) < counts

    def loss(self, outputs: Tensor, y: Tensor, smoothing: Tensor | None) -> Tensor:
        """(N, b): cross-entropy of logits (N, b, c), or squared error of numbers (N, b, t)."""
        if self._is_classifier:
            return cross_entropy(outputs, y, smoothing, self._present)
        return squared_error(outputs, y)

    def slope(self, outputs: Tensor, y: Tensor, smoothing: Tensor | None) -> Tensor:
        """The derivative of the loss of each sample by its outputs (N, b, c), which may be overwritten."""
        if self._is_classifier:
            return cross_entropy_slope(outputs, y, smoothing, self._present)
        return squared_error_slope(outputs, y)

    def gradients(self, parameters: Parameters, batch: Batch, into: Parameters, add: bool) -> bool:
        """By autograd, unless a network says otherwise."""
        return False

    def predictions(self, outputs: Tensor) -> Tensor:
        """Probabilities (N, b, c), or numbers (N, b)."""
        if not self._is_classifier:
            return outputs.squeeze(-1)
        if self._present is not None:
            outputs = outputs.masked_fill(~aligned(self._present, outputs), -torch.inf)
        return torch.softmax(outputs, -1)
