"""The compact dialect: a space and a history as the tokens of the shipped model.

    <s> <task> <family:xgboost> (<trial> value* <outcome> y)*
    <propose> (name value)*         then: the next candidate
    <trial> value* <outcome>        then: how a candidate will turn out, as the distribution of y

A value token names its parameter and its level (see `vocabulary`). Fixed parameters are left out, inactive ones are
never written. Names that the vocabulary lacks take slots in their order of appearance. Numbers are levels on the
parameter's own scale, outcomes levels on the history's (see `outcome`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from offline_tune.distribution import quoted
from offline_tune.errors import SpaceError
from offline_tune.history import History, Observation
from offline_tune.prompt.outcome import outcome_levels, standardise
from offline_tune.prompt.scales import learnt_scale
from offline_tune.prompt.vocabulary import CHOICES, N_LEVELS, NUMBERS, VOCABULARY
from offline_tune.space import Parameter, SearchSpace, Value, Values

ROOT = "family"
_ALL_DENSE = 64 * N_LEVELS  # with this many values on a linear scale no level is empty


@dataclass(frozen=True)
class CompactDialect:
    """How one space is written.

    Raises:
        SpaceError: more unknown names or choices than the vocabulary has places for.
    """

    space: SearchSpace

    @cached_property
    def places(self) -> Mapping[str, int]:
        """Each free parameter's place in the vocabulary.

        Equal short names share one as long as they are never active together.
        """
        places: dict[str, int] = {}
        users: dict[int, list[Parameter]] = {}
        slots: dict[tuple[str, bool], list[int]] = {}
        n_slots = {False: 0, True: 0}
        for parameter in self.space.parameters:
            if parameter.is_fixed:
                continue
            short, is_choice = short_name(parameter.name), parameter.is_categorical
            known = VOCABULARY.known(short, is_choice) if not is_choice or _has_words(parameter) else None
            shared = slots.setdefault((short, is_choice), [])
            options = shared if known is None else [known, *shared]
            place = next((o for o in options if not self._meets(parameter, users.get(o, ()))), None)
            if place is None:
                place = _next_slot(n_slots[is_choice], is_choice)
                n_slots[is_choice] += 1
                shared.append(place)
            users.setdefault(place, []).append(parameter)
            places[parameter.name] = place
        return places

    @property
    def familiarity(self) -> float:
        """The share of the free parameters that are written by name, 0 to 1."""
        named = len(NUMBERS) + len(CHOICES)
        return sum(place < named for place in self.places.values()) / max(len(self.places), 1)

    def _meets(self, parameter: Parameter, others: Iterable[Parameter]) -> bool:
        """Whether one of the others may be active beside a parameter."""
        mine = self._conditions(parameter)
        theirs = map(self._conditions, others)
        return any(all(set(mine[p]) & set(their[p]) for p in mine.keys() & their.keys()) for their in theirs)

    def _conditions(self, parameter: Parameter) -> dict[str, tuple[Value, ...]]:
        found = {}
        while (when := parameter.when) is not None:
            found[when.parent] = when.values
            parameter = self.space.by_name[when.parent]
        return found

    @cached_property
    def header(self) -> tuple[int, ...]:
        """The tokens before the first trial."""
        ids = VOCABULARY.ids
        return (ids["<s>"], ids["<task>"], self._family)

    @property
    def _family(self) -> int:
        root = self.space.by_name.get(ROOT)
        if root is None or not root.is_fixed:
            return VOCABULARY.family("?")
        return VOCABULARY.family(str(root.default_or_middle))

    def written(self, values: Values) -> tuple[Parameter, ...]:
        """The parameters that a candidate spells out."""
        return tuple(p for p in self.space.active(values) if not p.is_fixed)

    def candidate_tokens(self, values: Values) -> list[int]:
        """One value token for each free parameter of a candidate."""
        return [VOCABULARY.value(self.places[p.name], level_of(p, values[p.name])) for p in self.written(values)]

    def query_tokens(self, values: Values) -> list[int]:
        """What follows the history to ask for a candidate's outcome; the answer is the next token."""
        return [VOCABULARY.ids["<trial>"], *self.candidate_tokens(values), VOCABULARY.ids["<outcome>"]]

    def prompt_tokens(self, history: History, limit: int) -> list[int]:
        """The header and as much of the history as `limit` tokens hold.

        The best trials stay first of all, then the latest; those that stay keep their order.
        """
        scored = np.array([o.score for o in history.scored], dtype=np.float64)
        written = {o.number: self._trial_tokens(o, scored) for o in history.observations}
        room = limit - len(self.header)
        kept: set[int] = set()
        for observation in by_interest(history):
            cost = len(written[observation.number])
            if cost <= room:
                kept.add(observation.number)
                room -= cost
        trials = [token for o in history.observations if o.number in kept for token in written[o.number]]
        return [*self.header, *trials]

    def _trial_tokens(self, observation: Observation, scored: np.ndarray) -> list[int]:
        ids = VOCABULARY.ids
        if observation.pending:
            outcome = ids["<pending>"]
        elif observation.score is None:
            outcome = ids["<fail>"]
        else:
            z = standardise(np.array([observation.score]), scored)
            outcome = VOCABULARY.first_outcome + int(outcome_levels(z)[0])
        return [ids["<trial>"], *self.candidate_tokens(observation.values), ids["<outcome>"], outcome]

    def read_candidate(self, tokens: tuple[int, ...], rng: np.random.Generator) -> dict[str, Value]:
        """The candidate that (name value)* spells; a level becomes a random value of its bin.

        Raises:
            SpaceError: the tokens are not a candidate of this space.
        """
        given = iter(tokens)

        def read(parameter: Parameter) -> Value:
            if parameter.is_fixed:
                return parameter.lattice.value(0)
            place, name, value = self.places[parameter.name], next(given, -1), next(given, -1)
            level = value - VOCABULARY.value(place, 0)
            if name != VOCABULARY.name(place) or not 0 <= level < N_LEVELS:
                raise SpaceError(
                    f"{quoted(parameter.name)} must come next, got tokens {name} and {value}; "
                    "the model and the space disagree"
                )
            return value_of(parameter, level, rng)

        values = self.space.assemble(read)
        if (surplus := next(given, None)) is not None:
            raise SpaceError(f"a candidate must end with its last parameter, got token {surplus} too; leave it out")
        return values


def _next_slot(index: int, is_choice: bool) -> int:
    place = VOCABULARY.slot(index, is_choice)
    if place is None:
        raise SpaceError(
            f"the shipped model can tell at most {index} unnamed {'choices' if is_choice else 'numbers'} apart, "
            "got more; use an instruct model with --model or fewer parameters"
        )
    return place


def short_name(name: str) -> str:
    """The name inside a family: `xgboost.max_depth` is `max_depth`."""
    return name.rsplit(".", 1)[-1]


def level_of(parameter: Parameter, value: Value) -> int:
    """The level 0 .. N_LEVELS - 1 of a value: its place on the scale, or its choice's place."""
    if parameter.is_categorical:
        return choice_levels(parameter)[parameter.lattice.index(value)]
    return min(int(_place_of(parameter, value) * N_LEVELS), N_LEVELS - 1)


def value_of(parameter: Parameter, level: int, rng: np.random.Generator) -> Value:
    """A value of a level: the choice itself, or a random one of the numbers that share the level.

    Raises:
        SpaceError: the parameter has no value of this level.
    """
    if parameter.is_categorical:
        levels = choice_levels(parameter)
        if level in levels:
            return parameter.lattice.value(levels.index(level))
    else:
        for unit in (level + rng.random(), level + 0.5, level + 0.001, level + 0.999):
            value = _value_at(parameter, unit / N_LEVELS)
            if level_of(parameter, value) == level:
                return value
    raise SpaceError(f"{quoted(parameter.name)} has no value of level {level}; the model and the space disagree")


@lru_cache(maxsize=4096)
def levels_of(parameter: Parameter) -> tuple[int, ...]:
    """The levels that some value of a parameter has, ascending for numbers, in declared order for choices."""
    if parameter.is_categorical:
        return choice_levels(parameter)
    size = parameter.lattice.size
    if size <= _ALL_DENSE:
        return tuple(sorted({level_of(parameter, parameter.lattice.value(index)) for index in range(size)}))
    places = ((level + 0.5) / N_LEVELS for level in range(N_LEVELS))
    return tuple(sorted({level_of(parameter, _value_at(parameter, place)) for place in places}))


def _place_of(parameter: Parameter, value: Value) -> float:
    """The place of a number on the scale that the model learnt, else on its parameter's own."""
    scale = learnt_scale(parameter.name)
    if scale is None or not isinstance(value, int | float):
        return parameter.to_unit(value)
    return scale.to_unit(value)


def _value_at(parameter: Parameter, place: float) -> Value:
    """The number nearest to a place; inverse of `_place_of` up to what can be written."""
    scale = learnt_scale(parameter.name)
    if scale is None:
        return parameter.from_unit(place)
    return parameter.lattice.value(parameter.lattice.index(scale.from_unit(place)))


@lru_cache(maxsize=4096)
def choice_levels(parameter: Parameter) -> tuple[int, ...]:
    """The level of each choice, in declared order: its word's place where the dialect knows all of them, else its own.

    Raises:
        SpaceError: more choices than levels.
    """
    words = _words(parameter)
    if VOCABULARY.known(short_name(parameter.name), is_choice=True) is not None and _has_words(parameter):
        return tuple(word for word in words if word is not None)
    if len(words) > N_LEVELS:
        raise SpaceError(
            f"{quoted(short_name(parameter.name))}: the shipped model can tell at most {N_LEVELS} choices apart, "
            f"got {len(words)}; use an instruct model with --model or fewer choices"
        )
    return tuple(range(len(words)))


def _words(parameter: Parameter) -> list[int | None]:
    return [VOCABULARY.word(str(parameter.lattice.value(index))) for index in range(parameter.lattice.size)]


def _has_words(parameter: Parameter) -> bool:
    words = _words(parameter)
    return None not in words and len(set(words)) == len(words)


def by_interest(history: History) -> list[Observation]:
    """Trials in the order in which a short prompt keeps them: five best, pending, then latest first."""
    best = history.ranked[:5]
    rest = [o for o in reversed(history.observations) if not o.pending and o not in best]
    return [*best, *history.pending, *rest]
