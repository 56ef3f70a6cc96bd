"""What the shipped model learns from: functions and landscapes as pools, histories and questions as sequences."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offline_tune.errors import DataError
from offline_tune.pretrain.functions import RandomFunction, random_pool, random_schema
from offline_tune.pretrain.landscapes import composite, held_out, load_scenarios
from offline_tune.pretrain.pool import INACTIVE, Schema, levels, make_pool
from offline_tune.pretrain.sequences import IGNORED, N_PREDICTIONS, N_PROPOSALS, make_batch
from offline_tune.pretrain.sources import load_sources
from offline_tune.prompt.outcome import outcome_levels, standardise
from offline_tune.prompt.vocabulary import N_LEVELS, VOCABULARY

IDS = VOCABULARY.ids
SEEDS = st.integers(0, 2**32 - 1)
FEW = settings(max_examples=25)
DATA_SETS = [f"data {i}" for i in range(40)]


def rng(seed=0):
    return np.random.default_rng(seed)


def a_pool(seed=0, n_points=120):
    stream = rng(seed)
    return random_pool(random_schema(stream), stream, n_points)


def a_batch(n_trials=10, seed=0, n_pools=3):
    stream = rng(seed)
    schema = random_schema(stream)
    return make_batch([random_pool(schema, stream, 120) for _ in range(n_pools)], n_trials, stream)


# --- functions


@FEW
@given(seed=SEEDS)
def test_equal_seeds_give_equal_functions(seed):
    one, two = (a_pool(seed) for _ in range(2))
    assert np.array_equal(one.cells, two.cells) and np.array_equal(one.scores, two.scores)


def test_distinct_seeds_give_distinct_functions():
    schema = random_schema(rng(0))
    unit = rng(9).random((30, schema.n_parameters))
    values = [RandomFunction(schema, rng(seed))(unit) for seed in range(5)]
    assert len({v.tobytes() for v in values}) == 5


@FEW
@given(seed=SEEDS)
def test_a_pool_has_legal_cells_and_finite_scores(seed):
    pool = a_pool(seed)
    assert np.isfinite(pool.scores).all() and pool.cells.min() >= INACTIVE
    for j, choices in enumerate(pool.schema.choices):
        assert pool.cells[:, j].max() < (len(choices) if choices else N_LEVELS)
        assert pool.schema.conditional[j] or (pool.cells[:, j] != INACTIVE).all()


@FEW
@given(seed=SEEDS)
def test_a_pool_is_ranked_from_its_best(seed):
    pool = a_pool(seed)
    assert sorted(pool.ranking) == list(range(len(pool.scores))) and (np.diff(pool.scores[pool.ranking]) <= 0).all()


def test_a_cloud_round_the_best_points_beats_even_draws():
    better = 0
    for seed in range(12):
        stream = rng(seed)
        schema = random_schema(stream)
        function = RandomFunction(schema, stream)
        even = function.sample(200, stream)
        best = even[np.argsort(-function(even))[:8]]
        better += function(function.near(best, 200, stream)).mean() > function(even).mean()
    assert better == 12


@FEW
@given(seed=SEEDS)
def test_the_root_alone_decides_what_is_active(seed):
    stream = rng(seed)
    schema = random_schema(stream)
    cells = random_pool(schema, stream, 120).cells
    patterns = {(row[0], tuple(row == INACTIVE)) for row in cells} if any(schema.conditional) else {(0, ())}
    assert len({root for root, _ in patterns}) == len(patterns)


def test_levels_divide_the_scale_evenly_and_keep_what_is_inactive():
    assert levels(np.array([0.0, 0.4999 / 64, 0.5, 1.0, np.nan])).tolist() == [0, 0, 32, 63, INACTIVE]


@pytest.mark.parametrize(
    ("names", "choices", "message"),
    [
        (("no such name",), (None,), "a schema's names must be in the vocabulary, got 'no such name'; add it or leave"),
        (("booster",), (("my own",),), r"a named choice's words must be in the vocabulary, got \('my own',\); leave"),
    ],
)
def test_a_schema_speaks_the_vocabulary(names, choices, message):
    with pytest.raises(ValueError, match=message):
        Schema("?", names, choices, (False,), (False,))


# --- sequences


@FEW
@given(n_trials=st.integers(0, 20), seed=SEEDS)
def test_a_sequence_is_a_history_and_its_questions(n_trials, seed):
    batch = a_batch(n_trials, seed)
    assert (batch.tokens[batch.blocks == -1] == 0).all()
    for i in range(len(batch.tokens)):
        prefix = batch.tokens[i, batch.blocks[i] == 0]
        assert prefix[:2].tolist() == [IDS["<s>"], IDS["<task>"]] and (prefix == IDS["<trial>"]).sum() == n_trials
        starts = [batch.tokens[i, batch.blocks[i] == b][0] for b in range(1, batch.blocks[i].max() + 1)]
        asked = len(starts) - N_PROPOSALS
        assert starts == [IDS["<propose>"]] * N_PROPOSALS + [IDS["<trial>"]] * asked and asked in (0, N_PREDICTIONS)


@FEW
@given(n_trials=st.integers(0, 12), seed=SEEDS)
def test_targets_stand_where_the_format_says(n_trials, seed):
    batch = a_batch(n_trials, seed)
    for i, j in zip(*np.nonzero(batch.targets != IGNORED), strict=True):
        token, target, block = batch.tokens[i, j], batch.targets[i, j], batch.blocks[i, j]
        if batch.is_outcome[i, j]:
            assert token == IDS["<outcome>"] and VOCABULARY.pieces[target].startswith("<y")
        else:
            assert 1 <= block <= N_PROPOSALS and target == batch.tokens[i, j + 1]
            assert VOCABULARY.pieces[target].startswith(VOCABULARY.pieces[token][:-1] + "=")


@FEW
@given(n_trials=st.integers(1, 12), seed=SEEDS)
def test_every_outcome_of_a_history_and_every_value_of_a_proposal_is_a_target(n_trials, seed):
    batch = a_batch(n_trials, seed)
    told = batch.tokens >= VOCABULARY.first_outcome
    told &= batch.tokens < VOCABULARY.first_parameter
    values = (batch.tokens >= VOCABULARY.first_value) & (batch.blocks >= 1) & (batch.blocks <= N_PROPOSALS)
    aimed = np.roll(batch.targets != IGNORED, 1, axis=1)
    assert aimed[told | values].all()


def test_a_proposal_is_of_the_best_of_the_pool_that_the_history_lacks():
    pool = a_pool(1, 300)
    batch = make_batch([pool], 10, rng(0))
    levels_of = [tuple(row[row != INACTIVE]) for row in pool.cells[pool.ranking[:40]]]
    writes = batch.tokens[0, batch.blocks[0] == 1][2::2]
    got = tuple(sorted((int(t) - VOCABULARY.first_value) % N_LEVELS for t in writes))
    assert got in {tuple(sorted(int(v) for v in row)) for row in levels_of}


def test_the_outcomes_of_a_history_are_levels_on_its_own_scale():
    schema = Schema("?", ("",), (None,), (False,), (False,))
    pool = make_pool(schema, np.arange(64, dtype=np.int16)[:, None], np.arange(64.0))
    batch = make_batch([pool], 6, rng(3))
    prefix = batch.tokens[0, batch.blocks[0] == 0][3:].reshape(-1, 4)
    told = prefix[prefix[:, 3] >= VOCABULARY.first_outcome]  # the others failed or are pending
    scores = ((told[:, 1] - VOCABULARY.first_value) % N_LEVELS).astype(float)
    assert (told[:, 3] - VOCABULARY.first_outcome).tolist() == outcome_levels(standardise(scores, scores)).tolist()


def test_equal_seeds_give_equal_batches():
    one, two = (a_batch(8, 5) for _ in range(2))
    assert np.array_equal(one.tokens, two.tokens) and np.array_equal(one.targets, two.targets)


@FEW
@given(n_trials=st.integers(0, 8), seed=SEEDS)
def test_a_question_sees_the_history_and_its_own_beginning_alone(n_trials, seed):
    batch = a_batch(n_trials, seed, n_pools=2)
    t = batch.tokens.shape[1]
    for i, blocks in enumerate(batch.blocks):
        for row, j in enumerate(range(batch.prefix, t)):
            if blocks[j] > 0:
                expected = (blocks == 0) | ((blocks == blocks[j]) & (np.arange(t) <= j))
                assert np.array_equal(batch.mask[i, row], expected)


@FEW
@given(n_trials=st.integers(0, 8), seed=SEEDS)
def test_every_question_goes_on_where_the_history_ends(n_trials, seed):
    batch = a_batch(n_trials, seed)
    for blocks, positions in zip(batch.blocks, batch.positions, strict=True):
        size = (blocks == 0).sum()
        for block in range(1, blocks.max() + 1):
            found = positions[blocks == block]
            assert found.tolist() == list(range(size, size + len(found)))


# --- landscapes


def write_landscape(folder, name="rbv2_xgboost.npz", instances=DATA_SETS, drop=(), **changes):
    """A small file of one family, as landscapes.py describes it."""
    stream = rng(0)
    content = {
        "names": np.array(["eta", "booster", "max_depth"]),
        "kinds": np.array(["float", "cat", "int"]),
        "lower": np.array([1e-3, 0, 1]),
        "upper": np.array([1.0, 1, 15]),
        "log": np.array([True, False, False]),
        "choices": np.array(json.dumps({"booster": ["gbtree", "dart"]})),
        "targets": np.array(["acc", "val_accuracy", "seconds"]),
        "minimize": np.array([False, False, True]),
        "instances": np.array(instances),
    }
    for instance in instances:
        booster = stream.integers(0, 2, 30).astype(float)
        depth = np.where(booster == 1, stream.integers(1, 16, 30), np.nan)
        content[f"x_{instance}"] = np.column_stack([10 ** stream.uniform(-3, 0, 30), booster, depth])
        content[f"y_{instance}"] = stream.random((30, 3))
    content |= changes
    np.savez(folder / name, **{key: value for key, value in content.items() if key not in drop})
    return folder


def test_a_landscape_becomes_pools(tmp_path):
    (scenario,) = load_scenarios(write_landscape(tmp_path))
    assert (scenario.family, sorted(scenario.pools)) == ("xgboost", sorted(DATA_SETS))
    assert scenario.schema.names == ("learning_rate", "booster", "max_depth")
    assert scenario.schema.choices == (None, ("gbtree", "dart"), None)
    assert scenario.schema.conditional == (False, False, True) and scenario.schema.log == (True, False, False)


def test_the_cells_of_a_landscape_are_levels_on_its_scales(tmp_path):
    x = np.array([[1e-3, 0, np.nan], [1.0, 1, 8], [10**-1.5, 1, 15]])
    y = np.array([[0.1, 0, 0], [0.3, 0, 0], [0.2, 0, 0]])
    (scenario,) = load_scenarios(write_landscape(tmp_path, instances=["one"], x_one=x, y_one=y))
    pool = scenario.pools["one"]
    assert pool.cells.tolist() == [[0, 0, INACTIVE], [63, 1, 32], [32, 1, 63]]
    assert pool.ranking.tolist() == [1, 2, 0]


def test_a_minimised_target_is_turned_round(tmp_path):
    minimised = np.array([True, False, True])
    (one,) = load_scenarios(write_landscape(tmp_path))
    (other,) = load_scenarios(write_landscape(tmp_path, minimize=minimised))
    assert np.array_equal(one.pools["data 0"].scores, -other.pools["data 0"].scores)


@pytest.mark.parametrize("drop", ["names", "choices", "instances", "x_data 3", "y_data 3"])
def test_a_landscape_without_a_part_is_refused(tmp_path, drop):
    with pytest.raises(
        DataError, match=r"a landscape must be an \.npz with the documented keys, got rbv2_xgboost\.npz"
    ):
        load_scenarios(write_landscape(tmp_path, drop=[drop]))


def test_a_landscape_without_its_target_is_refused(tmp_path):
    with pytest.raises(DataError, match="a landscape must be an"):
        load_scenarios(write_landscape(tmp_path, targets=np.array(["f1", "auc", "seconds"])))


DAMAGES = {
    "empty": lambda whole: b"",
    "half": lambda whole: whole[: len(whole) // 2],
    "zeros": lambda whole: whole[:60] + bytes(400) + whole[460:],
    "text": lambda whole: b"eta,acc\n0.1,0.5\n",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_landscape_is_refused(tmp_path, damage):
    path = write_landscape(tmp_path) / "rbv2_xgboost.npz"
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(DataError, match=r"a landscape must be an \.npz with the documented keys, got .*; restore it"):
        load_scenarios(tmp_path)


def test_an_array_that_is_no_archive_is_refused(tmp_path):
    with (tmp_path / "rbv2_xgboost.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DataError, match=r"a landscape must be an \.npz with the documented keys, got .*; restore it"):
        load_scenarios(tmp_path)


def test_families_measured_on_the_same_data_become_one_space(tmp_path):
    write_landscape(tmp_path)
    write_landscape(tmp_path, "rbv2_ranger.npz", instances=DATA_SETS[:5])
    both = composite(load_scenarios(tmp_path))
    assert both.schema.names[0] == "family" and both.schema.choices[0] == ("xgboost", "random_forest")
    assert sorted(both.pools) == sorted(DATA_SETS[:5])
    cells = both.pools["data 0"].cells
    assert ((cells[:, 1:4] == INACTIVE).all(axis=1) == (cells[:, 0] == 1)).all()


# --- sources


def test_the_data_sets_of_development_are_in_no_training_pool(tmp_path):
    write_landscape(tmp_path)
    write_landscape(tmp_path, "rbv2_ranger.npz")
    sources = load_sources(tmp_path)
    assert set(sources.training) == set(sources.development) == {"xgboost", "random_forest", "?"}
    for family, kept in sources.development.items():
        assert kept and not {p.scores.tobytes() for p in kept} & {p.scores.tobytes() for p in sources.training[family]}


def test_the_same_data_sets_are_held_out_of_every_family(tmp_path):
    write_landscape(tmp_path)
    write_landscape(tmp_path, "rbv2_ranger.npz", instances=DATA_SETS[::-1])
    one, two = load_scenarios(tmp_path)
    assert held_out(one) == held_out(two) and 0 < len(held_out(one)) < 20


def test_functions_of_development_are_never_drawn_in_training():
    sources = load_sources(None)
    kept = {p.scores.tobytes() for pools in sources.development_pools().values() for p in pools}
    drawn = {p.scores.tobytes() for seed in range(5) for p in sources.draw(2, rng([0, seed]))}
    assert not kept & drawn


@pytest.mark.parametrize("name", [None, "missing"])
def test_without_a_folder_there_are_functions_alone(tmp_path, name):
    sources = load_sources(None if name is None else tmp_path / name)
    assert (dict(sources.training), dict(sources.development)) == ({}, {}) and len(sources.draw(3, rng())) == 3


def test_a_source_without_pools_is_never_drawn(tmp_path):
    write_landscape(tmp_path, instances=["data 0"])
    write_landscape(tmp_path, "rbv2_ranger.npz", instances=["data 1"])  # nothing in common
    sources = load_sources(tmp_path)
    assert all(sources.training.values()) and all(sources.draw(2, rng(seed)) for seed in range(30))


def test_the_pools_of_a_draw_share_a_schema(tmp_path):
    sources = load_sources(write_landscape(tmp_path))
    assert all(len({id(p.schema) for p in sources.draw(4, rng(seed))}) == 1 for seed in range(20))
