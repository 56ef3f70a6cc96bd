import json
import math
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution as Cat
from optuna.distributions import FloatDistribution as Float
from optuna.distributions import IntDistribution as Int
from spaces import CHOICES, NUMBERS, distributions, one

from offline_tune.errors import SpaceError
from offline_tune.space import Parameter, fixed_point

EACH_NUMBER = pytest.mark.parametrize("space", NUMBERS.values(), ids=NUMBERS)


def places(lattice, most=1500):
    if lattice.size <= most:
        return range(lattice.size)
    return sorted({round(place) for place in np.linspace(0, lattice.size - 1, most)})


# The lattice


@pytest.mark.parametrize(
    ("distribution", "texts"),
    [
        (Int(-1, 2), ["-1", "0", "1", "2"]),
        (Int(5, 20, step=5), ["5", "10", "15", "20"]),
        (Float(-0.5, 0.5, step=0.25), ["-0.50", "-0.25", "0.00", "0.25", "0.50"]),
        (Float(1, 3, step=1), ["1", "2", "3"]),
        (Float(9.98e-3, 1.01e-2, log=True), ["9.98e-3", "9.99e-3", "1.00e-2", "1.01e-2"]),
        (Cat(["a", None, True, 2, 0.5, "é\n"]), ['"a"', "null", "true", "2", "0.5", '"é\\n"']),
    ],
)
def test_values_are_written_in_one_form(distribution, texts):
    lattice = one(distribution).parameters[0].lattice
    assert [lattice.text(index) for index in range(lattice.size)] == texts


@pytest.mark.parametrize(
    ("distribution", "first", "last", "size"),
    [
        (Float(0, 1), "0.000", "1.000", 1001),
        (Float(0.1 + 0.2, 0.7), "0.300001", "0.700000", 400_000),
        (Float(0, 1e12), "0", "1000000000000", 10**12 + 1),
        (Float(-1e-9, 1e-9), "-0.000000001000", "0.000000001000", 2001),
        (Float(1e-5, 0.3, log=True), "1.00e-5", "3.00e-1", 900 * 4 + 201),
        (Float(1 / 3, 5, log=True), "3.33334e-1", "5.00000e0", 666_666 + 400_001),
    ],
)
def test_a_range_is_rounded_inward_to_enough_digits(distribution, first, last, size):
    lattice = one(distribution).parameters[0].lattice
    assert (lattice.text(0), lattice.text(lattice.size - 1), lattice.size) == (first, last, size)


@EACH_NUMBER
def test_the_lattice_ascends_inside_the_distribution(space):
    (parameter,) = space.parameters
    values = [parameter.lattice.value(place) for place in places(parameter.lattice)]
    assert all(map(parameter.contains, values))
    assert all(a < b for a, b in pairwise(values))


@EACH_NUMBER
def test_texts_are_exactly_the_values(space):
    lattice = space.parameters[0].lattice
    for place in places(lattice):
        value = lattice.value(place)
        assert type(value)(json.loads(lattice.text(place))) == value
        assert lattice.index(value) == place


@EACH_NUMBER
def test_the_longest_spelling_is_exact(space):
    lattice = space.parameters[0].lattice
    assert max(len(lattice.text(place)) for place in places(lattice)) == lattice.longest


@given(distributions())
def test_a_value_between_two_is_written_as_the_nearer(distribution):
    lattice = one(distribution).parameters[0].lattice
    for place in places(lattice, most=20)[:-1]:
        if not isinstance(distribution, Cat):
            low, high = lattice.value(place), lattice.value(place + 1)
            assert lattice.index(float(low + 0.4 * (high - low))) == place
            assert lattice.index(float(low + 0.6 * (high - low))) == place + 1


@pytest.mark.parametrize("distribution", [Int(1, 3), Int(1, 4, log=True), Float(0, 1), Cat("abc")])
def test_places_outside_the_lattice_are_refused(distribution):
    lattice = one(distribution).parameters[0].lattice
    with pytest.raises(IndexError):
        lattice.text(lattice.size)


@pytest.mark.parametrize(("scaled", "decimals", "text"), [(5, 0, "5"), (-5, 2, "-0.05"), (1234, 2, "12.34")])
def test_fixed_point_text(scaled, decimals, text):
    assert fixed_point(scaled, decimals) == text
    assert Decimal(text).scaleb(decimals) == scaled


# The unit map


@EACH_NUMBER
def test_the_ends_map_to_the_bounds(space):
    (parameter,) = space.parameters
    lattice = parameter.lattice
    assert (parameter.from_unit(0.0), parameter.from_unit(1.0)) == (lattice.value(0), lattice.value(lattice.size - 1))
    assert parameter.to_unit(lattice.value(0)) == 0
    assert parameter.to_unit(lattice.value(lattice.size - 1)) == (lattice.size > 1)


@pytest.mark.parametrize("space", [*NUMBERS.values(), *CHOICES.values()], ids=[*NUMBERS, *CHOICES])
def test_the_unit_map_keeps_the_order_and_comes_back(space):
    (parameter,) = space.parameters
    units = [parameter.to_unit(parameter.lattice.value(place)) for place in places(parameter.lattice)]
    assert all(a < b for a, b in pairwise(units))
    assert [parameter.lattice.index(parameter.from_unit(u)) for u in units] == list(places(parameter.lattice))


@given(distributions(), st.floats(-0.5, 1.5))
def test_the_unit_map_is_idempotent(distribution, unit):
    parameter = Parameter("x", distribution)
    value = parameter.from_unit(unit)
    assert parameter.contains(value)
    assert parameter.from_unit(parameter.to_unit(value)) == value


def test_the_middle_of_a_log_scale_is_the_geometric_mean():
    assert Parameter("x", Float(1e-4, 1, log=True)).from_unit(0.5) == 0.01


# Refusals


@pytest.mark.parametrize(
    ("distribution", "message"),
    [
        (Cat(["a", "a"]), "'x': choices must differ, got 'a' after an equal one; remove one of them"),
        (Cat([True, 1]), "'x': choices must differ, got 1 after an equal one; remove one of them"),
        (Cat([float("nan")]), "'x': a choice must be finite, got nan; write it as text"),
        (Cat(["\ud800"]), r"'x': a choice must be Unicode text, got '\ud800'; re-encode it"),
        (Cat([2**63]), "'x': an integer choice must fit in 64 bits, got 9223372036854775808; write it as text"),
        (Cat([10**5000]), "'x': an integer choice must fit in 64 bits, got an integer of 16610 bits; write it as text"),
        (
            Int(0, 10**12 + 1),
            "'x': integer bounds must lie within ±1,000,000,000,000, got 0 to 1000000000001; narrow the range",
        ),
        (Float(0, math.inf), "'x': bounds must be 0 or lie between 1e-300 and 1e+300 in size, got inf; change it"),
        (Float(math.nan, 1), "'x': bounds must be 0 or lie between 1e-300 and 1e+300 in size, got nan; change it"),
        (
            Float(5e-324, 1, log=True),
            "'x': bounds must be 0 or lie between 1e-300 and 1e+300 in size, got 5e-324; change it",
        ),
        (
            Float(0, 1, step=1e-9),
            "'x': a step must be at least 2.22045e-07 for these bounds, got 1e-09; use a larger or none",
        ),
        (
            Int(0, 60_000, step=3),
            "'x': a stepped range may have at most 20,000 values, got 20,001; use a larger step or none",
        ),
        (
            Float(0.5, 30_000.5, step=1),
            "'x': a stepped range may have at most 20,000 values, got 30,001; use a larger step or none",
        ),
        (
            Float(1.0000000000000002, 1.0000000000000004),
            "'x': no value with 14 decimals lies in [1.0000000000000002, 1.0000000000000004]; widen the range",
        ),
        (
            Float(1.0000001, 1.0000002, log=True),
            "'x': no value with 6 significant digits lies in [1.0000001, 1.0000002]; widen the range",
        ),
    ],
)
def test_a_distribution_without_a_lattice_is_refused(distribution, message):
    with pytest.raises(SpaceError) as caught:
        Parameter("x", distribution)
    assert str(caught.value) == message


def test_a_choice_of_another_type_is_refused():
    with pytest.warns(UserWarning, match="Choices for a categorical"):
        distribution = Cat([(64, 64)])
    with pytest.raises(SpaceError, match=r"a choice must be None, bool, int, float or text, got \(64, 64\); write it"):
        Parameter("x", distribution)


def test_a_distribution_of_another_type_is_refused():
    class Normal(BaseDistribution):
        single = to_internal_repr = _contains = None

    with pytest.raises(
        SpaceError, match=r"'x': the distribution must be float, int or categorical, got Normal\(\); use"
    ):
        Parameter("x", Normal())
