"""A data set ready for training: features, encoded target, folds, and a test part that is touched once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from offline_tune.cards import DataCard
from offline_tune.task import Note, Task


@dataclass(frozen=True, eq=False, kw_only=True)
class Dataset:
    """One task's data, split.

    Attributes:
        task: what is learnt.
        X: the training features, only columns that are used, cleaned to their kinds (numeric float64 with NaN,
            categorical and text as object strings with None, boolean as float64 0/1/NaN, date as datetime64).
        y: the training target, shape (n,); int64 codes 0 .. c-1 into `task.classes`, or float64.
        X_test, y_test: the held-out test part, of the same form; None where the user keeps it elsewhere.
        folds: pairs of row positions (train, held out) into X.
        card: facts on the training part.
        notes: what the reader should know about the data.
        digest: sha256 of the data file, hexadecimal.
    """

    task: Task
    X: pd.DataFrame
    y: NDArray[np.int64] | NDArray[np.float64]
    X_test: pd.DataFrame | None
    y_test: NDArray[np.int64] | NDArray[np.float64] | None
    folds: tuple[tuple[NDArray[np.int64], NDArray[np.int64]], ...]
    card: DataCard
    notes: tuple[Note, ...]
    digest: str
