"""What a network sees of a training part: columns in order, coded targets, and rows kept back to tell when to stop.

The same for a model that is trained alone and for one in a stack, so both learn from the same rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

VALIDATION_SHARE = 0.15
MOST_VALIDATION = 10_000  # rows; more only take time
LEAST_ROWS = 100  # fewer leave too little to keep back


@dataclass(frozen=True, eq=False, kw_only=True)
class Table:
    """One training part.

    Attributes:
        X: inputs, shape (n, d), numbers before columns of at most two values.
        y: codes 0 .. c-1 of the classes that are there, or standardised numbers, shape (n,).
        columns: for each column of X its place in the table that was given.
        n_numbers: how many of the first columns are numbers.
        classes: labels in the order of the codes; None for regression.
        center, scale: what was taken off the numbers, and by what they were divided.
        train: positions to learn from.
        valid: positions that tell when to stop; None where rows are few.
    """

    X: NDArray[np.float32]
    y: NDArray[Any]
    columns: NDArray[np.int64]
    n_numbers: int
    classes: NDArray[Any] | None
    center: float
    scale: float
    train: NDArray[np.int64]
    valid: NDArray[np.int64] | None

    @classmethod
    def of(cls, X: NDArray[Any], y: NDArray[Any], *, is_classifier: bool) -> Table:
        """Prepare a training part.

        Args:
            X: encoded features, shape (n, d).
            y: labels of any kind, or numbers, shape (n,).
            is_classifier: whether y are labels.

        Raises:
            ValueError: one class only, or no column.
        """
        X = np.asarray(X, dtype=np.float32)
        if not X.shape[1]:
            raise ValueError("a network needs at least one column, got none; keep one")
        columns, n_numbers = _numbers_first(X)
        classes, center, scale = None, 0.0, 1.0
        if is_classifier:
            classes, codes = np.unique(y, return_inverse=True)
            target: NDArray[Any] = codes
            if len(classes) < 2:
                raise ValueError("a classifier needs rows of at least two classes, got one; use other folds")
        else:
            target = np.asarray(y, dtype=np.float64)
            with np.errstate(all="ignore"):  # a target that overflows gives a score that is not finite
                center, scale = float(target.mean()), float(target.std()) or 1.0
                target = (target - center) / scale
        train, valid = _split(target, is_classifier)
        return cls(
            X=X[:, columns],
            y=target.astype(np.int64 if is_classifier else np.float32),
            columns=columns,
            n_numbers=n_numbers,
            classes=classes,
            center=center,
            scale=scale,
            train=train,
            valid=valid,
        )

    @property
    def n_outputs(self) -> int:
        """Classes, or 1 for regression."""
        return 1 if self.classes is None else len(self.classes)

    def class_weights(self, balanced: bool) -> tuple[float, ...] | None:
        """Weights by which each class counts the same in all, mean 1 over the rows learnt from; None for none."""
        if not balanced or self.classes is None:
            return None
        counts = np.bincount(self.y[self.train], minlength=len(self.classes))
        return tuple((len(self.train) / (len(self.classes) * np.maximum(counts, 1))).tolist())


def _numbers_first(X: NDArray[np.float32]) -> tuple[NDArray[np.int64], int]:
    ordered = np.sort(X, axis=0)
    is_number = (ordered[1:] != ordered[:-1]).sum(axis=0) > 1
    return np.argsort(~is_number, kind="stable"), int(is_number.sum())


def _split(target: NDArray[Any], is_classifier: bool) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """Rows to learn from and rows kept back, each class in the same share; equal for equal targets."""
    n = len(target)
    if n < LEAST_ROWS:
        return np.arange(n), None
    rng, share = np.random.default_rng(n), min(VALIDATION_SHARE, MOST_VALIDATION / n)
    groups = target if is_classifier else np.zeros(n)
    kept = []
    for group in np.unique(groups):
        rows = rng.permutation(np.flatnonzero(groups == group))
        kept.append(rows[: int(share * len(rows))])
    valid = np.sort(np.concatenate(kept))
    return (np.setdiff1d(np.arange(n), valid), valid) if len(valid) else (np.arange(n), None)
