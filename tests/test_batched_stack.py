"""Stacks: packing, parking, dropout, early stopping, memory; equality with plain torch is proven elsewhere."""

import math
import threading

import numpy as np
import pytest
import torch

from offline_tune.evaluator.batched.job import Job, Recipe, Rows
from offline_tune.evaluator.batched.layers import ACTIVATIONS, WIDTHS, padded
from offline_tune.evaluator.batched.layout import Layout
from offline_tune.evaluator.batched.networks.mlp import MLP
from offline_tune.evaluator.batched.packing import most_rows, packed, row_bytes
from offline_tune.evaluator.batched.randomness import Noise, Rates, generator, mixed, order, step_keys
from offline_tune.evaluator.batched.reference import train_alone
from offline_tune.evaluator.batched.resident import Resident
from offline_tune.evaluator.batched.run import Diverged, Run, Spending, kept_numbers
from offline_tune.evaluator.batched.schedule import SCHEDULES, factors
from offline_tune.evaluator.batched.stack import Stack
from offline_tune.evaluator.batched.trainer import OverTime, Trainer

CPU = torch.device("cpu")
N = 160
TRAIN, VALID = Rows(np.arange(120)), Rows(np.arange(120, N))


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data():
    X = np.random.default_rng(0).normal(size=(N, 8))
    return Resident.of(X, (X[:, 0] + X[:, 1] > 0).astype(np.int64))


def a_network(**changes):
    return MLP(**{"n_inputs": 8, "n_outputs": 2, "is_classifier": True, "width": 16, "depth": 2, **changes})


def a_run(seed=0, valid=VALID, spending=None, network=None, **recipe):
    recipe = Recipe(**{"batch_size": 16, "epochs": 4, "learning_rate": 1e-2, **recipe})
    job = Job(network=network or a_network(), recipe=recipe, seed=seed, train=TRAIN, valid=valid)
    return Run(job, spending=spending or Spending())


def trained(data, runs, until=math.inf, **options):
    Trainer(data, **options).advance(runs, until)
    return runs


def numbers(run):
    return torch.cat([value.flatten() for value in run.state.values.values()]).numpy()


def mixed_runs():
    return [
        a_run(
            seed,
            network=a_network(width=(8, 16, 24)[seed % 3], depth=1 + seed % 2, dropout=0.2),
            batch_size=(8, 32)[seed % 2],
        )
        for seed in range(8)
    ]


def test_several_targets_are_learnt_as_plain_torch_learns_them():
    X = np.random.default_rng(1).normal(size=(N, 8))
    data = Resident.of(X, X[:, :2] ** 2, dtype=torch.float64)
    network = a_network(n_outputs=2, is_classifier=False)
    (run,) = trained(data, [a_run(network=network)], dtype=torch.float64)
    alone = train_alone(run.job, data.X, data.y)
    assert max(float((value - alone.last[name]).abs().max()) for name, value in run.state.values.items()) < 1e-12
    assert run.losses == pytest.approx(alone.losses, abs=1e-12)


def test_ctrl_c_does_not_wait_for_the_end_of_an_epoch(data):
    stack = Stack([a_run()], data)
    stack.epoch(lambda: True)
    assert stack.runs[0].epoch == 0


def test_results_are_the_same_to_the_last_bit_whatever_the_packing(data):
    alone = trained(data, mixed_runs(), most=1)
    for options in ({"most": 3}, {"most": 8}, {}):
        for one, other in zip(alone, trained(data, mixed_runs(), **options), strict=True):
            np.testing.assert_array_equal(numbers(one), numbers(other))
            assert one.losses == other.losses


def test_training_can_be_parked_and_taken_up_again(data):
    through, halted = trained(data, mixed_runs()), mixed_runs()
    for until in (1, 3, math.inf):
        trained(data, halted, until)
    for one, other in zip(through, halted, strict=True):
        np.testing.assert_array_equal(numbers(one), numbers(other))


def test_every_run_is_handed_back_once(data):
    runs, ended = mixed_runs(), []
    Trainer(data, most=3).advance(runs, on_end=ended.append)
    assert sorted(map(id, ended)) == sorted(map(id, runs))
    assert all(run.epoch == 4 and len(run.losses) == 4 for run in runs)


def test_runs_are_handed_back_on_the_callers_thread(data):
    threads = set()
    Trainer(data).advance(mixed_runs(), on_end=lambda run: threads.add(threading.current_thread()))
    assert threads == {threading.current_thread()}


def test_an_exception_of_the_listener_reaches_the_caller(data):
    with pytest.raises(ZeroDivisionError):
        Trainer(data).advance(mixed_runs(), on_end=lambda run: 1 / 0)


def test_training_learns(data):
    (run,) = trained(data, [a_run(epochs=30)])
    assert run.losses[0] > 0.5
    assert run.best_loss < 0.1


def test_a_run_without_validation_rows_keeps_its_last_numbers(data):
    (run,) = trained(data, [a_run(valid=None)])
    assert run.losses == []
    assert run.best_epoch == run.epoch == 4
    assert all(torch.equal(value, run.state.best[name]) for name, value in run.state.values.items())


def test_training_ends_when_patience_does(data):
    (run,) = trained(data, [a_run(epochs=200, patience=3, learning_rate=0.03, schedule="constant")])
    assert run.epoch == run.best_epoch + 3 < 200
    assert run.best_loss == min(run.losses)


def test_the_numbers_of_the_best_epoch_are_kept(data):
    (run,) = trained(data, [a_run(epochs=200, patience=3, learning_rate=0.03, schedule="constant")])
    (again,) = trained(data, [a_run(epochs=200, learning_rate=0.03, schedule="constant")], run.best_epoch)
    assert all(torch.equal(value, again.state.values[name]) for name, value in run.state.best.items())


def test_a_run_that_diverges_ends_and_harms_nobody(data):
    def some():
        return [a_run(seed) for seed in range(3)]

    beside = [a_run(9, learning_rate=1e30, schedule="constant", optimiser="sgd", epochs=50), *some()]
    trained(data, beside, by_size=False)
    assert beside[0].diverged
    assert beside[0].epoch < 50
    for one, other in zip(trained(data, some(), by_size=False), beside[1:], strict=True):
        np.testing.assert_array_equal(numbers(one), numbers(other))
    with pytest.raises(Diverged, match=r"the loss was not finite after epoch \d+; lower learning_rate"):
        kept_numbers(beside[0])


def test_a_run_that_no_memory_holds_fails_alone(data):
    giant = a_run(network=a_network(width=3_000_000))
    good = a_run(1)
    trained(data, [giant, good])
    assert "alloc" in str(giant.failure).lower()
    assert good.failure is None
    assert len(good.losses) == 4


class Fragile(MLP):
    """Fails where more than two stand in a stack, as memory does; alone it works, unless it is cursed."""

    __slots__ = ()

    def stacked(self, networks, device, dtype):
        if len(networks) > 2 or any(network.dropout == 0.5 for network in networks):
            raise RuntimeError("cannot allocate memory")
        return super().stacked(networks, device, dtype)


def test_a_stack_that_does_not_fit_is_halved_and_goes_on(data):
    facts = {"n_inputs": 8, "n_outputs": 2, "is_classifier": True, "width": 16, "depth": 2}
    fragile = [a_run(seed, network=Fragile(**facts)) for seed in range(7)]
    trained(data, fragile, most=7)
    for one, other in zip(trained(data, [a_run(seed) for seed in range(7)]), fragile, strict=True):
        np.testing.assert_array_equal(numbers(one), numbers(other))


def test_one_run_that_fails_in_a_stack_is_singled_out(data):
    facts = {"n_inputs": 8, "n_outputs": 2, "is_classifier": True, "width": 16, "depth": 2}
    runs = [a_run(seed, network=Fragile(**facts, dropout=0.5 if seed == 1 else 0.0)) for seed in range(4)]
    trained(data, runs)
    assert [run.failure is not None for run in runs] == [False, True, False, False]


def test_the_time_of_a_candidate_is_limited(data):
    spending = Spending(limit=1e-9)
    runs = [a_run(0, spending=spending), a_run(1)]
    trained(data, runs)
    assert isinstance(runs[0].failure, OverTime)
    assert str(runs[0].failure) == "stopped after 1e-09 s"
    assert runs[1].failure is None


def test_a_stack_knows_what_a_row_needs_before_it_is_built(data):
    small, large = (row_bytes(a_run(network=a_network(width=width)), data, torch.float32) for width in (16, 256))
    assert 4 * 5 * 300 < small < large
    assert 1 <= most_rows(a_run(network=a_network(width=1024)), data, torch.float32)
    assert most_rows(a_run(), data, torch.float32) > 16


def test_packing_by_size_depends_on_the_run_alone():
    runs = mixed_runs()
    groups = packed(runs, by_size=True)
    assert sorted(len(group) for group in groups) == [1, 1, 1, 1, 2, 2]
    assert [len(group) for group in packed(runs, by_size=False)] == [8]


def test_rows_that_lack_a_layer_stand_behind_those_that_have_it(data):
    stack = Stack([a_run(network=a_network(depth=depth)) for depth in (1, 3, 2)], data)
    assert [run.job.network.depth for run in stack.runs] == [3, 2, 1]


def test_a_layout_refuses_gaps():
    deep, shallow = {"a.weight": (2, 2), "b.weight": (2, 2)}, {"a.weight": (2, 2)}
    with pytest.raises(ValueError, match=r"rows with a parameter must come first, got 'b.weight' after a gap; sort"):
        Layout.of([shallow, deep], [shallow, deep])


def test_a_shuffle_depends_on_its_seed_and_epoch_alone():
    assert np.array_equal(order(3, 1, 10), order(3, 1, 10))
    assert not np.array_equal(order(3, 1, 10), order(3, 2, 10))
    assert sorted(order(3, 1, 10)) == list(range(10))


# dropout


def masks(n_rows, samples, units, first=0, rate=0.3, layer=0):
    seeds = np.arange(n_rows, dtype=np.uint64) * np.uint64(7919)
    noise = Noise(torch.as_tensor(step_keys(seeds, np.array([5]), np.array([first]))))
    h = torch.ones(n_rows, samples, units)
    return noise.dropped(h, layer, Rates.of([rate] * n_rows, CPU, torch.float32))


def test_dropout_keeps_its_share_and_the_mean():
    kept = masks(4, 512, 256)
    assert torch.allclose(kept.mean((1, 2)), torch.ones(4), atol=0.01)
    assert abs(float((kept > 0).float().mean()) - 0.7) < 0.003


def test_dropout_of_a_row_does_not_know_its_neighbours_or_its_padding():
    large = masks(9, 16, 64)
    torch.testing.assert_close(masks(3, 16, 64), large[:3], rtol=0, atol=0)
    torch.testing.assert_close(masks(9, 16, 24), large[..., :24], rtol=0, atol=0)
    torch.testing.assert_close(masks(9, 16, 23), large[..., :23], rtol=0, atol=0)


def test_dropout_does_not_depend_on_how_a_batch_is_cut():
    whole = masks(2, 32, 16)
    torch.testing.assert_close(torch.cat([masks(2, 8, 16, first) for first in (0, 8, 16, 24)], 1), whole)


def test_dropout_differs_between_rows_steps_and_layers():
    one = masks(2, 64, 64)
    assert not torch.equal(one[0], one[1])
    assert not torch.equal(one, masks(2, 64, 64, layer=1))
    agreement = (masks(1, 256, 64)[0] == masks(1, 256, 64, layer=1)[0]).float().mean()
    assert abs(float(agreement) - (0.7**2 + 0.3**2)) < 0.02


def test_no_dropout_changes_nothing():
    h = torch.randn(2, 4, 8)
    noise = Noise(torch.zeros(2, dtype=torch.int64))
    assert noise.dropped(h, 0, Rates.of([0.0, 0.0], CPU, torch.float32)) is h
    some = noise.dropped(h, 0, Rates.of([0.0, 0.5], CPU, torch.float32))
    assert torch.equal(some[0], h[0])


def test_seeds_of_any_size_give_generators():
    for seed in (0, -1, 2**63, 2**200):
        assert 0 <= mixed(seed, 1) < 2**64
        assert generator(seed, 1).initial_seed() == generator(seed, 1).initial_seed()


# parts


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_leave_zero_at_zero(name):
    assert float(ACTIVATIONS[name](torch.zeros(1))) == 0


def test_padded_widths_are_on_the_ladder():
    assert [padded(width) for width in (1, 8, 9, 64, 65, 1024, 1025)] == [8, 8, 16, 64, 96, 1024, 1536]
    assert sorted(WIDTHS) == list(WIDTHS)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_stay_between_zero_and_one(name):
    found = factors(name, np.arange(100), 100)
    assert found.max() <= 1
    assert found.min() >= 0


def test_an_unknown_schedule_is_refused():
    with pytest.raises(ValueError, match=r"a schedule must be one of cosine, .*, got 'steps'; choose one"):
        factors("steps", np.arange(3), 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 24}, "batch_size must be a power of two, got 24; choose another value"),
        ({"batch_size": 0}, "batch_size must be a power of two, got 0; choose another value"),
        ({"batch_size": 256}, "batch_size must be at most the 120 training rows, got 256; choose another value"),
        ({"epochs": 0}, "epochs must be at least 1, got 0; choose another value"),
        ({"optimiser": "lion"}, "optimiser must be adamw or sgd, got lion; choose another value"),
        ({"schedule": "steps"}, "schedule must be one of cosine, .*, got steps; choose another value"),
        ({"learning_rate": math.nan}, "learning_rate must be at least 0 and finite, got nan; choose another value"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0 and finite, got -1.0; choose another value"),
        ({"beta1": 1.0}, "beta1 must be at least 0 and below 1, got 1.0; choose another value"),
        ({"epsilon": 0.0}, "epsilon must be above 0, got 0.0; choose another value"),
        ({"clip": 0.0}, "clip must be above 0, got 0.0; choose another value"),
        ({"patience": 0}, "patience must be at least 1, got 0; choose another value"),
    ],
)
def test_what_no_training_could_use_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        a_run(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "hidden_width must be at least 1, got 0; raise it"),
        ({"depth": 0}, "hidden_layers must be at least 1, got 0; raise it"),
        ({"n_inputs": 0}, "inputs must be at least 1, got 0; raise it"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1; lower it"),
    ],
)
def test_what_no_network_could_be_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        a_network(**change)
