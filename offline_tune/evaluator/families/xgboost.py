"""XGBoost."""

from __future__ import annotations

from typing import Any

from offline_tune.cards import DataCard
from offline_tune.evaluator.families.base import (
    Family,
    Needs,
    Request,
    choice,
    class_weight,
    described,
    integer,
    is_balanced,
    most_trees,
    positive,
    real,
    share,
    under,
    whole,
)
from offline_tune.space import Parameter, Values


def _search(card: DataCard) -> tuple[Parameter, ...]:
    return (
        whole("n_estimators", 50, most_trees(card, 1000), default=100, log=True),
        positive("learning_rate", 0.01, 0.5, default=0.3),
        choice("grow_policy", ("depthwise", "lossguide")),
        under(whole("max_depth", 2, 10, default=6), "grow_policy", "depthwise"),
        under(whole("num_leaves", 4, 128, default=31, log=True), "grow_policy", "lossguide"),
        positive("min_child_weight", 0.1, 100.0, default=1.0),
        share("subsample", 0.5, 1.0, default=1.0),
        share("colsample_bytree", 0.3, 1.0, default=1.0),
        positive("gamma", 1e-6, 10.0, default=1e-6),
        positive("reg_alpha", 1e-6, 10.0, default=1e-6),
        positive("reg_lambda", 1e-3, 100.0, default=1.0),
        *class_weight(card),
    )


def _build(values: Values, request: Request) -> Any:
    from xgboost import XGBClassifier, XGBRegressor

    from offline_tune.evaluator.families.estimators import VendorClassifier, VendorRegressor

    if request.kind.is_classification:
        model = XGBClassifier(**_options(values, request))
        return VendorClassifier(model, balanced=is_balanced(values), n_native=request.n_native)
    return VendorRegressor(XGBRegressor(**_options(values, request)), n_native=request.n_native)


def _options(values: Values, request: Request) -> dict[str, Any]:
    names = ("learning_rate", "min_child_weight", "subsample", "colsample_bytree", "gamma", "reg_alpha", "reg_lambda")
    leafwise = values["grow_policy"] == "lossguide"
    return {
        **{name: real(values, name) for name in names},
        "n_estimators": integer(values, "n_estimators"),
        "grow_policy": values["grow_policy"],
        "max_depth": 0 if leafwise else integer(values, "max_depth"),
        "max_leaves": integer(values, "num_leaves") if leafwise else 0,
        "tree_method": "hist",
        "enable_categorical": request.n_native > 0,
        "random_state": request.seed,
        "n_jobs": 1,
        "verbosity": 0,
    }


XGBOOST = Family(
    card=described(
        "xgboost",
        "Boosted trees with second-order steps and many regularisers; a strong default on most tables.",
        "medium",
        {
            "n_estimators": "boosting rounds: more needs a lower learning rate",
            "learning_rate": "how much each tree corrects: small needs more rounds and generalises better",
            "grow_policy": "depthwise grows level by level, lossguide splits the best leaf first",
            "max_depth": "depth of a tree: deeper means higher interactions and overfits sooner",
            "num_leaves": "leaves of a tree grown best leaf first",
            "min_child_weight": "least sum of curvature in a leaf: large is more conservative",
            "subsample": "share of the rows drawn for each tree",
            "colsample_bytree": "share of the features drawn for each tree",
            "gamma": "least gain a split must bring: large prunes more",
            "reg_alpha": "l1 penalty on leaf values",
            "reg_lambda": "l2 penalty on leaf values",
            "class_weight": "balanced makes each class count the same in the loss",
        },
    ),
    needs=Needs(encodings=("onehot", "native", "target")),
    search=_search,
    builder=_build,
)
