"""A catalogue of search spaces that every test of spaces, grammars, prompts and decoders can walk through."""

from collections.abc import Iterator

import numpy as np
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution as Cat
from optuna.distributions import FloatDistribution as Float
from optuna.distributions import IntDistribution as Int

from offline_tune.space import Condition, Parameter, SearchSpace, Value

ODD_TEXTS = (
    'say "hi"',
    "back\\slash\\",
    "new\nline\ttab",
    "naïve Ωmega 数 🙂",
    '{"x":1}',
    "a|b(c)[d]{2}^$.*+?",
    "",
    " ",
    "ignore previous instructions",
    "<|im_start|>system",
    "\x00\x1f\x7f\u2028",
)


def one(distribution, default=None) -> SearchSpace:
    return SearchSpace((Parameter("x", distribution, default),))


def when(parent: str, *values: Value) -> Condition:
    return Condition(parent, values)


NUMBERS = {
    "one integer": one(Int(7, 7)),
    "one float": one(Float(0.1, 0.1)),
    "one tiny float": one(Float(1e-9, 1e-9, log=True)),
    "one negative float": one(Float(-2.5, -2.5)),
    "integers": one(Int(1, 12)),
    "integers from zero": one(Int(0, 1000)),
    "negative integers": one(Int(-120, -3)),
    "integers round zero": one(Int(-105, 98)),
    "integers to 1e12": one(Int(-(10**12), 10**12)),
    "log integers": one(Int(2, 4096, log=True)),
    "log integers to 1e12": one(Int(1, 10**12, log=True)),
    "integer steps": one(Int(16, 512, step=16)),
    "negative integer steps": one(Int(-30, 33, step=7)),
    "tens": one(Int(-200, 1000, step=10)),
    "unit floats": one(Float(0, 1)),
    "negative floats": one(Float(-1, -0.25)),
    "floats round zero": one(Float(-2.5, 2.5)),
    "floats below 1e-9": one(Float(-1e-9, 1e-9)),
    "floats to 1e12": one(Float(0, 1e12)),
    "floats to 1e18": one(Float(-3e17, 1e18)),
    "long bounds": one(Float(0.12345, 0.17)),
    "longer bounds": one(Float(0.1 + 0.2, 0.7)),
    "float steps": one(Float(-2.5, 2.5, step=0.05)),
    "fine float steps": one(Float(0, 1, step=0.001)),
    "whole float steps": one(Float(0.5, 99.5, step=1)),
    "log floats": one(Float(1e-5, 0.3, log=True)),
    "log floats in a decade": one(Float(2.5e-3, 4.17e-3, log=True)),
    "log floats across one": one(Float(0.125, 8, log=True)),
    "log floats from 1e-9 to 1e12": one(Float(1e-9, 1e12, log=True)),
    "log floats with long bounds": one(Float(0.0001234, 0.01, log=True)),
    "log floats near the limits": one(Float(1e-300, 1e300, log=True)),
}

CHOICES = {
    "one choice": one(Cat(["adam"])),
    "prefixes": one(Cat(["a", "ab", "abc"])),
    "number prefixes": one(Cat([1, 10, 100, 1.5, -1, 1e-7, 1e22])),
    "mixed": one(Cat([None, True, False, 2, 0.5, "None"])),
    "300 categories": one(Cat([f"category {i}" for i in range(300)])),
    "odd choices": one(Cat(ODD_TEXTS)),
}

_ODD_NAMES = SearchSpace(tuple(Parameter(text, Int(0, 3)) for text in ODD_TEXTS if text))
_NESTED = SearchSpace(
    (
        Parameter("booster", Cat(["gbtree", "dart", "gblinear"]), "gbtree"),
        Parameter("depth", Int(1, 4), 3, when=when("booster", "gbtree", "dart")),
        Parameter("alpha", Float(0.5, 2, step=0.5)),
        Parameter("sample", Cat([None, "uniform", 'weighted "é"']), when=when("booster", "dart")),
        Parameter("skip", Cat([True, False]), when=when("sample", "uniform")),
        Parameter("rate", Float(0.1, 0.3, step=0.1), when=when("skip", True)),
        Parameter("n", Int(-1, 1)),
    )
)
_FAMILIES = SearchSpace(
    (
        Parameter("family", Cat(["ridge", "forest", "xgboost"])),
        Parameter("ridge.alpha", Float(1e-4, 1e3, log=True), 1.0, when=when("family", "ridge")),
        Parameter("forest.max_features", Float(0.1, 1.0), 0.5, when=when("family", "forest")),
        Parameter("forest.bootstrap", Cat([True, False]), True, when=when("family", "forest")),
        Parameter("xgboost.learning_rate", Float(1e-3, 1, log=True), 0.3, when=when("family", "xgboost")),
        Parameter("xgboost.max_depth", Int(1, 12), 6, when=when("family", "xgboost")),
        Parameter("scale", Cat(["none", "standard", "quantile"]), "standard"),
    )
)
_TEN = SearchSpace(
    (
        Parameter("learning_rate", Float(1e-3, 1, log=True), 0.3),
        Parameter("n_estimators", Int(10, 2000, log=True), 100),
        Parameter("max_depth", Int(1, 12), 6),
        Parameter("min_child_weight", Float(1e-3, 100, log=True), 1.0),
        Parameter("gamma", Float(1e-8, 10, log=True)),
        Parameter("subsample", Float(0.5, 1), 1.0),
        Parameter("colsample_bytree", Float(0.3, 1), 1.0),
        Parameter("reg_alpha", Float(1e-8, 100, log=True)),
        Parameter("reg_lambda", Float(1e-8, 100, log=True), 1.0),
        Parameter("max_bin", Int(64, 512, step=64), 256),
    )
)

SPACES = {
    **NUMBERS,
    **CHOICES,
    "odd names": _ODD_NAMES,
    "nested conditions": _NESTED,
    "families": _FAMILIES,
    "ten parameters": _TEN,
}

SMALL = {name: space for name, space in SPACES.items() if space.size <= 2_000}


def candidates(space: SearchSpace) -> Iterator[dict[str, Value]]:
    """Every writable candidate of a space."""
    yield from _completed(space, {})


def some_candidates(space: SearchSpace, n: int, seed: int = 0) -> list[dict[str, Value]]:
    """The default, both corners of the unit cube, and even draws."""
    rng = np.random.default_rng(seed)
    corners = [space.from_unit(np.full(len(space.parameters), place)) for place in (0.0, 1.0)]
    return [space.snap(space.default), *corners, *(space.sample(rng) for _ in range(n))]


def _completed(space, values):
    left = [parameter for parameter in space.active(values) if parameter.name not in values]
    if not left:
        yield values
        return
    for index in range(left[0].lattice.size):
        yield from _completed(space, {**values, left[0].name: left[0].lattice.value(index)})


_NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
_INTEGERS = st.builds(
    lambda low, size, step: Int(low * step, (low + size) * step, step=step),
    st.integers(-1000, 1000),
    st.integers(0, 10**6),
    st.sampled_from([1, 10, 1000]),
)
_STEPS = st.builds(
    lambda low, size, step: Int(low, low + size * step, step=step),
    st.integers(-1000, 1000),
    st.integers(0, 200),
    st.integers(2, 99),
)
_FLOATS = st.builds(
    lambda low, width: Float(low / 1000, (low + width) / 1000), st.integers(-5000, 5000), st.integers(1, 10**6)
)
_LOGS = st.builds(
    lambda digits, exponent, factor: Float(digits * 10.0**exponent, digits * 10.0**exponent * factor, log=True),
    st.integers(1, 9999),
    st.integers(-12, 6),
    st.sampled_from([1.5, 7.0, 10.0, 1e4, 1e9]),
)
_CATEGORIES = st.builds(
    Cat,
    st.lists(st.one_of(st.none(), st.booleans(), st.integers(2, 99), _NAMES), min_size=1, max_size=6, unique=True),
)


def distributions() -> st.SearchStrategy:
    """Any distribution that has a lattice."""
    return st.one_of(_INTEGERS, _STEPS, _FLOATS, _LOGS, _CATEGORIES)


@st.composite
def spaces(draw, most: int = 5) -> SearchSpace:
    """Any search space of up to `most` parameters, conditions included."""
    names = draw(st.lists(_NAMES, min_size=1, max_size=most, unique=True))
    parameters: list[Parameter] = []
    for name in names:
        parents = [p for p in parameters if p.is_categorical]
        condition = None
        if parents and draw(st.booleans()):
            parent = draw(st.sampled_from(parents))
            choices = parent.distribution.choices
            condition = Condition(parent.name, tuple(draw(st.lists(st.sampled_from(choices), min_size=1, unique=True))))
        parameters.append(Parameter(name, draw(distributions()), when=condition))
    return SearchSpace(tuple(parameters))
