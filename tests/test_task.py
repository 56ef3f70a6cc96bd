"""Frozen descriptions of a task and of what may be spent on it, and their one-line refusals."""

import dataclasses

import pytest

from offline_tune.cards import DataCard, ModelCard
from offline_tune.errors import UsageError
from offline_tune.task import Budget, Column, ColumnKind, Metric, Task, TaskKind, TrialLimits

UNUSED = {ColumnKind.IDENTIFIER, ColumnKind.CONSTANT, ColumnKind.EMPTY}
ACCURACY, AUC = Metric("accuracy", "predict"), Metric("roc_auc", "decision_function")


def a_task(**changes):
    return Task(name="small", target="y", kind=TaskKind.BINARY, metric=ACCURACY, **changes)


@pytest.mark.parametrize("kind", TaskKind)
def test_all_but_regression_is_classification(kind):
    assert kind.is_classification == (kind.value != "regression")


@pytest.mark.parametrize("kind", ColumnKind)
def test_identifiers_and_columns_without_information_are_not_used(kind):
    assert kind.is_used == (kind not in UNUSED)


def test_the_features_of_a_task_are_its_used_columns_in_order():
    kinds = (ColumnKind.DATE, ColumnKind.EMPTY, ColumnKind.TEXT, ColumnKind.IDENTIFIER, ColumnKind.NUMERIC)
    task = a_task(columns=tuple(Column(kind.value, kind) for kind in kinds))
    assert [column.name for column in task.features] == ["date", "text", "numeric"]


def test_the_optimised_metric_comes_before_the_shown_ones():
    assert a_task(shown=(AUC,)).metrics == (ACCURACY, AUC)


@pytest.mark.parametrize(
    ("field", "option"),
    [("trials", "--trials"), ("seconds", "--time-limit"), ("llm_calls", "--llm-calls"), ("llm_tokens", "--llm-tokens")],
)
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_budget_below_one_is_refused(field, option, value):
    with pytest.raises(UsageError, match=rf"{option} must be at least 1, got {value:g}; raise it or leave it out"):
        Budget(**{field: value})


def test_a_budget_without_limits_has_thirty_trials():
    assert Budget() == Budget(trials=30, seconds=None, llm_calls=None, llm_tokens=None)


def test_a_budget_of_one_is_enough():
    assert Budget(trials=1, seconds=1, llm_calls=1, llm_tokens=1).trials == 1


def test_a_trial_needs_some_time():
    with pytest.raises(UsageError, match=r"--trial-time-limit must be at least 0\.1, got 0; raise it"):
        TrialLimits(seconds=0)


def test_a_trial_needs_some_memory():
    with pytest.raises(UsageError, match="--trial-memory must be at least 64, got 1; raise it"):
        TrialLimits(memory_mib=1)


def test_a_trial_may_have_no_limits():
    assert TrialLimits(seconds=None, memory_mib=None).seconds is None


@pytest.mark.parametrize(
    "value",
    [
        a_task(),
        Budget(),
        TrialLimits(),
        DataCard(kind=TaskKind.BINARY, n_rows=1, n_features=1, n_numeric=1, n_categorical=0),
        ModelCard(family="svm", summary="", hyperparameters={}, cost="low"),
    ],
)
def test_descriptions_do_not_change(value):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, dataclasses.fields(value)[0].name, None)
