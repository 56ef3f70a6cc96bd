"""Configurations that did well on many data sets, in the order in which they complement each other, and how well.

They were chosen when the program was made (see `portfolio.json` beside this module, and `pretrain.portfolio`), in
natural units, so that they can be placed in any space that calls its parameters by their usual names.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offline_tune.distribution import quoted
from offline_tune.errors import ModelError
from offline_tune.space import Parameter, SearchSpace, Value, Values

ROOT = "family"
ANY = "?"
SHIPPED = Path(__file__).with_name("portfolio.json")
_LEAST_KNOWN = 0.5  # share of a candidate's free parameters that an entry must speak of


_UNKNOWN = 2.0  # regret of an entry on data sets that it was not measured on: none is better for it


@dataclass(frozen=True, eq=False)
class Portfolio:
    """One list of configurations.

    Attributes:
        family: its name; `ANY` for a list over several, whose entries name theirs.
        origin: what it was chosen on.
        entries: values by parameter name without prefix, best first; of a list over several families also `family`.
        regrets: (t, k) of the k entries on t data sets that they were chosen on, 0 for the best known and 1 for the
            median of even draws; t is 0 where the file does not tell.
    """

    family: str
    origin: str
    entries: tuple[Values, ...]
    regrets: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Placed:
    """A portfolio in a space: candidates, best first and distinct, and their regrets (t, k) as in `Portfolio`."""

    entries: tuple[Values, ...] = ()
    regrets: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))

    def __len__(self) -> int:
        return len(self.entries)


def portfolio(space: SearchSpace, shipped: Path | None = None) -> Placed:
    """The configurations for a space, best first, distinct, each inside the space.

    Numbers are put on the space's range and lattice; parameters of which an entry says nothing, or nothing that the
    space offers, get their default. An entry that speaks of less than half of the free parameters is dropped. A space
    whose families are not told (no root `family`), or are unknown, has none.

    Args:
        space: as `run` searches, with a root `family` and parameters called `family.name`.
        shipped: the file to read; None for the shipped one.

    Raises:
        ModelError: the file is damaged.
    """
    found: dict[object, _Entry] = {}
    for entry in _candidates(space, load_portfolios(shipped or SHIPPED)):
        found.setdefault(space.key(entry.values), entry)
    # Lists of several origins saw different data sets: the first one's tell, the others' entries follow in order.
    entries = tuple(found.values())
    first = entries[0].origin if entries else None
    t = len(first.regrets) if first else 0
    columns = [entry.regrets if entry.origin is first else np.full(t, _UNKNOWN) for entry in entries]
    return Placed(tuple(entry.values for entry in entries), np.array(columns).reshape(len(entries), t).T)


def completed(space: SearchSpace, entry: Values) -> tuple[dict[str, Value], float]:
    """An entry as a candidate of a space, and the share of its free parameters that the entry speaks of.

    Args:
        space: whose parameters are called as the entry calls them.
        entry: values; those that the space does not hold are not looked at.
    """
    known = set[str]()

    def choose(parameter: Parameter) -> Value:
        value = _place(parameter, entry)
        if value is None:
            return parameter.lattice.value(0) if parameter.is_fixed else parameter.default_or_middle
        known.add(parameter.name)
        return value

    values = space.assemble(choose)
    free = {p.name for p in space.active(values) if not p.is_fixed and p.name != ROOT}
    return values, len(known & free) / len(free) if free else 1.0


@cache
def load_portfolios(path: Path) -> tuple[Portfolio, ...]:
    """All lists of a file, in its order.

    Raises:
        ModelError: the file is missing or damaged.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return tuple(_portfolio(each) for each in stored["portfolios"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(
            f"a portfolio must be the JSON that `pretrain portfolio` wrote, got {type(error).__name__} for "
            f"{quoted(str(path))}; restore it"
        ) from error


def _portfolio(stored: Mapping[str, Any]) -> Portfolio:
    entries = tuple(dict(entry) for entry in stored["entries"])
    hundredths = np.array(stored.get("regrets", ()), np.float64).reshape(-1, len(entries))
    if not np.isfinite(hundredths).all():
        raise ValueError("regrets must be finite")
    return Portfolio(stored["family"], stored["origin"], entries, hundredths / 100)


@dataclass(frozen=True, eq=False)
class _Entry:
    """A candidate, the list that it is from, and its regrets (t,) on the data sets of that."""

    values: Values
    origin: Portfolio
    regrets: NDArray[np.float64]


def _candidates(space: SearchSpace, portfolios: Sequence[Portfolio]) -> Iterator[_Entry]:
    families = _families(space)
    if len(families) > 1:
        yield from _best_fitting([p for p in portfolios if p.family == ANY], space, families)
    own = [[p for p in portfolios if p.family == family != ANY] for family in families]
    lists = [_best_fitting(found, space, (family,)) for found, family in zip(own, families, strict=True)]
    for place in range(max(map(len, lists), default=0)):
        yield from (entries[place] for entries in lists if place < len(entries))


def _families(space: SearchSpace) -> tuple[str, ...]:
    root = space.by_name.get(ROOT)
    if root is None or not root.is_categorical or root.when is not None:
        return ()
    return tuple(str(root.lattice.value(place)) for place in range(root.lattice.size))


def _best_fitting(portfolios: Sequence[Portfolio], space: SearchSpace, families: Sequence[str]) -> list[_Entry]:
    """The placed entries of the list that speaks of the largest share of the space; the first of equals."""
    names = {p.name for p in space.parameters if not p.is_fixed and p.name != ROOT}

    def known(portfolio: Portfolio) -> int:
        spoken = {
            f"{portfolio.family if portfolio.family != ANY else entry.get(ROOT)}.{name}"
            for entry in portfolio.entries
            for name in entry
        }
        return len(names & spoken)

    if not portfolios:
        return []
    best = max(portfolios, key=known)
    found = []
    for entry, regrets in zip(best.entries, best.regrets.T, strict=True):
        if best.family != ANY or entry.get(ROOT) in families:
            values, share = completed(space, _prefixed(entry, str(entry.get(ROOT, best.family))))
            if share >= _LEAST_KNOWN:
                found.append(_Entry(values, best, regrets))
    return found


def _prefixed(entry: Values, family: str) -> dict[str, Value]:
    return {f"{family}.{name}": value for name, value in entry.items() if name != ROOT} | {ROOT: family}


def _place(parameter: Parameter, entry: Values) -> Value | None:
    """Where an entry puts a parameter; None where it says nothing that the parameter holds."""
    value = entry.get(parameter.name)
    if parameter.is_categorical:
        return value if parameter.contains(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return parameter.lattice.value(parameter.lattice.index(value))
