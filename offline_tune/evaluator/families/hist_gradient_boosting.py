"""Histogram gradient boosting of scikit-learn."""

from __future__ import annotations

from typing import Any

from offline_tune.cards import DataCard
from offline_tune.evaluator.families.base import (
    Family,
    Needs,
    Request,
    class_weight,
    described,
    integer,
    is_balanced,
    most_trees,
    positive,
    real,
    share,
    whole,
)
from offline_tune.space import Parameter, Values


def _search(card: DataCard) -> tuple[Parameter, ...]:
    return (
        whole("n_estimators", 30, most_trees(card, 500), default=100, log=True),
        positive("learning_rate", 0.01, 0.5, default=0.1),
        whole("num_leaves", 4, 128, default=31, log=True),
        whole("min_samples_leaf", 2, 200, default=20, log=True),
        share("max_features", 0.2, 1.0, default=1.0),
        positive("reg_lambda", 1e-6, 100.0, default=1e-6),
        *class_weight(card),
    )


def _build(values: Values, request: Request) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    from offline_tune.evaluator.families.estimators import VendorClassifier, VendorRegressor

    options = {
        "max_iter": integer(values, "n_estimators"),
        "learning_rate": real(values, "learning_rate"),
        "max_leaf_nodes": integer(values, "num_leaves"),
        "min_samples_leaf": integer(values, "min_samples_leaf"),
        "max_features": real(values, "max_features"),
        "l2_regularization": real(values, "reg_lambda"),
        "categorical_features": "from_dtype",
        "early_stopping": False,
        "random_state": request.seed,
    }
    n_native = request.n_native
    if request.kind.is_classification:
        model = HistGradientBoostingClassifier(**options)
        return VendorClassifier(model, balanced=is_balanced(values), n_native=n_native)
    return VendorRegressor(HistGradientBoostingRegressor(**options), n_native=n_native)


HIST_GRADIENT_BOOSTING = Family(
    card=described(
        "hist_gradient_boosting",
        "Boosted trees on binned features, scikit-learn's own: accurate, missing values and categories as they are.",
        "medium",
        {
            "n_estimators": "boosting rounds: more needs a lower learning rate",
            "learning_rate": "how much each tree corrects: small needs more rounds and generalises better",
            "num_leaves": "leaves of a tree: the main measure of complexity",
            "min_samples_leaf": "rows a leaf must hold: large is smoother",
            "max_features": "share of the features tried at each split",
            "reg_lambda": "l2 penalty on leaf values",
            "class_weight": "balanced makes each class count the same in the loss",
        },
    ),
    needs=Needs(encodings=("native", "target")),
    search=_search,
    builder=_build,
)
