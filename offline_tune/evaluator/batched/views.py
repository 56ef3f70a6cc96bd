"""The training rows of a fold as one way of preparation makes them.

Preparation is the pool's own (`evaluator.preprocess`), learnt from the training part of the fold alone; it is done
once for all candidates that prepare alike.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from offline_tune.evaluator.batched.job import Rows
from offline_tune.evaluator.batched.layers import padded
from offline_tune.evaluator.batched.resident import Resident, widened
from offline_tune.evaluator.batched.table import Table
from offline_tune.evaluator.crossval import CrossValidation
from offline_tune.evaluator.families.base import PREPARATION, Needs
from offline_tune.evaluator.preprocess import encoding_of, preprocessing
from offline_tune.space import Values
from offline_tune.task import ColumnKind

MOST_KEPT = 64  # views


@dataclass(frozen=True, eq=False)
class View:
    """A fold, prepared.

    Attributes:
        table: the training part.
        held_out: inputs of the held-out rows in the table's columns; none where all rows are trained on.
        preparation: what was learnt, fitted.
    """

    table: Table
    held_out: NDArray[np.float32]
    preparation: Pipeline


class Views:
    """The views of one cross-validation, each made once."""

    def __init__(self, trials: CrossValidation) -> None:
        self._trials = trials
        self._made: dict[Hashable, View] = {}

    def of(self, fold: int | None, needs: Needs, values: Values, seed: int) -> View:
        """The view of a fold for a candidate; None for all training rows.

        Args:
            fold: its place.
            needs: of the family.
            values: the candidate with unprefixed names.
            seed: of the random parts of preparation, where it has any.
        """
        prepared = {name: value for name, value in values.items() if name in PREPARATION}
        texts = any(column.kind is ColumnKind.TEXT for column in self._trials.task.features)
        random = texts or encoding_of(needs, values) == "target"
        key = (fold, needs, tuple(sorted(prepared.items())), seed if random else None)
        if key not in self._made:
            if len(self._made) >= MOST_KEPT:
                del self._made[next(iter(self._made))]
            self._made[key] = self._make(fold, needs, prepared, seed)
        return self._made[key]

    def clear(self) -> None:
        """Forget all."""
        self._made.clear()

    def _make(self, fold: int | None, needs: Needs, values: Values, seed: int) -> View:
        trials = self._trials
        train, test = (np.arange(len(trials.y)), np.empty(0, dtype=np.int64)) if fold is None else trials.folds[fold]
        preparation = Pipeline(preprocessing(trials.task.features, trials.task.kind, needs, values, seed))
        X = preparation.fit_transform(trials.X.iloc[train], trials.y[train])
        table = Table.of(X, trials.y[train], is_classifier=trials.task.kind.is_classification)
        held_out = preparation.transform(trials.X.iloc[test])[:, table.columns] if len(test) else table.X[:0]
        return View(table, held_out, preparation)


@dataclass(frozen=True, eq=False)
class Placed:
    """Where the rows of a view lie in the resident data."""

    train: Rows
    valid: Rows | None


def resident_of(views: Iterable[View], device: torch.device, share: float) -> tuple[Resident, Mapping[int, Placed]]:
    """The training rows of several views on the device.

    Args:
        views: at least one; each is placed once.
        device: where to.
        share: of the rows that are learnt from, evenly drawn; rows kept back all stay.

    Returns:
        The data, and where each view lies in them, by its `id`.
    """
    each = list({id(view): view for view in views}.values())
    columns = padded(max(view.table.X.shape[1] for view in each))
    data = Resident.of(
        np.concatenate([widened(view.table.X, columns) for view in each]),
        np.concatenate([view.table.y for view in each]),
        device=device,
    )
    starts = np.cumsum([0, *(len(view.table.y) for view in each)])
    return data, {id(view): _placed(view, int(start), share) for view, start in zip(each, starts, strict=False)}


def _placed(view: View, start: int, share: float) -> Placed:
    train, valid = view.table.train, view.table.valid
    if share < 1:
        size = max(1, round(share * len(train)))
        train = np.sort(np.random.default_rng(len(train)).choice(train, size, replace=False))
    return Placed(Rows(train + start), None if valid is None else Rows(valid + start))
