"""A file into a table of cells, with its digest and what the reader should know about it.

Text files give text cells as written (trimmed, blanks as missing); what they mean is decided in `columns` and
`target`. Parquet files keep their numbers, truth values and moments.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from offline_tune.data.delimited import read_delimited
from offline_tune.data.parquet import read_parquet
from offline_tune.data.wording import quoted
from offline_tune.errors import DataError
from offline_tune.task import Note

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".parquet.gz")


@dataclass(frozen=True, eq=False, slots=True)
class RawTable:
    """A file's cells: text, or for Parquet also numbers, truth values and moments.

    `notes` says what was decided while reading; `digest` is the sha256 of the file, hexadecimal.
    """

    frame: pd.DataFrame
    notes: tuple[Note, ...]
    digest: str


def read_table(path: Path, *, features: Collection[str] = ()) -> RawTable:
    """Read a CSV, TSV or Parquet file, gzipped or not.

    Args:
        path: the file; its suffix says the format.
        features: names for which a text file of one column is right (a model with a single feature).

    Raises:
        DataError: the file is missing, unreadable, empty, or no table with one name for each column.
    """
    suffix = _suffix(path)
    packed = _content(path)
    content = _decompress(packed, path) if suffix.endswith(".gz") else packed
    if suffix.startswith(".parquet"):
        frame, notes = read_parquet(content, path.name)
    else:
        delimiters = "\t" if suffix.startswith(".tsv") else ",;\t|"
        frame, notes = read_delimited(content, path.name, delimiters, features)
    if frame.empty:
        raise DataError(f"a data file must hold rows below its header, got none in {quoted(path.name)}; add rows")
    return RawTable(frame, notes, hashlib.sha256(packed).hexdigest())


def file_digest(path: Path) -> str:
    """The sha256 of a file, hexadecimal.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from None


def dataset_name(path: Path) -> str:
    """The file's name without folder and suffix."""
    return path.name[: -len(_suffix(path))]


def _suffix(path: Path) -> str:
    for suffix in SUFFIXES:
        if path.name.lower().endswith(suffix):
            return suffix
    if path.is_dir():
        raise _unreadable(path, IsADirectoryError())
    raise DataError(f"a data file must end in one of {', '.join(SUFFIXES)}, got {quoted(path.name)}; convert it")


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None
    if not content:
        raise DataError(f"a data file must not be empty, got 0 bytes in {quoted(path.name)}; export it again")
    return content


def _unreadable(path: Path, error: OSError) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(f"the data file must exist, got {quoted(path, 200)}; check the path")
    if isinstance(error, IsADirectoryError):
        return DataError(f"the data must be one file, got the folder {quoted(path, 200)}; name a file in it")
    return DataError(f"the data file must be readable, got {quoted(path, 200)} ({error.strerror}); check its rights")


def _decompress(packed: bytes, path: Path) -> bytes:
    try:
        return gzip.decompress(packed)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"a .gz file must be whole gzip data, got {quoted(path.name)} ({error}); rename it or copy it again"
        ) from None
