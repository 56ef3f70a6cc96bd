"""Predictions for new rows, as CSV or JSON text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from offline_tune.data.prepare import load_features
from offline_tune.errors import ArtifactError, UsageError
from offline_tune.evaluator.artifact import load_model
from offline_tune.evaluator.fitted import FittedModel
from offline_tune.study.folder import RunFolder, writing


def predict_file(folder: Path, data: Path, ensemble: bool, probabilities: bool, as_json: bool = False) -> str:
    """One line (or JSON object) a row of `data`, in its order: the prediction, and each class's probability if wanted.

    Raises:
        ArtifactError: no export in the folder, a damaged one, or one that does not fit the data.
        DataError: the file cannot be read.
        UsageError: probabilities of a regression.
    """
    model = load_model(_export(folder, ensemble))
    if probabilities and not model.task.kind.is_classification:
        raise UsageError("--probabilities needs a classification model, got a regression; leave it out")
    table = _predictions(model, load_features(data, model.task), probabilities)
    if as_json:
        return table.to_json(orient="records", lines=False, double_precision=15, indent=1) + "\n"
    return table.to_csv(index=False, lineterminator="\n")


def check_apart(out: Path, data: Path) -> None:
    """Refuse to write the predictions over their data.

    Raises:
        UsageError: both are one file.
    """
    if out.exists() and data.exists() and out.samefile(data):
        raise UsageError(f"--out must not be the data file, got {str(out)!r} for both; name another file")


def write(out: Path, text: str) -> None:
    """Write the predictions, whole or not at all.

    Raises:
        OutputError: they cannot be written.
    """
    partial = out.with_name(f"{out.name}.partial")
    with writing(out):
        try:
            partial.write_text(text, encoding="utf-8")
            partial.replace(out)
        finally:
            partial.unlink(missing_ok=True)


def _predictions(model: FittedModel, X: pd.DataFrame, probabilities: bool) -> pd.DataFrame:
    target, classes = model.task.target, model.task.classes
    if not model.task.kind.is_classification:
        return pd.DataFrame({target: model.predict(X)})
    shares = model.predict_proba(X)
    table = pd.DataFrame({target: np.array(classes, dtype=object)[shares.argmax(axis=1)]})
    if probabilities:
        for place, name in enumerate(classes):
            table[f"probability of {name}"] = shares[:, place]
    return table


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
