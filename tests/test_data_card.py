"""The facts that a model is told about the data."""

import time

import numpy as np
import pandas as pd
import pytest

from offline_tune.data.card import describe
from offline_tune.task import Column, ColumnKind, TaskKind

KINDS = {"n": "numeric", "b": "boolean", "c": "categorical", "t": "text", "d": "date"}


def table(n_rows=200):
    generator = np.random.default_rng(0)
    n = generator.exponential(size=n_rows)
    return pd.DataFrame(
        {
            "n": np.where(np.arange(n_rows) % 10 == 0, np.nan, n),
            "b": (n > 1).astype(float),
            "c": pd.Series(generator.choice(["x", "y", "z"], n_rows).tolist(), dtype=object),
            "t": pd.Series(["some words here"] * n_rows, dtype=object),
            "d": pd.date_range("2024-01-01", periods=n_rows),
        }
    ), (n > 0.7).astype(np.int64)


def columns(X):
    return [Column(name, ColumnKind(KINDS[name[0]]), X[name].nunique()) for name in X]


def test_a_card_counts_columns_rows_classes_and_missing_cells():
    X, y = table()
    card = describe(X, y, columns(X), TaskKind.BINARY, description="made up")
    counted = (
        card.n_rows,
        card.n_features,
        card.n_numeric,
        card.n_categorical,
        card.n_text,
        card.n_date,
        card.n_classes,
    )
    assert counted == (200, 5, 1, 2, 1, 1, 2)
    assert card.imbalance == pytest.approx(max(y.mean(), 1 - y.mean()))
    assert card.missing_share == pytest.approx(20 / 1000)
    assert (card.max_cardinality, card.description) == (3, "made up")


def test_skew_is_the_third_standardised_moment():
    X, y = table(2000)
    present = X["n"].dropna()
    expected = abs(((present - present.mean()) ** 3).mean()) / present.std(ddof=0) ** 3
    assert describe(X, y, columns(X), TaskKind.BINARY).mean_abs_skew == pytest.approx(expected)


def test_landmarks_tell_a_straight_signal_from_one_that_needs_splits():
    generator = np.random.default_rng(0)
    X = pd.DataFrame({"n1": generator.uniform(-1, 1, 900), "n2": generator.uniform(-1, 1, 900)})
    straight = describe(X, (X["n1"] + X["n2"]).to_numpy(), columns(X), TaskKind.REGRESSION)
    folded = describe(X, (X["n1"] * X["n2"] > 0).to_numpy().astype(int), columns(X), TaskKind.BINARY)
    assert straight.linear_score == pytest.approx(1.0, abs=1e-3)
    assert straight.linear_score > straight.tree_score
    assert folded.tree_score > 0.9 > folded.linear_score


def test_equal_seeds_give_equal_cards():
    X, y = table()
    assert describe(X, y, columns(X), TaskKind.BINARY, seed=3) == describe(X, y, columns(X), TaskKind.BINARY, seed=3)


def test_landmarks_are_left_out_on_request_and_where_rows_or_columns_lack():
    X, y = table()
    assert describe(X, y, columns(X), TaskKind.BINARY, landmarks=False).linear_score is None
    assert describe(X[:20], y[:20], columns(X), TaskKind.BINARY).tree_score is None
    assert describe(X[["t"]], y, columns(X[["t"]]), TaskKind.BINARY).tree_score is None


def test_huge_constant_and_missing_cells_give_finite_facts():
    X = pd.DataFrame(
        {"n1": [1e308, -1e308] * 50, "n2": [1.0] * 100, "n3": [np.nan] * 99 + [1.0], "n4": np.arange(100) * 1e-320}
    )
    card = describe(X, np.array([1e300, -1e300] * 50), columns(X), TaskKind.REGRESSION)
    assert np.isfinite([card.mean_abs_skew, card.linear_score, card.tree_score]).all()


@pytest.mark.parametrize("kind", [TaskKind.MULTICLASS, TaskKind.REGRESSION])
def test_a_large_table_is_described_within_seconds(kind):
    generator = np.random.default_rng(0)
    X = pd.DataFrame(generator.normal(size=(10_000, 80)), columns=[f"n{i}" for i in range(80)])
    y = generator.integers(0, 10, 10_000) if kind is TaskKind.MULTICLASS else X["n0"].to_numpy()
    started = time.process_time()
    describe(X, y, columns(X), kind)
    # A fifth of this on an idle core; processor time, and room for a busy machine.
    assert time.process_time() - started < 5
