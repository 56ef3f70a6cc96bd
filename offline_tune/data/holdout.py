"""Which rows are held out for the end: by mark, by time, by group, or drawn."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import GroupShuffleSplit

from offline_tune.data.cells import distinct
from offline_tune.data.header import find_column
from offline_tune.data.keys import between_times
from offline_tune.data.plan import Positions, SplitPlan
from offline_tune.data.wording import listed, quoted
from offline_tune.errors import DataError

TEST_WORDS = frozenset(("test", "testing", "holdout", "hold-out", "heldout", "held-out"))
TRAIN_WORDS = frozenset(("train", "training", "learn", "dev", "valid", "validation", "val"))
_GROUP_DRAWS = 25


def hold_out(
    frame: pd.DataFrame,
    y: NDArray[np.generic],
    classes: tuple[str, ...],
    plan: SplitPlan,
    groups: Positions | None,
    times: NDArray[np.generic] | None,
    has_test_file: bool,
) -> tuple[Positions, Positions | None, str]:
    """The positions that train, those held out (None if there are none), and in words how they were chosen.

    Raises:
        DataError: a column of the plan cannot serve.
    """
    if plan.split_column is not None:
        is_test, how = _marked(frame, plan.split_column), f"as column {quoted(plan.split_column)} says"
    elif has_test_file or plan.test_share == 0:
        return np.arange(len(y)), None, ""
    elif times is not None:
        is_test, how = _latest(times, plan), f"the latest by column {quoted(plan.time)}"
    elif groups is not None:
        is_test, how = _drawn_groups(y, classes, groups, plan), f"whole groups of column {quoted(plan.group)}"
    elif classes:
        is_test, how = _drawn_by_class(y, len(classes), plan), "drawn at random within each class"
    else:
        is_test, how = _drawn(len(y), plan), "drawn at random"
    test = np.flatnonzero(is_test)
    return np.flatnonzero(~is_test), test if len(test) else None, how


def _marked(frame: pd.DataFrame, column: str) -> NDArray[np.bool_]:
    codes, words = distinct(find_column(frame, column, "split column"))
    is_test = np.array([word.casefold() in TEST_WORDS for word in words], dtype=bool)
    unknown = [word for word in words if word.casefold() not in TEST_WORDS | TRAIN_WORDS]
    if unknown or (codes < 0).any() or is_test.all() or not is_test.any():
        found = listed([*unknown, *(["(blank)"] if (codes < 0).any() else [])] or words)
        raise DataError(
            f"a split column must hold the words train and test in every row, got {found} in column {quoted(column)}; "
            "rename its values, or use --test FILE"
        )
    return is_test[codes]


def _latest(times: NDArray[np.generic], plan: SplitPlan) -> NDArray[np.bool_]:
    order = np.argsort(times, kind="stable")
    cut = between_times(times[order], len(times) - _n_test(len(times), plan))
    is_test = np.zeros(len(times), dtype=bool)
    is_test[order[cut:]] = True
    return is_test


def _drawn_groups(
    y: NDArray[np.generic], classes: tuple[str, ...], groups: Positions, plan: SplitPlan
) -> NDArray[np.bool_]:
    n_groups = int(groups.max()) + 1
    n_drawn = min(max(round(plan.test_share * n_groups), 1), n_groups - 1)
    splitter = GroupShuffleSplit(_GROUP_DRAWS, test_size=n_drawn, random_state=plan.seed)
    draws = [test for _, test in splitter.split(groups, groups=groups)]
    best = min(draws, key=lambda test: _distance(y, test, len(classes), plan.test_share))
    is_test = np.zeros(len(y), dtype=bool)
    is_test[best] = True
    return is_test


def _distance(y: NDArray[np.generic], test: Positions, n_classes: int, share: float) -> tuple[bool, float]:
    """How far a drawn test part is from the wished share and class mix; a training part that lacks a class is worst."""
    off_share = abs(len(test) / len(y) - share)
    if n_classes == 0:
        return False, off_share
    everywhere, held_out = np.bincount(y, minlength=n_classes), np.bincount(y[test], minlength=n_classes)
    off_mix = float(np.abs(everywhere / len(y) - held_out / len(test)).sum()) / 2
    return bool((everywhere - held_out < 2).any()), off_share + off_mix


def _drawn_by_class(y: NDArray[np.generic], n_classes: int, plan: SplitPlan) -> NDArray[np.bool_]:
    generator = np.random.default_rng(plan.seed)
    is_test = np.zeros(len(y), dtype=bool)
    for code in range(n_classes):
        members = generator.permutation(np.flatnonzero(y == code))
        # Two rows of each class train, so that two folds can each learn it.
        is_test[members[: max(0, min(round(plan.test_share * len(members)), len(members) - 2))]] = True
    return is_test


def _drawn(n_rows: int, plan: SplitPlan) -> NDArray[np.bool_]:
    is_test = np.zeros(n_rows, dtype=bool)
    is_test[np.random.default_rng(plan.seed).permutation(n_rows)[: _n_test(n_rows, plan)]] = True
    return is_test


def _n_test(n_rows: int, plan: SplitPlan) -> int:
    return max(1, round(plan.test_share * n_rows))
