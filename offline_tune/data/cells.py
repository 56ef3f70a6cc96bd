"""What one column's cells say, read as text, numbers, truth values or dates.

A cell is missing when it is blank or spells a missing number, a database null or a spreadsheet error
(`MISSING`). Words such as NA, ?, None or - (`DOUBTFUL`) can be real categories (Namibia; "no alley"), so in a
column of text they are kept; in a column of numbers, truth values or dates they do not parse, hence are missing.
Blanks round a cell are dropped. The same functions serve training and prediction, so a cell always reads alike.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pandas.api import types

MISSING = frozenset(("",)) | frozenset(
    "nan NaN NAN -nan null NULL Null <NA> NaT #N/A #NA #DIV/0! #VALUE! #REF! #NAME? #NUM! #NULL!".split()
)
DOUBTFUL = frozenset("NA N/A n/a na ? - -- . .. * None none unknown Unknown missing Missing".split())
_NUMBER = r"^[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[iI][nN][fF]([iI][nN][iI][tT][yY])?)$"
_DATE = r"^\d{4}([-/])\d{1,2}([-/])\d{1,2}([T ]\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?)? ?(Z|[+-]\d{2}(:?\d{2})?)?$"
_TRUTH = {"true": 1.0, "yes": 1.0, "y": 1.0, "t": 1.0, "on": 1.0, "1": 1.0} | {
    "false": 0.0, "no": 0.0, "n": 0.0, "f": 0.0, "off": 0.0, "0": 0.0
}  # fmt: skip
TRUTH_PAIRS = frozenset(
    frozenset(pair) for pair in (("true", "false"), ("yes", "no"), ("y", "n"), ("t", "f"), ("on", "off"))
)


def strings(series: pd.Series) -> pa.Array:
    """The cells as an Arrow array of trimmed text, null where missing; shape (n,)."""
    if types.is_string_dtype(series.dtype) and not types.is_object_dtype(series.dtype):
        text = pa.array(series, from_pandas=True)
    else:
        text = pa.array(_spellings(series), type=pa.large_string())
    return as_cells(text)


def as_cells(text: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Arrow text trimmed, null where missing; shape (n,)."""
    trimmed = pc.utf8_trim_whitespace(_one_chunk(text))
    return pc.if_else(pc.is_in(trimmed, value_set=_missing_words(trimmed.type)), None, trimmed)


def text(series: pd.Series) -> NDArray[np.object_]:
    """The cells as Python strings, None where missing; shape (n,)."""
    return np.asarray(strings(series).to_pylist() or [], dtype=object)


def numbers(series: pd.Series) -> NDArray[np.float64]:
    """The cells as numbers, NaN where missing or not a number; infinities stay; shape (n,)."""
    if is_number(series) or types.is_bool_dtype(series.dtype):
        return series.to_numpy(dtype=np.float64, na_value=np.nan).copy()
    if is_date(series):
        return np.full(len(series), np.nan)
    cells = strings(series)
    parsed = pc.if_else(pc.match_substring_regex(cells, _NUMBER), cells, None)
    return np.array(parsed.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)


def truths(series: pd.Series) -> NDArray[np.float64]:
    """The cells as 1.0 (true, yes, y, t, on, 1) and 0.0 (false, no, n, f, off, 0), NaN otherwise; shape (n,)."""
    if types.is_bool_dtype(series.dtype):
        return numbers(series)
    codes, words = distinct(series)
    values = np.array([*(_TRUTH.get(word.casefold(), np.nan) for word in words), np.nan])
    return values[codes]


def dates(series: pd.Series) -> NDArray[np.datetime64]:
    """The cells as moments in UTC without a zone, NaT where missing, no date, or outside 1678 to 2261; shape (n,).

    Dates are written year first: 2024-03-01, 2024/3/1, 2024-03-01T12:30:00Z, 2024-03-01 12:30+02:00.
    """
    if is_date(series):
        moments = pd.to_datetime(series, utc=True)
    elif is_number(series) or types.is_bool_dtype(series.dtype):
        return np.full(len(series), np.datetime64("NaT", "ns"))
    else:
        cells = strings(series)
        parsed = pc.if_else(pc.match_substring_regex(cells, _DATE), cells, None)
        written = pd.Series(parsed.to_pylist(), dtype=object)
        moments = pd.to_datetime(written, format="ISO8601", errors="coerce", utc=True)
    naive = moments.dt.tz_localize(None)
    in_range = naive.between(pd.Timestamp("1678-01-01"), pd.Timestamp("2261-12-31"))
    return np.asarray(naive.where(in_range).to_numpy().astype("datetime64[ns]"))


def distinct(series: pd.Series) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """A column of text as codes (n,) into its distinct words in order of appearance; -1 where missing."""
    encoded = strings(series).dictionary_encode()
    codes = np.asarray(pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False), dtype=np.int64)
    return codes, tuple(encoded.dictionary.to_pylist())


def spelled(number: float) -> str:
    """A number as a label: whole numbers without a decimal point."""
    return str(int(number)) if float(number).is_integer() else repr(float(number))


def is_number(series: pd.Series) -> bool:
    """Whether the cells were numbers before any reading (a Parquet column, or a caller's own frame)."""
    return types.is_numeric_dtype(series.dtype) and not types.is_bool_dtype(series.dtype)


def is_date(series: pd.Series) -> bool:
    """Whether the cells were moments before any reading."""
    return types.is_datetime64_any_dtype(series.dtype)


@cache
def _missing_words(kind: pa.DataType) -> pa.Array:
    return pa.array(sorted(MISSING), type=kind)


def _spellings(series: pd.Series) -> list[str | None]:
    # Through the column's own values, never through float, so that 20-digit integers keep every digit.
    return [None if pd.isna(value) else _spelling(value) for value in series.astype(object)]


def _spelling(value: Any) -> str:
    if isinstance(value, float | np.floating) and np.isfinite(value):
        return spelled(float(value))
    return str(value)


def _one_chunk(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
