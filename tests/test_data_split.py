"""Which rows train and which are held out."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from offline_tune.data.keys import between_times
from offline_tune.data.plan import SplitPlan
from offline_tune.data.split import split_rows
from offline_tune.errors import DataError, TargetError, UsageError

CLASSES = ("a", "b", "c")


def codes(*counts):
    return np.random.default_rng(1).permutation(np.repeat(np.arange(len(counts)), counts))


def split(y, n_classes=0, frame=None, has_test_file=False, **plan):
    frame = pd.DataFrame(index=range(len(y))) if frame is None else frame
    return split_rows(frame, y, CLASSES[:n_classes], SplitPlan(**plan), has_test_file=has_test_file)


def check(result, n_rows, y=None):
    """The parts are disjoint and whole; folds are too; each training part of a fold has every class."""
    everything = np.concatenate([result.train, [] if result.test is None else result.test])
    assert sorted(everything) == list(range(n_rows))
    for train, held_out in result.folds:
        assert not set(train) & set(held_out)
        assert max(train.max(), held_out.max()) < len(result.train)
        if y is not None:
            assert set(y[result.train][train]) == set(y)
            assert len(set(y[result.train][held_out])) > 1


def test_a_plain_split_of_numbers_holds_out_the_wished_share():
    result = split(np.arange(100.0), test_share=0.25)
    check(result, 100)
    assert len(result.test) == 25
    assert sorted(np.concatenate([held_out for _, held_out in result.folds])) == list(range(75))
    assert result.notes[0].text == "25 of 100 rows are the test part, drawn at random"


def test_classes_are_stratified_in_the_test_part_and_in_the_folds():
    y = codes(100, 50, 10)
    result = split(y, 3)
    check(result, 160, y)
    assert np.bincount(y[result.test]).tolist() == [20, 10, 2]
    for _, held_out in result.folds:
        assert np.abs(np.bincount(y[result.train][held_out]) - [16, 8, 1.6]).max() <= 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(2, 30), min_size=2, max_size=3), st.integers(0, 9), st.floats(0, 0.9), st.integers(2, 8))
def test_every_class_trains_in_every_fold_whatever_the_counts(counts, seed, share, n_folds):
    y = codes(*counts)
    assume(len(y) * (1 - share) >= n_folds + 3)
    check(split(y, len(counts), seed=seed, test_share=share, n_folds=n_folds), len(y), y)


def test_equal_seeds_split_alike_and_others_do_not():
    y = codes(50, 50)
    first, again, other = split(y, 2, seed=3), split(y, 2, seed=3), split(y, 2, seed=4)
    np.testing.assert_array_equal(first.test, again.test)
    np.testing.assert_array_equal(first.folds[0][1], again.folds[0][1])
    assert set(first.test) != set(other.test)


def test_a_rare_class_lowers_the_number_of_folds_with_a_note():
    result = split(codes(50, 3), 2, test_share=0)
    assert len(result.folds) == 3
    assert result.notes[-1].text == "folds: 3 instead of 5, because class 'b' has only 3 training rows"


def test_few_rows_lower_the_number_of_folds_so_that_each_holds_out_two():
    result = split(np.arange(6.0), test_share=0)
    assert [len(held_out) for _, held_out in result.folds] == [2, 2, 2]
    assert result.notes[-1].text == "folds: 3 instead of 5, because there are only 6 training rows"


@pytest.mark.parametrize("options", [{"test_share": 0}, {"has_test_file": True}])
def test_all_rows_train_where_the_test_part_is_elsewhere(options):
    result = split(np.arange(10.0), **options)
    assert result.test is None
    assert len(result.train) == 10


@pytest.mark.parametrize("n_classes", [0, 3])
def test_no_group_is_in_two_parts(n_classes):
    groups = np.repeat(np.arange(40), 5)
    y = np.arange(200) % 3 if n_classes else np.arange(200.0)
    result = split(y, n_classes, pd.DataFrame({"g": [f"person {g}" for g in groups]}), group="g")
    check(result, 200, y if n_classes else None)
    assert not set(groups[result.train]) & set(groups[result.test])
    assert 0.15 <= len(result.test) / 200 <= 0.25
    assert len(result.folds) == 5
    for train, held_out in result.folds:
        assert not set(groups[result.train][train]) & set(groups[result.train][held_out])


def test_few_groups_lower_the_number_of_folds_with_a_note():
    result = split(np.arange(40.0), frame=pd.DataFrame({"g": np.repeat([1, 2, 3, 4], 10)}), group="g")
    assert len(result.folds) == 3
    assert "folds: 3 instead of 5, because column 'g' gives no more parts with enough rows" in result.notes[1].text
    assert result.notes[-1].text == "column 'g' splits the rows and is no feature"


@pytest.mark.parametrize("times", [np.arange(100), pd.date_range("2024-01-01", periods=100).strftime("%Y-%m-%d")])
def test_time_trains_on_the_past_and_tests_on_the_future(times):
    shuffled = np.random.default_rng(0).permutation(100)
    result = split(np.arange(100.0), frame=pd.DataFrame({"t": np.asarray(times)[shuffled]}), time="t")
    assert shuffled[result.train].tolist() == list(range(80))
    assert sorted(shuffled[result.test]) == list(range(80, 100))
    assert [(len(train), len(held_out)) for train, held_out in result.folds] == [(15 + 13 * i, 13) for i in range(5)]
    assert all(train.max() < held_out.min() for train, held_out in result.folds)


def test_equal_times_stay_together():
    years = np.repeat([2019, 2020, 2021, 2022, 2023], 20)
    result = split(np.arange(100.0), frame=pd.DataFrame({"t": years}), time="t", test_share=0.25)
    assert set(years[result.test]) == {2023}
    for train, held_out in result.folds:
        assert not set(years[result.train][train]) & set(years[result.train][held_out])
    assert len(result.folds) == 3


def test_folds_in_time_that_lack_a_class_are_left_out_with_a_note():
    y = np.array([0] * 40 + [0, 1] * 40)
    result = split(y, 2, pd.DataFrame({"t": np.arange(120)}), time="t")
    check(result, 120, y)
    assert len(result.folds) == 3
    assert "folds: 3 instead of 5" in result.notes[-1].text


def test_a_split_column_says_which_rows_are_held_out():
    marks = ["train", "Test", "valid", "holdout"] * 5
    result = split(np.arange(20.0), frame=pd.DataFrame({"part": marks}), split_column="part")
    assert set(result.test) == {i for i in range(20) if i % 2}
    assert result.notes[0].text == "10 of 20 rows are the test part, as column 'part' says"


def test_a_split_column_and_groups_serve_together():
    frame = pd.DataFrame({"part": ["train"] * 30 + ["test"] * 10, "g": np.arange(40) // 5})
    result = split(np.arange(40.0), frame=frame, split_column="part", group="g")
    assert all(not set(train // 5) & set(held_out // 5) for train, held_out in result.folds)


@pytest.mark.parametrize(
    ("marks", "found"),
    [
        (["train", "test", "0", "1"], "'0', '1'"),
        (["train", "test", None, "test"], r"'\(blank\)'"),
        (["train"] * 4, "'train'"),
        (["test"] * 4, "'test'"),
    ],
)
def test_a_split_column_with_other_words_is_refused(marks, found):
    with pytest.raises(
        DataError, match=f"must hold the words train and test in every row, got {found} in column 'part'"
    ):
        split(np.arange(4.0), frame=pd.DataFrame({"part": marks}), split_column="part")


@pytest.mark.parametrize(
    ("cells", "plan", "message"),
    [
        (["a", None] * 5, {"group": "k"}, "each row must have a group, got a blank in column 'k'; fill it"),
        (["a"] * 10, {"group": "k"}, "must have two groups or more, got only 'a' in column 'k'"),
        (["1", "soon"] * 5, {"time": "k"}, "a number or a date like 2024-03-01, got 'soon' in column 'k'"),
        (["2024-01-01", None] * 5, {"time": "k"}, "each row must have a time, .* got 'nan' in column 'k'"),
        ([7] * 10, {"time": "k"}, "must have two different times or more, got only '7.0'"),
        (["a"] * 10, {"group": "none"}, "the group column must be a column of the file, got 'none'; choose one of 'k'"),
        (["a"] * 10, {"time": "none"}, "the time column must be a column of the file, got 'none'"),
        (["a"] * 10, {"split_column": "none"}, "the split column must be a column of the file, got 'none'"),
    ],
)
def test_a_column_that_cannot_split_is_refused(cells, plan, message):
    with pytest.raises(DataError, match=message):
        split(np.arange(10.0), frame=pd.DataFrame({"k": cells}), **plan)


def test_fewer_rows_than_folds_are_refused():
    with pytest.raises(TargetError, match="5 folds need 5 training rows or more, got 4; lower --folds or add rows"):
        split(np.arange(5.0))


def test_a_class_that_only_the_test_part_has_is_refused():
    frame = pd.DataFrame({"part": ["train"] * 8 + ["test"] * 4})
    with pytest.raises(TargetError, match="each class must have two training rows or more, got fewer for 'b' outside"):
        split(np.array([0] * 8 + [0, 0, 1, 1]), 2, frame, split_column="part")


def test_groups_that_each_hold_one_class_are_refused():
    with pytest.raises(
        TargetError,
        match="two groups or more outside the test part, and each class in two of them, got 2 in column 'g'",
    ):
        split(np.repeat([0, 1], 20), 2, pd.DataFrame({"g": np.repeat([1, 2], 20)}), group="g", test_share=0)


def test_a_class_that_comes_too_late_is_refused():
    with pytest.raises(TargetError, match=r"a fold in time needs every class before it .* by column 't'"):
        split(np.array([0] * 90 + [1] * 10), 2, pd.DataFrame({"t": np.arange(100)}), time="t", test_share=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group": "a", "time": "b"}, "--group and --time exclude each other, got 'a' and 'b'; choose one"),
        ({"test_share": 1.0}, "--test-share must be at least 0 and below 1, got 1; 0.2 is usual"),
        ({"test_share": float("nan")}, "--test-share must be at least 0 and below 1, got nan"),
        ({"n_folds": 1}, "--folds must be at least 2, got 1; 5 is usual"),
        ({"seed": -1}, "--seed must lie between 0 and 4294967295, got -1"),
    ],
)
def test_a_plan_out_of_range_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        SplitPlan(**options)


@given(st.lists(st.integers(0, 5), min_size=2), st.integers(0, 50))
def test_a_cut_in_time_lies_between_different_times(times, cut):
    times = np.sort(np.array(times))
    assume(times[0] != times[-1])
    begin = between_times(times, cut)
    assert times[begin - 1] < times[begin]
