"""What random forests and extra trees share: their space and how their values reach scikit-learn."""

from __future__ import annotations

import math
from typing import Any

from offline_tune.cards import DataCard
from offline_tune.evaluator.families.base import (
    Request,
    class_weight,
    integer,
    positive,
    real,
    share,
    whole,
)
from offline_tune.space import Parameter, Values

MANY_ROWS = 10_000  # fully grown trees take time in proportion; more of them adds little here

SENTENCES = {
    "n_estimators": "how many trees are averaged: more is steadier and slower, never worse by much",
    "max_features": "share of the features tried at each split: small makes trees differ, large makes each one better",
    "min_samples_leaf": "rows a leaf must hold: large is smoother",
    "min_impurity_decrease": "how much a split must gain to be made: large prunes more",
    "class_weight": "balanced makes each class count the same in the trees",
}


def search(card: DataCard) -> tuple[Parameter, ...]:
    """The space of a forest: scikit-learn's defaults, in numbers."""
    most_leaf = max(1, min(64, card.n_rows // 16))
    return (
        whole("n_estimators", 50, 400 if card.n_rows <= MANY_ROWS else 200, default=100, log=True),
        share("max_features", 0.05, 1.0, default=_usual_share(card)),
        whole("min_samples_leaf", 1, most_leaf, default=1, log=True),
        positive("min_impurity_decrease", 1e-8, 1e-3, default=1e-8),
        *class_weight(card),
    )


def options(values: Values, request: Request) -> dict[str, Any]:
    """The vendor's arguments."""
    return {
        "n_estimators": integer(values, "n_estimators"),
        "max_features": real(values, "max_features"),
        "min_samples_leaf": integer(values, "min_samples_leaf"),
        "min_impurity_decrease": real(values, "min_impurity_decrease"),
        "random_state": request.seed,
        "n_jobs": 1,
    }


def _usual_share(card: DataCard) -> float:
    if not card.kind.is_classification:
        return 1.0
    return max(0.05, round(20 / math.sqrt(max(card.n_features, 1))) / 20)
