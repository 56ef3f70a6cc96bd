"""The untouched test part: what was true, what the winner and the ensemble predicted."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offline_tune.errors import StudyError

Labels = NDArray[Any]


@dataclass(frozen=True, eq=False, kw_only=True)
class TestPart:
    """Truth and predictions, n rows, c classes.

    `truth` and `predicted` (n,) are codes into the task's classes, or floats for regression; `probabilities` (n, c)
    where the winner gives them.
    """

    __test__ = False  # not a test case, whatever pytest thinks of the name

    truth: Labels
    predicted: Labels
    probabilities: NDArray[np.float64] | None = None
    ensemble_predicted: Labels | None = None
    ensemble_probabilities: NDArray[np.float64] | None = None

    @property
    def is_numeric(self) -> bool:
        """Whether residuals can be taken: there are rows, and all are numbers."""
        return len(self.truth) > 0 and all(array.dtype.kind in "biuf" for array in (self.truth, self.predicted))


def read_test(path: Path) -> TestPart | None:
    """Read test.npz; None where the run had no test part.

    Raises:
        StudyError: damaged.
    """
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            known = {name: stored[name] for name in TestPart.__dataclass_fields__ if name in stored}
        part = TestPart(**known)
        lengths = {len(array) for array in known.values()}
    except (OSError, TypeError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise StudyError(
            f"{path.name} must hold the test part's truth and predictions, got {type(error).__name__} reading it; "
            "restore it from a copy, or remove it for a report without it"
        ) from error
    if len(lengths) != 1 or part.truth.ndim != 1 or part.predicted.ndim != 1:
        raise StudyError(
            f"{path.name} must hold one prediction for each row, got arrays of other shapes; "
            "restore it from a copy, or remove it for a report without it"
        )
    return part
