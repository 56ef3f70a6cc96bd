"""From a candidate to a scikit-learn Pipeline, and from a fitted Pipeline to predictions of one fixed shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from offline_tune.evaluator.families import family, split_values
from offline_tune.evaluator.preprocess import encoding_of, preprocessing
from offline_tune.space import Values
from offline_tune.task import ColumnKind, Task


def build_pipeline(values: Values, task: Task, seed: int, n_rows: int) -> Pipeline:
    """The unfitted model of a candidate, preprocessing included.

    Fit it on rows of a table with the task's feature columns, and on encoded labels (0 .. c-1, some may be absent) or
    numbers.

    Args:
        values: the candidate, with the names of `families.space_of`.
        task: what is learnt, and from which columns.
        seed: of every random part.
        n_rows: rows it will be fitted on.

    Raises:
        SpaceError: the candidate names no known family, or holds parameters of another.
        DataError: the task has no usable column.
    """
    name, own = split_values(values)
    chosen, columns, seed = family(name), task.features, seed % 2**31
    steps = preprocessing(columns, task.kind, chosen.needs, own, seed)
    native = encoding_of(chosen.needs, own) == "native"
    n_native = sum(column.kind is ColumnKind.CATEGORICAL for column in columns) if native else 0
    model = chosen.build(own, task.kind, seed, len(task.classes), n_rows=n_rows, n_native=n_native)
    return Pipeline([*steps, ("model", model)])


def predictions(pipeline: Any, X: pd.DataFrame, task: Task) -> NDArray[np.float32]:
    """What a fitted model predicts for X.

    Args:
        pipeline: fitted, of `build_pipeline` or any estimator with encoded labels in `classes_`.
        X: rows with the task's feature columns.
        task: what was learnt.

    Returns:
        Regression: numbers, shape (n,). Classification: probabilities in the order of `task.classes`, shape (n, c);
        a class that the training part lacked has probability 0.
    """
    shape = (len(X), len(task.classes)) if task.kind.is_classification else (len(X),)
    found = np.zeros(shape, dtype=np.float32)
    if len(X) == 0:
        return found
    if not task.kind.is_classification:
        with np.errstate(over="ignore"):  # what no float32 holds becomes infinite, and the score says so
            return np.asarray(pipeline.predict(X)).astype(np.float32)
    return placed(pipeline.predict_proba(X), pipeline.classes_, len(task.classes))


def placed(probabilities: NDArray[Any], classes: NDArray[Any], n_classes: int) -> NDArray[np.float32]:
    """Probabilities (n, m) of some classes among all, shape (n, n_classes); 0 for a class that is not among them."""
    found = np.zeros((len(probabilities), n_classes), dtype=np.float32)
    found[:, np.asarray(classes, dtype=np.int64)] = probabilities
    return found
