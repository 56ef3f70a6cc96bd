"""Random forests of scikit-learn."""

from __future__ import annotations

from typing import Any

from offline_tune.cards import DataCard
from offline_tune.evaluator.families import forests
from offline_tune.evaluator.families.base import Family, Needs, Request, described, is_balanced, real, share
from offline_tune.space import Parameter, Values


def _search(card: DataCard) -> tuple[Parameter, ...]:
    return (*forests.search(card), share("subsample", 0.3, 1.0, default=1.0))


def _build(values: Values, request: Request) -> Any:
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    from offline_tune.evaluator.families.estimators import VendorClassifier, VendorRegressor

    options = {**forests.options(values, request), "max_samples": real(values, "subsample")}
    if request.kind.is_classification:
        return VendorClassifier(RandomForestClassifier(**options), balanced=is_balanced(values))
    return VendorRegressor(RandomForestRegressor(**options))


RANDOM_FOREST = Family(
    card=described(
        "random_forest",
        "An average of deep trees on resampled rows; robust with little tuning, large and slower on many rows.",
        "medium",
        {**forests.SENTENCES, "subsample": "share of the rows drawn, with replacement, for each tree"},
    ),
    needs=Needs(encodings=("ordinal", "target")),
    search=_search,
    builder=_build,
)
