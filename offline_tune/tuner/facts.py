"""What a result tells of its task, data, families and model; the report shows it."""

from __future__ import annotations

from typing import Any

from offline_tune.tuner.parts import Parts


def facts_of(parts: Parts) -> dict[str, Any]:
    """Plain values, to be written as JSON."""
    task, card = parts.dataset.task, parts.dataset.card
    info = parts.model.info if parts.model else None
    return {
        "task": task.kind.value,
        "name": task.name,
        "target": task.target,
        "classes": list(task.classes),
        "metric": task.metric.name,
        "metrics": [metric.name for metric in task.metrics],
        "n_rows": task.n_rows,
        "n_train": len(parts.dataset.X),
        "n_test": 0 if parts.dataset.X_test is None else len(parts.dataset.X_test),
        "columns": [
            {"name": c.name, "kind": c.kind.value, "unique": c.n_unique, "missing": c.n_missing} for c in task.columns
        ],
        "card": {name: getattr(card, name) for name in card.__dataclass_fields__},
        "notes": [note.text for note in parts.dataset.notes],
        "families": {
            f.name: {"summary": f.card.summary, "hyperparameters": dict(f.card.hyperparameters)} for f in parts.families
        },
        "model": None
        if info is None
        else {
            "file": info.path.name,
            "sha256": info.sha256,
            "dialect": info.dialect,
            "architecture": info.architecture,
            "parameters": info.n_parameters,
        },
    }
