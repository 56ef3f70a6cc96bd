"""What a network sees of a training part."""

import numpy as np
import pytest

from offline_tune.evaluator.batched.resident import widened
from offline_tune.evaluator.batched.table import Table


def a_table(n=200, is_classifier=True):
    rng = np.random.default_rng(0)
    X = np.column_stack([np.arange(n) % 2, rng.normal(size=n), np.zeros(n), rng.normal(size=n)])
    y = np.array(["no", "yes", "yes", "yes"], dtype=object)[np.arange(n) % 4] if is_classifier else 5 + 2 * X[:, 1]
    return X, y, Table.of(X, y, is_classifier=is_classifier)


def test_numbers_come_before_columns_of_two_values():
    X, _, table = a_table()
    assert table.columns.tolist() == [1, 3, 0, 2]
    assert table.n_numbers == 2
    np.testing.assert_array_equal(table.X, X[:, [1, 3, 0, 2]].astype(np.float32))


def test_labels_are_coded_in_the_order_of_their_classes():
    _, y, table = a_table()
    np.testing.assert_array_equal(table.classes[table.y], y)
    assert table.n_outputs == 2


def test_numbers_are_standardised_and_can_be_put_back():
    _, y, table = a_table(is_classifier=False)
    assert abs(table.y.mean()) < 1e-6
    assert table.y.std() == pytest.approx(1)
    np.testing.assert_allclose(table.y * table.scale + table.center, y, rtol=1e-5)


def test_rows_are_kept_back_from_each_class_alike():
    _, _, table = a_table()
    assert len(table.train) + len(table.valid) == 200
    assert not set(table.train) & set(table.valid)
    assert np.bincount(table.y[table.valid]).tolist() == [7, 22]


def test_few_rows_are_all_learnt_from():
    _, _, table = a_table(80)
    assert table.valid is None
    assert len(table.train) == 80


def test_balanced_classes_count_the_same_in_all():
    _, _, table = a_table()
    weights = np.array(table.class_weights(True))[table.y[table.train]]
    assert weights.mean() == pytest.approx(1)
    assert weights[table.y[table.train] == 0].sum() == pytest.approx(weights[table.y[table.train] == 1].sum())
    assert table.class_weights(False) is None


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="a classifier needs rows of at least two classes, got one; use other folds"):
        Table.of(np.zeros((3, 1)), np.ones(3, dtype=int), is_classifier=True)


def test_no_column_is_refused():
    with pytest.raises(ValueError, match="a network needs at least one column, got none; keep one"):
        Table.of(np.zeros((3, 0)), np.arange(3), is_classifier=True)


def test_a_target_that_overflows_is_borne():
    table = Table.of(np.zeros((3, 1)), np.array([1e308, -1e308, 1e308]), is_classifier=False)
    assert table.n_outputs == 1


def test_tables_are_widened_by_zeros():
    np.testing.assert_array_equal(widened(np.ones((2, 1)), 3), [[1, 0, 0], [1, 0, 0]])
