"""Real tuning landscapes as pools: tables of evaluated random configurations, one file a family.

A file is an .npz with the keys names, kinds ("float", "int", "cat"), lower, upper, log, choices (JSON), targets,
minimize, instances, and for each instance i: x_i (n, p) in natural units (a choice by position, NaN where inactive)
and y_i (n, n_targets).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from offline_tune.errors import DataError
from offline_tune.pretrain.holdout import is_held_out
from offline_tune.pretrain.pool import Pool, Schema, levels, make_pool

_NAMES = {
    "batch_size": "batch_size",
    "learning_rate": "learning_rate",
    "max_dropout": "dropout",
    "max_units": "width",
    "momentum": "momentum",
    "num_layers": "depth",
    "weight_decay": "weight_decay",
    "alpha": "reg_alpha",
    "lambda": "reg_lambda",
    "booster": "booster",
    "nrounds": "n_estimators",
    "num.trees": "n_estimators",
    "num.impute.selected.cpo": "imputing",
    "subsample": "subsample",
    "sample.fraction": "subsample",
    "colsample_bylevel": "colsample_bylevel",
    "colsample_bytree": "colsample_bytree",
    "eta": "learning_rate",
    "gamma": "gamma",
    "max_depth": "max_depth",
    "maxdepth": "max_depth",
    "min_child_weight": "min_child_weight",
    "rate_drop": "rate_drop",
    "skip_drop": "skip_drop",
    "min.node.size": "min_samples_leaf",
    "minbucket": "min_samples_leaf",
    "minsplit": "min_samples_split",
    "mtry.power": "max_features",
    "replace": "bootstrap",
    "respect.unordered.factors": "unordered_factors",
    "splitrule": "splitrule",
    "num.random.splits": "n_random_splits",
    "cp": "ccp_alpha",
}
_WORDS = {"impute.mean": "mean", "impute.median": "median", "impute.hist": "hist"}
FILES = {
    "lcbench.npz": ("mlp", "val_accuracy"),
    "rbv2_xgboost.npz": ("xgboost", "acc"),
    "rbv2_ranger.npz": ("random_forest", "acc"),
    "rbv2_rpart.npz": ("decision_tree", "acc"),
}


# An archive has an error of its own for each way to be broken; a file that is none gives a bare array.
_DAMAGES = (
    OSError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    IndexError,
    EOFError,
    BadZipFile,
    zlib.error,
)


@dataclass(frozen=True, eq=False)
class Scenario:
    """One family's landscapes, by the name of the data set they were measured on."""

    family: str
    schema: Schema
    pools: Mapping[str, Pool]


def load_scenarios(folder: Path) -> tuple[Scenario, ...]:
    """All known files in a folder, in a fixed order.

    Raises:
        DataError: a file is damaged or lacks a key.
    """
    return tuple(_load(folder / name, *FILES[name]) for name in FILES if (folder / name).exists())


def held_out(scenario: Scenario) -> tuple[str, ...]:
    """The data sets kept for development: the same names in every scenario, see `is_held_out`."""
    return tuple(sorted(filter(is_held_out, scenario.pools)))


def composite(scenarios: tuple[Scenario, ...]) -> Scenario:
    """Families measured on the same data sets as one space whose root is the family."""
    together = tuple(s for s in scenarios if s.family in ("xgboost", "random_forest", "decision_tree"))
    shared = set.intersection(*(set(s.pools) for s in together)) if len(together) > 1 else set()
    schema = Schema(
        family="?",
        names=("family", *(name for s in together for name in s.schema.names)),
        choices=(tuple(s.family for s in together), *(c for s in together for c in s.schema.choices)),
        log=(False, *(log for s in together for log in s.schema.log)),
        conditional=(False, *(True for s in together for _ in s.schema.names)),
    )
    return Scenario("?", schema, {name: _stacked(schema, together, name) for name in sorted(shared)})


def _stacked(schema: Schema, scenarios: tuple[Scenario, ...], name: str) -> Pool:
    blocks, scores, column = [], [], 1
    for position, scenario in enumerate(scenarios):
        pool = scenario.pools[name]
        block = np.full((len(pool.scores), schema.n_parameters), -1, np.int16)
        block[:, 0] = position
        block[:, column : column + scenario.schema.n_parameters] = pool.cells
        column += scenario.schema.n_parameters
        blocks.append(block)
        scores.append(pool.scores)
    return make_pool(schema, np.concatenate(blocks), np.concatenate(scores))


def _load(path: Path, family: str, target: str) -> Scenario:
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return _scenario(file, family, target)
    except _DAMAGES as error:
        raise DataError(
            f"a landscape must be an .npz with the documented keys, got {path.name}: {error!r}; restore it"
        ) from error


def _scenario(file: Mapping[str, NDArray[np.float64]], family: str, target: str) -> Scenario:
    raw, words = [str(name) for name in file["names"]], json.loads(str(file["choices"]))
    column = [str(t) for t in file["targets"]].index(target)
    sign = -1.0 if bool(file["minimize"][column]) else 1.0
    instances = [str(i) for i in file["instances"]]
    inactive = np.any([np.isnan(file[f"x_{i}"]).any(axis=0) for i in instances], axis=0)
    schema = Schema(
        family=family,
        names=tuple(_NAMES.get(name, "") for name in raw),
        choices=tuple(tuple(_WORDS.get(w, w.lower()) for w in words[n]) if n in words else None for n in raw),
        log=tuple(bool(value) for value in file["log"]),
        conditional=tuple(bool(value) for value in inactive),
    )
    pools = {
        i: make_pool(
            schema, _cells(file[f"x_{i}"].astype(float), file, schema), sign * file[f"y_{i}"][:, column].astype(float)
        )
        for i in instances
    }
    return Scenario(family, schema, pools)


def _cells(x: NDArray[np.float64], file: Mapping[str, NDArray[np.float64]], schema: Schema) -> NDArray[np.int16]:
    cells = np.empty(x.shape, np.int16)
    for j, choices in enumerate(schema.choices):
        if choices is not None:
            cells[:, j] = np.where(np.isnan(x[:, j]), -1, np.nan_to_num(x[:, j])).astype(np.int16)
            continue
        low, high, values = float(file["lower"][j]), float(file["upper"][j]), x[:, j]
        if schema.log[j]:
            low, high, values = np.log(low), np.log(high), np.log(values)
        cells[:, j] = levels((values - low) / (high - low))
    return cells
