"""A trained model that answers for rows it has never seen: one pipeline, a weighted mean of several, or a stack.

Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from offline_tune.data.columns import clean, require_columns
from offline_tune.errors import ArtifactError
from offline_tune.space import Values
from offline_tune.task import Note, Task

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


@dataclass(frozen=True, eq=False, kw_only=True)
class FittedModel:
    """One model, or several that decide together.

    Attributes:
        task: what was learnt, and from which columns.
        pipelines: the fitted members.
        weights: of the members' predictions, shape (m,), sum 1.
        values: the candidate of each member.
        meta: the model over the members' predictions, of a stack; then the weights are not used.
        record: what was kept with the export, such as scores and seeds.
        notes: what the reader should know, such as library versions that differ from those of the export.
    """

    task: Task
    pipelines: tuple[Pipeline, ...]
    weights: NDArray[np.float64]
    values: tuple[Values, ...] = ()
    meta: Any = None
    record: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()

    def predict(self, X: pd.DataFrame) -> NDArray[Any]:
        """Labels (n,) as texts of `task.classes`, or numbers (n,) for regression.

        X needs the feature columns of the task, as read from a file or cleaned; others are ignored.

        Raises:
            ArtifactError: a column is missing.
        """
        if not self.task.kind.is_classification:
            return self._combined(X)
        labels: NDArray[Any] = np.array(self.task.classes, dtype=object)
        return np.asarray(labels[self.predict_proba(X).argmax(axis=1)])

    def predict_proba(self, X: pd.DataFrame) -> NDArray[np.float64]:
        """Probabilities in the order of `task.classes`, shape (n, c).

        Raises:
            ArtifactError: a column is missing, or the task is a regression.
        """
        if not self.task.kind.is_classification:
            raise ArtifactError("probabilities need a classification task, got regression; ask for predictions")
        return self._combined(X)

    def _combined(self, X: pd.DataFrame) -> NDArray[np.float64]:
        from offline_tune.evaluator.pipeline import predictions

        require_columns(X, self.task.features, ArtifactError)
        table = clean(X, self.task.features)
        if not len(table):
            return np.empty((0, *([len(self.task.classes)] if self.task.kind.is_classification else [])))
        found = np.stack([predictions(pipeline, table, self.task) for pipeline in self.pipelines])  # (m, n[, c])
        if self.meta is None:
            return np.asarray(np.tensordot(self.weights, found, axes=1))
        features = np.moveaxis(found, 0, 1).reshape(len(table), -1)  # (n, m * c), as `ensemble.stack` has them
        return _meta_predictions(self.meta, features.astype(np.float64), self.task)


def _meta_predictions(meta: Any, features: NDArray[np.float64], task: Task) -> NDArray[np.float64]:
    if not task.kind.is_classification:
        return np.asarray(meta.predict(features), dtype=np.float64)
    found = np.zeros((len(features), len(task.classes)))
    found[:, np.asarray(meta.classes_, dtype=np.int64)] = meta.predict_proba(features)
    return found
