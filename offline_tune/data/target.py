"""What kind of task a target column poses, and its encoded form.

With `kind="auto"` the kind is read off the cells:

    two distinct values                    binary
    words or truth values                  multiclass
    numbers with fractions                 regression
    whole numbers that look like codes     multiclass: at most 20 that fill half of their range, and start at -1, 0 or 1
                                           or have shares within a factor of two of the mean; or at most 100 that
                                           start so, fill all of it and have a quarter of the mean share or more
    other whole numbers                    regression (counts, grades from 3 to 9, years, prices)

The choice is noted with the option that overrides it. Classes are sorted, numbers by size; the positive class of a
binary task is the last. Rows without a target cannot be learnt from and are dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_bool_dtype

from offline_tune.data.cells import DOUBTFUL, dates, distinct, is_date, is_number, numbers, spelled, text
from offline_tune.data.columns import MOSTLY
from offline_tune.data.wording import listed, quoted, suggestion
from offline_tune.errors import TargetError, UsageError
from offline_tune.task import Note, TaskKind

KINDS = ("auto", *TaskKind)
FEW_CODES = 20
MANY_CODES = 100
UNBALANCED = 4.0


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Target:
    """An encoded target.

    Attributes:
        kind: the kind of task.
        classes: labels in encoded order; empty for regression.
        y: the target of the kept rows, shape (n_kept,); int64 codes into `classes`, or float64.
        kept: positions of the rows that have a target, shape (n_kept,).
        notes: how the kind was chosen, which rows were dropped, which class is positive.
    """

    kind: TaskKind
    classes: tuple[str, ...]
    y: NDArray[np.int64] | NDArray[np.float64]
    kept: NDArray[np.int64]
    notes: tuple[Note, ...]


def encode_target(series: pd.Series, kind: str = "auto") -> Target:
    """Decide the kind of task and encode the column; `kind` is "auto" or a value of TaskKind.

    Raises:
        UsageError: an unknown kind.
        TargetError: no values, one value, a class with a single row, or values that do not fit the kind.
    """
    if kind not in KINDS:
        raise UsageError(f"--task must be one of {', '.join(KINDS)}, got {quoted(kind)}; {suggestion(kind, KINDS)}")
    values = _numbers_only(series)
    cells: NDArray[np.generic] = text(series) if values is None else values
    is_kept = pd.notna(cells)
    codes, labels = pd.factorize(cells[is_kept], sort=True)
    counts = np.bincount(codes)
    name = quoted(series.name)
    if len(labels) < 2:
        _refuse_too_few(name, labels)
    chosen = _choose(name, series, values, labels, counts) if kind == "auto" else TaskKind(kind)
    kept = np.flatnonzero(is_kept)
    dropped = _dropped_note(name, len(series) - len(kept))
    if not chosen.is_classification:
        if values is None:
            raise _not_numbers(name, series)
        notes = (*dropped, *(_kind_note(name, chosen, labels) if kind == "auto" else ()))
        return Target(kind=chosen, classes=(), y=values[kept], kept=kept, notes=notes)
    classes = tuple(str(label) if values is None else spelled(float(label)) for label in labels)
    _check_classes(name, chosen, classes, counts)
    notes = (*dropped, *(_kind_note(name, chosen, labels) if kind == "auto" and values is not None else ()))
    notes = (*notes, *_class_notes(name, chosen, classes, counts))
    return Target(kind=chosen, classes=classes, y=codes.astype(np.int64), kept=kept, notes=notes)


def encode_like(
    series: pd.Series, kind: TaskKind, classes: Sequence[str]
) -> tuple[NDArray[np.int64] | NDArray[np.float64], NDArray[np.int64]]:
    """Encode another file's target as the training target was.

    Returns:
        y of the rows that have a target, and the positions of these rows; both (n_kept,).

    Raises:
        TargetError: no values, a class that training does not have, or no numbers where regression needs them.
    """
    name = quoted(series.name)
    if kind.is_classification:
        codes = _codes_like(name, series, classes)
        kept = np.flatnonzero(codes >= 0)
        y: NDArray[np.int64] | NDArray[np.float64] = codes[kept]
    else:
        values = _numbers_only(series)
        if values is None:
            raise _not_numbers(name, series)
        kept = np.flatnonzero(np.isfinite(values))
        y = values[kept]
    if len(kept) == 0:
        raise TargetError(f"the target must have values, got only missing ones in column {name}; choose another file")
    return y, kept


def _numbers_only(series: pd.Series) -> NDArray[np.float64] | None:
    """The column as finite numbers or NaN; None where some cell that says something is no number."""
    if is_date(series):
        raise _no_dates(series)
    if is_bool_dtype(series.dtype):
        return None
    values = numbers(series)
    if not is_number(series):
        cells = text(series)
        is_word = np.array([cell is not None and cell not in DOUBTFUL for cell in cells], dtype=bool)
        if not is_word.any() or np.isnan(values[is_word]).any():
            return None
    values[np.isinf(values)] = np.nan
    return values


def _choose(
    name: str,
    series: pd.Series,
    values: NDArray[np.float64] | None,
    labels: NDArray[np.generic],
    counts: NDArray[np.int64],
) -> TaskKind:
    if len(labels) == 2:
        return TaskKind.BINARY
    if values is not None:
        return TaskKind.MULTICLASS if _look_like_codes(labels.astype(np.float64), counts) else TaskKind.REGRESSION
    parsed = numbers(series)
    n_words = int(pd.notna(text(series)).sum())
    if (~np.isnan(parsed)).sum() >= MOSTLY * n_words and len(labels) > FEW_CODES:
        raise _not_numbers(name, series)
    if (~np.isnat(dates(series))).sum() >= MOSTLY * n_words:
        raise _no_dates(series)
    return TaskKind.MULTICLASS


def _look_like_codes(labels: NDArray[np.float64], counts: NDArray[np.int64]) -> bool:
    low, high = labels[0], labels[-1]
    if (labels != np.floor(labels)).any() or counts.sum() < 2 * len(labels):
        return False
    filled = len(labels) / (high - low + 1)
    rarest = counts.min() / counts.mean()
    if len(labels) <= FEW_CODES:
        return bool(filled >= 0.5 and (low in (-1.0, 0.0, 1.0) or rarest >= 0.5))
    return bool(len(labels) <= MANY_CODES and low in (-1.0, 0.0, 1.0) and filled == 1.0 and rarest >= 0.25)


def _check_classes(name: str, kind: TaskKind, classes: Sequence[str], counts: NDArray[np.int64]) -> None:
    if kind is TaskKind.BINARY and len(classes) != 2:
        raise TargetError(
            f"a binary target must have two classes, got {len(classes):,} in column {name} ({listed(classes)}); "
            "use --task multiclass"
        )
    if kind is TaskKind.MULTICLASS and len(classes) < 3:
        raise TargetError(
            f"a multiclass target must have three classes or more, got {listed(classes)} in column {name}; "
            "use --task binary"
        )
    single = [label for label, count in zip(classes, counts, strict=True) if count == 1]
    if len(single) > len(classes) / 2:
        raise TargetError(
            f"the classes of a target must repeat, got {len(classes):,} different values in {counts.sum():,} rows of "
            f"column {name}; choose another target, or use --task regression for numbers"
        )
    if single:
        raise TargetError(
            f"each class must have two rows or more, got one row for {listed(single)} in column {name}; "
            "merge or drop these rows, or use --task regression for numbers"
        )


def _codes_like(name: str, series: pd.Series, classes: Sequence[str]) -> NDArray[np.int64]:
    codes, words = distinct(series)
    positions = {label: position for position, label in enumerate(classes)}
    found = [
        positions.get(word, positions.get(spelling)) for word, spelling in zip(words, _respelled(words), strict=True)
    ]
    unseen = [word for word, code in zip(words, found, strict=True) if code is None and word not in DOUBTFUL]
    if unseen:
        raise TargetError(
            f"the classes of a test file must occur in training, got {listed(unseen)} in column {name}; "
            "add such rows to the training data, or drop them here"
        )
    return np.array([*(-1 if code is None else code for code in found), -1], dtype=np.int64)[codes]


def _respelled(words: Sequence[str]) -> list[str]:
    values = numbers(pd.Series(words, dtype=object))
    return [spelled(value) if np.isfinite(value) else word for word, value in zip(words, values, strict=True)]


def _refuse_too_few(name: str, labels: NDArray[np.generic]) -> None:
    if len(labels) == 0:
        raise TargetError(f"the target must have values, got only missing ones in column {name}; choose another column")
    raise TargetError(
        f"the target must have two different values or more, got only {quoted(labels[0])} in column {name}; "
        "choose another column"
    )


def _not_numbers(name: str, series: pd.Series) -> TargetError:
    is_word = np.isnan(numbers(series)) & np.array([x is not None and x not in DOUBTFUL for x in text(series)])
    words = list(dict.fromkeys(text(series)[is_word]))
    return TargetError(
        f"a regression target must hold numbers, got {listed(words)} in column {name}; "
        "blank these cells, or use --task multiclass"
    )


def _no_dates(series: pd.Series) -> TargetError:
    return TargetError(
        f"a target must hold labels or numbers, got dates in column {quoted(series.name)}; "
        "turn them into a number such as days from a start"
    )


def _dropped_note(name: str, n_dropped: int) -> tuple[Note, ...]:
    if n_dropped == 0:
        return ()
    return (Note(f"rows without a value in the target {name} are left out: {n_dropped:,}"),)


def _kind_note(name: str, kind: TaskKind, labels: NDArray[np.generic]) -> tuple[Note, ...]:
    values = labels.astype(np.float64)
    if kind is TaskKind.BINARY or (values != np.floor(values)).any():
        return ()
    if not kind.is_classification and len(values) > FEW_CODES:
        return ()
    other = "regression takes them as quantities" if kind.is_classification else "multiclass takes them as classes"
    return (
        Note(
            f"target {name} holds {len(values)} different whole numbers from {spelled(values[0])} to "
            f"{spelled(values[-1])}, taken as {kind.value}; --task {other}"
        ),
    )


def _class_notes(name: str, kind: TaskKind, classes: Sequence[str], counts: NDArray[np.int64]) -> tuple[Note, ...]:
    shares = counts / counts.sum()
    notes = []
    doubtful = [label for label in classes if label in DOUBTFUL]
    if doubtful:
        notes.append(Note(f"{listed(doubtful)} is a class of target {name}; blank such cells if they mean no value"))
    if kind is TaskKind.BINARY:
        notes.append(
            Note(f"the positive class of target {name} is {quoted(classes[-1])}, {shares[-1]:.1%} of the rows")
        )
    if counts.max() > UNBALANCED * counts.min():
        most, least = int(counts.argmax()), int(counts.argmin())
        notes.append(
            Note(
                f"the classes of target {name} are unbalanced: {quoted(classes[most])} has {shares[most]:.1%} of the "
                f"rows, {quoted(classes[least])} {shares[least]:.2%}; accuracy says little here"
            )
        )
    return tuple(notes)
