"""Facts about the training part of a table: what the model that proposes is told, and no row of the data.

The landmarks are cross-validated scores of a linear model and of a small tree on a sample: whether the signal is
there, and whether it is straight. They are balanced accuracy for classes and R² (cut at -1) for numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from offline_tune.cards import DataCard
from offline_tune.task import Column, ColumnKind, TaskKind

SAMPLE_ROWS = 2000
SAMPLE_COLUMNS = 50
_LEAST_ROWS = 30
_FOLDS = 3
_LARGEST = 1e100
_LEAST_SPREAD = 1e-12
_NUMBERS = (ColumnKind.NUMERIC, ColumnKind.BOOLEAN)


def describe(
    X: pd.DataFrame,
    y: NDArray[np.int64] | NDArray[np.float64],
    columns: Sequence[Column],
    kind: TaskKind,
    *,
    description: str = "",
    seed: int = 0,
    landmarks: bool = True,
) -> DataCard:
    """Describe cleaned training data.

    Args:
        X: the features as `columns.clean` gives them, n rows.
        y: the encoded target, shape (n,).
        columns: the columns of X; booleans count as categorical.
        kind: the kind of task.
        description: the user's own words about the data.
        seed: of the sample and of the landmarks' folds.
        landmarks: whether the two quick models are tried.
    """
    of_kind = {wanted: [column for column in columns if column.kind is wanted] for wanted in ColumnKind}
    categories = [*of_kind[ColumnKind.CATEGORICAL], *of_kind[ColumnKind.BOOLEAN]]
    counts = np.bincount(y) if kind.is_classification else np.zeros(1)
    linear, tree = _landmarks(X, y, columns, kind, seed) if landmarks else (None, None)
    return DataCard(
        kind=kind,
        n_rows=len(X),
        n_features=len(columns),
        n_numeric=len(of_kind[ColumnKind.NUMERIC]),
        n_categorical=len(categories),
        n_text=len(of_kind[ColumnKind.TEXT]),
        n_date=len(of_kind[ColumnKind.DATE]),
        n_classes=len(counts) if kind.is_classification else 0,
        imbalance=float(counts.max() / len(y)),
        missing_share=float(X.isna().to_numpy().mean()),
        max_cardinality=max((column.n_unique for column in categories), default=0),
        mean_abs_skew=_mean_abs_skew(X[[column.name for column in of_kind[ColumnKind.NUMERIC]]]),
        linear_score=linear,
        tree_score=tree,
        description=description,
    )


def _mean_abs_skew(numeric: pd.DataFrame) -> float:
    return float(np.mean([_abs_skew(numeric[name].to_numpy()) for name in numeric])) if len(numeric.columns) else 0.0


def _abs_skew(values: NDArray[np.float64]) -> float:
    """The third standardised moment without its sign; 0 for a constant."""
    finite = values[np.isfinite(values)]
    largest = np.abs(finite).max(initial=0.0)
    if largest == 0.0:
        return 0.0
    # Scaled first, so that no power overflows.
    scaled = finite / largest
    centred = scaled - scaled.mean()
    spread = float(np.sqrt((centred**2).mean()))
    return abs(float((centred**3).mean())) / spread**3 if spread > _LEAST_SPREAD else 0.0


def _landmarks(
    X: pd.DataFrame, y: NDArray[np.generic], columns: Sequence[Column], kind: TaskKind, seed: int
) -> tuple[float | None, float | None]:
    generator = np.random.default_rng(seed)
    rows = np.sort(generator.permutation(len(X))[:SAMPLE_ROWS])
    if kind.is_classification:
        rows = rows[np.isin(y[rows], np.flatnonzero(np.bincount(y[rows]) >= _FOLDS))]
    usable = [column for column in columns if column.kind in (*_NUMBERS, ColumnKind.CATEGORICAL)]
    chosen = [usable[i] for i in np.sort(generator.permutation(len(usable))[:SAMPLE_COLUMNS])]
    if len(rows) < _LEAST_ROWS or not chosen or len(np.unique(y[rows])) < 2:
        return None, None
    sample = _plain_cells(X.iloc[rows], chosen)
    target = y[rows] if kind.is_classification else y[rows] / np.abs(y[rows]).max()
    linear, tree = _quick_models(kind, seed)
    return _score(linear, sample, target, chosen, kind, seed), _score(tree, sample, target, chosen, kind, seed)


def _plain_cells(sample: pd.DataFrame, columns: Sequence[Column]) -> pd.DataFrame:
    """Columns by position, numbers within what can be squared, words without a missing one."""
    plain = {
        str(position): sample[column.name].clip(-_LARGEST, _LARGEST)
        if column.kind in _NUMBERS
        else sample[column.name].fillna("")
        for position, column in enumerate(columns)
    }
    return pd.DataFrame(plain)


def _quick_models(kind: TaskKind, seed: int) -> tuple[Any, Any]:
    if kind.is_classification:
        tree = DecisionTreeClassifier(max_depth=6, min_samples_leaf=5, random_state=seed)
        return LogisticRegression(max_iter=60), tree
    return Ridge(), DecisionTreeRegressor(max_depth=6, min_samples_leaf=5, random_state=seed)


def _score(
    model: Any,
    sample: pd.DataFrame,
    target: NDArray[np.generic],
    columns: Sequence[Column],
    kind: TaskKind,
    seed: int,
) -> float:
    is_number = [column.kind in _NUMBERS for column in columns]
    numeric = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler())
    words = OneHotEncoder(max_categories=12, handle_unknown="infrequent_if_exist", sparse_output=False)
    encoder = ColumnTransformer(
        [("numbers", numeric, np.flatnonzero(is_number)), ("words", words, np.flatnonzero(np.logical_not(is_number)))]
    )
    splitter = StratifiedKFold if kind.is_classification else KFold
    with warnings.catch_warnings():
        # A few steps of a quick model need not converge, and a fold need not know every category.
        warnings.simplefilter("ignore")
        scores = cross_val_score(
            make_pipeline(encoder, model),
            sample,
            target,
            scoring="balanced_accuracy" if kind.is_classification else "r2",
            cv=splitter(_FOLDS, shuffle=True, random_state=seed),
        )
    return float(np.clip(scores, -1.0, 1.0).mean())
