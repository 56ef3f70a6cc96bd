"""The scales on which the shipped model learnt what levels mean, for parameters of families that it has seen.

A level of a learning rate is of use to the model only if it stands for the same learning rate as in its training,
whatever range a space gives it. So known parameters of known families are placed on the ranges of the landscapes that
the model was trained on (YAHPO Gym's rbv2_xgboost, rbv2_ranger, rbv2_rpart and lcbench, Apache-2.0), all others on
their own range. Relatives share a scale: what LightGBM calls a learning rate is XGBoost's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Scale:
    """A range, linear or logarithmic."""

    low: float
    high: float
    log: bool = False

    def to_unit(self, number: float) -> float:
        """The place on [0, 1]; numbers beyond the ends are put on them."""
        number = min(max(number, self.low), self.high)
        low, high, x = (math.log(v) if self.log else v for v in (self.low, self.high, number))
        return (x - low) / (high - low)

    def from_unit(self, unit: float) -> float:
        """Inverse of `to_unit` inside the range."""
        if self.log:
            return self.low * math.exp(unit * math.log(self.high / self.low))
        return self.low + unit * (self.high - self.low)


_BOOSTING = {
    "learning_rate": Scale(0.0009118819655545162, 1.0, log=True),
    "n_estimators": Scale(7, 2981, log=True),
    "max_depth": Scale(1, 15),
    "min_child_weight": Scale(2.718281828459045, 148.4131591025766, log=True),
    "subsample": Scale(0.1, 1.0),
    "colsample_bytree": Scale(0.01, 1.0),
    "colsample_bylevel": Scale(0.01, 1.0),
    "gamma": Scale(4.5399929762484854e-05, 7.38905609893065, log=True),
    "reg_alpha": Scale(0.0009118819655545162, 1096.6331584284585, log=True),
    "reg_lambda": Scale(0.0009118819655545162, 1096.6331584284585, log=True),
}
_FOREST = {
    "n_estimators": Scale(1, 2000),
    "min_samples_leaf": Scale(1, 100),
    "max_features": Scale(0.0, 1.0),
    "subsample": Scale(0.1, 1.0),
}
_TREE = {
    "max_depth": Scale(1, 30),
    "min_samples_leaf": Scale(1, 100),
    "min_samples_split": Scale(1, 100),
    "ccp_alpha": Scale(0.0009118819655545162, 1.0, log=True),
}
_NETWORK = {
    "batch_size": Scale(16, 512, log=True),
    "learning_rate": Scale(1e-4, 0.1, log=True),
    "dropout": Scale(0.0, 1.0),
    "width": Scale(64, 1024, log=True),
    "momentum": Scale(0.1, 0.99),
    "depth": Scale(1, 5),
    "weight_decay": Scale(1e-5, 0.1),
}
LEARNT: Mapping[str, Mapping[str, Scale]] = MappingProxyType(
    {
        "xgboost": _BOOSTING,
        "lightgbm": _BOOSTING,
        "hist_gradient_boosting": _BOOSTING,
        "catboost": _BOOSTING,
        "random_forest": _FOREST,
        "extra_trees": _FOREST,
        "decision_tree": _TREE,
        "mlp": _NETWORK,
    }
)


def learnt_scale(name: str) -> Scale | None:
    """The scale of `family.parameter`, None for what the model has not seen.

    >>> learnt_scale("lightgbm.learning_rate").high, learnt_scale("svm.C")
    (1.0, None)
    """
    family, _, short = name.rpartition(".")
    return LEARNT.get(family, {}).get(short)
