"""Where training pools come from: real landscapes where there are any, synthetic functions always."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from offline_tune.pretrain.functions import random_pool, random_schema
from offline_tune.pretrain.landscapes import Scenario, composite, held_out, load_scenarios
from offline_tune.pretrain.pool import Pool

_SYNTHETIC = "synthetic"
_WEIGHTS = {"mlp": 0.12, "xgboost": 0.22, "random_forest": 0.12, "decision_tree": 0.06, "?": 0.13, _SYNTHETIC: 0.35}


@dataclass(frozen=True, eq=False)
class Sources:
    """Training and development pools by source; development data sets are in no training pool."""

    training: Mapping[str, tuple[Pool, ...]]
    development: Mapping[str, tuple[Pool, ...]]

    def draw(self, n: int, rng: np.random.Generator) -> list[Pool]:
        """Draw n training pools of one source, with one schema."""
        names = [*self.training, _SYNTHETIC]
        weights = np.array([_WEIGHTS[name] for name in names])
        source = str(rng.choice(names, p=weights / weights.sum()))
        if source == _SYNTHETIC:
            schema = random_schema(rng)
            return [random_pool(schema, rng) for _ in range(n)]
        pools = self.training[source]
        return [pools[i] for i in rng.integers(len(pools), size=n)]

    def development_pools(self, seed: int = 0) -> dict[str, list[Pool]]:
        """Some pools that training never sees: the held-out data sets, and functions of another seed."""
        rng = np.random.default_rng([seed, 1_000_003])
        pools = {name: list(held) for name, held in self.development.items() if held}
        schemas = [random_schema(rng) for _ in range(4)]
        return {
            **pools,
            **{f"{_SYNTHETIC} {i}": [random_pool(s, rng) for _ in range(8)] for i, s in enumerate(schemas)},
        }


def load_sources(folder: Path | None) -> Sources:
    """The landscapes of a folder, split; without a folder there are synthetic functions only."""
    scenarios = load_scenarios(folder) if folder is not None and folder.is_dir() else ()
    if len(scenarios) > 1:
        scenarios = (*scenarios, composite(scenarios))
    training, development = {}, {}
    for scenario in scenarios:
        kept = set(held_out(scenario))
        training[scenario.family] = _pools(scenario, set(scenario.pools) - kept)
        development[scenario.family] = _pools(scenario, kept)
    return Sources({family: pools for family, pools in training.items() if pools}, development)


def _pools(scenario: Scenario, names: set[str]) -> tuple[Pool, ...]:
    return tuple(scenario.pools[name] for name in sorted(names))
