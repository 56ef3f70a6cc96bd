"""Which classes of the test part the winner took for which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from offline_tune.report.testpart import TestPart
from offline_tune.report.wording import printable

MOST_CLASSES = 20  # a larger matrix cannot be read; its commonest mistakes are listed instead
MOST_MISTAKES = 20


@dataclass(frozen=True, eq=False)
class Confusion:
    """Places in `labels` of what was true and what was predicted, each (n,)."""

    labels: tuple[str, ...]
    truth: NDArray[np.intp]
    predicted: NDArray[np.intp]

    @property
    def is_readable(self) -> bool:
        """Whether it can be shown as a matrix."""
        return len(self.labels) <= MOST_CLASSES

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """(c, c) rows of the test part: truth down, prediction across."""
        counts = np.zeros((len(self.labels), len(self.labels)), dtype=np.int64)
        np.add.at(counts, (self.truth, self.predicted), 1)
        return counts

    @property
    def recalls(self) -> tuple[float | None, ...]:
        """For each class, the share of its rows that were found; None for a class without rows."""
        return self._shares(self.truth)

    @property
    def precisions(self) -> tuple[float | None, ...]:
        """For each class, the share of its predictions that were right; None where it was never predicted."""
        return self._shares(self.predicted)

    @property
    def mistakes(self) -> tuple[tuple[str, str, int], ...]:
        """The commonest mistakes: (truth, prediction, rows)."""
        wrong = self.truth != self.predicted
        pairs, counts = np.unique(np.stack([self.truth[wrong], self.predicted[wrong]]), axis=1, return_counts=True)
        order = np.argsort(-counts, kind="stable")[:MOST_MISTAKES]
        return tuple((self.labels[pairs[0, i]], self.labels[pairs[1, i]], int(counts[i])) for i in order)

    def _shares(self, places: NDArray[np.intp]) -> tuple[float | None, ...]:
        totals = np.bincount(places, minlength=len(self.labels)).tolist()
        right = np.bincount(places[self.truth == self.predicted], minlength=len(self.labels)).tolist()
        return tuple(r / t if t else None for r, t in zip(right, totals, strict=True))


def confusion_of(test: TestPart, classes: Sequence[str]) -> Confusion:
    """Compare; classes that neither occur nor are predicted are left out."""
    n = len(test.truth)
    seen, places = np.unique(np.concatenate([test.truth, test.predicted]), return_inverse=True)
    return Confusion(tuple(_label(code, classes) for code in seen.tolist()), places[:n], places[n:])


def _label(code: object, classes: Sequence[str]) -> str:
    if isinstance(code, int | float) and code == code // 1 and 0 <= code < len(classes):
        return printable(classes[int(code)], 30)
    return printable(code, 30)
