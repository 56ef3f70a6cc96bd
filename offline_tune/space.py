"""Search spaces over Optuna distributions, as finite lattices of writable values.

A parameter is an Optuna distribution with a name, an optional default and an optional condition ("only when
`booster` is `gbtree`"). Every parameter has a *lattice*: the finite, ascending list of values that have a written
form, each with exactly one spelling (see `lattice` and `distribution`). The grammar lists the lattice, so whatever
it accepts is in the space. Knows nothing of grammars, models, trials or data.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    IntDistribution,
    distribution_to_json,
    json_to_distribution,
)
from optuna.trial import BaseTrial

from offline_tune.distribution import MAX_DIGITS, MAX_STEPS, is_unicode, lattice_of, quoted
from offline_tune.errors import SpaceError
from offline_tune.lattice import Choices, Lattice, Progression, Scientific, Value, fixed_point

__all__ = [
    "MAX_DIGITS",
    "MAX_STEPS",
    "Choices",
    "Condition",
    "Lattice",
    "Parameter",
    "Progression",
    "Scientific",
    "SearchSpace",
    "Value",
    "Values",
    "fixed_point",
    "quoted",
]

Values = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Condition:
    """A parameter exists only while the categorical `parent` has one of `values`."""

    parent: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Parameter:
    """One hyperparameter: a name, an Optuna distribution, a default, a condition.

    Raises:
        SpaceError: the name is empty or not Unicode, the distribution has no lattice, or the default lies outside.
    """

    name: str
    distribution: BaseDistribution
    default: Value = None
    when: Condition | None = None

    def __post_init__(self) -> None:
        if not self.name or not is_unicode(self.name):
            raise SpaceError(f"a parameter name must be non-empty Unicode text, got {quoted(self.name)}; rename it")
        try:
            _ = self.lattice
        except SpaceError as error:
            raise SpaceError(f"{quoted(self.name)}: {error}") from None
        if self.has_default and not self.contains(self.default):
            raise SpaceError(
                f"{quoted(self.name)}: the default must lie in {_range(self)}, got {quoted(self.default)}; "
                "move one of them"
            )

    @property
    def is_categorical(self) -> bool:
        """Whether the values are a list of choices."""
        return isinstance(self.distribution, CategoricalDistribution)

    @property
    def is_log(self) -> bool:
        """Whether the natural scale is logarithmic."""
        return bool(getattr(self.distribution, "log", False))

    @property
    def is_fixed(self) -> bool:
        """Whether one value only can be written."""
        return self.lattice.size == 1

    @property
    def has_default(self) -> bool:
        """Whether a default is declared (None counts only where it is a choice)."""
        return self.default is not None or (
            isinstance(self.distribution, CategoricalDistribution) and None in self.distribution.choices
        )

    @cached_property
    def lattice(self) -> Lattice:
        """The writable values, ascending."""
        return lattice_of(self.distribution)

    def contains(self, value: Value) -> bool:
        """Whether the distribution holds this value (on the lattice or not)."""
        if isinstance(self.distribution, CategoricalDistribution):
            return any(
                choice == value and isinstance(choice, bool) == isinstance(value, bool)
                for choice in self.distribution.choices
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or not -1e308 < value < 1e308:
            return False
        if isinstance(self.distribution, IntDistribution) and value != int(value):
            return False
        return self.distribution._contains(float(value))

    def to_unit(self, value: Value) -> float:
        """Place a value on [0, 1]: the low end is 0, the high end 1, in log where the scale is log."""
        return self.lattice.to_unit(value)

    def from_unit(self, unit: float) -> Value:
        """The lattice value nearest to a place on [0, 1]; inverse of `to_unit` on the lattice."""
        return self.lattice.from_unit(unit)

    @property
    def default_or_middle(self) -> Value:
        """The declared default, else the first choice, else the middle of the scale."""
        if self.has_default:
            return self.default
        return self.lattice.value(0) if self.is_categorical else self.from_unit(0.5)


@dataclass(frozen=True)
class SearchSpace:
    """An ordered set of parameters; each conditional one follows its parent.

    The order is depth-first: a parent, then the parameters that hang on it, then the next. That is also the order in
    which a candidate is written.

    Raises:
        SpaceError: empty, a name used twice, or a condition on a parameter that is absent, numeric, later, or
            without that choice.
    """

    parameters: tuple[Parameter, ...]

    def __post_init__(self) -> None:
        if not self.parameters:
            raise SpaceError("a search space needs at least one parameter, got none; add one")
        by_name: dict[str, Parameter] = {}
        for parameter in self.parameters:
            if parameter.name in by_name:
                raise SpaceError(f"parameter names must differ, got {quoted(parameter.name)} twice; rename one")
            if parameter.when is not None:
                _check_condition(parameter.name, parameter.when, by_name)
            by_name[parameter.name] = parameter
        object.__setattr__(self, "parameters", tuple(_depth_first(self.parameters)))

    @classmethod
    def from_distributions(cls, distributions: Mapping[str, BaseDistribution]) -> SearchSpace:
        """The flat space of an Optuna search space, in its own order."""
        return cls(tuple(Parameter(name, distribution) for name, distribution in distributions.items()))

    @cached_property
    def by_name(self) -> Mapping[str, Parameter]:
        """The parameters by their names."""
        return {parameter.name: parameter for parameter in self.parameters}

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Optuna's view: every parameter's distribution by name, conditional ones included."""
        return {parameter.name: parameter.distribution for parameter in self.parameters}

    @cached_property
    def size(self) -> int:
        """How many candidates can be written."""
        sizes: dict[str, int] = {}
        for parameter in reversed(self.parameters):  # what hangs on a parameter stands behind it
            sizes[parameter.name] = parameter.lattice.size
            if parameter.is_categorical:
                branches = (hanging for _, hanging in self.branches(parameter.name))
                sizes[parameter.name] = sum(math.prod(sizes[p.name] for p in hanging) for hanging in branches)
        return math.prod(sizes[p.name] for p in self.parameters if p.when is None)

    def active(self, values: Values) -> tuple[Parameter, ...]:
        """The parameters that exist under these values, in written order."""
        active: dict[str, Parameter] = {}
        for parameter in self.parameters:
            if _holds(parameter.when, values, active):
                active[parameter.name] = parameter
        return tuple(active.values())

    def children(self, name: str) -> tuple[Parameter, ...]:
        """The parameters that hang directly on a parameter."""
        return tuple(p for p in self.parameters if p.when is not None and p.when.parent == name)

    def branches(self, name: str) -> Iterator[tuple[Value, tuple[Parameter, ...]]]:
        """Each choice of a categorical parameter, with the parameters that hang directly on that choice."""
        lattice, hanging = self.by_name[name].lattice, self.children(name)
        for choice in map(lattice.value, range(lattice.size)):
            yield choice, tuple(p for p in hanging if _holds(p.when, {name: choice}, (name,)))

    def assemble(self, choose: Callable[[Parameter], Value]) -> dict[str, Value]:
        """A candidate made parameter by parameter in written order; inactive ones are never asked for."""
        values: dict[str, Value] = {}
        for parameter in self.parameters:
            if _holds(parameter.when, values, values):
                values[parameter.name] = choose(parameter)
        return values

    @property
    def default(self) -> dict[str, Value]:
        """The default candidate: each active parameter's default, or the middle of its scale."""
        return self.assemble(lambda parameter: parameter.default_or_middle)

    def check(self, values: Values) -> None:
        """Refuse a candidate outside the space.

        Raises:
            SpaceError: a parameter is missing, unknown, inactive or out of range.
        """
        active = {p.name: p for p in self.active(values)}
        for name in values:
            if name not in active:
                state = "is inactive under these values" if name in self.by_name else "is not in the space"
                raise SpaceError(f"{quoted(name)} {state}, got {quoted(values[name])}; leave it out")
        for name, parameter in active.items():
            if name not in values:
                raise SpaceError(f"{quoted(name)} must have a value, got none; set it within {_range(parameter)}")
            if not parameter.contains(values[name]):
                raise SpaceError(
                    f"{quoted(name)} must lie in {_range(parameter)}, got {quoted(values[name])}; choose a value inside"
                )

    def contains(self, values: Values) -> bool:
        """Whether `check` would accept."""
        try:
            self.check(values)
        except SpaceError:
            return False
        return True

    def snap(self, values: Values) -> dict[str, Value]:
        """The nearest writable candidate, in written order; `values` must lie in the space."""
        return {p.name: p.lattice.value(p.lattice.index(values[p.name])) for p in self.active(values)}

    def key(self, values: Values) -> tuple[tuple[str, int], ...]:
        """An identity for duplicates: two candidates that are written alike have equal keys."""
        return tuple((p.name, p.lattice.index(values[p.name])) for p in self.active(values))

    def write(self, values: Values) -> str:
        """The candidate as one JSON object without whitespace, snapped to the lattice, in written order.

        >>> from optuna.distributions import FloatDistribution
        >>> space = SearchSpace.from_distributions({"lr": FloatDistribution(1e-5, 1, log=True)})
        >>> space.write({"lr": 0.001})
        '{"lr":1.00e-3}'

        Raises:
            SpaceError: the candidate lies outside the space.
        """
        self.check(values)
        return "{" + ",".join(_member(p, values[p.name]) for p in self.active(values)) + "}"

    def suggest(self, trial: BaseTrial) -> dict[str, Value]:
        """Draw a candidate from an Optuna trial, define-by-run, conditions respected."""
        return self.assemble(lambda parameter: _suggest(trial, parameter))

    def to_unit(self, values: Values) -> NDArray[np.float64]:
        """One place on [0, 1] for each parameter, shape (n_parameters,); inactive ones are NaN."""
        active = {p.name for p in self.active(values)}
        return np.array([p.to_unit(values[p.name]) if p.name in active else np.nan for p in self.parameters])

    def from_unit(self, unit: NDArray[np.float64]) -> dict[str, Value]:
        """The candidate at a point of the unit cube, shape (n_parameters,); inactive places are ignored."""
        places = {
            p.name: 0.5 if np.isnan(place) else float(place) for p, place in zip(self.parameters, unit, strict=True)
        }
        return self.assemble(lambda parameter: parameter.from_unit(places[parameter.name]))

    def sample(self, rng: np.random.Generator) -> dict[str, Value]:
        """A candidate drawn evenly: uniform on each scale, uniform over choices and integers."""
        # Every parameter draws, active or not, so that a branch does not shift the draws of what follows it.
        units = dict(zip(self.by_name, rng.random(len(self.parameters)), strict=True))
        return self.assemble(lambda parameter: parameter.lattice.draw(units[parameter.name]))

    def to_json(self) -> str:
        """One line that `from_json` reads back; equal spaces give equal text."""
        return json.dumps(
            [
                {
                    "name": p.name,
                    "distribution": json.loads(distribution_to_json(p.distribution)),
                    "default": p.default,
                    "when": None if p.when is None else [p.when.parent, list(p.when.values)],
                }
                for p in self.parameters
            ],
            ensure_ascii=True,
        )

    @classmethod
    def from_json(cls, text: str) -> SearchSpace:
        """Inverse of `to_json`.

        Raises:
            SpaceError: the text is not a search space.
        """
        try:
            return cls(tuple(map(_from_item, json.loads(text))))
        except (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise SpaceError(
                f"a stored search space must be the text that to_json wrote, got {quoted(text)} "
                f"({type(error).__name__}); restore it from a copy"
            ) from error

    def is_compatible(self, other: SearchSpace) -> bool:
        """Whether the trials of one can be continued in the other: equal names, conditions and distributions."""
        if [p.name for p in self.parameters] != [p.name for p in other.parameters]:
            return False
        return all(
            mine.when == theirs.when and mine.distribution == theirs.distribution
            for mine, theirs in zip(self.parameters, other.parameters, strict=True)
        )


def _member(parameter: Parameter, value: Value) -> str:
    return f"{json.dumps(parameter.name, ensure_ascii=False)}:{parameter.lattice.text(parameter.lattice.index(value))}"


def _range(parameter: Parameter) -> str:
    return quoted(parameter.distribution, limit=120)


def _check_condition(name: str, when: Condition, earlier: Mapping[str, Parameter]) -> None:
    parent, shown = earlier.get(when.parent), quoted(when.parent)
    if parent is None:
        raise SpaceError(f"{quoted(name)}: its condition names {shown}, which is not declared before it; move it up")
    if not parent.is_categorical:
        raise SpaceError(f"{quoted(name)}: a condition needs a categorical parent, got {shown}; use choices")
    if not when.values:
        raise SpaceError(f"{quoted(name)}: a condition needs at least one value of {shown}, got none; add one")
    for value in when.values:
        if not parent.contains(value):
            raise SpaceError(
                f"{quoted(name)}: its condition must name choices of {shown}, got {quoted(value)}; "
                f"take one of {_range(parent)}"
            )


def _depth_first(parameters: tuple[Parameter, ...]) -> Iterator[Parameter]:
    hanging: dict[str | None, list[Parameter]] = {}
    for parameter in parameters:
        hanging.setdefault(parameter.when.parent if parameter.when else None, []).append(parameter)
    waiting = hanging[None][::-1]
    while waiting:
        yield (parameter := waiting.pop())
        waiting += hanging.get(parameter.name, [])[::-1]


def _holds(when: Condition | None, values: Values, active: Container[str]) -> bool:
    return when is None or (when.parent in active and when.parent in values and values[when.parent] in when.values)


def _suggest(trial: BaseTrial, parameter: Parameter) -> Value:
    distribution = parameter.distribution
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(parameter.name, tuple(distribution.choices))
    low, high, step, log = (getattr(distribution, field) for field in ("low", "high", "step", "log"))
    suggest = trial.suggest_int if isinstance(distribution, IntDistribution) else trial.suggest_float
    return suggest(parameter.name, low, high, step=step, log=log)


def _from_item(item: dict[str, Any]) -> Parameter:
    when = item["when"]
    return Parameter(
        name=item["name"],
        distribution=json_to_distribution(json.dumps(item["distribution"])),
        default=item["default"],
        when=None if when is None else Condition(when[0], tuple(when[1])),
    )
