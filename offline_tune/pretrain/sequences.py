"""Training sequences: a history drawn from a pool, then independent questions that all look at it.

    prefix            the header and n trials                       (loss on each outcome)
    <propose> ...     a configuration from the top of the pool      (loss on each value)
    <trial> ...       any configuration and its outcome             (loss on the outcome)

The questions share the prefix through the attention mask and do not see one another, so one sequence teaches many.
Notation: b sequences, t positions, n trials, p parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offline_tune.pretrain.pool import INACTIVE, Pool, Schema
from offline_tune.prompt.outcome import outcome_levels, standardise
from offline_tune.prompt.vocabulary import CHOICES, N_CHOICE_SLOTS, N_NUMBER_SLOTS, NUMBERS, VOCABULARY

Ints = NDArray[np.int64]
PAD = 0
IGNORED = -100

N_PROPOSALS = 3
N_PREDICTIONS = 8
_TOP = 20  # configurations of a pool that count as its best


@dataclass(frozen=True, eq=False)
class Batch:
    """What the trainer needs.

    Attributes:
        tokens: (b, t) ids, PAD where there is none.
        positions: (b, t) rotary positions; each question continues where the prefix ends.
        blocks: (b, t) 0 for the prefix, 1 .. for the questions, -1 for padding.
        targets: (b, t) the id that should follow, IGNORED where none is asked.
        is_outcome: (b, t) whether the target is an outcome.
        prefix: how many of the t positions belong to the prefix (padded on the right).
    """

    tokens: Ints
    positions: Ints
    blocks: Ints
    targets: Ints
    is_outcome: NDArray[np.bool_]
    prefix: int

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(b, t - prefix, t): a question's position sees the whole prefix and the earlier ones of its own block."""
        t = self.tokens.shape[1]
        causal = np.tril(np.ones((t, t), bool))[self.prefix :]
        asking = self.blocks[:, self.prefix :, None]
        visible = (self.blocks[:, None, :] == 0) | (self.blocks[:, None, :] == asking)
        return np.asarray(causal & visible)


def make_batch(pools: Sequence[Pool], n_trials: int, rng: np.random.Generator) -> Batch:
    """One sequence for each pool; all pools must have the same schema shape (p)."""
    rows = [_sequence(pool, n_trials, rng) for pool in pools]
    prefix = max(len(row.prefix) for row in rows)
    width = max(len(block) for row in rows for block in row.questions)
    n_questions = max(len(row.questions) for row in rows)
    shape = (len(rows), prefix + n_questions * width)
    tokens, positions = np.full(shape, PAD), np.zeros(shape, np.int64)
    blocks, targets = np.full(shape, -1), np.full(shape, IGNORED)
    outcome = np.zeros(shape, bool)
    for i, row in enumerate(rows):
        size = len(row.prefix)
        tokens[i, :size], positions[i, :size], blocks[i, :size] = row.prefix, np.arange(size), 0
        told = _told_outcomes(tokens[i, :size])
        targets[i, told], outcome[i, told] = tokens[i, told + 1], True
        for j, question in enumerate(row.questions):
            at = slice(prefix + j * width, prefix + j * width + len(question))
            tokens[i, at], positions[i, at], blocks[i, at] = question, size + np.arange(len(question)), j + 1
            asked = np.arange(at.start + 1, at.stop - 1, 2)
            if j < row.n_proposals:
                targets[i, asked] = tokens[i, asked + 1]
            else:
                targets[i, at.stop - 1] = row.answers[j - row.n_proposals]
                outcome[i, at.stop - 1] = True
    return Batch(tokens, positions, blocks, targets, outcome, prefix)


@dataclass(frozen=True, eq=False)
class _Row:
    prefix: list[int]
    questions: list[list[int]]
    n_proposals: int
    answers: list[int]


def _sequence(pool: Pool, n_trials: int, rng: np.random.Generator) -> _Row:
    writer = _Writer(pool.schema, rng)
    chosen = _history(pool, n_trials, rng)
    failed, pending = _troubled(n_trials, rng)
    known = pool.scores[chosen[~failed & ~pending]]
    prefix, ids = list(writer.header), VOCABULARY.ids
    for place, row in enumerate(chosen):
        prefix += [ids["<trial>"], *writer.write(pool.cells[row]), ids["<outcome>"]]
        prefix.append(_outcome(pool.scores[row], known, bool(failed[place]), bool(pending[place])))
    fresh = np.setdiff1d(pool.ranking[: 2 * _TOP], chosen, assume_unique=False)
    best = sorted(fresh, key=lambda row: -pool.scores[row])[:_TOP]
    aims = [best[int(len(best) * rng.random() ** 1.5)] for _ in range(N_PROPOSALS)]
    questions = [[ids["<propose>"], *writer.write_with_names(pool.cells[row])] for row in aims]
    answers: list[int] = []
    if len(known) >= 2:
        asked = _asked(pool, rng)
        z = standardise(pool.scores[asked], known)
        answers = [VOCABULARY.first_outcome + int(level) for level in outcome_levels(z)]
        questions += [[ids["<trial>"], *writer.write(pool.cells[row]), ids["<outcome>"]] for row in asked]
    return _Row(prefix, questions, N_PROPOSALS, answers)


def _history(pool: Pool, n_trials: int, rng: np.random.Generator) -> Ints:
    """Rows as optimisers of many strengths would try them: best of k random ones, some from the top."""
    if n_trials == 0:
        return np.zeros(0, np.int64)
    n = len(pool.scores)
    k = int(rng.choice([1, 1, 2, 4, 8]))
    draws = rng.integers(n, size=(n_trials, k))
    rows = draws[np.arange(n_trials), pool.scores[draws].argmax(axis=1)]
    top = max(4, int(n * 10 ** rng.uniform(-2.5, -0.7)))
    strong = rng.random(n_trials) < rng.random() * 0.6 * np.linspace(0.3, 1.0, n_trials)
    return np.where(strong, pool.ranking[rng.integers(top, size=n_trials)], rows)


def _asked(pool: Pool, rng: np.random.Generator) -> Ints:
    n = len(pool.scores)
    reach = rng.choice([n, n // 5, max(8, n // 50)], N_PREDICTIONS, p=[0.4, 0.35, 0.25])
    return np.asarray(pool.ranking[(rng.random(N_PREDICTIONS) * reach).astype(int)])


def _troubled(n: int, rng: np.random.Generator) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    failed = rng.random(n) < (0.15 if rng.random() < 0.15 else 0.0)
    pending = np.zeros(n, bool)
    if n > 3 and rng.random() < 0.3:
        pending[-int(rng.integers(1, 4)) :] = True
    return failed & ~pending, pending


def _outcome(score: float, known: NDArray[np.float64], failed: bool, pending: bool) -> int:
    if pending or failed:
        return VOCABULARY.ids["<pending>" if pending else "<fail>"]
    return VOCABULARY.first_outcome + int(outcome_levels(standardise(np.array([score]), known))[0])


def _told_outcomes(tokens: Ints) -> Ints:
    """Places in a prefix that a level of outcome follows."""
    asks = tokens[:-1] == VOCABULARY.ids["<outcome>"]
    return np.flatnonzero(asks & (tokens[1:] >= VOCABULARY.first_outcome))


class _Writer:
    """Writes configurations of one schema, with one random order and one random choice of slots a sequence."""

    def __init__(self, schema: Schema, rng: np.random.Generator) -> None:
        p = schema.n_parameters
        nameless = rng.random() < 0.25
        self._places = _places(schema, nameless, rng)
        self._levels = [
            None if c is None else _word_levels(c, place) for c, place in zip(schema.choices, self._places, strict=True)
        ]
        order = rng.random(p) if rng.random() < 0.5 else np.arange(p) / p
        self._order = [int(j) for j in np.argsort(order + np.array(schema.conditional), kind="stable")]
        family = "?" if nameless or rng.random() < 0.2 else schema.family
        self.header = [VOCABULARY.ids["<s>"], VOCABULARY.ids["<task>"], VOCABULARY.family(family)]

    def write(self, cells: NDArray[np.int16]) -> list[int]:
        """One value token for each active parameter."""
        return [
            VOCABULARY.value(self._places[j], self._level(j, cells[j])) for j in self._order if cells[j] != INACTIVE
        ]

    def write_with_names(self, cells: NDArray[np.int16]) -> list[int]:
        """(name value)* of the active parameters."""
        tokens = []
        for j in self._order:
            if cells[j] != INACTIVE:
                place = self._places[j]
                tokens += [VOCABULARY.name(place), VOCABULARY.value(place, self._level(j, cells[j]))]
        return tokens

    def _level(self, j: int, cell: np.int16) -> int:
        levels = self._levels[j]
        return int(cell) if levels is None else levels[int(cell)]


def _places(schema: Schema, nameless: bool, rng: np.random.Generator) -> list[int]:
    shuffled = rng.random() < 0.5
    slots = {
        is_choice: list(rng.permutation(count) if shuffled else np.arange(count))
        for is_choice, count in ((False, N_NUMBER_SLOTS), (True, N_CHOICE_SLOTS))
    }
    places, taken = [], dict[str, int]()
    for name, choices in zip(schema.names, schema.choices, strict=True):
        known = None if nameless or not name else VOCABULARY.known(name, choices is not None)
        if known is None and name in taken:
            known = taken[name]
        if known is None:
            known = VOCABULARY.slot(int(slots[choices is not None].pop(0)), choices is not None)
            assert known is not None
            if name:
                taken[name] = known
        places.append(known)
    return places


def _word_levels(choices: tuple[str, ...], place: int) -> list[int]:
    if place < len(NUMBERS) + len(CHOICES):
        words = [VOCABULARY.word(choice) for choice in choices]
        return [word for word in words if word is not None]
    return list(range(len(choices)))
