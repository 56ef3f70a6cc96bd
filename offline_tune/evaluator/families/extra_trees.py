"""Extremely randomised trees of scikit-learn."""

from __future__ import annotations

from typing import Any

from offline_tune.evaluator.families import forests
from offline_tune.evaluator.families.base import Family, Needs, Request, described, is_balanced
from offline_tune.space import Values


def _build(values: Values, request: Request) -> Any:
    from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

    from offline_tune.evaluator.families.estimators import VendorClassifier, VendorRegressor

    options = forests.options(values, request)
    if request.kind.is_classification:
        return VendorClassifier(ExtraTreesClassifier(**options), balanced=is_balanced(values))
    return VendorRegressor(ExtraTreesRegressor(**options))


EXTRA_TREES = Family(
    card=described(
        "extra_trees",
        "Like a random forest, but with thresholds drawn at random: faster, smoother, good on noisy numeric data.",
        "medium",
        forests.SENTENCES,
    ),
    needs=Needs(encodings=("ordinal", "target")),
    search=forests.search,
    builder=_build,
)
