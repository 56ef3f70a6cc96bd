"""Several models that decide together."""

from functools import partial

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from offline_tune.data.metrics import resolve_metric, score_predictions
from offline_tune.ensemble import greedy_ensemble, stack, vote
from offline_tune.errors import UsageError
from offline_tune.task import TaskKind


def negative_mse(y, predictions):
    return -float(np.mean((y - predictions) ** 2))


def log_score(n_classes):
    metric = resolve_metric("neg_log_loss", TaskKind.MULTICLASS)
    return partial(_scored, metric, n_classes)


def _scored(metric, n_classes, y, predictions):
    return score_predictions(metric, y, predictions, n_classes)


@st.composite
def libraries(draw, max_members=5):
    """Targets and noisy predictions of a few members, each with its own noise and offset."""
    m, n, seed = draw(st.integers(1, max_members)), draw(st.integers(2, 30)), draw(st.integers(0, 10_000))
    rng = np.random.default_rng(seed)
    y = rng.normal(size=n)
    noise = rng.uniform(0.1, 2.0, size=(m, 1))
    return y, y + noise * rng.normal(size=(m, n)) + rng.normal(size=(m, 1)) / 3


@pytest.fixture
def classes():
    """Two members that know different halves of three classes, and one that knows nothing; 300 rows."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 300)
    sure, vague = 0.8 * np.eye(3)[y] + 0.2 / 3, np.full((300, 3), 1 / 3)
    first, second = sure.copy(), sure.copy()
    first[::2], second[1::2] = vague[::2], vague[1::2]
    return y, np.stack([vague, first, second]).astype(np.float32)


@given(libraries(), st.integers(1, 12))
def test_greedy_weights_are_a_mean(library, size):
    y, oof = library
    weights = greedy_ensemble(oof, y, negative_mse, size)
    assert weights.shape == (len(oof),)
    assert (weights >= 0).all()
    assert weights.sum() == pytest.approx(1)


@given(libraries(), st.integers(1, 12))
def test_a_greedy_ensemble_is_no_worse_than_its_best_member(library, size):
    y, oof = library
    together = negative_mse(y, np.tensordot(greedy_ensemble(oof, y, negative_mse, size), oof, axes=1))
    assert together >= max(negative_mse(y, member) for member in oof) - 1e-12


@given(libraries(), st.randoms(use_true_random=False))
def test_permuting_the_members_permutes_the_weights(library, random):
    y, oof = library
    singles = np.sort([negative_mse(y, member) for member in oof])
    assume((np.diff(singles) > 1e-9).all())
    order = list(range(len(oof)))
    random.shuffle(order)
    weights = greedy_ensemble(oof, y, negative_mse, 8)
    np.testing.assert_allclose(greedy_ensemble(oof[order], y, negative_mse, 8), weights[order])


@given(libraries(), st.integers(1, 8))
@settings(max_examples=30)
def test_a_vote_is_even_over_the_best(library, top):
    y, oof = library
    weights = vote(oof, y, negative_mse, top)
    best = sorted(range(len(oof)), key=lambda place: -negative_mse(y, oof[place]))[:top]
    assert sorted(np.flatnonzero(weights)) == sorted(best)
    np.testing.assert_allclose(weights[best], 1 / len(best))


def test_members_that_complete_each_other_are_mixed(classes):
    y, oof = classes
    weights = greedy_ensemble(oof, y, log_score(3))
    assert weights[0] < 0.1
    assert weights[1] == pytest.approx(weights[2], abs=0.1)
    assert log_score(3)(y, np.tensordot(weights, oof, axes=1)) > log_score(3)(y, oof[1])


def test_the_ensemble_of_one_is_the_best_member():
    y = np.arange(5.0)
    np.testing.assert_array_equal(greedy_ensemble(np.stack([y + 1, y, y - 2]), y, negative_mse, 1), [0, 1, 0])


def test_two_opposite_errors_cancel_though_a_third_is_better_alone():
    y = np.zeros(4)
    oof = np.stack([np.full(4, 0.9), np.full(4, 1.0), np.full(4, -1.0)])
    weights = greedy_ensemble(oof, y, negative_mse, 25)
    assert abs(weights @ oof[:, 0]) < 0.05


def test_rows_without_predictions_are_left_out():
    y = np.array([100.0, 1.0, 2.0, 3.0])
    right, wrong = np.array([np.nan, 1, 2, 3]), np.array([100.0, 2, 3, 4])
    np.testing.assert_array_equal(greedy_ensemble(np.stack([wrong, right]), y, negative_mse), [0, 1])


def test_a_member_that_cannot_be_scored_gets_no_weight():
    y = np.ones(3)
    weights = greedy_ensemble(
        np.stack([y * 5, y * 2]), y, lambda _, found: np.nan if found[0] > 4 else negative_mse(y, found)
    )
    np.testing.assert_array_equal(weights, [0, 1])


def test_a_stack_of_classifiers_beats_its_members(classes):
    y, oof = classes
    found = stack(oof, y, TaskKind.MULTICLASS, log_score(3))
    assert found.score > max(log_score(3)(y, member) for member in oof)
    assert found.oof.shape == (300, 3)
    np.testing.assert_allclose(found.oof.sum(axis=1), 1)


def test_a_stack_of_regressors_corrects_a_biased_member():
    rng = np.random.default_rng(0)
    y = rng.normal(size=200)
    oof = np.stack([3 * y + 5 + rng.normal(size=200) / 10, rng.normal(size=200)])
    found = stack(oof, y, TaskKind.REGRESSION, negative_mse)
    assert found.score > -0.01
    np.testing.assert_allclose(found.meta.predict(oof.T), y, atol=0.2)


def test_the_score_of_a_stack_is_honest_on_noise():
    rng = np.random.default_rng(0)
    y, oof = rng.normal(size=60), rng.normal(size=(30, 60))
    found = stack(oof, y, TaskKind.REGRESSION, negative_mse)
    assert negative_mse(y, found.meta.predict(oof.T)) > negative_mse(y, np.full(60, y.mean()))
    assert found.score < negative_mse(y, np.full(60, y.mean()))


def test_the_same_seed_gives_the_same_stack(classes):
    y, oof = classes
    one, two = (stack(oof, y, TaskKind.MULTICLASS, log_score(3), seed=5) for _ in range(2))
    np.testing.assert_array_equal(one.oof, two.oof)


def test_a_stack_over_time_folds_is_scored_where_it_has_a_past():
    rng = np.random.default_rng(0)
    y, rows = rng.normal(size=40), np.arange(40)
    oof = np.stack([y + rng.normal(size=40) / 3, y + rng.normal(size=40) / 3])
    oof[:, :10] = np.nan
    folds = [(rows[:10], rows[10:20]), (rows[:20], rows[20:30]), (rows[:30], rows[30:])]
    found = stack(oof, y, TaskKind.REGRESSION, negative_mse, folds=folds)
    np.testing.assert_array_equal(np.isfinite(found.oof), rows >= 20)


def test_a_class_with_one_row_does_not_stop_a_stack():
    y = np.array([0] * 10 + [1] * 10 + [2])
    oof = np.stack([0.7 * np.eye(3)[y] + 0.1, np.full((21, 3), 1 / 3)])
    assert stack(oof, y, TaskKind.MULTICLASS, log_score(3)).oof.shape == (21, 3)


def test_certain_members_do_not_break_the_log_odds():
    y = np.array([0, 1] * 20)
    found = stack(np.eye(2)[y][None], y, TaskKind.BINARY, log_score(2))
    assert np.isfinite(found.oof).all()


@pytest.mark.parametrize("oof", [np.empty((0, 3)), np.ones((2, 4)), np.ones(3)])
def test_predictions_of_another_shape_are_refused(oof):
    with pytest.raises(UsageError, match=r"needs predictions \(members, rows\[, classes\]\) for 3 rows, got shape"):
        greedy_ensemble(oof, np.ones(3), negative_mse)


def test_no_row_in_common_is_refused():
    with pytest.raises(UsageError, match="needs rows that all members predicted, got none of 2; leave a member out"):
        vote(np.array([[1.0, np.nan], [np.nan, 1.0]]), np.ones(2), negative_mse)


def test_sizes_below_one_are_refused():
    with pytest.raises(UsageError, match="needs a size of at least 1, got 0; raise it"):
        greedy_ensemble(np.ones((1, 2)), np.ones(2), negative_mse, size=0)
    with pytest.raises(UsageError, match="needs at least 1 member, got 0; raise it"):
        vote(np.ones((1, 2)), np.ones(2), negative_mse, top=0)


def test_a_stack_of_one_class_is_refused():
    with pytest.raises(UsageError, match="needs a fold with training rows of two classes, got 6 rows; use a vote"):
        stack(np.full((1, 6, 2), 0.5), np.zeros(6, dtype=int), TaskKind.BINARY, log_score(2))
