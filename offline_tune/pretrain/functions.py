"""Synthetic tuning tasks without limit: random functions on mixed, partly conditional spaces.

A function is a sum of random Fourier features (a draw from a Gaussian process), a bowl round a random optimum, offsets
of choices and of branches, over a random subset of relevant dimensions; then a random monotone warp, a cliff beyond
which everything is bad, and noise. Each pool holds random points and a cloud round the best ones, so that its top is
close to the function's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from offline_tune.pretrain.pool import INACTIVE, Pool, Schema, levels, make_pool
from offline_tune.prompt.vocabulary import FAMILIES

_MAX_CHOICES = 6
_FEATURES = 48


def random_schema(rng: np.random.Generator) -> Schema:
    """A space of 2 to 12 unnamed parameters; one in three has a family as root, with a branch for each."""
    n = int(rng.integers(2, 13))
    n_choices = [int(c) if rng.random() < 0.2 else 0 for c in rng.integers(2, _MAX_CHOICES + 1, n)]
    conditional, names, words = [False] * n, [""] * n, tuple[str, ...]()
    if n >= 5 and rng.random() < 0.33:
        n_choices[0] = int(rng.integers(2, _MAX_CHOICES + 1))
        conditional = [False, *(bool(rng.random() < 0.8) for _ in range(n - 1))]
        # Families in any order of merit: which is best has to be read from the history.
        names[0], words = "family", tuple(str(word) for word in rng.permutation(FAMILIES)[: n_choices[0]])
    return Schema(
        family="?",
        names=tuple(names),
        choices=tuple(
            (words if words and j == 0 else tuple(f"choice {i}" for i in range(c))) if c else None
            for j, c in enumerate(n_choices)
        ),
        log=tuple(bool(c == 0 and rng.random() < 0.4) for c in n_choices),
        conditional=tuple(conditional),
    )


def random_pool(schema: Schema, rng: np.random.Generator, n_points: int = 320) -> Pool:
    """One function on a space, evaluated at random points and near its best ones."""
    function = RandomFunction(schema, rng)
    unit = function.sample(n_points // 2, rng)
    for share in (0.5, 0.5):
        values = function(unit)
        best = unit[np.argsort(-values)[: max(4, len(unit) // 16)]]
        unit = np.concatenate([unit, function.near(best, int(n_points * share / 2), rng)])
    scores = function(unit)
    return make_pool(schema, function.cells(unit), scores + function.noise * rng.standard_normal(len(scores)))


class RandomFunction:
    """A function on the unit cube of a schema; greater is better."""

    def __init__(self, schema: Schema, rng: np.random.Generator) -> None:
        p = schema.n_parameters
        self.schema = schema
        self.n_choices = np.array([len(c) if c else 0 for c in schema.choices])
        self._resolution = np.where(rng.random(p) < 0.3, rng.integers(2, 40, p), 100_000)
        self.branch = rng.integers(0, max(int(self.n_choices[0]), 1), p)
        relevant = rng.random(p) < rng.uniform(0.3, 1.0)
        relevant[rng.integers(p)] = True
        self._weight = relevant * rng.gamma(1.5, 1.0, p)
        rate = self._weight / np.exp(rng.uniform(np.log(0.15), np.log(3.0)))
        self._frequency = rng.standard_normal((p, _FEATURES)) * rate[:, None]
        self._phase = rng.uniform(0, 2 * np.pi, _FEATURES)
        self._amplitude = rng.standard_normal(_FEATURES) * np.sqrt(2 / _FEATURES)
        self._optimum = rng.beta(1.2, 1.2, p)
        self._bowl = rng.choice([0.0, 1.0, 3.0]) * self._weight
        self._offsets = rng.standard_normal((p, _MAX_CHOICES)) * relevant[:, None] * rng.gamma(1.0, 0.7)
        self._cliff = (int(rng.integers(p)), rng.uniform(0.6, 1.0)) if rng.random() < 0.3 else None
        self._warp = float(np.exp(rng.uniform(-0.7, 0.9)))
        self.noise = float(rng.choice([0.0, 0.0, 0.02, 0.08]))

    def __call__(self, unit: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, p) points, NaN where inactive -> (n,) noiseless scores, mostly in [-1, 0]."""
        filled = np.where(np.isnan(unit), self._optimum, unit)
        numeric = np.where(self.n_choices > 0, 0.0, filled)
        value = np.cos(numeric @ self._frequency + self._phase) @ self._amplitude
        value -= ((numeric - self._optimum * (self.n_choices == 0)) ** 2) @ self._bowl
        for j in np.flatnonzero(self.n_choices):
            place = np.minimum((filled[:, j] * self.n_choices[j]).astype(int), self.n_choices[j] - 1)
            value += np.where(np.isnan(unit[:, j]), 0.0, self._offsets[j][place])
        squashed = 1 / (1 + np.exp(-value / 1.5))
        value = -((1 - squashed) ** self._warp)
        if self._cliff is not None and self.n_choices[self._cliff[0]] == 0:
            value = np.where(filled[:, self._cliff[0]] > self._cliff[1], value - 0.5, value)
        return np.asarray(value)

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Even random points (n, p)."""
        return self.legal(rng.random((n, self.schema.n_parameters)))

    def near(self, points: NDArray[np.float64], n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw n points round given ones: normal steps on numbers, rare flips of choices."""
        base = points[rng.integers(len(points), size=n)]
        base = np.where(np.isnan(base), rng.random(base.shape), base)
        step = rng.standard_normal(base.shape) * np.exp(rng.uniform(np.log(0.02), np.log(0.2), (n, 1)))
        moved = np.where(rng.random(base.shape) < 0.6, base + step, base)
        flipped = np.where(rng.random(base.shape) < 0.1, rng.random(base.shape), base)
        return self.legal(np.clip(np.where(self.n_choices > 0, flipped, moved), 0, 1))

    def cells(self, unit: NDArray[np.float64]) -> NDArray[np.int16]:
        """Points as levels and choices, (n, p)."""
        cells = levels(unit)
        for j in np.flatnonzero(self.n_choices):
            place = np.minimum(np.nan_to_num(unit[:, j]) * self.n_choices[j], self.n_choices[j] - 1).astype(np.int16)
            cells[:, j] = np.where(np.isnan(unit[:, j]), INACTIVE, place)
        return cells

    def legal(self, unit: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points (n, p) with numbers on their grids and what no branch holds as NaN."""
        snapped = np.where(self.n_choices > 0, unit, np.round(unit * self._resolution) / self._resolution)
        if self.n_choices[0] and any(self.schema.conditional):
            root = np.minimum((snapped[:, 0] * self.n_choices[0]).astype(int), self.n_choices[0] - 1)
            hidden = np.array(self.schema.conditional) & (self.branch[None, :] != root[:, None])
            snapped = np.where(hidden, np.nan, snapped)
        return snapped
