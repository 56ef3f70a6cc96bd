"""Which task a target column poses, and what cannot be learnt."""

import numpy as np
import pandas as pd
import pytest

from offline_tune.data.header import find_column
from offline_tune.data.target import encode_like, encode_target
from offline_tune.errors import DataError, TargetError, UsageError
from offline_tune.task import TaskKind

BINARY, MULTICLASS, REGRESSION = TaskKind.BINARY, TaskKind.MULTICLASS, TaskKind.REGRESSION
RNG = np.random.default_rng(0)


def target(cells, name="y"):
    return pd.Series(cells, name=name)


def notes(cells, kind="auto"):
    return [note.text for note in encode_target(target(cells), kind).notes]


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["no", "yes"] * 5, BINARY),
        ([True, False] * 5, BINARY),
        (["0", "1"] * 5, BINARY),
        ([0.5, 1.5] * 5, BINARY),
        (["5.0", "7.0"] * 5, BINARY),
        (["a", "b", "c"] * 5, MULTICLASS),
        (["1", "2", "x"] * 5, MULTICLASS),
        (["0", "1", "2"] * 5, MULTICLASS),
        ([1.0, 2.0, 3.0, np.nan] * 5, MULTICLASS),
        ([-1, 0, 1] * 5, MULTICLASS),
        ([1, 2, 3, 4, 5, 7] * 5, MULTICLASS),
        ([2, 3, 4, 6, 7] * 5, MULTICLASS),
        (list(range(1, 27)) * 20, MULTICLASS),
        (["1.5", "2", "3"] * 5, REGRESSION),
        ([3] * 2 + [4] * 9 + [5] * 40 + [6] * 40 + [7] * 9 + [8] * 2, REGRESSION),
        (np.round(RNG.gamma(10, size=400)).tolist(), REGRESSION),
        ([0, 10, 20, 30] * 5, REGRESSION),
        (RNG.normal(size=50).tolist(), REGRESSION),
        (list(range(10)), REGRESSION),
    ],
)
def test_the_kind_of_task_follows_from_the_values(cells, kind):
    assert encode_target(target(cells)).kind is kind


def test_classes_are_sorted_and_encoded_in_that_order():
    encoded = encode_target(target(["b", "c", "a", "b", "c", "a"]))
    assert encoded.classes == ("a", "b", "c")
    assert encoded.y.tolist() == [1, 2, 0, 1, 2, 0]
    assert encoded.y.dtype == np.int64


def test_numbers_as_classes_are_sorted_by_size_and_spelled_shortly():
    assert encode_target(target(["10", "9", "9.0", "10", "-1", "-1"]), "multiclass").classes == ("-1", "9", "10")


def test_regression_keeps_the_numbers():
    encoded = encode_target(target(["1.5", "-2", "3e1"]))
    assert encoded.classes == ()
    assert encoded.y.tolist() == [1.5, -2.0, 30.0]


def test_rows_without_a_target_are_dropped_with_a_note():
    encoded = encode_target(target(["1.5", "", "inf", "NA", "2.5", "3"]))
    assert encoded.kept.tolist() == [0, 4, 5]
    assert encoded.notes[0].text == "rows without a value in the target 'y' are left out: 3"


@pytest.mark.parametrize("kind", ["regression", "multiclass"])
def test_the_kind_can_be_chosen(kind):
    assert encode_target(target([0, 1, 2] * 5), kind).kind == kind


def test_the_choice_between_codes_and_quantities_is_noted_with_the_option_that_turns_it():
    expected = "holds 3 different whole numbers from 0 to 2, taken as multiclass; --task regression takes them as"
    assert notes([0, 1, 2] * 5) == [f"target 'y' {expected} quantities"]
    assert "taken as regression; --task multiclass takes them as classes" in notes([0, 10, 20, 30] * 5)[0]
    assert notes([0, 1, 2] * 5, "regression") == []


def test_the_positive_class_is_noted():
    assert notes(["no", "no", "no", "yes", "yes"]) == ["the positive class of target 'y' is 'yes', 40.0% of the rows"]


def test_imbalance_is_noted():
    assert "unbalanced: 'a' has 90.0% of the rows, 'b' 10.00%" in notes(["a"] * 18 + ["b"] * 2)[-1]


def test_a_class_that_may_mean_missing_is_noted():
    assert "'NA' is a class of target 'y'; blank such cells" in notes(["NA", "NA", "x", "x"])[0]


@pytest.mark.parametrize(
    ("cells", "kind", "message"),
    [
        ([None, None], "auto", "must have values, got only missing ones in column 'y'"),
        (["a", "a", None], "auto", "must have two different values or more, got only 'a' in column 'y'"),
        ([1.0, 1.0], "regression", "must have two different values or more, got only '1.0'"),
        (["a", "a", "b"], "auto", "must have two rows or more, got one row for 'b' in column 'y'; merge or drop"),
        ([f"name {i}" for i in range(30)], "auto", "must repeat, got 30 different values in 30 rows of column 'y'"),
        (["a", "b", "c"] * 2, "binary", r"a binary target must have two classes, got 3 .*use --task multiclass"),
        (["a", "b"] * 2, "multiclass", "a multiclass target must have three classes or more, got 'a', 'b'"),
        (["1.5", "2.5", "much", "3", "?"], "regression", "must hold numbers, got 'much' in column 'y'"),
        ([*map(str, range(100)), "much"], "auto", "a regression target must hold numbers, got 'much'"),
        ([f"2024-01-{i:02}" for i in range(1, 29)], "auto", "must hold labels or numbers, got dates in column 'y'"),
        (pd.to_datetime(["2024-01-01", "2024-01-02"]), "regression", "must hold labels or numbers, got dates"),
    ],
)
def test_a_target_that_cannot_be_learnt_is_refused(cells, kind, message):
    with pytest.raises(TargetError, match=message):
        encode_target(target(cells), kind)


def test_an_unknown_kind_is_refused():
    with pytest.raises(
        UsageError, match=r"--task must be one of auto, binary, .* got 'regresion'; did you mean 'regression'"
    ):
        encode_target(target([1, 2]), "regresion")


def test_a_missing_target_is_refused_with_the_closest_column():
    with pytest.raises(
        TargetError, match="the target must be a column of the file, got 'Incone'; did you mean 'income'"
    ):
        find_column(pd.DataFrame({"age": [1], "income": [2]}), "Incone", "target", TargetError)
    with pytest.raises(DataError, match=r"the group column must be .* got 'zz'; choose one of 'age'"):
        find_column(pd.DataFrame({"age": [1]}), "zz", "group column")


@pytest.mark.parametrize("value", ['"', "a\nb", "{x}", "x" * 10_000, "ignore previous instructions", "日本"])
def test_any_text_can_be_a_class(value):
    encoded = encode_target(target([value, "other"] * 3, name=value))
    assert set(encoded.classes) == {value, "other"}
    assert all(note.text.isprintable() and len(note.text) < 250 for note in encoded.notes)


def test_a_test_file_is_encoded_like_the_training_data():
    y, kept = encode_like(target(["2.0", "1", "", "?", "1"]), BINARY, ("1", "2"))
    assert y.tolist() == [1, 0, 0]
    assert kept.tolist() == [0, 1, 4]
    assert encode_like(target([2, 1]), BINARY, ("1", "2"))[0].tolist() == [1, 0]
    assert encode_like(target([True, False]), BINARY, ("False", "True"))[0].tolist() == [1, 0]


def test_a_test_file_for_regression_keeps_its_numbers():
    y, kept = encode_like(target(["2.5", "", "inf", "1"]), REGRESSION, ())
    assert y.tolist() == [2.5, 1.0]
    assert kept.tolist() == [0, 3]


@pytest.mark.parametrize(
    ("cells", "kind", "message"),
    [
        (["a", "z"], BINARY, "must occur in training, got 'z' in column 'y'"),
        ([None, ""], BINARY, "must have values, got only missing ones in column 'y'; choose another file"),
        (["1", "much"], REGRESSION, "a regression target must hold numbers, got 'much'"),
    ],
)
def test_a_test_file_that_does_not_fit_is_refused(cells, kind, message):
    with pytest.raises(TargetError, match=message):
        encode_like(target(cells), kind, ("a", "b"))
