"""Pipelines: a candidate becomes a model, a model becomes predictions of one shape."""

import numpy as np
import pandas as pd
import pytest
from contracts_families import TRAIN, a_card, a_table, a_task, fitted, space_for
from sklearn.base import clone

from offline_tune.errors import DataError, SpaceError
from offline_tune.evaluator.families import FAMILIES, default_of, family, space_of
from offline_tune.evaluator.pipeline import build_pipeline, predictions
from offline_tune.task import ColumnKind, TaskKind


def test_a_candidate_of_no_family_is_refused():
    with pytest.raises(SpaceError, match="a candidate must name a known family, got 'forest'"):
        build_pipeline({"family": "forest"}, a_task(), 0, 100)


def test_a_task_without_columns_is_refused():
    values = default_of("linear", space_for("linear", TaskKind.BINARY))
    with pytest.raises(DataError, match="a model needs at least one usable column, got none"):
        build_pipeline(values, a_task(kinds={"id": ColumnKind.IDENTIFIER}), 0, 100)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_pipeline_can_be_cloned(name):
    X, y = a_table(TaskKind.BINARY)
    model = build_pipeline(default_of(name, space_for(name, TaskKind.BINARY)), a_task(), 0, 60)
    assert np.isfinite(predictions(clone(model).fit(X[:60], y[:60]), X[TRAIN:], a_task())).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_text_alone_can_be_learnt(name):
    rng = np.random.default_rng(0)
    y = np.arange(80) % 2
    words = np.where(y == 1, "fine", "awful")
    X = pd.DataFrame({"t": [f"{word} noise{rng.integers(9)} end" for word in words]}, dtype=object)
    card = a_card(n_rows=80, n_features=1, n_numeric=0, n_categorical=0, n_date=0, n_text=1, missing_share=0.0)
    values = default_of(name, space_of([family(name)], card))
    task = a_task(kinds={"t": ColumnKind.TEXT})
    found = predictions(build_pipeline(values, task, 0, 80).fit(X, y), X, task)
    assert np.mean(found.argmax(axis=1) == y) > 0.9


def test_the_order_of_columns_does_not_matter():
    X, _ = a_table(TaskKind.BINARY)
    model = fitted("xgboost", TaskKind.BINARY)
    assert np.array_equal(predictions(model, X, a_task()), predictions(model, X[X.columns[::-1]], a_task()))


def test_other_rows_do_not_change_a_prediction():
    X, _ = a_table(TaskKind.BINARY)
    model = fitted("lightgbm", TaskKind.BINARY)
    assert np.allclose(predictions(model, X, a_task())[:1], predictions(model, X[:1], a_task()))


@pytest.mark.parametrize("name", ["xgboost", "lightgbm", "catboost", "random_forest", "mlp"])
def test_seeds_that_differ_give_models_that_differ(name):
    X, _ = a_table(TaskKind.REGRESSION)
    space = space_for(name, TaskKind.REGRESSION)
    noisy = {f"{name}.subsample": 0.7} if f"{name}.subsample" in space.by_name else {}
    values = {**default_of(name, space), **noisy}
    found = [
        predictions(fitted(name, TaskKind.REGRESSION, values, seed=seed), X, a_task(TaskKind.REGRESSION))
        for seed in (1, 2)
    ]
    assert not np.array_equal(*found)


@pytest.mark.parametrize("encoding", ["onehot", "native", "target"])
@pytest.mark.parametrize("name", ["xgboost", "lightgbm", "catboost"])
def test_boosters_take_categories_in_every_encoding(name, encoding):
    X, y = a_table(TaskKind.MULTICLASS)
    values = {**default_of(name, space_for(name, TaskKind.MULTICLASS)), f"{name}.encoding": encoding}
    found = predictions(fitted(name, TaskKind.MULTICLASS, values), X[TRAIN:], a_task(TaskKind.MULTICLASS))
    assert np.mean(found.argmax(axis=1) == y[TRAIN:]) > 0.6


def test_nothing_is_written_beside_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fitted("catboost", TaskKind.BINARY)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_printed(capfd):
    for name in ("xgboost", "lightgbm", "catboost"):
        fitted(name, TaskKind.BINARY, rows=slice(0, 40))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", list(TaskKind), ids=str)
def test_no_rows_give_no_predictions(kind):
    X, _ = a_table(kind)
    found = predictions(fitted("linear", kind), X[:0], a_task(kind))
    assert found.shape == ((0, len(a_task(kind).classes)) if kind.is_classification else (0,))


def test_a_target_beyond_all_bounds_gives_predictions_that_say_so():
    X, y = a_table(TaskKind.REGRESSION)
    values = default_of("linear", space_for("linear", TaskKind.REGRESSION))
    model = build_pipeline(values, a_task(TaskKind.REGRESSION), 0, 60).fit(X[:60], y[:60] * 1e200)
    assert not np.isfinite(predictions(model, X[:5], a_task(TaskKind.REGRESSION))).any()


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "catboost"])  # it asks for three rows
def test_two_rows_and_a_constant_column_are_borne(name):
    X = pd.DataFrame({"width": [1.0, 2.0], "height": [5.0, 5.0]})
    task = a_task(kinds={"width": ColumnKind.NUMERIC, "height": ColumnKind.NUMERIC})
    card = a_card(n_rows=2, n_features=2, n_categorical=0, n_date=0)
    values = default_of(name, space_of([family(name)], card))
    found = predictions(build_pipeline(values, task, 0, 2).fit(X, np.array([0, 1])), X, task)
    assert np.allclose(found.sum(axis=1), 1)


def test_what_a_vendor_refuses_is_an_ordinary_error():
    X = pd.DataFrame({"width": np.ones(20)})
    card = a_card(n_rows=20, n_features=1, n_categorical=0, n_date=0)
    values = default_of("catboost", space_of([family("catboost")], card))
    model = build_pipeline(values, a_task(kinds={"width": ColumnKind.NUMERIC}), 0, 20)
    with pytest.raises(Exception, match="All features are either constant or ignored"):
        model.fit(X, np.arange(20) % 2)
