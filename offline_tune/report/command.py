"""The command that repeats a run, from its settings."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from offline_tune.study.settings import RunSettings

_OPTIONS = {
    "--target": "target",
    "--task": "task",
    "--metric": "metric",
    "--family": "families",
    "--sampler": "sampler",
    "--test": "test",
    "--split-column": "split_column",
    "--group": "group",
    "--time": "time",
    "--test-share": "test_share",
    "--folds": "folds",
    "--batch": "batch",
    "--workers": "workers",
    "--model": "model",
    "--device": "device",
    "--drafts": "drafts",
    "--temperature": "temperature",
    "--ensemble": "ensemble",
    "--description": "description",
}


def repeat_command(settings: RunSettings) -> str:
    """A shell command that runs the same again into a folder beside; options at their defaults are left out."""
    again = settings.out.parent / f"{settings.out.name or 'run'}-again"
    words = ["offline-tune", "run", str(settings.data), *_options(settings), "--out", str(again)]
    return shlex.join(words)


def _options(settings: RunSettings) -> Iterator[str]:
    defaults = {field.name: field.default for field in fields(RunSettings)}
    for option, name in _OPTIONS.items():
        value = getattr(settings, name)
        if value is None or value == defaults[name]:
            continue
        for each in value if isinstance(value, tuple) else (value,):
            yield from (option, str(each))
    yield from _limits(settings)
    yield from ("--seed", str(settings.seed))


def _limits(settings: RunSettings) -> Iterator[str]:
    budget, limits = settings.budget, settings.limits
    standard = type(limits)()
    yield from ("--trials", str(budget.trials))
    if budget.seconds is not None:
        yield from ("--time-limit", f"{budget.seconds:g}s")
    for option, limit in (("--llm-calls", budget.llm_calls), ("--llm-tokens", budget.llm_tokens)):
        if limit is not None:
            yield from (option, str(limit))
    if limits.seconds is not None and limits.seconds != standard.seconds:
        yield from ("--trial-time-limit", f"{limits.seconds:g}s")
    if limits.memory_mib is not None:
        yield from ("--trial-memory", str(limits.memory_mib))


def predict_command(path: Path) -> str:
    """How to predict with the winner of a run."""
    return shlex.join(["offline-tune", "predict", str(path), "data.csv"])
