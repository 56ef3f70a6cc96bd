"""Sweeps of families over a folder of tables: what is tried, what is kept, what a kill costs, what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from small_runs import a_frame

from offline_tune.cards import DataCard
from offline_tune.cli import run_command
from offline_tune.errors import DataError, OutputError, StudyError, TargetError, UsageError
from offline_tune.evaluator.families import FAMILIES
from offline_tune.pretrain.collection import list_sources, sampled
from offline_tune.pretrain.sweep import SweepPlan, candidate, run_sweep
from offline_tune.pretrain.sweep_judge import SweepJudge
from offline_tune.pretrain.sweep_log import FIRST_ENTRY, opened, read_log
from offline_tune.pretrain.sweep_table import Sweep, load_table, write_table
from offline_tune.space import Parameter, SearchSpace
from offline_tune.task import TaskKind

PLAN = SweepPlan(families=("linear", "knn"), candidates=3, rows=100, folds=2, seconds=30)


def a_collection(folder, **entry):
    """Two tables, of words and of amounts."""
    frame = a_frame()
    frame.assign(split="train").to_csv(folder / "words.csv", index=False)
    frame.assign(y=frame["b"] * 2 + 1).to_csv(folder / "amounts.csv", index=False)
    words = {"name": "words", "file": "x/words.csv", "target": "y", "task": "binary", "licence": "free", **entry}
    amounts = {"name": "amounts", "file": "amounts.csv", "target": "y", "task": "regression"}
    (folder / "index.json").write_text(json.dumps([words, amounts]))
    return folder


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = a_collection(tmp_path_factory.mktemp("swept"))
    run_sweep(folder, folder / "work.jsonl", PLAN)
    return folder


def a_space(family="knn", **facts):
    card = DataCard(kind=TaskKind.BINARY, n_rows=900, n_features=9, n_numeric=9, n_categorical=0, n_classes=2)
    return SearchSpace(FAMILIES[family].parameters(replace(card, **facts)))


# --- candidates


def test_the_first_candidate_is_the_default():
    assert candidate(FAMILIES["knn"], a_space(), "words", 0, 0) == a_space().default


@pytest.mark.parametrize("family", FAMILIES)
def test_every_candidate_lies_in_the_space_and_differs(family):
    space = a_space(family, n_categorical=3, max_cardinality=9, missing_share=0.1, imbalance=0.9)
    found = [candidate(FAMILIES[family], space, "words", number, 0) for number in range(33)]
    assert all(space.contains(values) for values in found)
    assert len({space.key(values) for values in found}) == 33


def test_odd_candidates_are_the_same_on_all_tables_and_even_ones_differ():
    one, two = ([candidate(FAMILIES["svm"], a_space("svm"), t, n, 0) for n in range(9)] for t in ("words", "amounts"))
    assert [a == b for a, b in zip(one, two, strict=True)] == [True, True, False, True, False, True, False, True, False]


def test_a_parameter_that_one_table_lacks_does_not_shift_the_others():
    plain, missing = a_space("knn"), a_space("knn", missing_share=0.2)
    one, two = (candidate(FAMILIES["knn"], space, "words", 5, 0) for space in (plain, missing))
    assert "imputing" in two and {name: two[name] for name in one} == one


def test_even_draws_fill_each_scale_evenly():
    space = a_space("catboost")
    drawn = [candidate(FAMILIES["catboost"], space, "words", n, 0) for n in range(1, 65)]
    units = [space.by_name["learning_rate"].to_unit(values["learning_rate"]) for values in drawn]
    assert np.histogram(units, 4, (0, 1))[0].tolist() == [16] * 4


# --- samples


def test_a_sample_has_as_many_rows_as_wanted_and_no_test_part(tmp_path):
    (source, _) = list_sources(a_collection(tmp_path))
    dataset = sampled(source, 60, 3, 0)
    assert (len(dataset.X), dataset.X_test, len(dataset.folds)) == (60, None, 3)


def test_a_column_that_names_the_test_part_is_left_out(tmp_path):
    (source, _) = list_sources(a_collection(tmp_path))
    assert [column.name for column in sampled(source, 60, 3, 0).task.columns] == ["a", "b", "c"]


def test_rare_classes_keep_their_rows_and_rarer_ones_are_left_out(tmp_path):
    labels = ["often"] * 480 + ["seldom"] * 15 + ["hardly"] * 5
    frame = pd.DataFrame({"a": np.arange(500) % 97, "y": labels}).sample(frac=1, random_state=0)
    frame.to_csv(a_collection(tmp_path, task="multiclass") / "words.csv", index=False)
    dataset = sampled(list_sources(tmp_path)[0], 50, 3, 0)
    assert dataset.task.classes == ("often", "seldom") and dataset.task.kind is TaskKind.BINARY
    assert np.bincount(dataset.y)[1] >= 6


def test_equal_seeds_give_equal_samples_and_others_do_not(tmp_path):
    (source, _) = list_sources(a_collection(tmp_path))
    one, two, other = (sampled(source, 60, 3, seed).X for seed in (0, 0, 1))
    assert one.equals(two) and not one.equals(other)


# --- sweeps


def test_a_sweep_tries_all_candidates_of_all_families_on_all_tables(swept):
    trials = read_log(swept / "work.jsonl").trials
    assert sorted(trials) == [(t, f, n) for t in ("amounts", "words") for f in ("knn", "linear") for n in range(4)]
    assert all(trial["outcome"] == "OK" and trial["seconds"] > 0 for trial in trials.values())


def test_a_finished_sweep_does_nothing_more(swept):
    before = (swept / "work.jsonl").read_bytes()
    run_sweep(swept, swept / "work.jsonl", PLAN)
    assert (swept / "work.jsonl").read_bytes() == before


def test_a_kill_in_the_middle_of_a_line_loses_that_trial_alone(swept, tmp_path):
    whole = (swept / "work.jsonl").read_bytes()
    (tmp_path / "work.jsonl").write_bytes(whole[:-40])
    run_sweep(swept, tmp_path / "work.jsonl", replace(PLAN, tables=("amounts",)))
    one, two = (read_log(path / "work.jsonl").trials for path in (swept, tmp_path))
    assert {key: trial["scores"] for key, trial in one.items()} == {key: trial["scores"] for key, trial in two.items()}


def test_a_trial_that_takes_too_long_is_a_failure_without_a_score(swept, tmp_path):
    plan = replace(PLAN, families=("catboost",), tables=("amounts",), candidates=0, seconds=0.1)
    run_sweep(swept, tmp_path / "work.jsonl", plan)
    (trial,) = read_log(tmp_path / "work.jsonl").trials.values()
    assert (trial["outcome"], trial["scores"]) == ("TIMED_OUT", None)
    assert write_table(tmp_path / "work.jsonl", tmp_path / "t.npz")["failures"] == 1
    assert np.isnan(load_table(tmp_path / "t.npz").sweeps[0].scores).tolist() == [True]


def test_other_settings_need_another_work_file(swept):
    with pytest.raises(StudyError, match=r"a sweep must go on with the rows it began with, '100', got '200'; give .*"):
        run_sweep(swept, swept / "work.jsonl", replace(PLAN, rows=200))


def test_other_spaces_need_another_work_file(swept, tmp_path):
    text = (swept / "work.jsonl").read_text().replace('"default": 5', '"default": 7')
    (tmp_path / "work.jsonl").write_text(text)
    with pytest.raises(StudyError, match=r"a sweep must go on with the spaces it .*, got another for knn on 'words'; "):
        run_sweep(swept, tmp_path / "work.jsonl", replace(PLAN, candidates=4))


def test_two_sweeps_cannot_write_one_work_file(swept):
    with (
        opened(swept / "work.jsonl", PLAN.lasting),
        pytest.raises(StudyError, match=r"one sweep at a time may write a work file, got .* in use; wait for it or .*"),
    ):
        run_sweep(swept, swept / "work.jsonl", PLAN)


def test_a_work_file_of_something_else_is_refused_and_kept(swept, tmp_path):
    (tmp_path / "work.jsonl").write_text("shopping list\nmilk\n")
    with pytest.raises(StudyError, match=r"a work file must hold the lines that a sweep wrote, got JSONDecodeError .*"):
        run_sweep(swept, tmp_path / "work.jsonl", PLAN)
    assert (tmp_path / "work.jsonl").read_text() == "shopping list\nmilk\n"


def test_a_work_file_needs_a_folder_that_can_be_written(swept):
    with pytest.raises(OutputError, match=r"the work file must be writable, got File exists for .*; choose another"):
        run_sweep(swept, swept / "words.csv" / "work.jsonl", PLAN)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("candidates", -1, r"--candidates must be from 0 to 4096, got -1; choose a number inside"),
        ("rows", 10, r"--rows must be from 50 to 1000000, got 10; choose a number inside"),
        ("folds", 1, r"--folds must be from 2 to 50, got 1; choose a number inside"),
        ("workers", 0, r"--workers must be from 1 to 4096, got 0; choose a number inside"),
        ("seconds", 0, r"--trial-time-limit must be at least 0\.1, got 0; raise it or leave it out"),
        ("seed", -1, r"--seed must be from 0 to 4294967295, got -1; choose a number inside"),
    ],
)
def test_a_plan_has_its_ranges(option, value, message):
    with pytest.raises(UsageError, match=message):
        SweepPlan(**{option: value})


def test_an_unknown_family_is_refused(swept, tmp_path):
    with pytest.raises(UsageError, match=r"--family must name a known family, got 'knm'; did you mean 'knn'\?"):
        run_sweep(swept, tmp_path / "work.jsonl", replace(PLAN, families=("knm",)))


# --- collections


def test_an_unknown_table_is_refused(swept):
    with pytest.raises(UsageError, match=r"--datasets must name tables of index\.json, got 'word'; did you mean .*"):
        list_sources(swept, ("word",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"a collection must have an index\.json of its tables, got JSONDecodeError for .*; write one"),
        ("{}", r"index\.json must be a list of tables, got '\{\}'; see pretrain/collection\.py"),
        ('[{"name": "a"}]', r"an entry of index\.json must have name, file, target and task, got .*; complete it"),
        (
            '[{"name":"a","file":"a","target":"y","task":"rank"}]',
            r"a task in index\.json must be one of .*, got 'rank'",
        ),
    ],
)
def test_a_damaged_index_is_refused(tmp_path, text, message):
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(DataError, match=message):
        list_sources(tmp_path)


def test_a_folder_without_an_index_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"a collection must have an index\.json .*, got FileNotFoundError for .*"):
        list_sources(tmp_path)


def test_a_target_that_the_table_lacks_is_refused(tmp_path):
    (source, _) = list_sources(a_collection(tmp_path, target="z"))
    with pytest.raises(TargetError, match=r"the target must be a column of the file, got 'z' for words\.csv; mend .*"):
        sampled(source, 60, 3, 0)


# --- tables


def test_a_table_gives_back_what_was_measured(swept, tmp_path):
    write_table(swept / "work.jsonl", tmp_path / "t.npz")
    log = read_log(swept / "work.jsonl")
    for sweep in load_table(tmp_path / "t.npz").sweeps:
        trials = [log.trials[sweep.table, sweep.family, int(number)] for number in sweep.numbers]
        assert [dict(values) for values in sweep.candidates] == [trial["values"] for trial in trials]
        assert sweep.scores.tolist() == pytest.approx([trial["scores"][sweep.metric] for trial in trials], rel=1e-6)


def test_a_table_holds_the_cards_and_spaces_of_its_tables(swept, tmp_path):
    write_table(swept / "work.jsonl", tmp_path / "t.npz")
    for sweep in load_table(tmp_path / "t.npz").sweeps:
        assert sweep.card.n_rows == 100 and sweep.card.n_features == 3
        assert sweep.space == SearchSpace(FAMILIES[sweep.family].parameters(sweep.card))
        assert all(sweep.space.contains(values) for values in sweep.candidates)


def test_a_table_tells_its_provenance(swept, tmp_path):
    write_table(swept / "work.jsonl", tmp_path / "t.npz")
    told = load_table(tmp_path / "t.npz").provenance
    assert (told["rows"], told["folds"], told["seed"], told["trials"]) == (100, 2, 0, 16)
    assert told["tables"]["words"]["licence"] == "free" and set(told["families"]) == {"knn", "linear"}


def test_a_table_holds_no_cell_of_the_data(swept, tmp_path):
    write_table(swept / "work.jsonl", tmp_path / "t.npz")
    with np.load(tmp_path / "t.npz") as stored:
        text = " ".join(str(stored[name]) for name in stored.files if stored[name].dtype.kind == "U")
    assert not any(f'"{word}"' in text for word in ("red", "green", "blue", "yes"))


def test_a_table_of_nothing_is_refused(tmp_path):
    (tmp_path / "work.jsonl").write_text("")
    with pytest.raises(DataError, match=r"a table needs at least one trial, got none in .*; run the sweep first"):
        write_table(tmp_path / "work.jsonl", tmp_path / "t.npz")


def test_a_table_needs_a_place_that_can_be_written(swept, tmp_path):
    (tmp_path / "t.npz").mkdir()
    for out in (swept / "nowhere" / "t.npz", tmp_path / "t.npz"):
        with pytest.raises(OutputError, match=r"the table must be writable, got .* for .*; choose another"):
            write_table(swept / "work.jsonl", out)
    assert [path.name for path in tmp_path.iterdir()] == ["t.npz"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"\x93NUMPY"])
def test_a_damaged_table_is_refused(tmp_path, content):
    (tmp_path / "t.npz").write_bytes(content)
    with pytest.raises(
        DataError, match=r"a table of sweeps must be an \.npz that a sweep wrote, got .*; restore it or"
    ):
        load_table(tmp_path / "t.npz")


# --- the command line


def test_the_command_sweeps_and_writes(tmp_path, capfd):
    folder = a_collection(tmp_path)
    options = ["--family", "linear", "--datasets", "words", "--candidates", "1", "--folds", "2", "--json"]
    places = ["--work", str(tmp_path / "w.jsonl"), "--write", str(tmp_path / "t.npz")]
    assert run_command(["pretrain", "sweep", str(folder), *places, *options]) == 0
    shown = json.loads(capfd.readouterr().out)
    assert (shown["tables"], shown["trials"], shown["bytes"]) == (1, 2, (tmp_path / "t.npz").stat().st_size)


def test_the_command_writes_the_table_of_a_growing_work_file(swept, tmp_path, capfd):
    with opened(swept / "work.jsonl", PLAN.lasting):
        assert run_command(["pretrain", "table", str(swept / "work.jsonl"), str(tmp_path / "t.npz")]) == 0
    assert "trials: 16\n" in capfd.readouterr().out and Path(tmp_path / "t.npz").exists()


def test_the_command_says_in_one_line_what_is_wrong(tmp_path, capfd):
    assert run_command(["pretrain", "sweep", str(tmp_path), "--work", str(tmp_path / "w.jsonl")]) == 3
    assert capfd.readouterr().err.startswith("error: a collection must have an index.json of its tables, got FileNot")


def test_the_entries_of_a_portfolio_are_measured_after_the_even_draws(swept, tmp_path):
    entries = [
        {"n_neighbors": 3, "weights": "distance"},
        {"n_neighbors": 3000, "metric": "cosine", "weights": "uniform"},
    ]
    lists = [{"family": "knn", "origin": "test", "entries": entries}]
    (tmp_path / "portfolio.json").write_text(json.dumps({"portfolios": lists}))
    shutil.copy(swept / "work.jsonl", tmp_path / "work.jsonl")
    run_sweep(swept, tmp_path / "work.jsonl", replace(PLAN, portfolio=tmp_path / "portfolio.json", tables=("words",)))
    trials = read_log(tmp_path / "work.jsonl").trials
    new = {key: trials[key]["values"] for key in trials.keys() - read_log(swept / "work.jsonl").trials.keys()}
    assert sorted(new) == [("words", "knn", FIRST_ENTRY), ("words", "knn", FIRST_ENTRY + 1)]
    assert new["words", "knn", FIRST_ENTRY] == {**new["words", "knn", FIRST_ENTRY], **entries[0]}
    assert new["words", "knn", FIRST_ENTRY + 1]["n_neighbors"] == 12  # the most on so few rows


# --- judges


def a_sweep(table, slope, n=24, shift=0.0):
    space = SearchSpace((Parameter("x", FloatDistribution(0, 1)), Parameter("c", CategoricalDistribution(("a", "b")))))
    rng = np.random.default_rng(len(table))
    candidates = tuple(space.sample(rng) for _ in range(n))
    scores = np.array([slope * v["x"] + (v["c"] == "a") + shift for v in candidates])
    card = DataCard(kind=TaskKind.BINARY, n_rows=int(100 + 10 * slope), n_features=3, n_numeric=3, n_categorical=0)
    return Sweep(
        table=table,
        family="knn",
        metric="accuracy",
        card=card,
        space=space,
        numbers=np.arange(n),
        candidates=candidates,
        scores=scores,
        second=scores,
        seconds=np.ones(n),
    )


def test_a_judge_agrees_with_what_was_measured_and_interpolates():
    judge = SweepJudge([a_sweep("one", 3.0), a_sweep("other", 2.5, shift=7)], "one")
    space, rng = a_sweep("one", 3.0).space, np.random.default_rng(7)
    fresh = [space.sample(rng) for _ in range(50)]
    truth = [3.0 * v["x"] + (v["c"] == "a") for v in fresh]
    assert np.corrcoef(judge(fresh), truth)[0, 1] > 0.95 and np.abs(judge(fresh) - truth).mean() < 0.4


def test_other_tables_teach_what_a_tables_own_trials_cannot_show():
    few, others = a_sweep("one", 3.0, n=8), [a_sweep(name, 3.0) for name in ("two", "three", "four")]
    rng = np.random.default_rng(7)
    fresh = [few.space.sample(rng) for _ in range(50)]
    truth = [3.0 * v["x"] + (v["c"] == "a") for v in fresh]
    alone, together = (np.corrcoef(SweepJudge(s, "one")(fresh), truth)[0, 1] for s in ([few], [few, *others]))
    assert together > alone


def test_a_judge_takes_failures_for_the_worst():
    own = a_sweep("one", 3.0)
    failed = np.where([v["c"] == "b" for v in own.candidates], np.nan, own.scores)
    judge = SweepJudge([replace(own, scores=failed)], "one")
    low, high = judge([{"x": 0.5, "c": "b"}, {"x": 0.5, "c": "a"}])
    assert np.isfinite(low) and low < high - 1


@pytest.mark.parametrize("table", ["nowhere", "flat"])
def test_a_judge_needs_a_table_with_different_scores(table):
    flat = replace(a_sweep("flat", 1.0), scores=np.ones(24))
    with pytest.raises(DataError, match=rf"a judge needs a table with different scores, got '{table}'; sweep it .*"):
        SweepJudge([a_sweep("one", 1.0), flat], table)
