"""Families of models, and the search space that spans them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from optuna.distributions import CategoricalDistribution

from offline_tune.cards import DataCard
from offline_tune.distribution import quoted
from offline_tune.errors import SpaceError, UsageError
from offline_tune.evaluator.families.base import Family, Needs
from offline_tune.evaluator.families.catboost import CATBOOST
from offline_tune.evaluator.families.extra_trees import EXTRA_TREES
from offline_tune.evaluator.families.hist_gradient_boosting import HIST_GRADIENT_BOOSTING
from offline_tune.evaluator.families.knn import KNN
from offline_tune.evaluator.families.lightgbm import LIGHTGBM
from offline_tune.evaluator.families.linear import LINEAR
from offline_tune.evaluator.families.mlp import MLP
from offline_tune.evaluator.families.random_forest import RANDOM_FOREST
from offline_tune.evaluator.families.svm import SVM
from offline_tune.evaluator.families.tabm import TABM
from offline_tune.evaluator.families.tabular_mlp import TABULAR_MLP
from offline_tune.evaluator.families.tabular_resnet import TABULAR_RESNET
from offline_tune.evaluator.families.xgboost import XGBOOST
from offline_tune.space import Condition, Parameter, SearchSpace, Value, Values
from offline_tune.task import TaskKind

__all__ = [
    "AUTO",
    "FAMILIES",
    "ROOT",
    "Family",
    "Needs",
    "default_of",
    "families_for",
    "family",
    "space_of",
    "split_values",
]

ROOT = "family"
AUTO = "auto"

_CHEAPEST_FIRST = (
    LINEAR,
    LIGHTGBM,
    XGBOOST,
    HIST_GRADIENT_BOOSTING,
    EXTRA_TREES,
    RANDOM_FOREST,
    KNN,
    CATBOOST,
    MLP,
    SVM,
    TABULAR_MLP,
    TABULAR_RESNET,
    TABM,
)
FAMILIES: Mapping[str, Family] = MappingProxyType({family.name: family for family in _CHEAPEST_FIRST})


def family(name: str) -> Family:
    """The family of that name.

    Raises:
        UsageError: there is none.
    """
    if name in FAMILIES:
        return FAMILIES[name]
    near = difflib.get_close_matches(name.lower().replace("-", "_"), FAMILIES, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join((AUTO, *FAMILIES))}"
    raise UsageError(f"--family must name a known family, got {quoted(name)}; {hint}")


def families_for(names: Sequence[str] | str, kind: TaskKind, card: DataCard) -> tuple[Family, ...]:
    """The families to search, each once, cheap ones first.

    Args:
        names: names of families, or "auto" for all that make sense on data of this size.
        kind: what is learnt; every named family must support it.
        card: facts about the training data.

    Raises:
        UsageError: no name, an unknown one, a family that cannot learn this kind of task, or one whose library is not
            installed.
    """
    wanted = (names,) if isinstance(names, str) else tuple(names)
    if not wanted:
        raise UsageError(f"--family needs at least one name, got none; choose {AUTO} or one of {', '.join(FAMILIES)}")
    if AUTO in wanted:
        return tuple(
            each for each in FAMILIES.values() if kind in each.kinds and each.is_installed and each.suits(card)
        )
    chosen = {family(name).name for name in wanted}
    for name in chosen:
        if kind not in FAMILIES[name].kinds:
            raise UsageError(f"--family {name} cannot learn a {kind.value} task; choose another family or {AUTO}")
        if not FAMILIES[name].is_installed:
            raise UsageError(
                f"--family {name} needs {FAMILIES[name].library}, got none installed; "
                f"run: pip install {FAMILIES[name].library}, or choose another family"
            )
    return tuple(each for each in FAMILIES.values() if each.name in chosen)


def space_of(families: Sequence[Family], card: DataCard) -> SearchSpace:
    """One space over several families: the root `family`, and under each choice that family's parameters.

    A parameter is called `family.name` there, so two families never share one by accident.
    """
    names = tuple(each.name for each in families)
    root = Parameter(ROOT, CategoricalDistribution(names), default=names[0])
    branches = (_prefixed(each.name, parameter) for each in families for parameter in each.parameters(card))
    return SearchSpace((root, *branches))


def default_of(family_name: str, space: SearchSpace) -> dict[str, Value]:
    """The default candidate of one family in a space made by `space_of`.

    Raises:
        SpaceError: the space has no such family.
    """
    if ROOT not in space.by_name or not space.by_name[ROOT].contains(family_name):
        raise SpaceError(f"the space must offer the family, got {quoted(family_name)}; choose one that it lists")
    values: dict[str, Value] = {ROOT: family_name}
    for parameter in space.parameters:
        if parameter.name != ROOT and parameter in space.active(values):
            values[parameter.name] = parameter.default_or_middle
    return values


def split_values(values: Values) -> tuple[str, dict[str, Value]]:
    """A candidate of `space_of` taken apart: the family's name, and its values without the prefix.

    Raises:
        SpaceError: the candidate names no known family, or holds a parameter of another one.
    """
    name = values.get(ROOT)
    if not isinstance(name, str) or name not in FAMILIES:
        raise SpaceError(f"a candidate must name a known family, got {quoted(name)}; set {ROOT!r}")
    own: dict[str, Value] = {}
    for key, value in values.items():
        if key.startswith(f"{name}."):
            own[key.removeprefix(f"{name}.")] = value
        elif key != ROOT:
            raise SpaceError(f"a candidate of {name} may hold only its own parameters, got {quoted(key)}; leave it out")
    return name, own


def _prefixed(name: str, parameter: Parameter) -> Parameter:
    when = parameter.when
    condition = Condition(ROOT, (name,)) if when is None else Condition(f"{name}.{when.parent}", when.values)
    return replace(parameter, name=f"{name}.{parameter.name}", when=condition)
