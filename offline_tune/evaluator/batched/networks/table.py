"""What the networks for tables have in common: their sizes and rates, and numbers that may be embedded."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from offline_tune.evaluator.batched.networks.embedding import EXTRA, initial_embedding


@dataclass(frozen=True, slots=True, kw_only=True)
class TableNetwork:
    """Layers of one width over the columns of a table.

    Attributes:
        n_inputs: columns.
        n_outputs: classes, or numbers of a regression.
        is_classifier: whether the outputs are classes.
        width: units of each hidden layer, or between blocks.
        depth: hidden layers, or blocks.
        activation: one of `layers.ACTIVATIONS`.
        dropout: rate after each hidden layer, or inside a block.
        n_embedded: the first columns are numbers that get a periodic embedding; 0 for none.
        frequency: standard deviation of the initial frequencies of the embedding.

    Raises:
        ValueError: a size below 1, or a rate outside [0, 1).
    """

    n_inputs: int
    n_outputs: int
    is_classifier: bool
    width: int
    depth: int
    activation: str = "relu"
    dropout: float = 0.0
    n_embedded: int = 0
    frequency: float = 1.0

    def __post_init__(self) -> None:
        sizes = {
            "hidden_width": self.width,
            "hidden_layers": self.depth,
            **self.own_sizes,
            "inputs": self.n_inputs,
            "outputs": self.n_outputs,
        }
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}; raise it")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout:g}; lower it")

    @property
    def own_sizes(self) -> Mapping[str, int]:
        """Sizes that only this kind of network has, by the names of the search space."""
        return {}

    @property
    def key(self) -> Hashable:
        """Regression and classification apart; embeddings only beside embeddings of as many columns."""
        embedding = (self.n_embedded, self.n_inputs) if self.n_embedded else None
        return (self.is_classifier, embedding)

    @property
    def n_read(self) -> int:
        """What the first layer reads: the columns, and what embedded numbers become."""
        return self.n_inputs + EXTRA * self.n_embedded

    def initial_embedding(self, generator: torch.Generator) -> dict[str, Tensor]:
        """The parameters that come before all others: those of the embedding, none without one."""
        return initial_embedding(generator, self.n_embedded, self.frequency) if self.n_embedded else {}
