"""From the options of `run` to its settings; what does not fit is refused before anything is read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from offline_tune.errors import UsageError
from offline_tune.study.settings import RunSettings
from offline_tune.task import Budget, TrialLimits

_RANGES = {
    "folds": (2, 50),
    "batch": (1, 256),
    "drafts": (1, 255),
    "seed": (0, 2**32 - 1),
    "workers": (0, 4096),
    "threads": (0, 512),
}
_PATHS = ("data", "out", "test", "model")


def settings_of(given: Mapping[str, Any]) -> RunSettings:
    """The settings of a run.

    Raises:
        UsageError: a number out of its range, or a path that cannot be noted.
    """
    _check(given)
    rest = dict(given)
    budget = Budget(
        trials=rest.pop("trials"),
        seconds=rest.pop("time_limit"),
        llm_calls=rest.pop("llm_calls"),
        llm_tokens=rest.pop("llm_tokens"),
    )
    limits = TrialLimits(seconds=rest.pop("trial_time_limit"), memory_mib=rest.pop("trial_memory"))
    families = tuple(name.strip() for given_names in rest.pop("families") for name in given_names.split(","))
    paths = {name: rest.pop(name) for name in _PATHS}
    return RunSettings(
        **rest,
        data=paths["data"].absolute(),
        out=paths["out"] or Path("runs") / _stem(paths["data"]),
        test=_absolute(paths["test"]),
        model=_absolute(paths["model"]),
        families=families or ("auto",),
        budget=budget,
        limits=limits,
    )


def changed(settings: RunSettings, given: Mapping[str, Any]) -> RunSettings:
    """The settings of a resumed run: those it began with, but for the options that are given.

    Raises:
        UsageError: a number out of its range.
    """
    new = {name: value for name, value in given.items() if value is not None}
    _check_ranges(new)
    budget = {"trials": "trials", "time_limit": "seconds"}
    limits = {"trial_time_limit": "seconds", "trial_memory": "memory_mib"}
    return replace(
        settings,
        **{name: new[name] for name in ("workers", "device", "gpu_layers", "threads") if name in new},
        budget=replace(settings.budget, **{budget[name]: value for name, value in new.items() if name in budget}),
        limits=replace(settings.limits, **{limits[name]: value for name, value in new.items() if name in limits}),
    )


def _check(given: Mapping[str, Any]) -> None:
    _check_ranges(given)
    if not 0 < given["test_share"] < 1:
        raise UsageError(f"--test-share must lie between 0 and 1, got {given['test_share']:g}; 0.2 is usual")
    if not (math.isfinite(given["temperature"]) and given["temperature"] >= 0):
        raise UsageError(f"--temperature must be 0 or more, got {given['temperature']:g}; 1 is the model's own")
    for name, value in given.items():
        if isinstance(value, str | Path) and not _is_unicode(str(value)):
            raise UsageError(f"--{name} must be valid UTF-8, got {str(value)[:50]!r}; rename it")


def _check_ranges(given: Mapping[str, Any]) -> None:
    for name, (low, high) in _RANGES.items():
        if name in given and not low <= given[name] <= high:
            raise UsageError(f"--{name} must be from {low} to {high}, got {given[name]}; choose a number inside")


def _is_unicode(text: str) -> bool:
    """Whether text from the command line holds no bytes that were not UTF-8; they could not be noted in JSON."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _stem(path: Path) -> str:
    return path.name.split(".")[0] or "data"


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()
