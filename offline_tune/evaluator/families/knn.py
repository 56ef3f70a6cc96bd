"""K nearest neighbours."""

from __future__ import annotations

from typing import Any

from offline_tune.cards import DataCard
from offline_tune.evaluator.families.base import Family, Needs, Request, choice, described, integer, whole
from offline_tune.space import Parameter, Values

MOST_ROWS = 30_000  # every prediction looks at every training row
MOST_NEIGHBORS = 100


def _search(card: DataCard) -> tuple[Parameter, ...]:
    # An eighth of the rows is there even in the first fold of a time split.
    most = max(1, min(MOST_NEIGHBORS, card.n_rows // 8))
    return (
        whole("n_neighbors", 1, most, default=min(5, most), log=True),
        choice("weights", ("uniform", "distance")),
        choice("metric", ("euclidean", "manhattan")),
    )


def _build(values: Values, request: Request) -> Any:
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    from offline_tune.evaluator.families.estimators import VendorClassifier, VendorRegressor

    options = {
        "n_neighbors": integer(values, "n_neighbors"),
        "weights": values["weights"],
        "metric": values["metric"],
        "algorithm": "brute",  # encoded tables are too wide for trees to help
        "n_jobs": 1,
    }
    if request.kind.is_classification:
        return VendorClassifier(KNeighborsClassifier(**options))
    return VendorRegressor(KNeighborsRegressor(**options))


KNN = Family(
    card=described(
        "knn",
        "Averages the most similar training rows; good on small smooth data, weak with many irrelevant features.",
        "low",
        {
            "n_neighbors": "how many neighbours are averaged: few follow detail and noise, many smooth",
            "weights": "distance lets nearer neighbours count more",
            "metric": "how distance is measured; manhattan suffers less from outlying features",
        },
    ),
    needs=Needs(encodings=("onehot", "target"), complete=True, scaled=True, selects=True),
    search=_search,
    builder=_build,
    suits=lambda card: card.n_rows <= MOST_ROWS,
)
