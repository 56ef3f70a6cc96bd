"""Preprocessing: every kind of column becomes numbers, and nothing is learnt outside the training part."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.pipeline import Pipeline

from offline_tune.errors import DataError
from offline_tune.evaluator.families.base import Needs
from offline_tune.evaluator.preprocess import (
    MOST_ONEHOT_COLUMNS,
    DateParts,
    Numbers,
    Ranks,
    SquashedScale,
    Strongest,
    TargetMeans,
    Words,
    preprocessing,
)
from offline_tune.task import Column, ColumnKind, TaskKind

PLAIN = Needs(encodings=("onehot", "ordinal", "target", "native"))
SCALED = Needs(encodings=("onehot", "target"), complete=True, scaled=True, dtype="float64")


def prepared(columns, kinds, needs=PLAIN, values=None, y=None, kind=TaskKind.BINARY):
    X = pd.DataFrame(columns)
    described = [Column(name, column_kind) for name, column_kind in zip(X, kinds, strict=True)]
    steps = Pipeline(preprocessing(described, kind, needs, values or {}, seed=0))
    y = np.arange(len(X)) % 2 if y is None else y
    return steps, steps.fit_transform(X, y)


def objects(*cells):
    return pd.Series(list(cells), dtype=object)


def test_no_usable_column_is_refused():
    with pytest.raises(DataError, match="a model needs at least one usable column, got none; keep one that varies"):
        preprocessing([Column("id", ColumnKind.IDENTIFIER)], TaskKind.BINARY, PLAIN, {}, 0)


def test_infinite_and_enormous_numbers_are_tamed():
    found = Numbers().fit_transform(pd.DataFrame({"a": [np.inf, -np.inf, 1e300, None]}))
    assert np.isnan(found[[0, 1, 3]]).all()
    assert found[2] == 1e30


def test_missing_numbers_reach_a_family_that_understands_them():
    _, found = prepared({"a": [1.0, np.nan]}, [ColumnKind.NUMERIC])
    assert np.array_equal(found, np.array([[1], [np.nan]], dtype=np.float32), equal_nan=True)


def test_missing_numbers_are_imputed_and_marked_for_a_family_that_does_not():
    needs = Needs(encodings=("onehot",), complete=True)
    _, found = prepared({"a": [1.0, np.nan, 5.0, 3.0]}, [ColumnKind.NUMERIC], needs, {"imputing": "mean"})
    assert found.tolist() == [[1, 0], [3, 1], [5, 0], [3, 0]]


def test_what_is_imputed_comes_from_the_training_part():
    needs = Needs(encodings=("onehot",), complete=True)
    steps, _ = prepared({"a": [1.0, 2.0, 3.0]}, [ColumnKind.NUMERIC], needs)
    assert steps.transform(pd.DataFrame({"a": [np.nan, 100.0]}))[0, 0] == 2


def test_a_date_becomes_its_parts():
    found = DateParts().transform(pd.DataFrame({"d": pd.to_datetime(["1970-01-02 06:00", None])}))
    assert found[0].tolist() == [1970, 1, 2, 4, 6, 1.25]
    assert np.isnan(found[1]).all()


def test_a_date_column_without_a_single_date_is_borne():
    assert np.isnan(DateParts().transform(pd.DataFrame({"d": objects(None, None)}))).all()


@pytest.mark.parametrize("scaling", ["standard", "robust", "quantile"])
def test_every_scaling_gives_one_scale(scaling):
    rng = np.random.default_rng(0)
    columns = {
        "a": rng.normal(size=300) * 1e6,
        "b": np.exp(3 * rng.normal(size=300)),
        "c": (rng.random(300) > 0.95) * 1e5,
    }
    _, found = prepared(columns, [ColumnKind.NUMERIC] * 3, SCALED, {"scaling": scaling})
    assert np.isfinite(found).all()
    assert (found.std(axis=0) > 0.2).all()
    assert (found.std(axis=0) < 2).all()


def test_robust_scaling_squeezes_an_outlier():
    found = SquashedScale().fit_transform(np.append(np.arange(99.0), 1e12)[:, None])
    assert np.abs(found).max() <= 3
    assert np.abs(found[:99]).max() < 1.1


def test_robust_scaling_of_a_constant_is_zero():
    assert SquashedScale().fit_transform(np.full((5, 1), 7.0)).tolist() == [[0]] * 5


def test_ranks_are_content_with_few_rows():
    assert Ranks().fit_transform(np.array([[3.0], [1.0], [2.0]])).ravel() == pytest.approx([1, 0, 0.5])


def test_ten_thousand_categories_stay_narrow():
    cells = objects(*(f"c{i % 9_000}" for i in range(10_000)))
    _, found = prepared({"a": cells, "b": cells}, [ColumnKind.CATEGORICAL] * 2)
    assert found.shape[1] <= MOST_ONEHOT_COLUMNS


def test_native_codes_stay_below_what_a_histogram_holds():
    cells = objects(*(f"c{i}" for i in range(3_000)))
    _, found = prepared({"a": cells}, [ColumnKind.CATEGORICAL], values={"encoding": "native"})
    assert np.nanmax(found) < 255


@pytest.mark.parametrize("encoding", ["onehot", "ordinal", "target", "native"])
def test_unseen_and_missing_categories_are_encoded(encoding):
    steps, _ = prepared({"a": objects(*"aabbab", None)}, [ColumnKind.CATEGORICAL], values={"encoding": encoding})
    found = steps.transform(pd.DataFrame({"a": objects("zzz", None, "a")}))
    assert found.shape[0] == 3
    assert not np.isinf(found).any()


def test_codes_of_categories_come_last():
    columns = {"a": objects("x", "y", "x"), "b": [1.5, 2.5, 3.5]}
    _, found = prepared(columns, [ColumnKind.CATEGORICAL, ColumnKind.NUMERIC], values={"encoding": "native"})
    assert found.tolist() == [[1.5, 0], [2.5, 1], [3.5, 0]]


def test_target_means_of_training_rows_come_from_other_rows():
    labels, y = objects(*(f"c{i}" for i in range(40))).to_numpy()[:, None], np.arange(40) % 2
    encoder = TargetMeans("binary")
    assert len(np.unique(encoder.fit_transform(labels, y))) < 6  # only the means of the folds: no row sees itself
    assert len(np.unique(encoder.transform(labels))) >= 2


def test_target_means_take_whole_numbers_as_numbers():
    labels = objects(*"aabb" * 5).to_numpy()[:, None]
    found = TargetMeans("continuous").fit(labels, np.array([3, 3, 8, 8] * 5)).transform(labels)
    assert found.shape == (20, 1)
    assert found[0] == pytest.approx(3, abs=0.2)


def test_target_means_bear_a_class_with_one_row():
    labels, y = objects(*"ab" * 10).to_numpy()[:, None], np.array([0] * 10 + [1] * 9 + [2])
    assert TargetMeans("multiclass").fit_transform(labels, y).shape == (20, 3)


def test_text_becomes_a_few_numbers_and_its_length():
    texts = objects(*(f"word{i % 7} other{i % 5} thing" for i in range(60)), None)
    _, found = prepared({"t": texts}, [ColumnKind.TEXT], values={"text_components": 8, "text_ngrams": 2})
    assert found.shape == (61, 9)
    assert found[-1, -1] == 0


def test_text_stays_sparse_for_a_family_that_likes_it():
    needs = Needs(encodings=("onehot",), complete=True, scaled=True, sparse=True, dtype="float64")
    columns = {"t": objects("good day", "bad night", "good night"), "a": [1.0, 2.0, np.nan]}
    _, found = prepared(columns, [ColumnKind.TEXT, ColumnKind.NUMERIC], needs)
    assert sparse.issparse(found)
    assert found.dtype == np.float64


@pytest.mark.parametrize("texts", [["", ""], ["a", "!"], [None, None], ["same", "same"], ["one", ""]])
@pytest.mark.parametrize("components", [0, 4])
def test_text_without_content_is_borne(texts, components):
    words = Words(components=components).fit(objects(*texts))
    found = words.transform(objects("same word", None))
    assert np.isfinite(found.toarray() if sparse.issparse(found) else found).all()


def test_the_strongest_columns_are_kept():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 4))
    X[:, 3] = 1.0  # constant: no relation at all, and no warning
    kept = Strongest(0.25, is_classification=False).fit(X, X[:, 2] + 0.1 * X[:, 0]).columns_
    assert kept.tolist() == [2]


def test_at_least_one_column_is_kept():
    assert Strongest(0.01, is_classification=True).fit(np.ones((6, 3)), np.arange(6) % 2).columns_.tolist() == [0]


def test_names_of_columns_are_only_names():
    name = 'a"}\n{{' * 2000
    _, found = prepared({name: [1.0, 2.0], "model__x": objects("u", "v")}, [ColumnKind.NUMERIC, ColumnKind.CATEGORICAL])
    assert found.shape == (2, 3)
