"""Portfolios: the greedy choice, where its fields come from, and how entries are placed in a user's space."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from test_pretrain_data import DATA_SETS, write_landscape

from offline_tune.cards import DataCard
from offline_tune.cli import run_command
from offline_tune.errors import ModelError, OutputError
from offline_tune.evaluator.families import FAMILIES, families_for, space_of
from offline_tune.pretrain.greedy import CAP, Field, greedy, regret_curve
from offline_tune.pretrain.landscape_field import landscape_fields
from offline_tune.pretrain.landscapes import held_out, load_scenarios
from offline_tune.pretrain.natural import Judge, landscape
from offline_tune.pretrain.portfolio import write_portfolios
from offline_tune.pretrain.sweep_field import judged_fields, sweep_fields
from offline_tune.pretrain.sweep_table import Sweep
from offline_tune.samplers.portfolio import SHIPPED, load_portfolios, portfolio
from offline_tune.space import Condition, Parameter, SearchSpace
from offline_tune.task import TaskKind

REGRETS = arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(1, 12)), elements=st.floats(0, 5))
FEW = settings(max_examples=50)


def a_card(**facts):
    return DataCard(
        **{
            "kind": TaskKind.MULTICLASS, "n_rows": 800, "n_features": 12, "n_numeric": 9, "n_categorical": 3,
            "n_classes": 4, "imbalance": 0.6, "missing_share": 0.1, "max_cardinality": 7, **facts,
        }
    )  # fmt: skip


def stored(folder, *lists):
    found = [{"family": family, "origin": "test", "entries": entries} for family, entries in lists]
    path = folder / "portfolio.json"
    path.write_text(json.dumps({"portfolios": found}))
    return path


def a_space(family="xgboost", **distributions):
    root = Parameter("family", CategoricalDistribution((family,)))
    own = (Parameter(f"{family}.{n}", d, when=Condition("family", (family,))) for n, d in distributions.items())
    return SearchSpace((root, *own))


# --- the greedy choice


@FEW
@given(REGRETS)
def test_the_first_entry_is_the_best_on_average(regrets):
    chosen = greedy(regrets, 1)
    means = np.minimum(regrets, CAP).mean(axis=0)
    assert not chosen or means[chosen[0]] == pytest.approx(means.min())


@FEW
@given(REGRETS)
def test_every_entry_lowers_the_regret_and_none_comes_twice(regrets):
    chosen = greedy(regrets, 20)
    assert len(set(chosen)) == len(chosen)
    assert (np.diff([CAP, *regret_curve(regrets, chosen)]) < 0).all()


@FEW
@given(REGRETS)
def test_a_whole_portfolio_leaves_no_more_regret_than_all_candidates_together(regrets):
    chosen = greedy(regrets, regrets.shape[1])
    left = regret_curve(regrets, chosen)[-1] if chosen else CAP
    assert left == pytest.approx(np.minimum(regrets.min(axis=1), CAP).mean())


def test_entries_complement_each_other():
    regrets = np.array([[0.3, 0.0, 0.1, 1.0], [0.3, 1.0, 0.9, 0.0]])
    assert greedy(regrets, 3) == [0, 1, 3]


# --- fields of sweeps


def a_sweep(table, scores, family="knn", numbers=(0, 1, 2, 3)):
    space = SearchSpace((Parameter("n_neighbors", IntDistribution(1, 9), default=5),))
    return Sweep(
        table=table,
        family=family,
        metric="neg_log_loss",
        card=a_card(),
        space=space,
        numbers=np.array(numbers),
        candidates=tuple({"n_neighbors": n + 1} for n in numbers),
        scores=np.array(scores, float),
        second=np.zeros(len(scores)),
        seconds=np.ones(len(scores)),
    )


def test_a_field_of_sweeps_takes_the_default_and_the_candidates_of_all_tables():
    fields = sweep_fields([a_sweep("one", [1, 3, 9, 2]), a_sweep("two", [3, 1, 9, 2])])
    assert fields["knn"].candidates == ({"n_neighbors": 1}, {"n_neighbors": 2}, {"n_neighbors": 4})
    assert fields["knn"].regrets == pytest.approx(np.array([[8, 6, 7], [6, 8, 7]]) / 6, abs=0.34)


def test_a_failure_has_the_greatest_regret():
    field = sweep_fields([a_sweep("one", [1, np.nan, 9, 2])])["knn"]
    assert field.regrets[0, 1] == CAP


def test_what_was_not_measured_on_a_table_counts_as_on_the_others():
    others = [a_sweep(f"table {i}", [1, 2, 9, 5]) for i in range(4)]
    field = sweep_fields([*others, a_sweep("last", [1, 9, 5], numbers=(0, 2, 3))])["knn"]
    assert field.regrets[-1, 1] == pytest.approx(field.regrets[0, 1])


def test_a_table_without_differences_is_left_out():
    fields = sweep_fields([a_sweep("one", [1, 2, 9, 5]), a_sweep("flat", [1, 1, 1, 1])])
    assert len(fields["knn"].regrets) == 1


def test_a_table_held_out_has_no_say():
    both = [a_sweep("one", [1, 2, 9, 5]), a_sweep("two", [9, 1, 2, 1])]
    assert np.array_equal(sweep_fields(both, ["two"])["knn"].regrets, sweep_fields(both[:1])["knn"].regrets)


def test_families_together_are_judged_on_one_scale():
    good, bad = a_sweep("one", [8, 9, 9, 9], "svm"), a_sweep("one", [1, 2, 3, 2])
    field = sweep_fields([good, bad])["?"]
    (chosen,) = greedy(field.regrets, 1)
    assert field.candidates[chosen] == {"family": "svm", "n_neighbors": 2}


# --- fields of landscapes


def test_a_field_of_landscapes_leaves_out_what_training_does(tmp_path):
    write_landscape(tmp_path, instances=DATA_SETS[:6])
    (scenario,) = load_scenarios(tmp_path)
    fields = landscape_fields(tmp_path)
    assert list(fields) == ["xgboost"]
    assert len(fields["xgboost"].regrets) == 6 - len(held_out(scenario))
    assert set(fields["xgboost"].candidates[0]) <= {"learning_rate", "booster", "max_depth"}


def test_a_landscape_is_a_space_in_natural_units(tmp_path):
    write_landscape(tmp_path, instances=["one"])
    (scenario,) = load_scenarios(tmp_path)
    land = landscape(tmp_path, scenario, "one")
    assert list(land.space.by_name) == [
        "family", "xgboost.learning_rate", "xgboost.booster", "xgboost.max_depth"
    ]  # fmt: skip
    assert land.space.by_name["xgboost.max_depth"].when == Condition("xgboost.booster", ("dart",))
    assert land.space.by_name["xgboost.learning_rate"].is_log


def test_values_and_cells_of_a_landscape_are_inverse(tmp_path):
    write_landscape(tmp_path, instances=["one"])
    (scenario,) = load_scenarios(tmp_path)
    land = landscape(tmp_path, scenario, "one")
    for cells in land.cells:
        values = {f"xgboost.{name}": value for name, value in land.values(cells).items()}
        assert land.cells_of({"family": "xgboost", **values}) == pytest.approx(cells, abs=2e-3, nan_ok=True)


def test_a_judge_ranks_as_the_landscape_does(tmp_path):
    x = np.random.default_rng(0).random((200, 3)) * [1, 0, 14] + [1e-3, 0, 1]
    scores = np.stack([np.log(x[:, 0]) - 0.1 * x[:, 2], *x.T[:2]], axis=1)
    write_landscape(tmp_path, instances=["one"], x_one=x, y_one=scores)
    (scenario,) = load_scenarios(tmp_path)
    land = landscape(tmp_path, scenario, "one")
    assert np.corrcoef(Judge(land)(land.cells), land.scores)[0, 1] > 0.95


# --- placing


@pytest.mark.parametrize("family", sorted({p.family for p in load_portfolios(SHIPPED)} & FAMILIES.keys()))
@pytest.mark.parametrize("kind", [TaskKind.MULTICLASS, TaskKind.REGRESSION])
def test_the_shipped_entries_of_a_family_lie_in_its_space_and_differ(family, kind):
    space = space_of((FAMILIES[family],), a_card(kind=kind, n_classes=0 if kind is TaskKind.REGRESSION else 4))
    found = portfolio(space).entries
    assert len(found) >= 2 and all(space.contains(values) for values in found)
    assert len({space.key(values) for values in found}) == len(found)


def test_the_shipped_entries_of_all_families_begin_with_several():
    space = space_of(families_for("auto", TaskKind.MULTICLASS, a_card()), a_card())
    found = portfolio(space).entries
    assert len({values["family"] for values in found[:10]}) >= 3 and all(space.contains(values) for values in found)


def test_entries_of_families_that_the_space_lacks_are_dropped():
    space = space_of((FAMILIES["knn"], FAMILIES["linear"]), a_card())
    assert {values["family"] for values in portfolio(space).entries} == {"knn", "linear"}


def test_numbers_are_put_on_the_range_and_the_lattice_of_the_space(tmp_path):
    path = stored(tmp_path, ("xgboost", [{"learning_rate": 0.123456, "max_depth": 40}]))
    space = a_space(learning_rate=FloatDistribution(1e-3, 1, log=True), max_depth=IntDistribution(1, 15, step=2))
    assert portfolio(space, path).entries == (
        {"family": "xgboost", "xgboost.learning_rate": 0.123, "xgboost.max_depth": 15},
    )


def test_parameters_that_no_entry_knows_get_their_default(tmp_path):
    path = stored(tmp_path, ("xgboost", [{"max_depth": 4}]))
    space = a_space(max_depth=IntDistribution(1, 15), own=IntDistribution(0, 10))
    assert portfolio(space, path).entries[0]["xgboost.own"] == 5


def test_a_choice_that_the_space_lacks_becomes_the_default(tmp_path):
    path = stored(tmp_path, ("xgboost", [{"booster": "dart", "max_depth": 4}]))
    space = a_space(booster=CategoricalDistribution(("gbtree", "gblinear")), max_depth=IntDistribution(1, 15))
    assert portfolio(space, path).entries == (
        {"family": "xgboost", "xgboost.booster": "gbtree", "xgboost.max_depth": 4},
    )


@pytest.mark.parametrize("value", ["deep", True, None, [3], float("inf")])
def test_an_entry_with_something_else_for_a_number_is_dropped(tmp_path, value):
    path = stored(tmp_path, ("xgboost", [{"max_depth": value}]))
    assert portfolio(a_space(max_depth=IntDistribution(1, 15)), path).entries == ()


def test_an_entry_that_speaks_of_too_little_is_dropped(tmp_path):
    path = stored(tmp_path, ("xgboost", [{"max_depth": 4}]))
    space = a_space(max_depth=IntDistribution(1, 15), a=IntDistribution(0, 9), b=IntDistribution(0, 9))
    assert portfolio(space, path).entries == ()


def test_the_list_that_knows_more_of_the_space_is_taken(tmp_path):
    path = stored(tmp_path, ("xgboost", [{"max_depth": 4}]), ("xgboost", [{"max_depth": 5, "gamma": 1.0}]))
    space = a_space(max_depth=IntDistribution(1, 15), gamma=FloatDistribution(0, 2))
    assert portfolio(space, path).entries[0]["xgboost.max_depth"] == 5


def test_what_conditions_switch_off_is_left_out(tmp_path):
    path = stored(tmp_path, ("xgboost", [{"booster": "gblinear", "max_depth": 4}]))
    flat = a_space(booster=CategoricalDistribution(("gblinear", "gbtree")), max_depth=IntDistribution(1, 15))
    depth = Parameter("xgboost.max_depth", IntDistribution(1, 15), when=Condition("xgboost.booster", ("gbtree",)))
    space = SearchSpace((*flat.parameters[:2], depth))
    assert portfolio(space, path).entries == ({"family": "xgboost", "xgboost.booster": "gblinear"},)


@pytest.mark.parametrize("family", ["transformer", "family", "?", "\n" * 9])
def test_an_unknown_family_has_no_entries(family):
    assert portfolio(a_space(family, max_depth=IntDistribution(1, 15))).entries == ()


def test_a_space_without_a_family_has_no_entries():
    assert portfolio(SearchSpace((Parameter("max_depth", IntDistribution(1, 15)),))).entries == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"portfolios": [{"family": "knn"}]}',
        '{"portfolios": 3}',
        '{"portfolios": [{"family": "knn", "origin": "", "entries": [{"a": 1}, {"a": 2}], "regrets": [[1]]}]}',
        '{"portfolios": [{"family": "knn", "origin": "", "entries": [{"a": 1}], "regrets": [[Infinity]]}]}',
        '{"portfolios": [{"family": "knn", "origin": "", "entries": [{"a": 1}], "regrets": [["low"]]}]}',
    ],
)
def test_a_damaged_portfolio_is_refused(tmp_path, text):
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(ModelError, match=r"a portfolio must be the JSON that `pretrain portfolio` wrote, got \w+ for"):
        portfolio(a_space(max_depth=IntDistribution(1, 15)), tmp_path / "p.json")


def test_entries_that_fall_together_in_a_space_keep_the_regrets_of_the_first(tmp_path):
    lists = [
        {"family": "xgboost", "origin": "test", "entries": [{"max_depth": 90}, {"max_depth": 80}, {"max_depth": 2}]}
    ]
    (tmp_path / "p.json").write_text(json.dumps({"portfolios": [{**lists[0], "regrets": [[10, 20, 30], [1, 2, 3]]}]}))
    found = portfolio(a_space(max_depth=IntDistribution(1, 15)), tmp_path / "p.json")
    assert len(found) == 2 and found.regrets == pytest.approx(np.array([[0.1, 0.3], [0.01, 0.03]]))


def test_of_several_lists_the_first_one_alone_guides_the_choice(tmp_path):
    lists = [
        {"family": "?", "origin": "test", "entries": [{"family": "xgboost", "max_depth": 3}], "regrets": [[10], [20]]},
        {"family": "xgboost", "origin": "test", "entries": [{"max_depth": 4}], "regrets": [[0], [0]]},
    ]
    (tmp_path / "p.json").write_text(json.dumps({"portfolios": lists}))
    families = Parameter("family", CategoricalDistribution(("xgboost", "knn")))
    depth = Parameter("xgboost.max_depth", IntDistribution(1, 15), when=Condition("family", ("xgboost",)))
    assert portfolio(SearchSpace((families, depth)), tmp_path / "p.json").regrets.tolist() == [[0.1, 2.0], [0.2, 2.0]]


def test_a_list_without_regrets_tells_of_no_data_set(tmp_path):
    path = stored(tmp_path, ("xgboost", [{"max_depth": 4}]))
    assert portfolio(a_space(max_depth=IntDistribution(1, 15)), path).regrets.shape == (0, 1)


# --- writing


def test_a_written_portfolio_is_read_again(tmp_path):
    field = Field(({"max_depth": 3}, {"max_depth": 9}), np.array([[1.0, 0.2], [0.1, 0.2]]))
    curves = write_portfolios(tmp_path / "p.json", {"test": {"xgboost": field}}, {"seed": 0})
    assert curves["test xgboost"] == pytest.approx([0.2, 0.15])
    found = portfolio(a_space(max_depth=IntDistribution(1, 15)), tmp_path / "p.json")
    assert [values["xgboost.max_depth"] for values in found.entries] == [9, 3]
    assert found.regrets == pytest.approx(np.array([[0.2, 1.0], [0.2, 0.1]]))


def test_a_portfolio_needs_a_place_that_can_be_written(tmp_path):
    with pytest.raises(OutputError, match=r"the portfolio must be writable, got No such file or directory for .*; cho"):
        write_portfolios(tmp_path / "nowhere" / "p.json", {}, {})


def test_a_judged_field_knows_the_candidates_of_every_table_on_every_table():
    one, two = a_sweep("one", [1, 5, 9, 2]), a_sweep("two", [1, 5, 8, 2], numbers=(0, 1, 2, 7))
    field = judged_fields([one, two])["knn"]
    assert field.regrets.shape == (2, 8) and np.isfinite(field.regrets).all()


# --- the command line


def test_the_command_chooses_from_landscapes(tmp_path, capfd):
    write_landscape(tmp_path, instances=DATA_SETS[:4])
    out = tmp_path / "p.json"
    assert run_command(["pretrain", "portfolio", str(out), "--landscapes", str(tmp_path), "--size", "3"]) == 0
    assert (
        capfd.readouterr().out.startswith("landscapes xgboost: 0.") and 1 <= len(load_portfolios(out)[0].entries) <= 3
    )
    assert json.loads(out.read_text())["provenance"]["landscapes"]["xgboost"]["data sets"] == 4


def test_a_folder_without_landscapes_is_refused_and_nothing_written(tmp_path, capfd):
    assert run_command(["pretrain", "portfolio", str(tmp_path / "p.json"), "--landscapes", str(tmp_path)]) == 3
    assert capfd.readouterr().err.startswith("error: --landscapes must hold a known table, got none in ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [[], ["--sweeps", "t.npz", "--size", "0"]])
def test_the_command_needs_something_to_choose_from(tmp_path, capfd, options):
    assert run_command(["pretrain", "portfolio", str(tmp_path / "p.json"), *options]) == 2
    assert capfd.readouterr().err.startswith("error: a portfolio needs --landscapes or --sweeps and --size 1 or more")
