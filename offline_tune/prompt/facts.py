"""The task, the families and the search space in words: the part of a prompt that stays the same through a study."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from offline_tune.cards import DataCard, ModelCard
from offline_tune.lattice import Progression, fixed_point
from offline_tune.prompt.quoting import one_line, quote
from offline_tune.space import Parameter, SearchSpace, Value
from offline_tune.task import TaskKind

MAX_NAME, MAX_CHOICE, MAX_CHOICES = 60, 40, 20
MAX_DESCRIPTION, MAX_SENTENCE = 600, 200


def describe_task(card: DataCard, explained: bool) -> str:
    """What is to be learnt from what; `explained` adds the user's own description."""
    lines = ["# Task", *_shape(card), *_landmarks(card)]
    if explained and card.description:
        lines.append(f"The user describes the data so: {quote(card.description, MAX_DESCRIPTION)}")
    return "\n".join(lines)


def describe_models(cards: Sequence[ModelCard]) -> str:
    """What each family is and costs."""
    lines = (f"- {quote(m.family, MAX_NAME)}: {_sentence(m.summary)} Cost: {_sentence(m.cost)}" for m in cards)
    return "\n".join(["# Models", *lines])


def describe_space(space: SearchSpace, cards: Sequence[ModelCard]) -> str:
    """Every parameter with its range, scale and default, under the choices that it hangs on.

    Args:
        space: the space.
        cards: the families whose sentences explain the parameters; none for ranges only.
    """
    roots = [parameter for parameter in space.parameters if parameter.when is None]
    return "\n".join(["# Search space", *_listed(space, roots, cards, "")])


def _shape(card: DataCard) -> Iterator[str]:
    kinds = ("numeric", "categorical", "text", "date")
    counts = ", ".join(f"{n} {kind}" for kind in kinds if (n := getattr(card, f"n_{kind}")))
    task = "Regression" if card.kind is TaskKind.REGRESSION else f"{card.kind.value.capitalize()} classification"
    yield f"{task} on a table of {card.n_rows} rows and {card.n_features} features ({counts or 'none used'})."
    if card.kind.is_classification:
        yield f"{card.n_classes} classes; the largest holds {card.imbalance:.0%} of the rows."
    yield f"{card.missing_share:.1%} of the cells are missing."
    if card.n_categorical:
        yield f"The widest categorical feature has {card.max_cardinality} values."
    if card.n_numeric:
        yield f"The mean absolute skew of the numeric features is {card.mean_abs_skew:.2g}."


def _landmarks(card: DataCard) -> Iterator[str]:
    scorer = "balanced accuracy" if card.kind.is_classification else "R2"
    for model, score in (("linear model", card.linear_score), ("small tree", card.tree_score)):
        if score is not None:
            yield f"A quick {model} reaches a {scorer} of {score:.3g}."


def _listed(
    space: SearchSpace, parameters: Iterable[Parameter], cards: Sequence[ModelCard], indent: str
) -> Iterator[str]:
    for when, alike in groupby(parameters, key=lambda parameter: parameter.when):
        if when is not None and not space.by_name[when.parent].is_fixed:
            yield f"{indent}only while it is {_either(when.values)}:"
        for parameter in alike:
            yield f"{indent}- {quote(parameter.name, MAX_NAME)}: {_range(parameter)}{_meaning(parameter.name, cards)}"
            yield from _listed(space, space.children(parameter.name), cards, f"{indent}  ")


def _range(parameter: Parameter) -> str:
    lattice = parameter.lattice
    if lattice.size == 1:
        return f"always {_shown(lattice.value(0), lattice.text(0))}"
    default = parameter.default_or_middle
    ending = f", default {_shown(default, lattice.text(lattice.index(default)))}" if parameter.has_default else ""
    if parameter.is_categorical:
        return f"{_either([lattice.value(place) for place in range(lattice.size)])}{ending}"
    scale = " on a log scale" if parameter.is_log else ""
    return f"{_kind(parameter)} from {lattice.text(0)} to {lattice.text(lattice.size - 1)}{scale}{ending}"


def _kind(parameter: Parameter) -> str:
    lattice, step = parameter.lattice, getattr(parameter.distribution, "step", None)
    if not isinstance(lattice, Progression) or step is None:
        return "number"
    kind = "number" if lattice.is_float else "integer"
    return kind if step == 1 else f"{kind} in steps of {fixed_point(lattice.step, lattice.decimals)}"


def _either(values: Sequence[Value]) -> str:
    shown = [_shown(value, json.dumps(value)) for value in values[:MAX_CHOICES]]
    more = len(values) - len(shown)
    return " or ".join([*shown, f"one of {more} more"] if more else shown)


def _shown(value: Value, text: str) -> str:
    return quote(value, MAX_CHOICE) if isinstance(value, str) else text


def _meaning(name: str, cards: Sequence[ModelCard]) -> str:
    for card in cards:
        if sentence := card.hyperparameters.get(name.removeprefix(f"{card.family}.")):
            return f"; {_sentence(sentence)}"
    return ""


def _sentence(text: str) -> str:
    return one_line(text, MAX_SENTENCE).rstrip(".") + "."
