"""Pools: evaluated configurations of one task, from which training histories are drawn.

Notation: n configurations, p parameters. A cell is a level (numbers), a choice's position (categoricals), or -1
where the parameter is inactive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offline_tune.prompt.vocabulary import N_LEVELS, VOCABULARY

INACTIVE = -1


@dataclass(frozen=True, eq=False)
class Schema:
    """The parameters that a group of pools shares.

    Attributes:
        family: the family's name, "?" for none.
        names: known names, or "" for parameters without one; length p.
        choices: the words of each categorical, None for numbers; length p.
        log: whether the scale is logarithmic; length p.
        conditional: whether the parameter may be inactive; length p.
    """

    family: str
    names: tuple[str, ...]
    choices: tuple[tuple[str, ...] | None, ...]
    log: tuple[bool, ...]
    conditional: tuple[bool, ...]

    def __post_init__(self) -> None:
        for name, choices in zip(self.names, self.choices, strict=True):
            if name and VOCABULARY.known(name, choices is not None) is None:
                raise ValueError(f"a schema's names must be in the vocabulary, got {name!r}; add it or leave it empty")
            if name and choices is not None and any(VOCABULARY.word(choice) is None for choice in choices):
                raise ValueError(
                    f"a named choice's words must be in the vocabulary, got {choices}; leave the name empty"
                )

    @property
    def n_parameters(self) -> int:
        """The number of parameters, p."""
        return len(self.names)


@dataclass(frozen=True, eq=False)
class Pool:
    """One task: `cells` (n, p) int, `scores` (n,) greater is better, `ranking` (n,) best first."""

    schema: Schema
    cells: NDArray[np.int16]
    scores: NDArray[np.float64]
    ranking: NDArray[np.int64]


def make_pool(schema: Schema, cells: NDArray[np.int16], scores: NDArray[np.float64]) -> Pool:
    """A pool with its ranking."""
    return Pool(schema, cells, scores, np.argsort(-scores, kind="stable"))


def levels(unit: NDArray[np.float64]) -> NDArray[np.int16]:
    """Places on [0, 1] as levels; NaN becomes INACTIVE. Same shape."""
    inactive = np.isnan(unit)
    cells = np.clip((np.where(inactive, 0.0, unit) * N_LEVELS).astype(np.int16), 0, N_LEVELS - 1)
    return np.where(inactive, np.int16(INACTIVE), cells).astype(np.int16)
