"""A Parquet file's bytes into a frame of text, numbers, truth values and moments."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from offline_tune.data.header import checked_names
from offline_tune.data.wording import quoted
from offline_tune.errors import DataError
from offline_tune.task import Note

_INDEX = "__index_level_"


def read_parquet(content: bytes, file: str) -> tuple[pd.DataFrame, tuple[Note, ...]]:
    """Read Parquet bytes; an index that pandas wrote beside the columns is left out.

    Raises:
        DataError: the bytes are damaged, a column nests values, or names are blank or repeated.
    """
    try:
        table = pq.read_table(pa.BufferReader(content))
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"a Parquet file must be whole and readable, got {quoted(file)} ({quoted(error, 120)}); write it again"
        ) from None
    table = table.select([i for i, name in enumerate(table.column_names) if not name.startswith(_INDEX)])
    names = checked_names(table.column_names, file)
    columns = [_plain(name, column) for name, column in zip(names, table.columns, strict=True)]
    return pa.table(columns, names=names).to_pandas(), ()


def _plain(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _plain(name, column.cast(kind.value_type))
    target = _plain_type(kind)
    try:
        if pa.types.is_duration(kind):
            return pc.divide(column.cast(pa.duration("us")).cast(pa.int64()).cast(pa.float64()), 1e6)
        if target is not None:
            return column.cast(target)
    except pa.ArrowInvalid:
        pass
    raise DataError(
        f"a column must hold one plain value a cell, got {quoted(kind)} in column {quoted(name)}; flatten or drop it"
    )


def _plain_type(kind: pa.DataType) -> pa.DataType | None:
    is_type = pa.types
    if is_type.is_integer(kind) or is_type.is_boolean(kind) or is_type.is_timestamp(kind):
        return kind
    if is_type.is_floating(kind) or is_type.is_decimal(kind):
        return pa.float64()
    if is_type.is_date(kind):
        return pa.timestamp("ms")
    is_text = is_type.is_string(kind) or is_type.is_large_string(kind) or is_type.is_string_view(kind)
    is_bytes = is_type.is_binary(kind) or is_type.is_large_binary(kind)
    if is_text or is_bytes or is_type.is_time(kind) or is_type.is_null(kind):
        return pa.string()
    return None
