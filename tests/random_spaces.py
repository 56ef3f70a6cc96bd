"""Search spaces from a seed, as wild as people declare them: for stress, where Hypothesis would be too slow.

Every kind of distribution, up to 20 parameters, names and choices that JSON, tokenizers and patterns dislike,
conditions within conditions. A seed gives the same space everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution as Cat
from optuna.distributions import FloatDistribution as Float
from optuna.distributions import IntDistribution as Int
from spaces import ODD_TEXTS

from offline_tune.space import Condition, Parameter, SearchSpace, Value

MOST = 20
_LONGEST = 1_500
_LAST = 0x10_FFFF
# instruct models have not read every byte: some have no token for the first byte of a character beyond this one
SPELT = 0x1_FFFF
_PLAIN = (
    "learning_rate n_estimators max_depth subsample gamma reg_alpha booster optimizer batch size units layers dropout "
    "kernel C degree criterion splitter bootstrap warm_start momentum weight decay"
).split()
_ODD = (
    *ODD_TEXTS,
    '"',
    '\\"',
    '":"',
    '","',
    '{"a":{"b":[1,2]}}',
    "}",
    "}}",
    "[0-9]+",
    "(?:x)",
    "\\d{3}",
    "null",
    "true",
    "1e-5",
    "<|eot_id|>",
    "<|end_of_text|>",
    "</s>",
    "\ufeffx",
    "e\u0301",
    "\u202eright",
    "👩‍👩‍👧‍👦",
    "数" * 20,
    "=" * 70,
    "x" * 100,
    "\ufffd",
    "%s %d {0} ${HOME}",
)


def random_space(seed: int, most: int = MOST, last: int = _LAST) -> SearchSpace:
    """A space of 1 to `most` parameters whose longest candidate has at most 1,500 bytes, of characters to `last`."""
    rng = np.random.default_rng([seed, 5])
    wanted, chance = int(rng.integers(1, most + 1)), float(rng.choice([0.0, 0.3, 0.8]))
    texts = _texts(rng, last)
    parameters: list[Parameter] = []
    room = _LONGEST
    for name in _unique(rng, texts, wanted):
        parameter = Parameter(name, _distribution(rng, texts), when=_condition(rng, parameters, chance))
        room -= _bytes(parameter)
        if room < 0 and parameters:
            break
        parameters.append(parameter)
    return SearchSpace(tuple(parameters))


def random_spaces(n: int, most: int = MOST, last: int = _LAST) -> list[SearchSpace]:
    """The spaces of seeds 0 to n - 1."""
    return [random_space(seed, most, last) for seed in range(n)]


Texts = Callable[[], str]


def _texts(rng: np.random.Generator, last: int) -> Texts:
    """Names and choices: plain in some spaces, odd in others, or any Unicode."""
    kinds: tuple[Texts, ...] = (
        lambda: str(rng.choice(_PLAIN)),
        lambda: _ODD[rng.integers(len(_ODD))],
        lambda: "".join(map(_character, rng.integers(1, last - 0x800, rng.integers(1, 12), endpoint=True))),
    )
    shares = rng.dirichlet([2.0, 0.6, 0.3])
    return lambda: kinds[rng.choice(3, p=shares)]()


def _character(place: np.int64) -> str:
    return chr(place if place < 0xD800 else place + 0x800)  # surrogates stand for nothing


def _unique(rng: np.random.Generator, texts: Texts, n: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < n:
        text = texts()
        found[f"{text}{rng.integers(10, 1000)}" if text in found or not text else text] = None
    return list(found)


def _condition(rng: np.random.Generator, earlier: list[Parameter], chance: float) -> Condition | None:
    parents = [p for p in earlier if p.is_categorical]
    if not parents or rng.random() >= chance:
        return None
    parent = parents[-1] if rng.random() < 0.5 else parents[rng.integers(len(parents))]
    choices = [parent.lattice.value(i) for i in range(parent.lattice.size)]
    kept = rng.permutation(len(choices))[: rng.integers(1, min(len(choices), 4) + 1)]
    return Condition(parent.name, tuple(choices[i] for i in sorted(kept)))


def _distribution(rng: np.random.Generator, texts: Texts) -> BaseDistribution:
    makers = (_integers, _integer_steps, _log_integers, _floats, _float_steps, _log_floats)
    which = int(rng.integers(len(makers) + 4))
    return makers[which](rng) if which < len(makers) else _choices(rng, texts)


def _integers(rng: np.random.Generator) -> Int:
    low, width = (int(x) for x in (_signed(rng, 9), _positive(rng, 9)))
    return Int(low, low + width)


def _integer_steps(rng: np.random.Generator) -> Int:
    low, step = int(_signed(rng, 4)), int(rng.integers(1, 100))
    return Int(low, low + step * int(rng.integers(0, 300)), step=step)


def _log_integers(rng: np.random.Generator) -> Int:
    low = 1 + int(_positive(rng, 5))
    return Int(low, low + int(_positive(rng, 11)), log=True)


def _floats(rng: np.random.Generator) -> Float:
    width = _positive(rng, 6)
    low = _signed(rng, 3) * max(width, 1e-3)
    if rng.random() < 0.6:
        low, width = (float(f"{x:.2g}") for x in (low, width))
    return Float(low, low + width)


def _float_steps(rng: np.random.Generator) -> Float:
    step = float(rng.choice([0.001, 0.01, 0.05, 0.1, 0.125, 0.25, 0.5, 1.0, 2.5]))
    low = round(float(rng.integers(-50, 50)) * step, 6)
    return Float(low, round(low + step * int(rng.integers(0, 400)), 6), step=step)


def _log_floats(rng: np.random.Generator) -> Float:
    reach = 290 if rng.random() < 0.05 else 12
    low = float(f"{rng.integers(1, 1000) / 10.0 ** int(rng.integers(0, reach)):.4g}")
    return Float(low, low * float(rng.choice([1.5, 10.0, 1e3, 1e9])), log=True)


def _choices(rng: np.random.Generator, texts: Texts) -> Cat:
    kind = rng.random()
    if kind < 0.25:
        return Cat([False, True] if kind < 0.2 else [None, True, False])
    if kind < 0.45:
        numbers = (int(rng.integers(-(2**63), 2**63)), 1, 10, 100, 1.5, 1e-7, 1e22, 2**53 + 1, -1, 0.1 + 0.2)
        mixed: list[Value] = [None, "None", *(numbers[i] for i in rng.permutation(len(numbers))[:6])]
        return Cat(mixed[: rng.integers(1, len(mixed) + 1)])
    if kind < 0.55:
        return Cat([f"c{i}" for i in range(rng.integers(2, 257))])  # many are others' beginnings
    return Cat(_unique(rng, texts, int(rng.integers(1, 9))))


def _positive(rng: np.random.Generator, decades: int) -> float:
    return float(10 ** rng.uniform(0, decades))


def _signed(rng: np.random.Generator, decades: int) -> float:
    return float(rng.choice([-1, 0, 1])) * _positive(rng, decades)


def _bytes(parameter: Parameter) -> int:
    """At most what one member takes in a candidate."""
    value = parameter.lattice.longest
    if parameter.is_categorical:
        value = max(len(parameter.lattice.text(i).encode()) for i in range(parameter.lattice.size))
    return len(json.dumps(parameter.name, ensure_ascii=False).encode()) + value + 2
