"""CatBoost."""

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

MOST_FEATURES = 500  # its time grows with the features, however few the rows


def _search(card: DataCard) -> tuple[Parameter, ...]:
    most = most_trees(card, 400)
    return (
        whole("n_estimators", 50, most, default=min(200, most), log=True),
        positive("learning_rate", 0.02, 0.5, default=0.1),
        whole("max_depth", 3, 8, default=6),
        positive("reg_lambda", 0.1, 100.0, default=3.0),
        positive("random_strength", 1e-3, 10.0, default=1.0),
        choice("bootstrap", ("bernoulli", "bayesian")),
        under(share("subsample", 0.5, 1.0, default=0.8), "bootstrap", "bernoulli"),
        under(share("bagging_temperature", 0.0, 2.0, default=1.0), "bootstrap", "bayesian"),
        *class_weight(card),
    )


def _build(values: Values, request: Request) -> Any:
    from catboost import CatBoostClassifier, CatBoostRegressor

    from offline_tune.evaluator.families.estimators import VendorClassifier, VendorRegressor

    if request.kind.is_classification:
        model = CatBoostClassifier(**_options(values, request))
        return VendorClassifier(model, balanced=is_balanced(values), n_native=request.n_native)
    return VendorRegressor(CatBoostRegressor(**_options(values, request)), n_native=request.n_native)


def _options(values: Values, request: Request) -> dict[str, Any]:
    bernoulli = values["bootstrap"] == "bernoulli"
    drawn = "subsample" if bernoulli else "bagging_temperature"
    return {
        drawn: real(values, drawn),
        "bootstrap_type": "Bernoulli" if bernoulli else "Bayesian",
        "iterations": integer(values, "n_estimators"),
        "learning_rate": real(values, "learning_rate"),
        "depth": integer(values, "max_depth"),
        "l2_leaf_reg": real(values, "reg_lambda"),
        "random_strength": real(values, "random_strength"),
        "random_seed": request.seed,
        "max_ctr_complexity": 1,  # combinations of categories treble the time and seldom pay
        "thread_count": 1,
        "allow_writing_files": False,
        "logging_level": "Silent",
    }


CATBOOST = Family(
    card=described(
        "catboost",
        "Boosted symmetric trees with ordered target statistics; the strongest on categories, slower to train.",
        "high",
        {
            "n_estimators": "boosting rounds: more needs a lower learning rate",
            "learning_rate": "how much each tree corrects: small needs more rounds and generalises better",
            "max_depth": "depth of the symmetric trees: 2 to that power is the number of leaves",
            "reg_lambda": "l2 penalty on leaf values",
            "random_strength": "noise added to the score of splits: more regularises",
            "bootstrap": "how rows are drawn for each tree: kept or not (bernoulli), or weighed (bayesian)",
            "subsample": "share of the rows kept for each tree",
            "bagging_temperature": "how uneven the random weights of rows are; 0 makes them all equal",
            "class_weight": "balanced makes each class count the same in the loss",
        },
    ),
    needs=Needs(encodings=("native", "onehot", "target")),
    search=_search,
    builder=_build,
    suits=lambda card: card.n_features <= MOST_FEATURES,
)
