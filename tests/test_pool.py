"""Trials in supervised processes: every way in which one can go wrong, and that the others do not notice."""

import multiprocessing
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from contracts_evaluator import EvaluatorContract, a_dataset, simple_pipeline

from offline_tune.data.metrics import resolve_metric
from offline_tune.errors import EvaluationError, OutputError, UsageError
from offline_tune.evaluator.artifact import read_member
from offline_tune.evaluator.contract import Outcome
from offline_tune.evaluator.crossval import CrossValidation
from offline_tune.evaluator.pool import PoolEvaluator
from offline_tune.task import TaskKind, TrialLimits

ENDINGS = {
    "sleep": (Outcome.TIMED_OUT, "stopped after 5 s"),
    "hog": (Outcome.OUT_OF_MEMORY, r"resident memory reached \d+ MiB, the limit is 400 MiB"),
    "exhaust": (Outcome.OUT_OF_MEMORY, "MemoryError: Unable to allocate 3 PiB"),
    "exit": (Outcome.DIED, "exit code 3: this vendor prefers to leave"),
    "kill": (Outcome.DIED, "signal SIGKILL, as when the system runs out of memory"),
    "refuse": (Outcome.FAILED, r"ValueError: alpha must be positive\[31m, got -1 and so on.*"),
    "nan": (Outcome.NOT_FINITE, "neg_log_loss by fold: nan, nan, nan"),
    "interrupt": (Outcome.OK, ""),
    "print": (Outcome.OK, ""),
    "call": (Outcome.FAILED, r"NetworkRefused: only this machine may be reached, got '192.0.2.1' .*"),
    "tell": (Outcome.FAILED, "RuntimeError: OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE OPENBLAS_NUM_THREADS=1 .*=False"),
}
HOOK = """
import os, sys
os.environ["HOOK_SAW_NUMPY"] = str("numpy" in sys.modules)
from offline_tune.airgap import engage
engage()
"""
SCRIPT = """
import sys
sys.path[:0] = {paths!r}
from contracts_evaluator import a_dataset, simple_pipeline
from offline_tune.evaluator.pool import PoolEvaluator
evaluator = PoolEvaluator(a_dataset(), workers=1, build=simple_pipeline)
print(evaluator.evaluate([{{"C": 1.0}}], [0])[0].outcome.name, flush=True)
evaluator.evaluate([{{"does": "sleep"}}], [0])
"""


def an_evaluator(dataset=None, **options) -> PoolEvaluator:
    return PoolEvaluator(dataset or a_dataset(), build=simple_pipeline, **options)


@pytest.fixture(scope="module")
def pool():
    limits = TrialLimits(seconds=5, memory_mib=400)
    with an_evaluator(limits=limits, workers=2, initializer=partial(exec, HOOK)) as evaluator:
        yield evaluator


@pytest.fixture(scope="module")
def misbehaviour(pool):
    """One round in which everything goes wrong, between two candidates that work."""
    candidates = [{"C": 1.0}, *({"does": name} for name in ENDINGS), {"C": 1.0}]
    return dict(zip(["first", *ENDINGS, "last"], pool.evaluate(candidates, [0] * len(candidates)), strict=True))


@pytest.fixture(scope="module")
def threads():
    with ThreadPoolExecutor(2) as executor:
        yield an_evaluator(executor=executor)


class PoolContract(EvaluatorContract):
    @pytest.fixture
    def candidates(self):
        return [{"C": 0.01}, {"C": 1.0}, {"C": 100.0}, {"does": "guess"}]

    @pytest.fixture
    def bad(self):
        return {"does": "refuse"}

    @pytest.fixture
    def n_rows(self):
        return 120

    @pytest.fixture
    def spare(self):
        return an_evaluator()


class TestSupervisedProcesses(PoolContract):
    @pytest.fixture
    def evaluator(self, pool):
        return pool


class TestAnyExecutor(PoolContract):
    @pytest.fixture
    def evaluator(self, threads):
        return threads


@pytest.mark.parametrize("name", ENDINGS)
def test_each_misbehaviour_has_its_outcome_and_its_reason(misbehaviour, name):
    outcome, reason = ENDINGS[name]
    found = misbehaviour[name]
    assert found.outcome is outcome
    assert re.fullmatch(reason, found.detail)


def test_neighbours_of_misbehaving_trials_are_untouched(misbehaviour):
    assert misbehaviour["first"].ok
    assert misbehaviour["first"].scores == misbehaviour["last"].scores
    np.testing.assert_array_equal(misbehaviour["first"].oof, misbehaviour["last"].oof)


def test_a_failure_tells_how_long_it_took_and_how_large_it_was(misbehaviour):
    assert misbehaviour["sleep"].seconds == 5
    assert misbehaviour["hog"].peak_mib == 400
    assert 0 <= misbehaviour["exit"].seconds < 60


def test_a_reason_is_one_printable_line_of_bounded_length(misbehaviour):
    for result in misbehaviour.values():
        assert len(result.detail) <= 300
        assert result.detail.isprintable()


def test_workers_and_threads_agree_to_the_last_bit(pool, threads):
    candidates, seeds = [{"C": 0.5}, {"does": "guess"}], [1, 2]
    for one, two in zip(pool.evaluate(candidates, seeds), threads.evaluate(candidates, seeds), strict=True):
        assert one.scores == two.scores
        np.testing.assert_array_equal(one.oof, two.oof)


def test_the_peak_of_memory_is_measured_for_each_trial(pool):
    (result,) = pool.evaluate([{"C": 1.0}], [0])
    assert 50 < result.peak_mib < 400


def test_an_exception_of_the_listener_reaches_the_caller_and_the_pool_goes_on(pool):
    with pytest.raises(ZeroDivisionError):
        pool.evaluate([{"C": 1.0}, {"does": "sleep"}], [0, 0], lambda place, result: 1 / 0)
    assert pool.evaluate([{"C": 1.0}], [0])[0].ok


def test_refitted_candidates_are_written_by_the_workers(tmp_path):
    with an_evaluator() as evaluator:
        good, failed = evaluator.refit([{"C": 1.0}, {"does": "refuse"}], [0, 0], tmp_path / "members")
    data = a_dataset()
    alone = simple_pipeline({"C": 1.0}, data.task, 0, len(data.y)).fit(data.X, data.y)
    np.testing.assert_array_equal(read_member(good.folder).predict_proba(data.X), alone.predict_proba(data.X))
    assert failed.outcome is Outcome.FAILED
    assert failed.folder is None
    assert os.listdir(tmp_path / "members") == ["member-000"]


def test_members_never_replace_earlier_ones(threads, tmp_path):
    threads.refit([{"C": 1.0}], [0], tmp_path)
    with pytest.raises(OutputError, match=r"members must not replace earlier ones, got .*choose another folder"):
        threads.refit([{"C": 1.0}], [0], tmp_path)


def test_members_need_a_folder(threads, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"members need a folder to be written to, got .*choose another"):
        threads.refit([{"C": 1.0}], [0], tmp_path / "file")


def test_the_data_lie_in_a_private_folder_that_goes_with_the_evaluator(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    evaluator = an_evaluator()
    (folder,) = tmp_path.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    evaluator.close()
    assert not folder.exists()


def test_a_closed_evaluator_says_so():
    evaluator = an_evaluator(executor=ThreadPoolExecutor(1))
    evaluator.close()
    with pytest.raises(
        EvaluationError, match="trials need an open evaluator, got one that is closed; create a new one"
    ):
        evaluator.evaluate([{"C": 1.0}], [0])


def test_an_executor_that_is_shut_down_is_refused():
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(
        EvaluationError, match=r"the executor must accept work, got RuntimeError: .*; pass one that is run"
    ):
        an_evaluator(executor=executor).evaluate([{"C": 1.0}], [0])


def test_a_candidate_that_cannot_travel_is_one_failed_trial(pool):
    bad, good = pool.evaluate([{"C": threading.Lock()}, {"C": 1.0}], [0, 0])
    assert bad.outcome is Outcome.DIED
    assert "pickle" in bad.detail
    assert good.ok


@pytest.mark.slow
def test_a_process_of_the_standard_library_that_dies_is_a_failed_trial():
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        evaluator = an_evaluator(executor=executor)
        (result,) = evaluator.evaluate([{"does": "exit"}], [0])
        assert result.outcome is Outcome.DIED
        with pytest.raises(EvaluationError, match=r"must accept work, got BrokenProcessPool: .*; pass one that is run"):
            evaluator.evaluate([{"C": 1.0}], [0])


def test_each_candidate_needs_a_seed(threads):
    with pytest.raises(UsageError, match="each candidate needs one seed, got 2 candidates and 1 seeds; pass as many"):
        threads.evaluate([{"C": 1.0}] * 2, [0])


def test_at_least_one_worker_is_needed():
    with pytest.raises(UsageError, match="--workers must be at least 1, got 0; raise it or leave it out"):
        an_evaluator(workers=0)


def test_a_hook_that_cannot_travel_is_refused():
    with pytest.raises(
        UsageError, match=r"the initializer must be an importable function, got .*; define it in a module"
    ):
        an_evaluator(initializer=lambda: None)


def test_a_hook_that_raises_ends_in_its_own_words():
    with an_evaluator(initializer=partial(exec, "raise OSError('no namespace here')")) as evaluator:
        with pytest.raises(EvaluationError, match="trials need workers that run, got OSError: no namespace here; see"):
            evaluator.evaluate([{"C": 1.0}], [0])


def test_a_full_or_missing_temporary_folder_is_told(monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", "/nowhere/at/all")
    with pytest.raises(OutputError, match=r"workers need a temporary folder with .* free bytes, got .*; set TMPDIR"):
        an_evaluator()


def test_workers_that_die_while_idle_are_replaced(pool):
    pool.evaluate([{"C": 1.0}] * 2, [0, 0])
    for worker in _workers_of(os.getpid()):
        worker.kill()
    assert pool.evaluate([{"C": 1.0}], [0])[0].ok


@pytest.mark.parametrize("kind", TaskKind)
def test_predictions_have_the_shape_of_the_task(kind):
    data = a_dataset(kind)
    result = CrossValidation.of(data, simple_pipeline).evaluate({"C": 1.0}, 0)
    assert result.oof.shape == {"regression": (120,), "binary": (120, 2), "multiclass": (120, 3)}[kind.value]
    assert result.oof.dtype == np.float32
    assert np.isfinite(result.oof).all()


def test_rows_that_were_never_held_out_are_nan():
    data = a_dataset(time_split=True)
    result = CrossValidation.of(data, simple_pipeline).evaluate({"C": 1.0}, 0)
    np.testing.assert_array_equal(np.isfinite(result.oof).all(axis=1), np.arange(120) >= 30)


def test_the_training_score_is_that_of_the_training_rows():
    data = a_dataset(TaskKind.REGRESSION, metric="r2")
    result = CrossValidation.of(data, simple_pipeline).evaluate({"C": 1e6}, 0)
    least_squares = [np.linalg.lstsq(_with_one(data.X.iloc[t]), data.y[t], rcond=None)[1] for t, _ in data.folds]
    r2 = [1 - float(rest[0]) / data.y[t].var() / len(t) for rest, (t, _) in zip(least_squares, data.folds, strict=True)]
    assert result.train_score == pytest.approx(np.mean(r2), rel=1e-4)


def test_a_shown_metric_that_is_undefined_does_not_fail_the_trial():
    shown = (resolve_metric("rmsle", TaskKind.REGRESSION),)
    result = CrossValidation.of(a_dataset(TaskKind.REGRESSION, shown=shown), simple_pipeline).evaluate({"C": 1.0}, 0)
    assert result.ok
    assert np.isnan(result.scores[shown[0].name])


def test_a_script_without_a_main_guard_works_and_its_death_takes_all_with_it(tmp_path):
    process = _run_script(tmp_path)
    assert process.stdout.readline() == "OK\n"
    workers = _workers_of(process.pid)
    assert len(workers) == 1
    process.kill()
    process.communicate()
    assert not psutil.wait_procs(workers, timeout=20)[1]
    assert _eventually(lambda: not list(tmp_path.glob("offline-tune-*")))


def test_ctrl_c_ends_the_parent_and_its_workers_quietly(tmp_path):
    process = _run_script(tmp_path, start_new_session=True)
    assert process.stdout.readline() == "OK\n"
    workers = _workers_of(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert errors.count("Traceback") == 1
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert not psutil.wait_procs(workers, timeout=20)[1]
    assert not list(tmp_path.glob("offline-tune-*"))


def _run_script(folder, **options):
    root = Path(__file__).parents[1]
    script = folder / "tune.py"
    script.write_text(SCRIPT.format(paths=[str(root), str(root / "tests")]))
    environment = {**os.environ, "TMPDIR": str(folder)}
    return subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options
    )


def _workers_of(pid):
    children = psutil.Process(pid).children()
    return [child for child in children if "--multiprocessing-fork" in child.cmdline()]


def _eventually(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def _with_one(X: pd.DataFrame):
    return np.column_stack([X.to_numpy(), np.ones(len(X))])
