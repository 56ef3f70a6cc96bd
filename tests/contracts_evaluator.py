"""What every evaluator must do, small data to do it on, and models that misbehave on request.

Worker processes import this module, so it builds nothing when it is imported.
"""

import itertools
import os
import signal
import socket
import time

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline

from offline_tune.cards import DataCard
from offline_tune.data.dataset import Dataset
from offline_tune.data.metrics import resolve_metric
from offline_tune.evaluator.contract import Outcome
from offline_tune.task import Column, ColumnKind, Task, TaskKind

CLASSES = {TaskKind.BINARY: ("no", "yes"), TaskKind.MULTICLASS: ("a", "b", "c"), TaskKind.REGRESSION: ()}


def a_task(kind=TaskKind.BINARY, columns=None, **changes) -> Task:
    metric = resolve_metric(changes.pop("metric", None), kind)
    columns = columns or tuple(Column(name, ColumnKind.NUMERIC, n_unique=50) for name in ("u", "v", "w"))
    return Task(
        name="small",
        target="y",
        kind=kind,
        metric=metric,
        classes=CLASSES[kind],
        columns=columns,
        n_rows=120,
        **changes,
    )


def a_dataset(kind=TaskKind.BINARY, n=120, n_folds=3, time_split=False, **changes) -> Dataset:
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(n, 3)), columns=["u", "v", "w"])
    signal_ = X["u"].to_numpy() * 2 + rng.normal(size=n)
    c = len(CLASSES[kind])
    y = np.argsort(np.argsort(signal_)) * c // n if c else signal_
    rows = np.arange(n)
    folds = tuple((rows[rows % n_folds != k], rows[rows % n_folds == k]) for k in range(n_folds))
    if time_split:
        edges = np.linspace(0, n, n_folds + 2).astype(int)[1:]
        folds = tuple((rows[:a], rows[a:b]) for a, b in itertools.pairwise(edges))
    largest = 1 / c if c else 0.0
    card = DataCard(
        kind=kind, n_rows=n, n_features=3, n_numeric=3, n_categorical=0, n_classes=c, imbalance=largest
    )  # fmt: skip
    task = a_task(kind, **changes)
    return Dataset(
        task=task, X=X, y=y, X_test=None, y_test=None, folds=folds, card=card, notes=(), digest="0" * 64
    )  # fmt: skip


def simple_pipeline(values, task, seed, n_rows):
    """{"C": strength}: logistic regression, or ridge; anything else a model that misbehaves on purpose."""
    if "does" in values:
        return Pipeline([("model", Misbehaving(str(values["does"]), seed))])
    strength = float(values["C"])
    linear = LogisticRegression(C=strength) if task.kind.is_classification else Ridge(alpha=1 / strength)
    return Pipeline([("model", linear)])


class Misbehaving(ClassifierMixin, BaseEstimator):
    def __init__(self, does, seed=0):
        self.does = does
        self.seed = seed

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        getattr(self, f"_{self.does}")()
        return self

    def predict_proba(self, X):
        if self.does == "nan":
            return np.full((len(X), len(self.classes_)), np.nan)
        return np.random.default_rng(self.seed).dirichlet(np.ones(len(self.classes_)), len(X))

    def _guess(self):
        pass

    def _nan(self):
        pass

    def _sleep(self):
        time.sleep(60)

    def _hog(self):
        self.hoard = [np.ones(2**21) for _ in range(500)]  # 16 MiB each

    def _exit(self):
        os.write(2, b"this vendor prefers to leave\n")
        os._exit(3)

    def _kill(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def _interrupt(self):
        os.kill(os.getpid(), signal.SIGINT)

    def _refuse(self):
        raise ValueError("alpha must be\n  positive\x1b[31m, got -1" + " and so on" * 100)

    def _exhaust(self):
        raise MemoryError("Unable to allocate 3 PiB")

    def _print(self):
        os.write(1, b"a vendor's chatter")

    def _call(self):
        socket.create_connection(("192.0.2.1", 80), timeout=1)

    def _tell(self):
        names = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "OPENBLAS_NUM_THREADS", "HOOK_SAW_NUMPY")
        raise RuntimeError(" ".join(f"{name}={os.environ.get(name)}" for name in names))


class EvaluatorContract:
    """Inherit it, and give the fixtures that the tests ask for.

    `evaluator`, `candidates` (at least three that work), `bad` (one that fails), `n_rows` of the data, and `spare`, an
    evaluator that a test may close.
    """

    def test_results_come_in_order_and_as_many(self, evaluator, candidates):
        seeds = list(range(len(candidates)))
        forward = evaluator.evaluate(candidates, seeds)
        backward = evaluator.evaluate(candidates[::-1], seeds[::-1])
        assert [result.scores for result in forward] == [result.scores for result in backward[::-1]]
        assert len(forward) == len(candidates)

    def test_no_candidates_give_no_results(self, evaluator):
        assert evaluator.evaluate([], []) == ()

    def test_the_same_candidate_and_seed_give_the_same_result(self, evaluator, candidates):
        one, two = evaluator.evaluate([candidates[0]] * 2, [7, 7])
        assert one.scores == two.scores
        assert one.fold_scores == two.fold_scores
        np.testing.assert_array_equal(one.oof, two.oof)

    def test_each_result_is_reported_once_as_it_ends(self, evaluator, candidates):
        seen = {}
        results = evaluator.evaluate(candidates, [0] * len(candidates), seen.__setitem__)
        assert [seen[place] for place in range(len(candidates))] == list(results)

    def test_a_failure_is_an_outcome_and_harms_nobody_else(self, evaluator, candidates, bad):
        alone = evaluator.evaluate([candidates[0]], [0])[0]
        failed, beside = evaluator.evaluate([bad, candidates[0]], [0, 0])
        assert failed.outcome is not Outcome.OK
        assert failed.detail
        assert beside.scores == alone.scores

    def test_a_good_result_is_complete(self, evaluator, candidates, n_rows):
        (result,) = evaluator.evaluate([candidates[0]], [0])
        assert result.ok
        assert result.seconds > 0
        assert len(result.oof) == n_rows
        assert np.mean(result.fold_scores) == pytest.approx(next(iter(result.scores.values())))

    def test_closing_twice_is_harmless(self, spare):
        spare.close()
        spare.close()
