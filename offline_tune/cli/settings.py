"""From the options of `run` to its settings; what does not fit is refused before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from offline_tune.errors import UsageError
from offline_tune.study.settings import RunSettings
from offline_tune.task import Budget, TrialLimits

_RANGES = {"folds": (2, 50), "batch": (1, 256), "drafts": (1, 255), "seed": (0, 2**32 - 1), "workers": (0, 4096)}


def settings_of(given: Mapping[str, Any]) -> RunSettings:
    """The settings of a run.

    Raises:
        UsageError: a number out of its range.
    """
    for name, (low, high) in _RANGES.items():
        if not low <= given[name] <= high:
            raise UsageError(f"--{name} must be from {low} to {high}, got {given[name]}; choose a number inside")
    if not 0 < given["test_share"] < 1:
        raise UsageError(f"--test-share must lie between 0 and 1, got {given['test_share']:g}; 0.2 is usual")
    rest = dict(given)
    budget = Budget(
        trials=rest.pop("trials"),
        seconds=rest.pop("time_limit"),
        llm_calls=rest.pop("llm_calls"),
        llm_tokens=rest.pop("llm_tokens"),
    )
    limits = TrialLimits(seconds=rest.pop("trial_time_limit"), memory_mib=rest.pop("trial_memory"))
    families = tuple(name.strip() for given_names in rest.pop("families") for name in given_names.split(","))
    data: Path = rest.pop("data")
    out: Path = rest.pop("out") or Path("runs") / _stem(data)
    return RunSettings(
        **{name: value for name, value in rest.items() if name not in ("test", "model")},
        data=data.absolute(),
        out=out,
        test=_absolute(rest["test"]),
        model=_absolute(rest["model"]),
        families=families or ("auto",),
        budget=budget,
        limits=limits,
    )


def _stem(path: Path) -> str:
    return path.name.split(".")[0] or "data"


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()
