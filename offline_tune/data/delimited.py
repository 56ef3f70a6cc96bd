"""The bytes of a CSV or TSV file into a frame of text cells.

The delimiter is found among a few, by which of them splits the first records as it splits the header. Rows must
be as long as the header: a short row is a damaged file, not a row with missing cells.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Collection
from io import StringIO
from itertools import islice

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from offline_tune.data.cells import as_cells
from offline_tune.data.header import checked_names
from offline_tune.data.wording import listed, quoted
from offline_tune.errors import DataError
from offline_tune.task import Note

_SAMPLE_BYTES = 1 << 18
_SAMPLE_RECORDS = 100
_LARGEST_BLOCK = (1 << 31) - 1
_DELIMITER_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_MAGIC = {b"PAR1": "Parquet", b"PK\x03\x04": "a zip archive or workbook", b"\x1f\x8b": "gzip", b"%PDF": "PDF"}
_CONTROL = bytes(set(range(32)) - set(b"\t\n\r\f\v\x1a\x1b"))
_DECIMAL_COMMA = r"^[+-]?[0-9]+,[0-9]+$"
_WHOLE = r"^[+-]?[0-9]+$"


def read_delimited(
    content: bytes, file: str, delimiters: str, features: Collection[str] = ()
) -> tuple[pd.DataFrame, tuple[Note, ...]]:
    """Read a header and records of equal length, every cell as trimmed text, blank cells as missing.

    Args:
        content: the file, unpacked; UTF-8 with or without its mark, UTF-16 with its mark, or Latin-1.
        file: its name, for messages.
        delimiters: the characters that may part the cells, the likeliest first.
        features: names for which a single column is right.

    Raises:
        DataError: binary content, no header, one column only, blank or repeated names, or ragged rows.
    """
    encoded, encoding_notes = _as_utf8(content, file)
    delimiter, records = _delimiter(_readings(encoded, delimiters), delimiters, file, features)
    names, header_notes = _names(records, file)
    cells = _cells(encoded, delimiter, len(names), file)
    table, comma_notes = _with_decimal_points(pa.table(cells, names=names), delimiter)
    notes = (*encoding_notes, *header_notes, *comma_notes)
    if delimiter != delimiters[0]:
        notes = (Note(f"cells are parted by {_DELIMITER_NAMES[delimiter]}"), *notes)
    frame = table.to_pandas()
    return (frame, notes) if names[0] else _without_index(frame, notes, file)


def _as_utf8(content: bytes, file: str) -> tuple[bytes, tuple[Note, ...]]:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        decoded = content.decode("utf-16", errors="replace")
        return _stripped(decoded.encode(), file), (Note("the file is written in UTF-16"),)
    content = content.removeprefix(codecs.BOM_UTF8)
    _refuse_binary(content, file)
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        note = Note("the file is not UTF-8 and was read as Latin-1; if letters look wrong, save it as UTF-8")
        return _stripped(content.decode("latin-1").encode(), file), (note,)
    return _stripped(content, file), ()


def _refuse_binary(content: bytes, file: str) -> None:
    found = next((name for magic, name in _MAGIC.items() if content.startswith(magic)), None)
    head = content[:_SAMPLE_BYTES]
    if found is None and (b"\0" in content or len(head) - len(head.translate(None, _CONTROL)) > len(head) // 100):
        found = "binary content"
    if found is not None:
        raise DataError(
            f"a text table must hold text, got {found} in {quoted(file)}; export it as CSV or fix its suffix"
        )


def _stripped(content: bytes, file: str) -> bytes:
    # Only line ends: a trailing tab is an empty last cell.
    stripped = content.strip(b"\r\n")
    if not stripped.strip():
        raise DataError(f"a data file must not be empty, got only blanks in {quoted(file)}; export it again")
    # Arrow finds the end of a header only at a line end.
    return stripped + b"\n"


def _readings(encoded: bytes, delimiters: str) -> dict[str, list[list[str]]]:
    """The first records as each delimiter parts them, from as much of the file as holds a header and a row."""
    size = _SAMPLE_BYTES
    while True:
        is_cut = size < len(encoded)
        sample = encoded[:size].decode("utf-8", errors="ignore")
        readings = {delimiter: _records(sample, is_cut, delimiter) for delimiter in delimiters}
        if not is_cut or max(map(len, readings.values())) > 1:
            return {delimiter: records for delimiter, records in readings.items() if records}
        size *= 8


def _records(sample: str, is_cut: bool, delimiter: str) -> list[list[str]]:
    reader = csv.reader(StringIO(sample, newline=""), delimiter=delimiter)
    try:
        records = [record for record in islice(reader, _SAMPLE_RECORDS + 1) if record]
    except csv.Error:  # a field beyond the module's limit: a line that this delimiter does not part
        return []
    # The last record may have been cut in its middle, and has the wrong length then.
    return records[:-1] if is_cut and len(records) <= _SAMPLE_RECORDS else records


def _delimiter(
    readings: dict[str, list[list[str]]], delimiters: str, file: str, features: Collection[str]
) -> tuple[str, list[list[str]]]:
    split = {delimiter: _consistency(records) for delimiter, records in readings.items() if len(records[0]) > 1}
    if split:
        best = max(split, key=lambda delimiter: split[delimiter])
        return best, readings[best]
    for delimiter, records in readings.items():
        if records[0][0].strip() in features:
            return delimiter, records
    tried = ", ".join(_DELIMITER_NAMES[delimiter] for delimiter in delimiters)
    found = next((records[0][0] for records in readings.values()), "a line that no delimiter parts")
    raise DataError(
        f"a table needs two columns or more, got only {quoted(found)} in the header of {quoted(file)} "
        f"(tried {tried}); part the cells by one of these"
    )


def _consistency(records: list[list[str]]) -> float:
    return sum(len(record) == len(records[0]) for record in records) / len(records)


def _names(records: list[list[str]], file: str) -> tuple[list[str], tuple[Note, ...]]:
    header = [name.strip() for name in records[0]]
    # A first column without a name is the row index that pandas and R write; its cells decide later.
    names = header[:1] + checked_names(header[1:], file, first=2) if header[0] == "" else checked_names(header, file)
    if all(_is_number(name) for name in names):
        return names, (
            Note("the first line was read as column names but holds only numbers; add a header if it is data"),
        )
    return names, ()


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True


def _cells(encoded: bytes, delimiter: str, n_columns: int, file: str) -> list[pa.Array]:
    ragged: list[pa.csv.InvalidRow] = []

    def keep_first(row: pa.csv.InvalidRow) -> str:
        ragged.append(row)
        return "error"

    numbered = [str(position) for position in range(n_columns)]
    try:
        table = pa.csv.read_csv(
            pa.BufferReader(encoded),
            # One block, so that no record can straddle two, whatever the length of its cells.
            pa.csv.ReadOptions(
                use_threads=False,
                column_names=numbered,
                skip_rows_after_names=1,
                block_size=min(len(encoded) + 1, _LARGEST_BLOCK),
            ),
            pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=keep_first),
            pa.csv.ConvertOptions(column_types=dict.fromkeys(numbered, pa.large_string()), strings_can_be_null=False),
        )
    except pa.ArrowInvalid as error:
        raise _unparsable(error, ragged, file) from None
    cells = [as_cells(column) for column in table.columns]
    _refuse_open_quote(encoded, cells, file)
    return cells


def _unparsable(error: pa.ArrowInvalid, ragged: list[pa.csv.InvalidRow], file: str) -> DataError:
    if ragged:
        row = ragged[0]
        return DataError(
            f"each row must have {row.expected_columns} cells like the header, got {row.actual_columns} in row "
            f"{row.number} of {quoted(file)}: {quoted(row.text)}; complete the row, or quote cells with a delimiter"
        )
    return DataError(f"a text table must be readable, got {quoted(error, 120)} in {quoted(file)}; export it again")


def _refuse_open_quote(encoded: bytes, cells: list[pa.Array], file: str) -> None:
    # A quote that is never closed swallows the rest of the file as one cell.
    last = [str(column[-1]) for column in cells if len(column)]
    if any("\n" in cell or "\r" in cell for cell in last) and encoded.count(b'"') % 2:
        swallowed = max(last, key=len)
        raise DataError(
            f"each quote must be closed, got a last cell that runs over lines in {quoted(file)}: {quoted(swallowed)}; "
            "close or double the quote"
        )


def _with_decimal_points(table: pa.Table, delimiter: str) -> tuple[pa.Table, tuple[Note, ...]]:
    if delimiter == ",":
        return table, ()
    changed = []
    for position, (name, cells) in enumerate(zip(table.column_names, table.columns, strict=True)):
        with_comma = pc.match_substring_regex(cells, _DECIMAL_COMMA)
        all_numbers = pc.all(pc.or_(with_comma, pc.match_substring_regex(cells, _WHOLE))).as_py()
        if all_numbers and pc.any(with_comma).as_py():
            table = table.set_column(position, name, pc.replace_substring(cells, ",", "."))
            changed.append(name)
    note = Note(f"numbers with a decimal comma were read in {listed(changed)}")
    return table, (note,) if changed else ()


def _without_index(frame: pd.DataFrame, notes: tuple[Note, ...], file: str) -> tuple[pd.DataFrame, tuple[Note, ...]]:
    counted = frame.iloc[:, 0].to_list()
    if any(counted == [str(number) for number in range(start, start + len(frame))] for start in (0, 1)):
        return frame.iloc[:, 1:], (*notes, Note("the first column has no name and numbers the rows, so it is left out"))
    checked_names(frame.columns, file)
    return frame, notes
