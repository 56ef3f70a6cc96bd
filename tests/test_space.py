import math

import numpy as np
import optuna
import pytest
from hypothesis import given
from optuna.distributions import CategoricalDistribution as Cat
from optuna.distributions import FloatDistribution as Float
from optuna.distributions import IntDistribution as Int
from spaces import NUMBERS, SMALL, SPACES, candidates, one, some_candidates, spaces, when

from offline_tune.errors import SpaceError
from offline_tune.space import Parameter, SearchSpace

EACH_SPACE = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
EACH_NUMBER = pytest.mark.parametrize("space", NUMBERS.values(), ids=NUMBERS)


@EACH_SPACE
def test_a_candidate_comes_back_from_the_unit_cube(space):
    for values in some_candidates(space, 20):
        unit = space.to_unit(values)
        assert np.isnan(unit).sum() == len(space.parameters) - len(values)
        assert space.from_unit(unit) == values


def test_an_inactive_place_falls_to_the_middle_when_its_parameter_appears():
    space = SearchSpace((Parameter("a", Cat("no")), Parameter("b", Int(0, 10), when=when("a", "o"))))
    assert space.from_unit(np.array([1.0, np.nan])) == {"a": "o", "b": 5}


# The space


@EACH_SPACE
def test_the_default_and_every_draw_lie_in_the_space(space):
    for values in [space.default, *some_candidates(space, 30)]:
        space.check(values)


@pytest.mark.parametrize("space", SMALL.values(), ids=SMALL)
def test_the_size_counts_the_candidates(space):
    keys = [space.key(values) for values in candidates(space)]
    assert len(set(keys)) == len(keys) == space.size


@pytest.mark.parametrize("distribution", [Int(1, 3), Int(1, 3, log=True), Cat([1, 2, 3])])
def test_each_of_few_values_is_drawn_about_as_often(distribution):
    space, rng = one(distribution), np.random.default_rng(0)
    shares = np.bincount([space.sample(rng)["x"] for _ in range(3000)])[1:] / 3000
    expected = (
        [1 / 3] * 3 if not getattr(distribution, "log", False) else np.diff(np.log([0.5, 1.5, 2.5, 3.5])) / math.log(7)
    )
    assert shares == pytest.approx(expected, abs=0.03)


def test_equal_seeds_draw_equal_candidates():
    draws = [SPACES["families"].sample(np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_children_are_moved_behind_their_parents():
    space = SearchSpace(
        (
            Parameter("a", Cat("xy")),
            Parameter("b", Int(1, 2)),
            Parameter("a2", Cat("pq"), when=when("a", "x")),
            Parameter("a1", Int(1, 2), when=when("a", "y")),
            Parameter("a2p", Int(1, 2), when=when("a2", "p")),
        )
    )
    assert [parameter.name for parameter in space.parameters] == ["a", "a2", "a2p", "a1", "b"]
    assert [parameter.name for parameter in space.children("a")] == ["a2", "a1"]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"booster": "gblinear"}, ["booster", "alpha", "n"]),
        ({"booster": "gbtree", "sample": "uniform", "skip": True}, ["booster", "depth", "alpha", "n"]),
        ({"booster": "dart", "sample": None}, ["booster", "depth", "sample", "alpha", "n"]),
        (
            {"booster": "dart", "sample": "uniform", "skip": True},
            ["booster", "depth", "sample", "skip", "rate", "alpha", "n"],
        ),
    ],
)
def test_a_parameter_is_active_while_its_whole_branch_is(values, names):
    assert [parameter.name for parameter in SPACES["nested conditions"].active(values)] == names


def test_snapping_rounds_to_written_values_and_keys_agree():
    space = SearchSpace.from_distributions({"lr": Float(1e-3, 1, log=True), "depth": Int(1, 9)})
    near, snapped = {"depth": 3.0, "lr": 0.0123456}, {"lr": 0.0123, "depth": 3}
    assert space.snap(near) == snapped
    assert space.key(near) == space.key(snapped) != space.key({"lr": 0.0124, "depth": 3})


def test_numpy_floats_are_written_like_floats():
    space = SearchSpace.from_distributions({"lr": Float(0, 1), "p": Cat(["a", np.float64(0.5)])})
    assert space.write({"lr": np.float64(0.25), "p": 0.5}) == '{"lr":0.250,"p":0.5}'


def test_a_candidate_is_written_independently_of_the_order_of_its_mapping():
    space = SPACES["families"]
    values = space.snap(space.default)
    assert space.write(dict(reversed(values.items()))) == space.write(values)


@EACH_SPACE
def test_optuna_draws_the_space_define_by_run(space):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(3):
        trial = study.ask()
        values = space.suggest(trial)
        space.check(values)
        assert trial.params == values


@EACH_SPACE
def test_json_brings_the_space_back(space):
    again = SearchSpace.from_json(space.to_json())
    assert again == space
    assert again.to_json() == space.to_json()
    assert "\n" not in space.to_json()


@given(spaces())
def test_json_brings_any_space_back(space):
    again = SearchSpace.from_json(space.to_json())
    assert again == space
    assert space.is_compatible(again)


def test_spaces_with_another_range_condition_or_name_are_not_compatible():
    space = SPACES["families"]
    for change in (("0.3", "0.31"), ('["ridge"]', '["forest"]'), ("ridge.alpha", "ridge.beta")):
        other = space.to_json().replace(*change)
        assert other != space.to_json()
        same = change[0] == "0.3"  # a default may change
        assert space.is_compatible(SearchSpace.from_json(other)) == same


# Refusals


@pytest.mark.parametrize("name", ["", "\udcff"])
def test_a_name_that_cannot_be_written_is_refused(name):
    with pytest.raises(SpaceError, match=r"a parameter name must be non-empty Unicode text, got .*; rename it"):
        Parameter(name, Int(1, 2))


@pytest.mark.parametrize("default", [0, 11, 2.5, True, "3", 10**400, float("nan")])
def test_a_default_outside_the_range_is_refused(default):
    with pytest.raises(
        SpaceError, match=r"'x': the default must lie in IntDistribution\(.*\), got .*; move one of them"
    ):
        Parameter("x", Int(1, 10), default)


@pytest.mark.parametrize("default", [1, "a", False])
def test_a_default_that_is_no_choice_is_refused(default):
    with pytest.raises(SpaceError, match="'x': the default must lie in CategoricalDistribution"):
        Parameter("x", Cat([True, None, "b"]), default)


def test_an_empty_space_is_refused():
    with pytest.raises(SpaceError, match="a search space needs at least one parameter, got none; add one"):
        SearchSpace(())


def test_a_name_used_twice_is_refused():
    with pytest.raises(SpaceError, match="parameter names must differ, got 'a' twice; rename one"):
        SearchSpace((Parameter("a", Int(1, 2)), Parameter("a", Int(1, 3))))


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (when("z", 1), "its condition names 'z', which is not declared before it; move it up"),
        (when("x", 1), "its condition names 'x', which is not declared before it; move it up"),
        (when("n", 1), "a condition needs a categorical parent, got 'n'; use choices"),
        (when("a"), "a condition needs at least one value of 'a', got none; add one"),
        (when("a", "q"), "its condition must name choices of 'a', got 'q'; take one of CategoricalDistribution"),
        (when("a", 1), "its condition must name choices of 'a', got 1; take one of CategoricalDistribution"),
    ],
)
def test_a_condition_that_cannot_hold_is_refused(condition, message):
    parents = (Parameter("a", Cat(["p", True])), Parameter("n", Int(1, 2)))
    with pytest.raises(SpaceError, match=f"'x': {message}"):
        SearchSpace((*parents, Parameter("x", Int(1, 2), when=condition)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": None}, "'depth' must lie in IntDistribution.*, got None; choose a value inside"),
        ({"depth": 5}, "'depth' must lie in IntDistribution.*, got 5; choose a value inside"),
        ({"depth": 2.5}, "'depth' must lie in IntDistribution.*, got 2.5; choose a value inside"),
        ({"alpha": 0.75}, "'alpha' must lie in FloatDistribution.*, got 0.75; choose a value inside"),
        ({"alpha": math.inf}, "'alpha' must lie in FloatDistribution.*, got inf; choose a value inside"),
        ({"booster": "Dart"}, "'depth' is inactive under these values, got 1; leave it out"),
        ({"sample": None}, "'sample' is inactive under these values, got None; leave it out"),
        ({"eta": 1}, "'eta' is not in the space, got 1; leave it out"),
        ({"n" * 100: "v" * 100}, "'n{56}... is not in the space, got 'v{56}...; leave it out"),
    ],
)
def test_a_candidate_outside_the_space_is_refused(change, message):
    space, inside = SPACES["nested conditions"], {"booster": "gbtree", "depth": 1, "alpha": 1.0, "n": 0}
    space.check(inside)
    assert not space.contains({**inside, **change})
    with pytest.raises(SpaceError, match=f"^{message}$"):
        space.check({**inside, **change})


def test_a_candidate_with_a_missing_parameter_is_refused():
    with pytest.raises(SpaceError, match="'n' must have a value, got none; set it within IntDistribution"):
        SPACES["nested conditions"].check({"booster": "gblinear", "alpha": 1.0})


@pytest.mark.parametrize("text", ["", "[", "{}", "3", "null", "[]", '[{"name": "x"}]', '["x"]', "[" * 100_000])
def test_a_damaged_stored_space_is_refused(text):
    with pytest.raises(SpaceError, match=r"a stored search space must be the text|needs at least one parameter"):
        SearchSpace.from_json(text)


def test_names_and_choices_from_outside_stay_on_one_line_of_a_message():
    name = "a\nb" * 5000
    with pytest.raises(SpaceError) as caught:
        Parameter(name, Cat(["x\n" * 5000]), default="y\n" * 5000)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 500


def test_a_candidate_outside_is_not_written():
    with pytest.raises(SpaceError, match=r"'x' must lie in IntDistribution.*, got 3; choose a value inside"):
        one(Int(1, 2)).write({"x": 3})


def test_branches_tell_what_hangs_on_each_choice():
    branches = SPACES["nested conditions"].branches("booster")
    names = {choice: [parameter.name for parameter in hanging] for choice, hanging in branches}
    assert names == {"gbtree": ["depth"], "dart": ["depth", "sample"], "gblinear": []}


def test_a_long_chain_of_conditions_is_put_in_order():
    chain = [Parameter("0", Cat("ab"))]
    for depth in range(1, 2_000):
        chain.append(Parameter(str(depth), Cat("ab"), when=when(str(depth - 1), "a")))
    assert [p.name for p in SearchSpace(tuple(chain)).active({str(i): "a" for i in range(3)})] == ["0", "1", "2", "3"]
