"""Every vendor's estimator behind one contract: `VendorClassifier` and `VendorRegressor`.

They take what the vendors disagree on out of sight of the rest: labels with gaps, class weights, columns of category
codes, the scale of the target, threads, and warnings that only repeat what the score says anyway.

They are plain scikit-learn meta-estimators and hold nothing that cannot be written to a file.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.class_weight import compute_sample_weight
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

LEAST_STOPPING_ROWS = 200  # fewer rows, or rarer classes, leave too little to hold out for early stopping
LEAST_STOPPING_CLASS = 20


class VendorClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier of any vendor.

    Attributes:
        estimator: the vendor's, unfitted.
        balanced: weigh the classes so that each counts the same in all.
        n_native: the last columns hold category codes (whole numbers, NaN for missing).
        least_rows: rows that each class must have; a rarer class is repeated up to it.
    """

    def __init__(self, estimator: Any, balanced: bool = False, n_native: int = 0, least_rows: int = 1) -> None:
        self.estimator = estimator
        self.balanced = balanced
        self.n_native = n_native
        self.least_rows = least_rows

    def fit(self, X: Any, y: NDArray[Any]) -> Self:
        """Train on X (n, d), y (n,) of any labels; classes that are absent are simply not predicted.

        Raises:
            ValueError: one class only, or whatever the vendor refuses.
        """
        self.classes_, codes, counts = np.unique(y, return_inverse=True, return_counts=True)
        if len(self.classes_) < 2:
            raise ValueError("a classifier needs rows of at least two classes, got one; use other folds")
        rows = _repeated(codes, counts, self.least_rows)
        X, codes = X[rows], codes[rows]
        self.levels_ = _levels(X, self.n_native)
        self.estimator_ = _with_early_stopping(clone(self.estimator), len(codes), int(counts.min()))
        options = _fit_options(self.estimator_, X.shape[1], self.n_native)
        if self.balanced:
            options["sample_weight"] = compute_sample_weight("balanced", codes)
        with _quiet_thread():
            self.estimator_.fit(_framed(X, self.levels_, self.estimator_), codes, **options)
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probabilities in the order of `classes_`, shape (n, len(classes_))."""
        with _quiet_thread():
            found = self.estimator_.predict_proba(_framed(X, self.levels_, self.estimator_), **_one(self.estimator_))
        return np.asarray(found, dtype=np.float64)

    def predict(self, X: Any) -> NDArray[Any]:
        """The likeliest label of each row, shape (n,)."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])


class VendorRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A regressor of any vendor, trained on the target centred and scaled to unit deviation.

    So a penalty, a learning rate or a margin means the same whether prices are in cents or in millions.
    """

    def __init__(self, estimator: Any, n_native: int = 0) -> None:
        self.estimator = estimator
        self.n_native = n_native

    def fit(self, X: Any, y: NDArray[Any]) -> Self:
        """Train on X (n, d), y (n,)."""
        target = np.asarray(y, dtype=np.float64)
        with np.errstate(all="ignore"):  # a target that overflows gives a score that is not finite
            self.center_ = float(target.mean())
            self.scale_ = float(target.std()) or 1.0
        self.levels_ = _levels(X, self.n_native)
        self.estimator_ = _with_early_stopping(clone(self.estimator), len(target), len(target))
        options = _fit_options(self.estimator_, X.shape[1], self.n_native)
        with _quiet_thread():
            self.estimator_.fit(
                _framed(X, self.levels_, self.estimator_), (target - self.center_) / self.scale_, **options
            )
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Predicted targets in their own unit, shape (n,)."""
        with _quiet_thread():
            found = self.estimator_.predict(_framed(X, self.levels_, self.estimator_), **_one(self.estimator_))
            return np.asarray(found, dtype=np.float64).reshape(-1) * self.scale_ + self.center_


@contextmanager
def _quiet_thread() -> Iterator[None]:
    # A model that stopped early, overflowed or met a constant column is judged by its score, not by a warning.
    with warnings.catch_warnings(), np.errstate(all="ignore"), threadpool_limits(limits=1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "Using the fractional value max_samples")
        warnings.filterwarnings("ignore", "Got `batch_size` less than 1 or larger than sample size")
        yield


def _repeated(codes: NDArray[np.int64], counts: NDArray[np.int64], least: int) -> NDArray[np.int64]:
    extra = [np.resize(np.flatnonzero(codes == code), least - counts[code]) for code in np.flatnonzero(counts < least)]
    return np.concatenate([np.arange(len(codes)), *extra])


def _with_early_stopping(estimator: Any, rows: int, rarest: int) -> Any:
    if getattr(estimator, "early_stopping", False) is True:
        estimator.early_stopping = rows >= LEAST_STOPPING_ROWS and rarest >= LEAST_STOPPING_CLASS
    return estimator


def _levels(X: Any, n_native: int) -> list[int]:
    if not n_native:
        return []
    codes = np.nan_to_num(X[:, -n_native:], nan=0)
    return [int(most) + 1 for most in codes.max(axis=0, initial=0)]


def _framed(X: Any, levels: list[int], estimator: Any) -> Any:
    """The matrix itself, or a table whose last columns are categories in the form the vendor reads."""
    if not levels:
        return X
    first = X.shape[1] - len(levels)
    columns: dict[str, Any] = {f"f{place}": X[:, place] for place in range(first)}
    for place, size in enumerate(levels, start=first):
        codes = np.where(np.isnan(X[:, place]), -1, X[:, place]).astype(np.int32)
        columns[f"f{place}"] = (
            codes if _is_catboost(estimator) else pd.Categorical.from_codes(codes, pd.RangeIndex(size))
        )
    return pd.DataFrame(columns, copy=False)


def _fit_options(estimator: Any, width: int, n_native: int) -> dict[str, Any]:
    # CatBoost alone asks for the places of categories, and cannot be cloned with them in its constructor.
    return {"cat_features": list(range(width - n_native, width))} if _is_catboost(estimator) and n_native else {}


def _one(estimator: Any) -> dict[str, int]:
    # CatBoost forgets at prediction how many threads it was trained with.
    return {"thread_count": 1} if _is_catboost(estimator) else {}


def _is_catboost(estimator: Any) -> bool:
    return type(estimator).__module__.startswith("catboost.")
