"""From a file to a data set: read, decide the task, split, clean, describe. Learns nothing from the test part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from offline_tune.data.card import describe
from offline_tune.data.columns import clean, infer_columns, require_columns
from offline_tune.data.dataset import Dataset
from offline_tune.data.header import checked_names, find_column
from offline_tune.data.metrics import check_metric, resolve_metric, shown_metrics
from offline_tune.data.plan import SplitPlan
from offline_tune.data.read import dataset_name, read_table
from offline_tune.data.split import split_rows
from offline_tune.data.target import encode_like, encode_target
from offline_tune.data.wording import listed, quoted
from offline_tune.errors import ArtifactError, DataError, TargetError, UsageError
from offline_tune.task import Column, Note, Task


def load_dataset(
    path: Path,
    target: str,
    *,
    kind: str = "auto",
    metric: str | None = None,
    test_path: Path | None = None,
    split_column: str | None = None,
    group: str | None = None,
    time: str | None = None,
    test_share: float = 0.2,
    n_folds: int = 5,
    seed: int = 0,
    description: str = "",
) -> Dataset:
    """Read a file and make it ready for training; equal arguments give equal data sets.

    Args:
        path: CSV, TSV or Parquet, gzipped or not.
        target: the column to be learnt.
        kind: "auto", or a value of TaskKind.
        metric: name of a scikit-learn scorer; None for the kind's default.
        test_path: a file whose rows are the test part.
        split_column: a column of words such as train and test; no feature.
        group: a column whose equal values stay together; no feature.
        time: a column of dates or numbers that orders the rows; stays a feature.
        test_share: share of the rows held out, where no file or column says which.
        n_folds: folds of cross-validation on the training part.
        seed: of every shuffle.
        description: the user's own words about the data, for the card.

    Raises:
        UsageError: options out of range, or that exclude each other.
        DataError: a file that cannot be read, or that does not describe a task (TargetError, MetricError).
    """
    plan = SplitPlan(
        split_column=split_column, group=group, time=time, test_share=test_share, n_folds=n_folds, seed=seed
    )
    if test_path is not None and split_column is not None:
        both = f"{quoted(test_path)} and {quoted(split_column)}"
        raise UsageError(f"--test and --split-column exclude each other, got {both}; choose one")
    table = read_table(path)
    test = None if test_path is None else read_table(test_path)
    return make_dataset(
        table.frame,
        target,
        name=dataset_name(path),
        kind=kind,
        metric=metric,
        test_frame=None if test is None else test.frame,
        plan=plan,
        description=description,
        notes=(*table.notes, *(() if test is None else test.notes)),
        digest=table.digest,
    )


def make_dataset(
    frame: pd.DataFrame,
    target: str,
    *,
    name: str = "data",
    kind: str = "auto",
    metric: str | None = None,
    test_frame: pd.DataFrame | None = None,
    plan: SplitPlan | None = None,
    description: str = "",
    notes: tuple[Note, ...] = (),
    digest: str = "",
) -> Dataset:
    """Make a frame ready for training; as `load_dataset`, for a table that is in memory already.

    Args:
        frame: the cells, of any pandas dtype.
        target: the column to be learnt.
        name: what the task is called.
        kind: "auto", or a value of TaskKind.
        metric: name of a scikit-learn scorer; None for the kind's default.
        test_frame: rows that are the test part.
        plan: how to split; None for the default.
        description: the user's own words about the data, for the card.
        notes: what the reader of the file already found.
        digest: sha256 of the file, hexadecimal.

    Raises:
        DataError: the frame does not describe a task (TargetError, MetricError).
    """
    plan = plan or SplitPlan()
    frame = frame.set_axis(checked_names(frame.columns, name), axis=1)
    _check_roles(target, plan)
    encoded = encode_target(find_column(frame, target, "target", TargetError), kind)
    optimised = resolve_metric(metric, encoded.kind)
    check_metric(optimised, encoded.y, len(encoded.classes))
    kept = frame.iloc[encoded.kept]
    split = split_rows(kept, encoded.y, encoded.classes, plan, has_test_file=test_frame is not None)

    train = kept.iloc[split.train]
    no_features = [column for column in (plan.split_column, plan.group) if column is not None]
    columns, column_notes = infer_columns(train.drop(columns=[target, *no_features]))
    features = _features(columns, target)
    X, y = clean(train, features), encoded.y[split.train]
    task = Task(
        name=name,
        target=target,
        kind=encoded.kind,
        metric=optimised,
        shown=shown_metrics(encoded.kind, optimised),
        classes=encoded.classes,
        columns=columns,
        n_rows=len(X),
    )
    X_test, y_test = None, None
    if test_frame is not None:
        X_test, y_test = _test_part(test_frame, task)
    elif split.test is not None:
        X_test, y_test = clean(kept.iloc[split.test], features), encoded.y[split.test]
    return Dataset(
        task=task,
        X=X,
        y=y,
        X_test=X_test,
        y_test=y_test,
        folds=split.folds,
        card=describe(X, y, features, task.kind, description=description, seed=plan.seed),
        notes=(*notes, *encoded.notes, *split.notes, *column_notes),
        digest=digest,
    )


def load_features(path: Path, task: Task) -> pd.DataFrame:
    """The features of a new file in the form of the training data; it need not have a target.

    Raises:
        DataError: the file cannot be read.
        ArtifactError: it lacks a column that the model was trained on.
    """
    names = [column.name for column in task.features]
    frame = read_table(path, features=names).frame
    require_columns(frame, task.features, ArtifactError)
    return clean(frame, task.features)


def _check_roles(target: str, plan: SplitPlan) -> None:
    roles = {"--split-column": plan.split_column, "--group": plan.group, "--time": plan.time}
    for option, column in roles.items():
        if column == target:
            raise UsageError(f"{option} must not be the target, got {quoted(column)} for both; name another column")
    if plan.split_column is not None and plan.split_column in (plan.group, plan.time):
        raise UsageError(
            f"--split-column must not order or group the rows too, got {quoted(plan.split_column)} for both; "
            "name another column"
        )


def _features(columns: tuple[Column, ...], target: str) -> tuple[Column, ...]:
    features = tuple(column for column in columns if column.kind.is_used)
    if not features:
        kinds = listed((f"{column.name} ({column.kind.value})" for column in columns), most=5)
        raise DataError(
            f"a table must have a column to learn from beside {quoted(target)}, got {kinds or 'none'}; add features"
        )
    return features


def _test_part(frame: pd.DataFrame, task: Task) -> tuple[pd.DataFrame, NDArray[np.int64] | NDArray[np.float64]]:
    y, kept = encode_like(find_column(frame, task.target, "target", TargetError), task.kind, task.classes)
    return clean(frame.iloc[kept], task.features), y
