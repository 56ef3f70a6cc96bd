"""Predictions for new rows as CSV text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from offline_tune.data.prepare import load_features
from offline_tune.errors import ArtifactError
from offline_tune.evaluator.artifact import load_model
from offline_tune.study.folder import RunFolder


def predict_file(folder: Path, data: Path, ensemble: bool, probabilities: bool) -> str:
    """One line a row of `data`, in its order: the prediction, and each class's probability where wanted.

    Raises:
        ArtifactError: no export in the folder, a damaged one, or one that does not fit the data.
        DataError: the file cannot be read.
    """
    model = load_model(_export(folder, ensemble))
    X = load_features(data, model.task)
    if not model.task.kind.is_classification:
        if probabilities:
            raise ArtifactError("--probabilities needs a classification model, got a regression; leave it out")
        return _csv(pd.DataFrame({model.task.target: model.predict(X)}))
    shares = model.predict_proba(X)
    labels = np.array(model.task.classes, dtype=object)[shares.argmax(axis=1)] if len(shares) else []
    table = pd.DataFrame({model.task.target: labels})
    if probabilities:
        for place, name in enumerate(model.task.classes):
            table[f"probability of {name}"] = shares[:, place]
    return _csv(table)


def _export(folder: Path, ensemble: bool) -> Path:
    run = RunFolder(folder)
    if not run.settings.is_file():
        return folder
    wanted = run.ensemble if ensemble else run.model
    if not wanted.is_dir():
        what = "ensemble" if ensemble else "model"
        raise ArtifactError(
            f"the run must have exported its {what}, got none in {folder}; finish it with `offline-tune resume`"
        )
    return wanted


def _csv(table: pd.DataFrame) -> str:
    return table.to_csv(index=False, lineterminator="\n")
