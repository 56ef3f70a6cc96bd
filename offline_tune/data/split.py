"""Which rows train, which are held out for the end, and the folds of cross-validation.

    plain          shuffled; stratified by class in classification
    group          no group in both parts, nor in both parts of a fold
    time           the last rows are the test part; each fold learns from the past and is scored on what follows
    split column   the file says which rows are the test part
    test file      another file is the test part

In classification every class is in the training part of every fold, so that any model sees all of them.
Everything is a function of the plan's seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from offline_tune.data.folds import make_folds
from offline_tune.data.holdout import hold_out
from offline_tune.data.keys import group_codes, time_keys
from offline_tune.data.plan import Folds, Positions, SplitPlan
from offline_tune.data.wording import listed, quoted
from offline_tune.errors import TargetError
from offline_tune.task import Note

_LEAST_ROWS = 4


@dataclass(frozen=True, eq=False, slots=True)
class Split:
    """Row positions: of the training part, of the test part (None if there is none), and folds into `train`."""

    train: Positions
    test: Positions | None
    folds: Folds
    notes: tuple[Note, ...]


def split_rows(
    frame: pd.DataFrame,
    y: NDArray[np.int64] | NDArray[np.float64],
    classes: tuple[str, ...],
    plan: SplitPlan,
    *,
    has_test_file: bool = False,
) -> Split:
    """Split the rows of a table by the plan.

    Args:
        frame: the cells, n rows; the plan's columns are read from it.
        y: the encoded target, shape (n,).
        classes: labels of the codes in `y`; empty for regression.
        plan: how to split.
        has_test_file: the test part comes from elsewhere, so all rows train unless a split column says otherwise.

    Returns:
        `train` in file order, or in the order of time; folds are positions into it.

    Raises:
        DataError: a column of the plan is missing or cannot serve.
        TargetError: too few rows, or classes that cannot be in every training part.
    """
    groups = None if plan.group is None else group_codes(frame, plan.group)
    times = None if plan.time is None else time_keys(frame, plan.time)
    train, test, how = hold_out(frame, y, classes, plan, groups, times, has_test_file)
    if times is not None:
        train = train[np.argsort(times[train], kind="stable")]
    _check_training(y[train], classes, plan)
    train_groups = None if groups is None else groups[train]
    train_times = None if times is None else times[train]
    folds = make_folds(y[train], classes, plan, train_groups, train_times)
    notes = [] if test is None else [Note(f"{len(test):,} of {len(y):,} rows are the test part, {how}")]
    if len(folds) < plan.n_folds:
        notes.append(
            Note(f"folds: {len(folds)} instead of {plan.n_folds}, because {_scarcity(y[train], classes, plan)}")
        )
    notes.extend(
        Note(f"column {quoted(column)} splits the rows and is no feature", column)
        for column in (plan.split_column, plan.group)
        if column is not None
    )
    return Split(train, test, folds, tuple(notes))


def _scarcity(y: NDArray[np.generic], classes: tuple[str, ...], plan: SplitPlan) -> str:
    if plan.time is None and classes and np.bincount(y).min() < plan.n_folds:
        return f"class {quoted(classes[int(np.bincount(y).argmin())])} has only {np.bincount(y).min()} training rows"
    if plan.group is None and plan.time is None:
        return f"there are only {len(y)} training rows"
    return f"column {quoted(plan.group or plan.time)} gives no more parts with enough rows and classes in each"


def _check_training(y: NDArray[np.generic], classes: tuple[str, ...], plan: SplitPlan) -> None:
    least = max(plan.n_folds, _LEAST_ROWS)
    if len(y) < least:
        raise TargetError(
            f"{plan.n_folds} folds need {least} training rows or more, got {len(y)}; lower --folds or add rows"
        )
    counts = np.bincount(y, minlength=len(classes)) if classes else np.empty(0)
    rare = [label for label, count in zip(classes, counts, strict=True) if count < 2] if classes else []
    if rare:
        raise TargetError(
            f"each class must have two training rows or more, got fewer for {listed(rare)} outside the test part; "
            "drop or merge the class, or split otherwise"
        )
