"""Cards: the facts that a model is shown about the data and about a family. No raw rows, ever."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from offline_tune.task import TaskKind


@dataclass(frozen=True, slots=True, kw_only=True)
class DataCard:
    """Facts computed from the training part of a table.

    Shares lie in [0, 1]. `imbalance` is the largest class's share (0 for regression); `linear_score` and
    `tree_score` are cross-validated scores of two quick models on a sample (None where not computed).
    """

    kind: TaskKind
    n_rows: int
    n_features: int
    n_numeric: int
    n_categorical: int
    n_text: int = 0
    n_date: int = 0
    n_classes: int = 0
    imbalance: float = 0.0
    missing_share: float = 0.0
    max_cardinality: int = 0
    mean_abs_skew: float = 0.0
    linear_score: float | None = None
    tree_score: float | None = None
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What a family is, for the model and for the reader.

    `hyperparameters` says in one short sentence what each one does; `cost` is one of "low", "medium", "high".
    """

    family: str
    summary: str
    hyperparameters: Mapping[str, str]
    cost: str
