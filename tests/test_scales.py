"""The scales on which the shipped model learnt what levels mean."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution, IntDistribution

from offline_tune.prompt.compact import level_of, levels_of, value_of
from offline_tune.prompt.scales import LEARNT, Scale, learnt_scale
from offline_tune.prompt.vocabulary import FAMILIES, NUMBERS
from offline_tune.space import Parameter

SCALES = [(family, name, scale) for family, scales in LEARNT.items() for name, scale in scales.items()]


@pytest.mark.parametrize("family, name, scale", SCALES)
def test_a_scale_belongs_to_a_family_and_a_name_of_the_vocabulary(family, name, scale):
    assert family in FAMILIES
    assert name in NUMBERS


@pytest.mark.parametrize("family, name, scale", SCALES)
def test_the_ends_of_a_scale_are_its_bounds(family, name, scale):
    assert [scale.to_unit(scale.low), scale.to_unit(scale.high)] == [0, 1]


@given(st.floats(0, 1), st.booleans())
def test_a_place_comes_back_from_its_number(unit, log):
    scale = Scale(1e-3, 10.0, log=log)
    assert scale.to_unit(scale.from_unit(unit)) == pytest.approx(unit, abs=1e-9)


def test_a_number_beyond_the_scale_is_put_on_its_end():
    scale = Scale(1.0, 2.0)
    assert [scale.to_unit(-5), scale.to_unit(99)] == [0, 1]


def test_a_family_that_the_model_has_not_seen_has_no_scale():
    assert learnt_scale("svm.C") is None


def test_a_name_without_family_has_no_scale():
    assert learnt_scale("learning_rate") is None


def test_one_learning_rate_has_one_level_whatever_range_a_space_gives_it():
    narrow = Parameter("xgboost.learning_rate", FloatDistribution(0.05, 0.2, log=True))
    wide = Parameter("xgboost.learning_rate", FloatDistribution(1e-3, 1.0, log=True))
    assert level_of(narrow, 0.1) == level_of(wide, 0.1)


@pytest.mark.parametrize(
    "parameter",
    [
        Parameter("xgboost.learning_rate", FloatDistribution(0.01, 0.5, log=True)),
        Parameter("xgboost.n_estimators", IntDistribution(50, 1000, log=True)),
        Parameter("xgboost.gamma", FloatDistribution(1e-6, 10.0, log=True)),
        Parameter("lightgbm.max_depth", IntDistribution(2, 40)),
        Parameter("random_forest.max_features", FloatDistribution(0.05, 1.0)),
    ],
    ids=lambda p: p.name,
)
def test_every_level_of_a_known_parameter_holds_a_value_inside_its_range(parameter):
    rng = np.random.default_rng(0)
    values = {level: value_of(parameter, level, rng) for level in levels_of(parameter)}
    assert all(parameter.contains(v) and level_of(parameter, v) == level for level, v in values.items())
