"""LightGBM."""

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
        whole("n_estimators", 50, most_trees(card, 1000), default=100, log=True),
        positive("learning_rate", 0.01, 0.5, default=0.1),
        whole("num_leaves", 4, 128, default=31, log=True),
        whole("min_samples_leaf", 2, 200, default=20, log=True),
        share("subsample", 0.5, 1.0, default=1.0),
        share("colsample_bytree", 0.3, 1.0, default=1.0),
        positive("reg_alpha", 1e-6, 10.0, default=1e-6),
        positive("reg_lambda", 1e-6, 100.0, default=1e-6),
        *class_weight(card),
    )


def _build(values: Values, request: Request) -> Any:
    from lightgbm import LGBMClassifier, LGBMRegressor

    from offline_tune.evaluator.families.estimators import VendorClassifier, VendorRegressor

    if request.kind.is_classification:
        model = LGBMClassifier(**_options(values, request))
        return VendorClassifier(model, balanced=is_balanced(values), n_native=request.n_native)
    return VendorRegressor(LGBMRegressor(**_options(values, request)), n_native=request.n_native)


def _options(values: Values, request: Request) -> dict[str, Any]:
    names = ("learning_rate", "subsample", "colsample_bytree", "reg_alpha", "reg_lambda")
    return {
        **{name: real(values, name) for name in names},
        "n_estimators": integer(values, "n_estimators"),
        "num_leaves": integer(values, "num_leaves"),
        "min_child_samples": integer(values, "min_samples_leaf"),
        "subsample_freq": 1,
        # LightGBM's own 100 rows for a group of categories leave small tables without any.
        "min_data_per_group": max(5, min(100, request.n_rows // 100)),
        "random_state": request.seed,
        "deterministic": True,
        "force_row_wise": True,  # otherwise the layout follows a timing at the start, and sums with it
        "n_jobs": 1,
        "verbose": -1,
    }


LIGHTGBM = Family(
    card=described(
        "lightgbm",
        "Boosted trees grown leaf by leaf on binned features; the fastest booster on many rows.",
        "medium",
        {
            "n_estimators": "boosting rounds: more needs a lower learning rate",
            "learning_rate": "how much each tree corrects: small needs more rounds and generalises better",
            "num_leaves": "leaves of a tree: the main measure of complexity",
            "min_samples_leaf": "rows a leaf must hold: large is smoother, vital on small data",
            "subsample": "share of the rows drawn for each tree",
            "colsample_bytree": "share of the features drawn for each tree",
            "reg_alpha": "l1 penalty on leaf values",
            "reg_lambda": "l2 penalty on leaf values",
            "class_weight": "balanced makes each class count the same in the loss",
        },
    ),
    needs=Needs(encodings=("native", "onehot", "target")),
    search=_search,
    builder=_build,
)
