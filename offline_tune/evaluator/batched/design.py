"""From a candidate's values to its network and its recipe."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from offline_tune.evaluator.batched.job import Job, Recipe, Rows
from offline_tune.evaluator.batched.network import Network
from offline_tune.evaluator.batched.networks.mlp import MLP
from offline_tune.evaluator.batched.networks.resnet import ResNet
from offline_tune.evaluator.batched.networks.tabm import TabM
from offline_tune.evaluator.batched.table import Table
from offline_tune.evaluator.families.base import integer, is_balanced, real
from offline_tune.evaluator.families.neural import LEAST_BATCH, default_epochs
from offline_tune.space import Values

CLIP = 1.0


def job_of(
    kind: str, values: Values, table: Table, rows: tuple[Rows, Rows | None], seed: int, epochs: int | None = None
) -> Job:
    """The job of one candidate on one training part.

    Args:
        kind: name of the family.
        values: the candidate with unprefixed names.
        table: the training part.
        rows: where its rows to learn from, and those kept back, lie in the resident data.
        seed: of initial weights and dropout.
        epochs: the most passes; None for `neural.default_epochs`.

    Raises:
        ValueError: a value that no network could use.
    """
    epochs = epochs or default_epochs(len(table.y))
    return Job(
        network=network_of(kind, values, table.X.shape[1], table.n_outputs, table.n_numbers, table.classes is not None),
        recipe=recipe_of(values, epochs, len(rows[0])),
        seed=seed,
        train=rows[0],
        valid=rows[1],
        class_weights=table.class_weights(is_balanced(values)),
    )


def network_of(
    kind: str, values: Values, n_inputs: int, n_outputs: int, n_numbers: int, is_classifier: bool
) -> Network:
    """The network of a candidate.

    Raises:
        ValueError: a size or rate that no network could have.
    """
    periodic = values.get("embedding") == "periodic"
    common: dict[str, Any] = {
        "n_inputs": n_inputs,
        "n_outputs": n_outputs,
        "is_classifier": is_classifier,
        "width": integer(values, "hidden_width"),
        "depth": integer(values, "hidden_layers"),
        "activation": str(values["activation"]),
        "dropout": real(values, "dropout"),
        "n_embedded": n_numbers if periodic else 0,
        "frequency": real(values, "embedding_frequency") if periodic else 1.0,
    }
    return _NETWORKS[kind](values, common)


def recipe_of(values: Values, epochs: int, n_rows: int) -> Recipe:
    """How a candidate is trained on a number of rows; fewer than `LEAST_BATCH` are one batch.

    Raises:
        ValueError: a value that no training could use.
    """
    return Recipe(
        batch_size=_batch_size(integer(values, "batch_size"), n_rows),
        epochs=epochs,
        learning_rate=real(values, "learning_rate"),
        weight_decay=real(values, "weight_decay"),
        schedule=str(values["schedule"]),
        clip=CLIP,
        label_smoothing=real(values, "label_smoothing") if "label_smoothing" in values else 0.0,
        patience=max(5, epochs // 4),
    )


_NETWORKS: Mapping[str, Callable[[Values, dict[str, Any]], Network]] = {
    "tabular_mlp": lambda values, common: MLP(**common),
    "tabular_resnet": lambda values, common: ResNet(**common, inner=integer(values, "inner_width")),
    "tabm": lambda values, common: TabM(**common, members=integer(values, "ensemble_size")),
}


def _batch_size(size: int, n_rows: int) -> int:
    """The nearest power of two on a log scale; sizes below 1 stay, to be refused in their own words."""
    if size < 1:
        return size
    nearest = 1 << round(math.log2(size))
    return min(nearest, 1 << n_rows.bit_length() - 1) if nearest <= LEAST_BATCH else nearest
