"""The names of a table's columns: one for each, none twice; and a column by its name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pandas as pd

from offline_tune.data.wording import listed, quoted, suggestion
from offline_tune.errors import DataError


def checked_names(names: Iterable[object], file: str, first: int = 1) -> list[str]:
    """The names as text without surrounding blanks; `first` is the position of the first of them in the file.

    Raises:
        DataError: a name is empty, or stands twice.
    """
    trimmed = [str(name).strip() for name in names]
    empty = [str(position) for position, name in enumerate(trimmed, start=first) if not name]
    if empty:
        raise DataError(
            f"each column must have a name, got none for column {', '.join(empty[:5])} of {quoted(file)}; "
            "name it in the first line, or leave it out"
        )
    repeated = [name for name, count in Counter(trimmed).items() if count > 1]
    if repeated:
        raise DataError(
            f"each column must have a name of its own, got {listed(repeated)} more than once in {quoted(file)}; "
            "rename them in the first line"
        )
    return trimmed


def find_column(frame: pd.DataFrame, name: str, role: str, error: type[DataError] = DataError) -> pd.Series:
    """One column of the table; `role` names it in the message ("target", "group" ...).

    Raises:
        DataError: (or the class `error`) there is no such column.
    """
    if name not in frame.columns:
        raise error(f"the {role} must be a column of the file, got {quoted(name)}; {suggestion(name, frame.columns)}")
    return frame[name]
