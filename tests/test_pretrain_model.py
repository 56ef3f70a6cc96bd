"""The network that is trained is the network that llama.cpp runs, and a stopped training goes on as if it had not."""

import copy
import hashlib
import os

import gguf
import numpy as np
import pytest
import torch
from contracts_samplers import TINY
from optuna.distributions import FloatDistribution
from torch.nn import functional

from offline_tune.errors import ModelError
from offline_tune.history import History, Observation
from offline_tune.llm.gguf_header import read_header
from offline_tune.llm.llama import load_model
from offline_tune.pretrain.export import export_gguf
from offline_tune.pretrain.functions import random_pool, random_schema
from offline_tune.pretrain.llama import Llama, LlamaConfig
from offline_tune.pretrain.pool import Schema, make_pool
from offline_tune.pretrain.sequences import make_batch
from offline_tune.pretrain.sources import Sources
from offline_tune.pretrain.train import Plan, Progress, development_loss, load_checkpoint, save_checkpoint, train
from offline_tune.prompt.compact import CompactDialect
from offline_tune.prompt.vocabulary import DIALECT_VERSION, N_LEVELS, VOCABULARY
from offline_tune.space import SearchSpace

SYNTHETIC = Sources({}, {})
SHAPE = LlamaConfig(width=64, layers=2, heads=2, feed_forward=96, context=512)
PLAN = Plan(tokens=6_000, decay_tokens=3_000, batch_tokens=600, max_trials=8, checkpoint_every=2)


def a_llama(config=SHAPE, spread=8.0, seed=0):
    """Random weights, larger than at the start of a training, so that every layer matters."""
    torch.manual_seed(seed)
    model = Llama(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(spread if weight.ndim > 1 else 1.0)
    return model


def a_prompt(n=300, seed=0):
    known = [*range(1, 3), *range(259, len(VOCABULARY))]
    return [int(t) for t in np.random.default_rng(seed).choice(known, n)]


def log_softmax(logits):
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


def compared(folder, spread, quantised):
    """Logits after each tenth token of a prompt, by torch and by llama.cpp, shape (2, n, v)."""
    model, prompt = a_llama(spread=spread), a_prompt()
    export_gguf(model, folder / "m.gguf", "random", quantised)
    with torch.no_grad():
        expected = model.logits(torch.tensor([prompt]))[0, 9::10].numpy()
    loaded = load_model(folder / "m.gguf", k_max=2)
    found = [loaded.logits_after(prompt[:n], [prompt[n : n + 1]])[0] for n in range(9, len(prompt), 10)]
    loaded.close()
    return np.array([expected, found], np.float64)


# --- export


def test_the_exported_model_gives_the_logits_of_torch(tmp_path):
    expected, found = compared(tmp_path, spread=1.0, quantised=False)
    assert np.ptp(expected) > 3 and np.abs(found - expected).max() < 1e-3


def test_large_weights_cost_no_more_than_the_halves_in_the_cache(tmp_path):
    # llama.cpp keeps keys and values as 16-bit floats, which tell 1 from 1.001
    expected, found = compared(tmp_path, spread=5.0, quantised=False)
    assert np.abs(found - expected).mean() < 2e-3 * expected.std()


def test_eight_bits_cost_little(tmp_path):
    # q8_0 rounds each weight to 1/127 of its block's largest: about 1 % of a typical weight
    expected, found = log_softmax(compared(tmp_path, spread=3.0, quantised=True))
    assert 0 < np.abs(found - expected).mean() < 0.02 * expected.std()
    assert (np.exp(expected) * (expected - found)).sum(axis=1).max() < 1e-3  # nats


def test_the_export_names_its_file_and_its_dialect(tmp_path):
    digest = export_gguf(Llama(TINY), tmp_path / "m.gguf", "3 steps")
    header = read_header(tmp_path / "m.gguf")
    assert digest == hashlib.sha256((tmp_path / "m.gguf").read_bytes()).hexdigest()
    assert (header.dialect, header.n_vocab, header.n_ctx_train) == ("compact", len(VOCABULARY), TINY.context)
    assert header.metadata["offline_tune.dialect_version"] == DIALECT_VERSION
    assert header.metadata["offline_tune.training"] == "3 steps"


def test_the_export_spells_the_vocabulary_in_order(tmp_path):
    export_gguf(Llama(TINY), tmp_path / "m.gguf", "untrained")
    model = load_model(tmp_path / "m.gguf", k_max=1)
    assert model.vocabulary == VOCABULARY.pieces
    assert model.tokenize("<task><learning_rate=17>", special=True) == [
        VOCABULARY.ids["<task>"],
        VOCABULARY.ids["<learning_rate=17>"],
    ]
    model.close()


def test_an_export_leaves_no_partial_file(tmp_path):
    export_gguf(Llama(TINY), tmp_path / "m.gguf", "untrained")
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]


@pytest.mark.parametrize("shape", [{"width": 48}, {"feed_forward": 40}])
def test_widths_that_eight_bits_cannot_hold_are_refused(tmp_path, shape):
    model = Llama(LlamaConfig(**{"width": 32, "layers": 1, "heads": 1, "feed_forward": 32, **shape}))
    with pytest.raises(ModelError, match=r"widths must be multiples of 32 for q8_0, got .*; change them or export f32"):
        export_gguf(model, tmp_path / "m.gguf", "untrained")
    assert list(tmp_path.iterdir()) == []


def test_matrices_are_eight_bits_and_norms_are_not(tmp_path):
    export_gguf(Llama(TINY), tmp_path / "m.gguf", "untrained")
    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    assert {kind for name, kind in kinds.items() if "norm" in name} == {"F32"}
    assert {kind for name, kind in kinds.items() if "norm" not in name} == {"Q8_0"}


# --- the network


def test_the_row_of_a_value_is_its_parameter_and_its_level():
    embedding = a_llama(TINY).embedding
    place, level = VOCABULARY.known("subsample", False), 5
    row = embedding.table()[VOCABULARY.value(place, level)]
    assert torch.equal(row, embedding.parameter[place] + embedding.levels[0, level])


def test_logits_over_levels_are_those_over_the_vocabulary():
    embedding, hidden = a_llama(TINY).embedding, torch.randn(3, TINY.width)
    places = [VOCABULARY.known("subsample", False), VOCABULARY.known("booster", True), len(VOCABULARY.parameters) - 1]
    targets = torch.tensor([VOCABULARY.value(place, 7) for place in places])
    logits, level = embedding.value_logits(hidden, targets)
    every = functional.linear(hidden, embedding.table())
    rows = [every[i, VOCABULARY.value(p, 0) : VOCABULARY.value(p, N_LEVELS)] for i, p in enumerate(places)]
    assert level.tolist() == [7, 7, 7]
    assert torch.allclose(logits.log_softmax(1), torch.stack(rows).log_softmax(1), atol=1e-4)


def states(model, batch, tokens):
    arrays = (tokens, batch.positions, batch.mask)
    tokens, positions, mask = (torch.from_numpy(a) for a in arrays)
    with torch.no_grad():
        return model(tokens, positions, batch.prefix, mask)


@pytest.mark.parametrize("changed", [1, 4, 9])
def test_a_question_does_not_hear_the_others(changed):
    stream = np.random.default_rng(0)
    schema = random_schema(stream)
    batch = make_batch([random_pool(schema, stream, 120) for _ in range(2)], 6, stream)
    assert batch.blocks.max() >= changed
    others, model = copy.copy(batch.tokens), a_llama(TINY)
    others[batch.blocks == changed] = VOCABULARY.ids["<fail>"]
    before, after = states(model, batch, batch.tokens), states(model, batch, others)
    unchanged = torch.from_numpy((batch.blocks >= 0) & (batch.blocks != changed))
    assert torch.equal(before[unchanged], after[unchanged]) and not torch.equal(before, after)


def test_a_question_in_a_batch_is_answered_as_in_a_prompt():
    stream = np.random.default_rng(1)
    schema = random_schema(stream)
    batch, model = make_batch([random_pool(schema, stream, 120)], 6, stream), a_llama(TINY)
    hidden = states(model, batch, batch.tokens)[0]
    for block in (1, 9):
        tokens = batch.tokens[0, (batch.blocks[0] == 0) | (batch.blocks[0] == block)]
        with torch.no_grad():
            alone = model.logits(torch.from_numpy(tokens[None]))[0, -1]
        last = hidden[np.flatnonzero(batch.blocks[0] == block)[-1]]
        assert torch.allclose(functional.linear(last, model.embedding.table()), alone, atol=1e-3)


def test_the_tokens_of_training_are_the_tokens_of_a_prompt():
    schema = Schema("?", ("subsample",), (None,), (False,), (False,))
    pool = make_pool(schema, np.arange(64, dtype=np.int16)[:, None], np.arange(64.0))
    trained = {int(t) for seed in range(40) for t in make_batch([pool], 25, np.random.default_rng(seed)).tokens[0]}
    dialect = CompactDialect(SearchSpace.from_distributions({"subsample": FloatDistribution(0, 1)}))
    history = History(dialect.space, tuple(Observation(i, {"subsample": i / 63}, float(i)) for i in range(64)))
    asked = {*dialect.prompt_tokens(history, 999), *dialect.query_tokens({"subsample": 0.5})}
    assert len(asked) > 90 and len(asked & trained) > 0.9 * len(asked)


# --- training


class Stopped(BaseException):
    pass


def stop_at(step):
    """A listener that ends the process, so to speak, when a step is reported."""

    def say(line):
        if line.startswith(f"{step} steps"):
            raise Stopped

    return say


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_a_training_that_was_stopped_goes_on_as_if_it_had_not(tmp_path):
    whole, done = train(TINY, PLAN, SYNTHETIC, tmp_path / "whole.pt")
    with pytest.raises(Stopped):
        train(TINY, PLAN, SYNTHETIC, tmp_path / "stopped.pt", say=stop_at(4))
    assert load_checkpoint(tmp_path / "stopped.pt")[1].step == 2
    resumed, again = train(TINY, PLAN, SYNTHETIC, tmp_path / "stopped.pt")
    assert done.step > 4 and (again.step, again.tokens) == (done.step, done.tokens)
    assert torch.equal(weights(resumed), weights(whole))


def test_a_finished_training_does_nothing_more(tmp_path):
    model, done = train(TINY, PLAN, SYNTHETIC, tmp_path / "c.pt")
    again, progress = train(TINY, PLAN, SYNTHETIC, tmp_path / "c.pt")
    assert torch.equal(weights(again), weights(model)) and progress.step == done.step


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    model, done = train(TINY, PLAN, SYNTHETIC, tmp_path / "c.pt")
    loaded, progress = load_checkpoint(tmp_path / "c.pt")
    assert torch.equal(weights(loaded), weights(model)) and progress == done and loaded.config == TINY


def test_another_seed_makes_another_model(tmp_path):
    plan = Plan(tokens=1_000, decay_tokens=500, batch_tokens=600, max_trials=8, seed=1)
    one, _ = train(TINY, PLAN, SYNTHETIC, tmp_path / "one.pt")
    two, _ = train(TINY, plan, SYNTHETIC, tmp_path / "two.pt")
    assert not torch.equal(weights(one)[:100], weights(two)[:100])


def test_progress_is_said_and_kept(tmp_path):
    lines = []
    _, progress = train(TINY, PLAN, SYNTHETIC, tmp_path / "c.pt", say=lines.append)
    assert lines[0].startswith("2 steps, ") and progress.curve[0]["step"] == 2
    assert all(np.isfinite(point["value"]) for point in progress.curve)


def test_the_rate_decays_to_nearly_nothing(tmp_path):
    _, progress = train(TINY, PLAN, SYNTHETIC, tmp_path / "c.pt")
    rates = [point["rate"] for point in progress.curve]
    assert max(rates) <= PLAN.rate and rates[-1] < max(rates)


@pytest.mark.slow
def test_training_lowers_the_loss_of_functions_it_never_saw(tmp_path):
    config = LlamaConfig(width=64, layers=2, heads=2, feed_forward=128, context=1024)
    plan = Plan(tokens=250_000, decay_tokens=60_000, batch_tokens=4_000, max_trials=12, rate=4e-3)
    torch.manual_seed(0)
    before = development_loss(Llama(config), SYNTHETIC)
    model, _ = train(config, plan, SYNTHETIC, tmp_path / "c.pt")
    after = development_loss(model, SYNTHETIC)
    outcomes = [name for name in before if name.endswith("/outcome")]
    assert np.mean([after[n] for n in outcomes]) < np.mean([before[n] for n in outcomes]) - 0.1


# --- checkpoints that are none


def a_checkpoint(path, model=None):
    model = model or Llama(TINY)
    save_checkpoint(path, model, torch.optim.AdamW(model.parameters()), Progress())
    return path


class Payload:
    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", bytes(5000), "half"])
def test_a_damaged_checkpoint_is_refused(tmp_path, content):
    path = a_checkpoint(tmp_path / "c.pt")
    path.write_bytes(path.read_bytes()[:3000] if content == "half" else content)
    for use in (load_checkpoint, lambda p: train(TINY, PLAN, SYNTHETIC, p)):
        with pytest.raises(ModelError, match=r"a checkpoint must be a file that the trainer wrote, got .*; restore it"):
            use(path)


def test_a_missing_checkpoint_cannot_be_loaded(tmp_path):
    with pytest.raises(ModelError, match="a checkpoint must be a file that the trainer wrote, got FileNotFoundError"):
        load_checkpoint(tmp_path / "missing.pt")


@pytest.mark.parametrize("content", [{"model": 3}, [1, 2], 5])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(ModelError, match=r"a checkpoint must hold config, dialect_version, .*; choose another file"):
        load_checkpoint(tmp_path / "c.pt")


def test_a_checkpoint_of_another_shape_is_refused_and_kept(tmp_path):
    path = a_checkpoint(tmp_path / "c.pt", Llama(SHAPE))
    before = path.read_bytes()
    with pytest.raises(ModelError, match=r"a checkpoint must have the shape .*'width': 32.* got .*'width': 64"):
        train(TINY, PLAN, SYNTHETIC, path)
    assert path.read_bytes() == before


def test_a_checkpoint_of_another_dialect_is_refused(tmp_path):
    path = a_checkpoint(tmp_path / "c.pt")
    stored = torch.load(path, weights_only=True) | {"dialect_version": 0}
    torch.save(stored, path)
    with pytest.raises(ModelError, match="a checkpoint must be of dialect version 1, got 0 in"):
        load_checkpoint(path)


def test_a_checkpoint_runs_no_code(tmp_path):
    payload = Payload()
    payload.folder = str(tmp_path / "made")
    torch.save(payload, tmp_path / "c.pt")
    with pytest.raises(ModelError, match="a checkpoint must be a file that the trainer wrote"):
        load_checkpoint(tmp_path / "c.pt")
    assert not (tmp_path / "made").exists()
