"""Support vector machines; on larger data, a linear model on an approximate kernel map.

An exact kernel machine needs time that grows with the square of the rows, or worse. Above `MOST_EXACT_ROWS` the space
therefore holds `n_components`, and the model is Nystroem's map followed by logistic regression or a linear support
vector regressor: the same kernel, the same C and gamma, a cost that is linear in the rows.
"""

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
    positive,
    real,
    under,
    whole,
)
from offline_tune.space import Parameter, Values

MOST_EXACT_ROWS = 3_000
MOST_ROWS = 50_000
MOST_ITERATIONS = 30_000  # libsvm never ends on some degenerate kernels
CALIBRATION_FOLDS = 3


def _search(card: DataCard) -> tuple[Parameter, ...]:
    gamma = float(f"{1 / min(max(card.n_features, 1), 1000):.2e}")  # scikit-learn's "scale" where features are scaled
    large = card.n_rows > MOST_EXACT_ROWS
    return (
        positive("C", 1e-2, 1e3, default=1.0),
        choice("kernel", ("rbf", "poly")),
        under(whole("degree", 2, 4, default=3), "kernel", "poly"),
        positive("gamma", 1e-4, 10.0, default=gamma),
        *(() if card.kind.is_classification else (positive("epsilon", 1e-3, 1.0, default=0.1),)),
        *((whole("n_components", 50, 500, default=200, log=True),) if large else ()),
        *class_weight(card),
    )


def _build(values: Values, request: Request) -> Any:
    from offline_tune.evaluator.families.estimators import VendorClassifier, VendorRegressor

    approximate = "n_components" in values
    if not request.kind.is_classification:
        return VendorRegressor(_approximate_regressor(values, request) if approximate else _exact_regressor(values))
    if approximate:
        return VendorClassifier(_approximate_classifier(values, request))
    machine = _exact_classifier(values, request.seed)
    return VendorClassifier(machine, balanced=is_balanced(values), least_rows=CALIBRATION_FOLDS)


def _exact_classifier(values: Values, seed: int) -> Any:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.svm import SVC

    machine = SVC(**_kernel(values), C=real(values, "C"), max_iter=MOST_ITERATIONS, random_state=seed)
    return CalibratedClassifierCV(machine, ensemble=False, cv=CALIBRATION_FOLDS, n_jobs=1)


def _exact_regressor(values: Values) -> Any:
    from sklearn.svm import SVR

    return SVR(**_kernel(values), C=real(values, "C"), epsilon=real(values, "epsilon"), max_iter=MOST_ITERATIONS)


def _approximate_classifier(values: Values, request: Request) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    weight = "balanced" if is_balanced(values) else None
    return make_pipeline(
        _kernel_map(values, request), LogisticRegression(C=real(values, "C"), max_iter=200, class_weight=weight)
    )


def _approximate_regressor(values: Values, request: Request) -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVR

    margin = {"loss": "squared_epsilon_insensitive", "dual": False, "epsilon": real(values, "epsilon")}
    return make_pipeline(
        _kernel_map(values, request), LinearSVR(C=real(values, "C"), random_state=request.seed, **margin)
    )


def _kernel_map(values: Values, request: Request) -> Any:
    from sklearn.kernel_approximation import Nystroem

    size = min(integer(values, "n_components"), request.n_rows)
    return Nystroem(**_kernel(values), n_components=size, random_state=request.seed, n_jobs=1)


def _kernel(values: Values) -> dict[str, Any]:
    if values["kernel"] == "rbf":
        return {"kernel": "rbf", "gamma": real(values, "gamma")}
    return {"kernel": "poly", "gamma": real(values, "gamma"), "degree": integer(values, "degree"), "coef0": 1.0}


SVM = Family(
    card=described(
        "svm",
        "A smooth boundary in a kernel's space; strong on small and middling numeric data. On many rows the kernel is "
        "approximated by n_components landmark rows.",
        "high",
        {
            "C": "how much errors cost: large follows the data more closely",
            "kernel": "rbf measures closeness; poly multiplies features",
            "degree": "highest number of features multiplied",
            "gamma": "reach of one row: large is short and wiggly, small is nearly linear",
            "epsilon": "errors smaller than this share of the target's deviation cost nothing",
            "n_components": "landmark rows of the approximate kernel: more is finer and slower",
            "class_weight": "balanced makes each class count the same in the loss",
        },
    ),
    needs=Needs(encodings=("onehot", "target"), complete=True, scaled=True, dtype="float64"),
    search=_search,
    builder=_build,
    suits=lambda card: card.n_rows <= MOST_ROWS,
)
