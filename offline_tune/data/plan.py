"""How a table is to be split: the user's wishes, checked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offline_tune.data.wording import quoted
from offline_tune.errors import UsageError

Positions = NDArray[np.int64]
Folds = tuple[tuple[Positions, Positions], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitPlan:
    """How to split. At most one of `group` and `time`; `split_column` says which rows are the test part.

    Attributes:
        split_column: a column of words such as train and test.
        group: a column whose equal values stay together.
        time: a column of dates or numbers that orders the rows.
        test_share: share of the rows held out, 0 for none; not used with a split column or a test file.
        n_folds: folds of cross-validation on the training part.
        seed: of every shuffle.

    Raises:
        UsageError: options that exclude each other or lie out of range.
    """

    split_column: str | None = None
    group: str | None = None
    time: str | None = None
    test_share: float = 0.2
    n_folds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.group is not None and self.time is not None:
            raise UsageError(
                f"--group and --time exclude each other, got {quoted(self.group)} and {quoted(self.time)}; choose one"
            )
        if not 0 <= self.test_share < 1:
            raise UsageError(f"--test-share must be at least 0 and below 1, got {self.test_share:g}; 0.2 is usual")
        if self.n_folds < 2:
            raise UsageError(f"--folds must be at least 2, got {self.n_folds}; 5 is usual")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"--seed must lie between 0 and {2**32 - 1}, got {self.seed}; choose a smaller number")
