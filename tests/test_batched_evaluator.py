"""The batched evaluator keeps the contract of all evaluators, and finds what the pool finds."""

import re
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from contracts_evaluator import EvaluatorContract, a_dataset

from offline_tune.errors import EvaluationError, OutputError, UsageError
from offline_tune.evaluator.artifact import Member, load_model, read_member, save_model
from offline_tune.evaluator.batched.device import device_named
from offline_tune.evaluator.batched.evaluator import FAMILIES, BatchedEvaluator, Fidelity
from offline_tune.evaluator.batched.stopping import Halving
from offline_tune.evaluator.contract import Outcome
from offline_tune.evaluator.crossval import CrossValidation
from offline_tune.evaluator.families import default_of, family, neural, space_of
from offline_tune.evaluator.pipeline import predictions
from offline_tune.task import TaskKind, TrialLimits

pytestmark = pytest.mark.usefixtures("one_thread")


def candidate(name="tabular_mlp", kind=TaskKind.BINARY, **changes):
    default = default_of(name, space_of([family(name)], a_dataset(kind).card))
    return {**default, f"{name}.hidden_width": 16, **{f"{name}.{key}": value for key, value in changes.items()}}


def an_evaluator(kind=TaskKind.BINARY, data=None, **options):
    return BatchedEvaluator(data or a_dataset(kind, n=240), **{"device": "cpu", "workers": 1, **options})


@pytest.fixture(scope="module")
def shared():
    with an_evaluator() as evaluator:
        yield evaluator


class TestContract(EvaluatorContract):
    @pytest.fixture
    def evaluator(self, shared):
        return shared

    @pytest.fixture
    def candidates(self):
        wide = candidate(hidden_width=40, dropout=0.3, learning_rate=1e-2)
        return [candidate(), wide, candidate("tabular_resnet"), candidate("tabm", hidden_layers=1)]

    @pytest.fixture
    def bad(self):
        return candidate(hidden_width=0)

    @pytest.fixture
    def n_rows(self):
        return 240

    @pytest.fixture
    def spare(self):
        return an_evaluator()


@pytest.mark.parametrize("kind", TaskKind)
def test_the_pool_finds_the_same(kind):
    data = a_dataset(kind, n=240)
    candidates = [candidate(name, kind) for name in FAMILIES]
    found = an_evaluator(data=data).evaluate(candidates, [3, 4, 5])
    for values, seed, result in zip(candidates, (3, 4, 5), found, strict=True):
        alone = CrossValidation.of(data).evaluate(values, seed)
        np.testing.assert_allclose(result.oof, alone.oof, rtol=1e-4, atol=1e-5)
        assert result.scores == pytest.approx(alone.scores, rel=1e-4)
        assert result.train_score == pytest.approx(alone.train_score, rel=1e-4)


def test_preparation_is_learnt_in_the_fold():
    data = a_dataset(n=240)
    strange = data.X.copy()
    held_out = data.folds[0][1]
    strange.iloc[held_out] = 1e6 * strange.iloc[held_out]
    evaluator = an_evaluator(data=data)
    needs = family("tabular_mlp").needs
    view = evaluator._here._views.of(0, needs, {}, 0)
    data.X.iloc[held_out] = strange.iloc[held_out]
    other = an_evaluator(data=data)._here._views.of(0, needs, {}, 0)
    np.testing.assert_array_equal(view.table.X, other.table.X)


def test_candidates_that_prepare_alike_share_their_data(shared):
    needs = family("tabular_mlp").needs
    one = shared._here._views.of(0, needs, {"scaling": "robust", "dropout": 0.1}, 1)
    assert one is shared._here._views.of(0, needs, {"scaling": "robust", "dropout": 0.2}, 2)
    assert one is not shared._here._views.of(0, needs, {"scaling": "quantile"}, 1)
    assert one is not shared._here._views.of(1, needs, {"scaling": "robust"}, 1)


def test_the_curve_holds_a_value_for_each_epoch(shared):
    (result,) = shared.evaluate([candidate()], [0])
    assert len(result.curve) == 12
    assert result.curve[-1] > result.curve[0]
    assert not result.pruned


@pytest.mark.parametrize(
    ("changes", "outcome", "detail"),
    [
        ({"hidden_width": 0}, Outcome.FAILED, "hidden_width must be at least 1, got 0; raise it"),
        ({"batch_size": 4096}, Outcome.FAILED, r"batch_size must be at most the \d+ training rows, got 4096; choose"),
        ({"batch_size": 0}, Outcome.FAILED, "batch_size must be a power of two, got 0"),
        ({"dropout": 1.0}, Outcome.FAILED, "dropout must be at least 0 and below 1, got 1"),
        ({"activation": "step"}, Outcome.FAILED, "KeyError: 'step'"),
        ({"learning_rate": 1e38}, Outcome.NOT_FINITE, r"the loss was not finite after epoch 1; lower learning_rate"),
        ({"hidden_width": 3_000_000}, Outcome.OUT_OF_MEMORY, "RuntimeError: .*alloc"),
    ],
)
def test_what_cannot_be_trained_is_told_and_harms_nobody(shared, changes, outcome, detail):
    failed, beside = shared.evaluate([candidate(**changes), candidate()], [0, 0])
    assert failed.outcome is outcome
    assert re.search(detail, failed.detail), failed.detail
    assert beside.ok


def test_other_families_are_left_to_the_pool(shared):
    knn = default_of("knn", space_of([family("knn")], a_dataset().card))
    (result,) = shared.evaluate([knn], [0])
    assert result.outcome is Outcome.FAILED
    assert "a stack holds tabular_mlp, tabular_resnet, tabm, got 'knn'; use the pool for others" in result.detail


def test_a_candidate_may_take_its_time_only():
    evaluator = an_evaluator(limits=TrialLimits(seconds=0.1))
    (slow,) = evaluator.evaluate([candidate(hidden_width=512, hidden_layers=4)], [0])
    assert slow.outcome is Outcome.TIMED_OUT
    assert slow.detail == "stopped after 0.1 s"


def test_a_fold_without_a_class_gives_it_no_probability():
    data = a_dataset(TaskKind.MULTICLASS, n=240)
    first = np.flatnonzero(data.y == 2)
    rest = np.setdiff1d(np.arange(240), first)
    folds = ((rest, first), (np.arange(120), np.arange(120, 240)))
    (result,) = an_evaluator(data=_with_folds(data, folds)).evaluate([candidate(kind=TaskKind.MULTICLASS)], [0])
    assert result.ok
    assert (result.oof[np.setdiff1d(first, np.arange(120, 240)), 2] == 0).all()


def test_a_fold_of_one_class_fails_in_its_own_words():
    data = a_dataset(n=240)
    ones = np.flatnonzero(data.y == 1)
    folds = ((ones, np.setdiff1d(np.arange(240), ones)),)
    (result,) = an_evaluator(data=_with_folds(data, folds)).evaluate([candidate()], [0])
    assert result.outcome is Outcome.FAILED
    assert "a classifier needs rows of at least two classes, got one; use other folds" in result.detail


def test_rows_that_were_never_held_out_are_nan():
    (result,) = an_evaluator(data=a_dataset(n=240, time_split=True)).evaluate([candidate()], [0])
    np.testing.assert_array_equal(np.isfinite(result.oof).all(axis=1), np.arange(240) >= 60)


def test_halving_stops_most_candidates_early_and_keeps_the_best():
    rates = (1e-4, 2e-4, 5e-4, 3e-2, 1e-3, 2e-3)
    candidates = [candidate(learning_rate=rate, schedule="constant") for rate in rates]
    results = an_evaluator(stopping=Halving(3, 2)).evaluate(candidates, [0] * 6)
    ages = [len(result.curve) for result in results]
    assert sorted(ages)[:4] == [4, 4, 4, 4]
    assert sum(result.pruned for result in results) == 4
    assert all(result.ok for result in results)
    assert not results[int(np.argmax([result.curve[3] for result in results]))].pruned


def test_fidelity_takes_fewer_epochs_and_rows():
    evaluator = an_evaluator(fidelity=Fidelity(epochs=0.25, rows=0.5))
    (result,) = evaluator.evaluate([candidate(batch_size=64)], [0])
    assert len(result.curve) == 3
    (failed,) = evaluator.evaluate([candidate(batch_size=128)], [0])
    assert "at most the 68 training rows, got 128" in failed.detail


@pytest.mark.parametrize("shares", [{"epochs": 0.0}, {"rows": 1.5}, {"rows": float("nan")}])
def test_a_fidelity_outside_its_range_is_refused(shares):
    with pytest.raises(UsageError, match=r"the fidelity of \w+ must lie above 0 and at most at 1, got .*; use 1"):
        Fidelity(**shares)


@pytest.mark.parametrize("kind", TaskKind)
def test_a_refitted_member_predicts_the_same_after_it_was_written(kind, tmp_path):
    data = a_dataset(kind, n=240)
    (refit,) = an_evaluator(data=data).refit([candidate(kind=kind)], [7], tmp_path / "members")
    alone = CrossValidation.of(data)._fitted(candidate(kind=kind), 7, data.X, data.y)
    found = predictions(read_member(refit.folder), data.X, data.task)
    np.testing.assert_allclose(found, predictions(alone, data.X, data.task), rtol=1e-4, atol=1e-5)
    save_model(tmp_path / "model", [Member(refit.folder)], data.task)
    model = load_model(tmp_path / "model")
    np.testing.assert_array_equal(model._combined(data.X).astype(np.float32), found)


def test_a_refit_that_fails_leaves_no_folder(tmp_path):
    good, failed = an_evaluator().refit([candidate(), candidate(hidden_width=0)], [0, 0], tmp_path)
    assert good.ok
    assert failed.outcome is Outcome.FAILED
    assert failed.folder is None
    assert [path.name for path in tmp_path.iterdir()] == ["member-000"]


@pytest.fixture(scope="module")
def crew():
    """Two workers that may hold 1.5 GiB each, for short trainings."""
    limits = TrialLimits(seconds=60, memory_mib=1536)
    with an_evaluator(workers=2, limits=limits, fidelity=Fidelity(epochs=0.05)) as evaluator:
        yield evaluator


@pytest.mark.slow
def test_workers_find_what_one_process_finds(crew, monkeypatch):
    monkeypatch.setattr(neural, "MOST_EPOCHS", 100)  # as the workers have it
    candidates = [candidate(hidden_width=8), candidate(hidden_width=24), candidate("tabm"), candidate(dropout=1.0)]
    here = an_evaluator(fidelity=Fidelity(epochs=0.05)).evaluate(candidates, [0, 1, 2, 3])
    seen = {}
    there = crew.evaluate(candidates, [0, 1, 2, 3], seen.__setitem__)
    assert [seen[place] for place in range(4)] == list(there)
    assert [result.outcome for result in there] == [Outcome.OK] * 3 + [Outcome.FAILED]
    assert [result.scores for result in there] == [result.scores for result in here]


@pytest.mark.slow
def test_a_worker_that_needs_too_much_takes_nobody_with_it(crew):
    hog = candidate(hidden_width=8000, hidden_layers=4)
    results = crew.evaluate([candidate(hidden_width=8), hog, candidate(hidden_width=8)], [0, 0, 0])
    assert [result.outcome for result in results] == [Outcome.OK, Outcome.OUT_OF_MEMORY, Outcome.OK]
    assert "the limit is 1536 MiB" in results[1].detail


def test_a_hook_that_raises_ends_in_its_own_words():
    hook = partial(exec, "raise OSError('no namespace here')")
    with an_evaluator(workers=2, initializer=hook) as evaluator:
        with pytest.raises(EvaluationError, match="trials need workers that run, got OSError: no namespace here; see"):
            evaluator.evaluate([candidate()], [0])


def test_workers_refit_and_write(crew, tmp_path):
    good, failed = crew.refit([candidate(), candidate(dropout=1.0)], [0, 0], tmp_path / "members")
    data = a_dataset(n=240)
    assert np.isfinite(predictions(read_member(good.folder), data.X, data.task)).all()
    assert failed.outcome is Outcome.FAILED


def test_members_never_replace_earlier_ones(shared, tmp_path):
    (tmp_path / "member-000").mkdir()
    with pytest.raises(OutputError, match=r"members must not replace earlier ones, got .*; choose another folder"):
        shared.refit([candidate()], [0], tmp_path)


def test_a_closed_evaluator_says_so():
    evaluator = an_evaluator()
    evaluator.close()
    with pytest.raises(EvaluationError, match="trials need an open evaluator, got one that is closed; create a new"):
        evaluator.evaluate([candidate()], [0])


def test_each_candidate_needs_a_seed(shared):
    with pytest.raises(UsageError, match="each candidate needs one seed, got 2 candidates and 1 seeds; pass as many"):
        shared.evaluate([candidate()] * 2, [0])


def test_at_least_one_worker_is_needed():
    with pytest.raises(UsageError, match="--workers must be at least 1, got 0; raise it or leave it out"):
        an_evaluator(workers=0)


@pytest.mark.parametrize("name", ["tpu", "cuda:99", "cpu:1", "cuda:x", ""])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(UsageError, match=r"--device must be one of auto, .*cpu here, got .*; choose one"):
        device_named(name)


def test_importing_the_families_and_the_estimators_loads_no_torch():
    modules = "offline_tune.evaluator.families, offline_tune.evaluator.batched.estimators"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def _with_folds(data, folds):
    return replace(data, folds=tuple((train.astype(np.int64), test.astype(np.int64)) for train, test in folds))
