"""Columns that say which rows belong together, and which row comes first."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from offline_tune.data.cells import dates, distinct, is_date, numbers
from offline_tune.data.header import find_column
from offline_tune.data.plan import Positions
from offline_tune.data.wording import listed, quoted
from offline_tune.errors import DataError


def group_codes(frame: pd.DataFrame, column: str) -> Positions:
    """Each row's group as a code, shape (n,).

    Raises:
        DataError: no such column, a row without a group, or a single group.
    """
    codes, words = distinct(find_column(frame, column, "group column"))
    if (codes < 0).any():
        raise DataError(f"each row must have a group, got a blank in column {quoted(column)}; fill it")
    if len(words) < 2:
        raise DataError(
            f"a group column must have two groups or more, got only {listed(words)} in column {quoted(column)}; "
            "choose another --group column"
        )
    return codes


def time_keys(frame: pd.DataFrame, column: str) -> NDArray[np.generic]:
    """Each row's time as something that sorts, shape (n,): float64, or datetime64[ns].

    Raises:
        DataError: no such column, or a row whose time is missing or neither a number nor a date.
    """
    series = find_column(frame, column, "time column")
    readings = (dates(series),) if is_date(series) else (numbers(series), dates(series))
    missing = [np.isnat(times) if times.dtype.kind == "M" else ~np.isfinite(times) for times in readings]
    fewest = min(range(len(readings)), key=lambda reading: int(missing[reading].sum()))
    if missing[fewest].any():
        example = series[missing[fewest]].iloc[0]
        raise DataError(
            f"each row must have a time, a number or a date like 2024-03-01, got {quoted(example)} in "
            f"column {quoted(column)}; fill or rewrite such cells"
        )
    return readings[fewest]


def between_times(times: NDArray[np.generic], cut: int) -> int:
    """The position nearest to `cut` at which a new time begins, so that equal times stay together.

    `times` is sorted, shape (n,); the position lies in 1 .. n-1.

    Raises:
        DataError: all times are equal.
    """
    begins = np.flatnonzero(times[1:] != times[:-1]) + 1
    if len(begins) == 0:
        raise DataError(
            f"a time column must have two different times or more, got only {quoted(times[0])}; choose another --time"
        )
    return int(begins[np.abs(begins - cut).argmin()])
