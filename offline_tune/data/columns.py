"""What each feature column holds, and its cells in the form that models are given.

The rules, in this order; shares are of the cells that are not missing (see `cells` for what is):

    empty        nothing but missing or doubtful words (NA, ?, None ...)
    boolean      two words of a pair: true/false, yes/no, y/n, t/f, on/off
    numeric      every cell is a number; or 95 % are, more than 20 of them distinct (the others become missing)
    date         95 % are dates written year first
    text         20 distinct or more, 30 % distinct, three words a cell (or 20 characters without blanks, not ASCII)
    identifier   text: 20 distinct or more, 99 % distinct; or an id by name, distinct in each row
                 numbers: whole, distinct, and numbering the rows (dense, or sorted and nearly so), or an id by name
    categorical  any other text, however many categories
    constant     any kind with one value and no missing cell (a value or nothing can inform, and stays)

Whole numbers with few values stay numeric: trees split them anywhere, and an order is not thrown away. Whole
numbers of 16 digits or more are labels, because a float cannot tell them apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types

from offline_tune.data.cells import (
    DOUBTFUL,
    TRUTH_PAIRS,
    dates,
    distinct,
    is_date,
    is_number,
    numbers,
    text,
    truths,
)
from offline_tune.data.wording import listed, quoted
from offline_tune.errors import DataError, OfflineTuneError
from offline_tune.task import Column, ColumnKind, Note

MOSTLY = 0.95
FEW_NUMBERS = 20
FEW_WORDS = 20
TEXT_DISTINCT_SHARE = 0.3
TEXT_WORDS = 3.0
TEXT_CHARACTERS = 20
IDENTIFIER_DISTINCT_SHARE = 0.99
MANY_CATEGORIES = 1000
_LONGEST_EXACT = 2.0**53
_SAMPLE = 1000
_LONG_NUMBER = re.compile(r"[+-]?\d{16,}")
_SWAPPABLE_DATE = re.compile(r"\d{1,2}[/.-]\d{1,2}[/.-](\d{4}|\d{2})")
_ID_NAME = re.compile(
    r"(?i:(.*[\W_])?(id|uid|uuid|guid|index|idx|row|rowid|rownum)|id[\W_].*|unnamed: 0)|.*[a-z](Id|ID)"
)

_INFINITE = "infinite numbers are read as missing"
_MIXED = "mostly numbers; cells that are no number are read as missing"
_DOUBTFUL_NUMBER = "holds numbers, so words such as NA or ? in it are read as missing"
_DOUBTFUL_WORD = "holds words such as NA, None or ? that are kept as categories; leave such cells blank if unknown"
_MANY = f"more than {MANY_CATEGORIES:,} categories, most of them rare"
_SWAPPABLE = "looks like dates whose day and month could be swapped, so it is not read as dates; write YYYY-MM-DD"
_LEFT_OUT = {
    ColumnKind.EMPTY: "left out, because it is empty",
    ColumnKind.CONSTANT: "left out, because every row has the same value",
    ColumnKind.IDENTIFIER: "left out, because it tells each row apart like an identifier",
}


@dataclass(frozen=True, slots=True)
class _Finding:
    kind: ColumnKind
    n_unique: int
    n_missing: int
    remarks: tuple[str, ...] = ()


def infer_columns(frame: pd.DataFrame) -> tuple[tuple[Column, ...], tuple[Note, ...]]:
    """The kind of every column, from these rows alone, and what the reader should know about them."""
    columns: list[Column] = []
    remarks: list[tuple[str, str]] = []
    for name in frame.columns:
        finding = _inspect(str(name), frame[name])
        kind = finding.kind
        if finding.n_unique == 0:
            kind = ColumnKind.EMPTY
        elif finding.n_unique == 1 and finding.n_missing == 0:
            kind = ColumnKind.CONSTANT
        columns.append(Column(str(name), kind, finding.n_unique, finding.n_missing))
        about = (*finding.remarks, _LEFT_OUT[kind]) if kind in _LEFT_OUT else finding.remarks
        remarks.extend((remark, str(name)) for remark in about)
    return tuple(columns), _notes(remarks)


def clean(frame: pd.DataFrame, columns: Sequence[Column]) -> pd.DataFrame:
    """The named columns in their order, each cell in the form of its column's kind; other columns are ignored.

    Numeric and boolean cells become float64 (NaN where missing, infinite or not to be read), dates datetime64[ns]
    (NaT), all others object: a string, or None where missing. Categories never seen in training stay as they are.

    Raises:
        DataError: a column is not in the frame.
    """
    require_columns(frame, columns)
    cleaned = {column.name: _cleaned(frame[column.name], column.kind) for column in columns}
    # A series for each, because a frame would turn an array of objects into its own dtype for text.
    return pd.DataFrame(
        {name: pd.Series(values, dtype=values.dtype) for name, values in cleaned.items()},
        index=pd.RangeIndex(len(frame)),
    )


def require_columns(frame: pd.DataFrame, columns: Iterable[Column], error: type[OfflineTuneError] = DataError) -> None:
    """Refuse a frame that lacks some of the columns.

    Raises:
        OfflineTuneError: of the class `error`, naming the missing columns.
    """
    lacking = [column.name for column in columns if column.name not in frame.columns]
    if lacking:
        raise error(f"the file must have the columns of the training data, got none named {listed(lacking)}; add them")


def _inspect(name: str, series: pd.Series) -> _Finding:
    if is_date(series):
        return _finding(ColumnKind.DATE, dates(series))
    if types.is_bool_dtype(series.dtype):
        return _finding(ColumnKind.BOOLEAN, truths(series))
    if is_number(series) and not _is_beyond_float(series):
        return _inspect_numbers(name, numbers(series), ())
    return _inspect_words(name, series)


def _is_beyond_float(series: pd.Series) -> bool:
    return bool(types.is_integer_dtype(series.dtype) and len(series) and series.abs().max() > _LONGEST_EXACT)


def _inspect_words(name: str, series: pd.Series) -> _Finding:
    codes, words = distinct(series)
    is_doubtful = np.array([*(word in DOUBTFUL for word in words), True])[codes]
    telling = [word for word in words if word not in DOUBTFUL]
    n_telling = int((~is_doubtful).sum())
    if n_telling == 0:
        return _Finding(ColumnKind.EMPTY, 0, len(series))
    if frozenset(word.casefold() for word in telling) in TRUTH_PAIRS:
        return _finding(ColumnKind.BOOLEAN, truths(series))
    values = numbers(series)
    share = float((~np.isnan(values)).sum()) / n_telling
    n_distinct = len(np.unique(values[~np.isnan(values)]))
    if not all(_LONG_NUMBER.fullmatch(word) for word in telling[:_SAMPLE]) and (
        share == 1.0 or (share >= MOSTLY and n_distinct > FEW_NUMBERS)
    ):
        doubtful = (_DOUBTFUL_NUMBER,) if len(telling) < len(words) else ()
        return _inspect_numbers(name, values, doubtful if share == 1.0 else (*doubtful, _MIXED))
    if share == 0.0:
        moments = dates(series)
        if (~np.isnat(moments)).sum() >= MOSTLY * n_telling:
            return _finding(ColumnKind.DATE, moments)
    return _inspect_labels(name, codes, words)


def _inspect_numbers(name: str, values: NDArray[np.float64], remarks: tuple[str, ...]) -> _Finding:
    is_infinite = np.isinf(values)
    finite = values[np.isfinite(values)]
    found = _finding(ColumnKind.NUMERIC, np.where(is_infinite, np.nan, values))
    kind = ColumnKind.IDENTIFIER if _numbers_rows(name, finite, len(values)) else ColumnKind.NUMERIC
    return _Finding(kind, found.n_unique, found.n_missing, (*remarks, _INFINITE) if is_infinite.any() else remarks)


def _numbers_rows(name: str, values: NDArray[np.float64], n_rows: int) -> bool:
    if len(values) < max(n_rows, 3) or (values != np.floor(values)).any() or len(np.unique(values)) < n_rows:
        return False
    if _ID_NAME.fullmatch(name):
        return True
    density = n_rows / (values.max() - values.min() + 1)
    steps = np.diff(values)
    is_sorted = bool((steps > 0).all() or (steps < 0).all())
    # Dense: measured whole numbers repeat long before they fill half of their range without a gap.
    return n_rows >= FEW_WORDS and density >= (0.1 if is_sorted else 0.5)


def _inspect_labels(name: str, codes: NDArray[np.int64], words: tuple[str, ...]) -> _Finding:
    n_present = int((codes >= 0).sum())
    n_missing = len(codes) - n_present
    remarks = [_DOUBTFUL_WORD] if any(word in DOUBTFUL for word in words) else []
    share = len(words) / n_present
    is_many = len(words) >= FEW_WORDS
    if all(_SWAPPABLE_DATE.fullmatch(word) for word in words[:_SAMPLE] if word not in DOUBTFUL):
        remarks.append(_SWAPPABLE)
    if is_many and share >= TEXT_DISTINCT_SHARE and _is_prose(words[:_SAMPLE]):
        return _Finding(ColumnKind.TEXT, len(words), n_missing)
    is_named_id = n_missing == 0 and share == 1.0 and len(words) >= 3 and bool(_ID_NAME.fullmatch(name))
    if is_named_id or (is_many and share >= IDENTIFIER_DISTINCT_SHARE):
        return _Finding(ColumnKind.IDENTIFIER, len(words), n_missing, tuple(remarks))
    if len(words) > MANY_CATEGORIES:
        remarks.append(_MANY)
    return _Finding(ColumnKind.CATEGORICAL, len(words), n_missing, tuple(remarks))


def _is_prose(words: Sequence[str]) -> bool:
    if np.mean([len(word.split()) for word in words]) >= TEXT_WORDS:
        return True
    # Some scripts have no blanks between words.
    is_foreign = np.mean([not word.isascii() for word in words]) > 0.5
    return bool(is_foreign and np.mean([len(word) for word in words]) >= TEXT_CHARACTERS)


def _finding(kind: ColumnKind, values: NDArray[np.float64] | NDArray[np.datetime64]) -> _Finding:
    is_missing = np.isnan(values) if values.dtype.kind == "f" else np.isnat(values)
    return _Finding(kind, len(np.unique(values[~is_missing])), int(is_missing.sum()))


def _cleaned(series: pd.Series, kind: ColumnKind) -> NDArray[np.generic]:
    if kind is ColumnKind.NUMERIC:
        values = numbers(series)
        values[np.isinf(values)] = np.nan
        return values
    if kind is ColumnKind.BOOLEAN:
        return truths(series)
    if kind is ColumnKind.DATE:
        return dates(series)
    return text(series)


def _notes(remarks: Iterable[tuple[str, str]]) -> tuple[Note, ...]:
    by_remark: dict[str, list[str]] = {}
    for remark, name in remarks:
        by_remark.setdefault(remark, []).append(name)
    return tuple(_note(remark, names) for remark, names in by_remark.items())


def _note(remark: str, names: list[str]) -> Note:
    if len(names) == 1:
        return Note(f"column {quoted(names[0])}: {remark}", column=names[0])
    return Note(f"columns {listed(names)}: {remark}")
