"""Linear models: logistic regression; ridge, lasso and elastic net."""

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
    is_balanced,
    positive,
    real,
    share,
    under,
)
from offline_tune.space import Parameter, Values


def _search(card: DataCard) -> tuple[Parameter, ...]:
    penalty = (
        choice("penalty", ("l2", "l1", "elasticnet")),
        under(share("l1_ratio", 0.05, 0.95, default=0.5), "penalty", "elasticnet"),
    )
    if card.kind.is_classification:
        return (*penalty, positive("C", 1e-4, 1e2, default=1.0), *class_weight(card))
    # Ridge's own default is 1 on the sum of squares; alpha is stated for the mean, as lasso and elastic net state it.
    ridge_default = float(f"{1 / min(max(card.n_rows, 1), 10**5):.2e}")
    return (*penalty, positive("alpha", 1e-5, 1.0, default=ridge_default))


def _build(values: Values, request: Request) -> Any:
    from offline_tune.evaluator.families.estimators import VendorClassifier, VendorRegressor

    if request.kind.is_classification:
        return VendorClassifier(_logistic(values, request.seed), balanced=is_balanced(values))
    return VendorRegressor(_least_squares(values, request))


def _logistic(values: Values, seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    ratio, strength = _l1_ratio(values), real(values, "C")
    if ratio == 0:
        return LogisticRegression(C=strength, l1_ratio=0.0, solver="lbfgs", max_iter=300)
    return LogisticRegression(C=strength, l1_ratio=ratio, solver="saga", tol=1e-3, max_iter=100, random_state=seed)


def _least_squares(values: Values, request: Request) -> Any:
    from sklearn.linear_model import ElasticNet, Ridge

    ratio, alpha = _l1_ratio(values), real(values, "alpha")
    if ratio == 0:
        return Ridge(alpha=alpha * request.n_rows)
    return ElasticNet(alpha=alpha, l1_ratio=ratio, max_iter=1000, tol=1e-3, random_state=request.seed)


def _l1_ratio(values: Values) -> float:
    fixed = {"l2": 0.0, "l1": 1.0}
    penalty = str(values["penalty"])
    return fixed[penalty] if penalty in fixed else real(values, "l1_ratio")


LINEAR = Family(
    card=described(
        "linear",
        "A weighted sum of the encoded features: fast, hard to overfit, blind to interactions.",
        "low",
        {
            "penalty": "which weights are held back: l2 shrinks all, l1 sets many to zero, elasticnet mixes them",
            "l1_ratio": "share of l1 in the mix",
            "C": "inverse strength of the penalty of a classifier: small is simpler",
            "alpha": "strength of the penalty of a regressor, for each row: large is simpler",
            "class_weight": "balanced makes each class count the same in the loss",
        },
    ),
    needs=Needs(encodings=("onehot", "target"), complete=True, scaled=True, sparse=True, selects=True, dtype="float64"),
    search=_search,
    builder=_build,
)
