"""A folder of tables to measure families on, and a sample of one that is small enough to train on often.

`index.json` in the folder lists the tables: objects with `name`, `file`, `target`, `task` ("binary", "multiclass" or
"regression"), and where they are known `licence` and `source`. Only the last part of `file` counts. A column called
`split`, which some tables carry to name their official test part, is left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from offline_tune.data.dataset import Dataset
from offline_tune.data.plan import SplitPlan
from offline_tune.data.prepare import make_dataset
from offline_tune.data.read import read_table
from offline_tune.data.wording import quoted, suggestion
from offline_tune.errors import DataError, TargetError, UsageError
from offline_tune.task import TaskKind

INDEX = "index.json"
_SPLIT = "split"
_ROWS_A_FOLD = 2  # of the rarest class that is kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One table of a collection."""

    name: str
    path: Path
    target: str
    kind: TaskKind
    licence: str = ""
    origin: str = ""


def list_sources(folder: Path, names: tuple[str, ...] = ()) -> tuple[Source, ...]:
    """The tables of a folder in the order of its index; only `names` where there are any.

    Raises:
        DataError: no readable index, or an entry that lacks something.
        UsageError: a name that the index does not have.
    """
    sources = {source.name: source for source in (_source(folder, entry) for entry in _entries(folder / INDEX))}
    for name in names:
        if name not in sources:
            raise UsageError(f"--datasets must name tables of {INDEX}, got {quoted(name)}; {suggestion(name, sources)}")
    return tuple(source for source in sources.values() if not names or source.name in names)


def sampled(source: Source, rows: int, folds: int, seed: int) -> Dataset:
    """A sample of one table as a data set without a test part; equal arguments give equal data sets.

    Classes with fewer than two rows a fold are left out, and no other class gets fewer than that.

    Args:
        source: the table.
        rows: the most rows.
        folds: of the cross-validation.
        seed: of the sample and of the folds.

    Raises:
        DataError: the table cannot be read, or does not describe a task (TargetError).
    """
    frame = read_table(source.path).frame
    if source.target not in frame.columns:
        raise TargetError(
            f"the target must be a column of the file, got {quoted(source.target)} for {source.path.name}; mend {INDEX}"
        )
    if source.target != _SPLIT:
        frame = frame.drop(columns=_SPLIT, errors="ignore")
    order = np.random.default_rng(seed_of(seed, source.name)).permutation(len(frame))
    if source.kind.is_classification:
        labels = frame[source.target].to_numpy()
        order = _of_each_class(labels[order], order, rows, _ROWS_A_FOLD * folds)
    sample = frame.iloc[np.sort(order[:rows])]
    return make_dataset(
        sample,
        source.target,
        name=source.name,
        kind=_kind(source, sample),
        plan=SplitPlan(test_share=0.0, n_folds=folds, seed=seed),
    )


def seed_of(*parts: object) -> int:
    """A seed from words and numbers, the same on every machine."""
    return int(hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()[:8], 16)


def _kind(source: Source, sample: pd.DataFrame) -> TaskKind:
    """That of the source, but two classes where only two of several are frequent enough to be kept."""
    is_binary = source.kind.is_classification and sample[source.target].nunique() == 2
    return TaskKind.BINARY if is_binary else source.kind


def _of_each_class(labels: NDArray[np.generic], order: NDArray[np.int64], rows: int, least: int) -> NDArray[np.int64]:
    """The first rows of a shuffled order, but `least` of each class that has as many and none of the others.

    Args:
        labels: of the rows in that order, shape (n,).
        order: row positions, shape (n,).
        rows: how many to keep.
        least: rows of a class.

    Returns:
        Row positions, shape (at most rows,).
    """
    frame = pd.DataFrame({"label": labels})
    frame["rank"] = frame.groupby("label", sort=False).cumcount()
    frame["size"] = frame.groupby("label", sort=False)["rank"].transform("size")
    allowed = np.flatnonzero((frame["size"] >= least).to_numpy())
    first = (frame["rank"].to_numpy()[allowed] < least).astype(int)
    return order[allowed[np.argsort(-first, kind="stable")][:rows]]


def _entries(path: Path) -> list[object]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"a collection must have an {INDEX} of its tables, got {type(error).__name__} for {quoted(path)}; write one"
        ) from error
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{INDEX} must be a list of tables, got {quoted(entries)}; see pretrain/collection.py")
    return entries


def _source(folder: Path, entry: object) -> Source:
    wanted = ("name", "file", "target", "task")
    if not isinstance(entry, Mapping) or not all(isinstance(entry.get(key), str) for key in wanted):
        raise DataError(f"an entry of {INDEX} must have name, file, target and task, got {quoted(entry)}; complete it")
    if entry["task"] not in tuple(TaskKind):
        raise DataError(f"a task in {INDEX} must be one of {', '.join(TaskKind)}, got {quoted(entry['task'])}; mend it")
    return Source(
        name=entry["name"],
        path=folder / Path(entry["file"]).name,
        target=entry["target"],
        kind=TaskKind(entry["task"]),
        licence=str(entry.get("licence", "")),
        origin=str(entry.get("source", "")),
    )
