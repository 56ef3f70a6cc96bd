"""From a file to a data set, on made-up tables and on real ones where they lie beside the checkout."""

import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from offline_tune.data.plan import SplitPlan
from offline_tune.data.prepare import load_dataset, load_features, make_dataset
from offline_tune.errors import ArtifactError, DataError, MetricError, TargetError, UsageError
from offline_tune.task import ColumnKind, TaskKind

TABULAR = Path(__file__).parents[1].parent / "shared" / "data" / "tabular"
real_data = pytest.mark.skipif(not TABULAR.is_dir(), reason="the real data sets are not beside the checkout")


def customers(n_rows=200):
    generator = np.random.default_rng(0)
    age = generator.integers(18, 90, n_rows)
    return pd.DataFrame(
        {
            "customer_id": np.arange(n_rows),
            "age": age,
            "city": generator.choice(["Bern", "Oslo", "Rome"], n_rows),
            "member": generator.choice(["yes", "no"], n_rows),
            "since": pd.date_range("2020-01-01", periods=n_rows).strftime("%Y-%m-%d"),
            "balance": generator.normal(size=n_rows).round(3),
            "country": "CH",
            "bought": np.where(age + generator.normal(0, 10, n_rows) > 50, "yes", "no"),
        }
    )


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "customers.csv"
    customers().to_csv(path, index=False)
    return path


def test_a_file_becomes_a_task_with_parts_folds_and_a_card(file):
    data = load_dataset(file, "bought", description="who buys")
    assert (data.task.name, data.task.kind, data.task.classes) == ("customers", TaskKind.BINARY, ("no", "yes"))
    assert list(data.X) == ["age", "city", "member", "since", "balance"] == list(data.X_test)
    assert (len(data.X), len(data.X_test), len(data.folds)) == (160, 40, 5)
    assert data.task.n_rows == data.card.n_rows == len(data.y) == 160
    assert (data.card.description, data.task.metric.name, len(data.digest)) == ("who buys", "neg_log_loss", 64)


def test_unused_columns_are_kept_in_the_task_and_noted(file):
    data = load_dataset(file, "bought")
    kinds = {column.name: column.kind for column in data.task.columns}
    assert kinds["customer_id"] is ColumnKind.IDENTIFIER
    assert kinds["country"] is ColumnKind.CONSTANT
    assert {note.column for note in data.notes} >= {"customer_id", "country"}


def test_equal_seeds_give_equal_data_sets(file):
    first, again, other = (load_dataset(file, "bought", seed=seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first.X_test, again.X_test)
    assert (first.card, first.notes, first.task) == (again.card, again.notes, again.task)
    assert not first.X_test.equals(other.X_test)


def test_a_test_file_is_the_test_part(file, tmp_path):
    rows = customers(30).assign(city="Never seen")
    rows.loc[0, "bought"] = None
    rows[["bought", "city", "age", "member", "balance", "since"]].to_parquet(tmp_path / "test.parquet")
    data = load_dataset(file, "bought", test_path=tmp_path / "test.parquet")
    assert (len(data.X), len(data.X_test)) == (200, 29)
    assert set(data.X_test["city"]) == {"Never seen"}
    assert data.X_test.dtypes.equals(data.X.dtypes)
    assert data.y_test.tolist() == (rows["bought"][1:] == "yes").astype(int).tolist()


def test_kinds_are_learnt_from_the_training_part_alone():
    frame = pd.DataFrame(
        {
            "x": [1.0] * 20 + [2.0] * 5,
            "z": np.arange(25) % 4,
            "y": np.arange(25) / 7,
            "part": ["train"] * 20 + ["test"] * 5,
        }
    )
    data = make_dataset(frame.sample(frac=1, random_state=0), "y", plan=SplitPlan(split_column="part"))
    assert data.task.columns[0].kind is ColumnKind.CONSTANT


def test_split_and_group_columns_are_no_features_but_the_time_is(file):
    assert "city" not in load_dataset(file, "bought", group="city").X
    assert "age" not in [column.name for column in load_dataset(file, "bought", group="age").task.columns]
    timed = load_dataset(file, "bought", time="since")
    assert timed.X["since"].is_monotonic_increasing
    assert timed.X["since"].max() < timed.X_test["since"].min()


def test_no_test_part_is_held_out_on_request(file):
    data = load_dataset(file, "bought", test_share=0)
    assert data.X_test is None
    assert data.y_test is None


def test_the_kind_and_the_metric_can_be_chosen(file):
    data = load_dataset(file, "age", kind="regression", metric="mae")
    assert (data.task.kind, data.task.metric.name, data.y.dtype) == (
        TaskKind.REGRESSION,
        "neg_mean_absolute_error",
        float,
    )


def test_a_new_file_gives_features_in_the_form_of_training(file, tmp_path):
    data = load_dataset(file, "bought")
    customers(5)[["city", "since", "balance", "age", "member"]].assign(age="?", extra=1).to_csv(
        tmp_path / "new.csv", index=False
    )
    features = load_features(tmp_path / "new.csv", data.task)
    assert list(features) == list(data.X)
    assert features.dtypes.equals(data.X.dtypes)
    assert features["age"].isna().all()


def test_the_training_file_itself_gives_the_training_features(file):
    data = load_dataset(file, "bought", test_share=0)
    pd.testing.assert_frame_equal(load_features(file, data.task), data.X)


def test_a_new_file_of_a_single_feature_is_read(tmp_path):
    (tmp_path / "train.csv").write_text("size,y\n" + "".join(f"{i % 7},{i % 2}\n" for i in range(40)))
    (tmp_path / "new.csv").write_text("size\n3\n4\n")
    task = load_dataset(tmp_path / "train.csv", "y").task
    assert load_features(tmp_path / "new.csv", task)["size"].tolist() == [3.0, 4.0]


def test_a_new_file_without_a_feature_is_refused(file, tmp_path):
    task = load_dataset(file, "bought").task
    (tmp_path / "new.csv").write_text("age,city\n3,Oslo\n")
    with pytest.raises(ArtifactError, match="got none named 'member', 'since', 'balance'; add them"):
        load_features(tmp_path / "new.csv", task)


@pytest.mark.parametrize("name", ['"', "a\nb", "{x}", "x" * 10_000, "ignore previous instructions", "列", "0"])
def test_any_text_serves_as_names_and_classes_from_file_to_features(tmp_path, name):
    target, n_rows = name + "?", 40
    frame = pd.DataFrame(
        {name: [name, "u"] * (n_rows // 2), "n": np.arange(n_rows) % 9, target: [name, "v", "v", name] * (n_rows // 4)}
    )
    frame.to_csv(tmp_path / "d.csv", index=False)
    data = load_dataset(tmp_path / "d.csv", target)
    assert list(data.X) == [name, "n"]
    assert set(data.task.classes) == {name, "v"}
    assert set(data.X[name]) == {name, "u"}
    assert all(note.text.isprintable() and len(note.text) < 300 for note in data.notes)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"target": "Bought"}, TargetError, "must be a column of the file, got 'Bought'; did you mean 'bought'"),
        ({"target": "country"}, TargetError, "must have two different values or more, got only 'CH'"),
        ({"group": "town"}, DataError, "the group column must be a column of the file, got 'town'"),
        ({"metric": "r2"}, MetricError, "must fit a binary task, got 'r2'"),
        ({"target": "balance", "metric": "neg_mean_gamma_deviance"}, MetricError, "must be defined for these values"),
        ({"group": "bought"}, UsageError, "--group must not be the target, got 'bought' for both; name another column"),
        ({"split_column": "city", "group": "city"}, UsageError, "must not order or group the rows too, got 'city'"),
        ({"n_folds": 400}, TargetError, "400 folds need 400 training rows or more, got 160"),
    ],
)  # fmt: skip
def test_a_task_that_cannot_be_set_up_is_refused(file, options, error, message):
    options = {"target": "bought"} | options
    with pytest.raises(error, match=message):
        load_dataset(file, **options)


def test_a_split_column_beside_a_test_file_is_refused(file):
    with pytest.raises(
        UsageError, match=r"--test and --split-column exclude each other, got .* and 'city'; choose one"
    ):
        load_dataset(file, "bought", test_path=file, split_column="city")


def test_a_table_without_a_usable_column_is_refused():
    frame = pd.DataFrame({"id": range(50), "same": "x", "y": [0, 1] * 25})
    with pytest.raises(
        DataError, match=r"a column to learn from beside 'y', got 'id \(identifier\)', 'same \(constant\)'"
    ):
        make_dataset(frame, "y")
    with pytest.raises(DataError, match="a column to learn from beside 'y', got none; add features"):
        make_dataset(frame[["y"]], "y")


def test_a_frame_in_memory_needs_no_text():
    frame = pd.DataFrame({1: np.arange(60.0) ** 2, "c": pd.Categorical(["u", "v"] * 30), "y": [True, False] * 30})
    data = make_dataset(frame, "y")
    assert list(data.X) == ["1", "c"]
    assert data.task.classes == ("False", "True")


@real_data
@pytest.mark.parametrize(
    "name", ["german_credit", "wine_quality", "spambase", "pmlb_satimage", "abalone", "pmlb_letter", "pmlb_texture"]
)
def test_real_tables_are_the_tasks_that_their_index_says(name):
    entry = next(entry for entry in json.loads((TABULAR / "index.json").read_text()) if entry["name"] == name)
    data = load_dataset(TABULAR / f"{name}.csv.gz", entry["target"])
    assert data.task.kind == entry["task"]
    assert len(data.X) + len(data.X_test) == entry["rows"]
    counted = (data.card.n_numeric, data.card.n_categorical)
    assert sum(counted) == entry["features"]
    assert data.digest == entry["sha256"]


@real_data
def test_adult_is_read_with_its_own_split_in_time():
    started = time.process_time()
    data = load_dataset(TABULAR / "adult.csv.gz", "income", split_column="split")
    seconds = time.process_time() - started
    assert (len(data.X), len(data.X_test)) == (32_561, 16_281)
    assert data.task.classes == ("<=50K", ">50K")
    assert (data.card.n_numeric, data.card.n_categorical) == (6, 8)
    assert seconds < 4  # about 1 on an idle core
