"""Folds of cross-validation on the training part."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from offline_tune.data.keys import between_times
from offline_tune.data.plan import Folds, Positions, SplitPlan
from offline_tune.data.wording import quoted
from offline_tune.errors import TargetError


def make_folds(
    y: NDArray[np.generic],
    classes: tuple[str, ...],
    plan: SplitPlan,
    groups: Positions | None,
    times: NDArray[np.generic] | None,
) -> Folds:
    """At most `plan.n_folds` pairs of positions (train, held out).

    Every class is in every training part. Every held-out part has two rows or more, of two classes or more, so
    that any metric is defined on it.

    Args:
        y: the encoded target of the training rows, shape (n,).
        classes: labels of the codes in `y`, each on two rows or more; empty for regression.
        plan: how many folds, and the seed.
        groups: each row's group, shape (n,); None where rows stand alone.
        times: each row's time, sorted, shape (n,); None where order does not matter.

    Raises:
        TargetError: groups or times leave no fold that could be learnt.
    """
    most = min(plan.n_folds, int(np.bincount(y).min()) if classes else len(y) // 2)
    if times is not None:
        return _folds_in_time(y, len(classes), plan, times)
    if groups is not None:
        return _folds_of_groups(y, len(classes), plan, groups, most)
    splitter = StratifiedKFold if classes else KFold
    return _as_folds(splitter(most, shuffle=True, random_state=plan.seed).split(np.empty(len(y)), y))


def _folds_of_groups(y: NDArray[np.generic], n_classes: int, plan: SplitPlan, groups: Positions, most: int) -> Folds:
    n_groups = len(np.unique(groups))
    splitter = StratifiedGroupKFold if n_classes else GroupKFold
    for n_folds in range(min(most, n_groups), 1, -1):
        split = splitter(n_folds, shuffle=True, random_state=plan.seed).split(np.empty(len(y)), y, groups)
        folds = _as_folds(split)
        if all(_can_serve(y[train], y[held_out], n_classes) for train, held_out in folds):
            return folds
    raise TargetError(
        "folds by group need two groups or more outside the test part, and each class in two of them, got "
        f"{n_groups} in column {quoted(plan.group)}; choose another --group column, or hold out less"
    )


def _folds_in_time(y: NDArray[np.generic], n_classes: int, plan: SplitPlan, times: NDArray[np.generic]) -> Folds:
    n_rows, n_folds = len(y), min(plan.n_folds, len(y) - 1)
    size = n_rows // (n_folds + 1)
    cuts = [between_times(times, n_rows - (n_folds - fold) * size) for fold in range(n_folds)]
    bounds = [*dict.fromkeys(cuts), n_rows]
    folds = tuple(
        (np.arange(start), np.arange(start, end))
        for start, end in pairwise(bounds)
        if _can_serve(y[:start], y[start:end], n_classes)
    )
    if not folds:
        raise TargetError(
            f"a fold in time needs every class before it and several classes in it, got no such fold by column "
            f"{quoted(plan.time)}; choose another --time column, or none"
        )
    return folds


def _can_serve(y_train: NDArray[np.generic], y_held_out: NDArray[np.generic], n_classes: int) -> bool:
    if n_classes == 0:
        return len(y_train) >= 2 and len(y_held_out) >= 2
    return len(np.unique(y_train)) == n_classes and len(np.unique(y_held_out)) >= 2


def _as_folds(pairs: Iterable[tuple[NDArray[np.generic], NDArray[np.generic]]]) -> Folds:
    return tuple((train.astype(np.int64), held_out.astype(np.int64)) for train, held_out in pairs)
