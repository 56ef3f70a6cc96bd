"""What every sampler must do, and small models to do it with."""

from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from optuna.distributions import CategoricalDistribution as Cat
from optuna.distributions import FloatDistribution as Float
from optuna.distributions import IntDistribution as Int
from optuna.samplers import BaseSampler
from optuna.trial import TrialState
from spaces import SPACES

from offline_tune.cards import DataCard
from offline_tune.history import History, Observation
from offline_tune.llm.contract import LanguageModel, Sampling
from offline_tune.llm.llama import load_model
from offline_tune.llm.scripted import ScriptedModel
from offline_tune.pretrain.export import export_gguf
from offline_tune.pretrain.llama import Llama, LlamaConfig
from offline_tune.samplers.chat import ChatDrafter
from offline_tune.samplers.compact import CompactDrafter
from offline_tune.samplers.llama import LlamaSampler
from offline_tune.samplers.proposal import Provenance, Source
from offline_tune.samplers.recipe import Recipe
from offline_tune.space import SearchSpace
from offline_tune.study.trials import Asked, ask
from offline_tune.task import Metric, TaskKind

CARD = DataCard(kind=TaskKind.BINARY, n_rows=100, n_features=3, n_numeric=3, n_categorical=0, n_classes=2)
ACCURACY = Metric("accuracy", "predict")
TINY = LlamaConfig(width=32, layers=1, heads=1, feed_forward=32, context=1024)
FALLBACK = Provenance(source=Source.RANDOM, seed=0)

KINDS = {
    "familiar": SearchSpace.from_distributions(
        {
            "learning_rate": Float(1e-3, 1, log=True),
            "max_depth": Int(1, 12),
            "booster": Cat(["gbtree", "dart"]),
            "subsample": Float(0.5, 1),
        }
    ),
    "flat": SearchSpace.from_distributions({"x": Float(0, 1), "n": Int(1, 500, log=True), "c": Cat(["a", "b", "c"])}),
    "branches": SPACES["families"],
    "branches in branches": SPACES["nested conditions"],
    "a fixed value among others": SearchSpace.from_distributions({"fixed": Int(7, 7), "x": Float(0, 1)}),
    "one point": SPACES["one integer"],
    "a log scale": SPACES["log floats"],
    "300 categories": SPACES["300 categories"],
}


def tiny_model(folder: Path, k_max: int = 16) -> LanguageModel:
    """A Llama with the compact vocabulary and random weights, as llama.cpp loads it."""
    torch.manual_seed(0)
    export_gguf(Llama(TINY), folder / "tiny.gguf", "untrained")
    return load_model(folder / "tiny.gguf", k_max=k_max)


def compact_sampler(model: LanguageModel, space: SearchSpace, seed: int = 0, **options) -> LlamaSampler:
    return LlamaSampler(CompactDrafter(model, space, Sampling()), seed, **{"recipe": Recipe(drafts=16), **options})


def chat_sampler(space: SearchSpace, seed: int = 0, model: ScriptedModel | None = None, **options) -> LlamaSampler:
    drafter = ChatDrafter(model or ScriptedModel(), space, CARD, (), ACCURACY, Sampling())
    return LlamaSampler(drafter, seed, **{"recipe": Recipe(drafts=4), **options})


def objective(values) -> float:
    """A score for any candidate: numbers near 0.3 of any scale are good, the first choices too."""
    places = [0.5 if isinstance(v, str | bool) or v is None else 1 / (1 + abs(float(v))) for v in values.values()]
    return -float(np.mean((np.array(places) - 0.3) ** 2))


def a_history(space: SearchSpace, n: int, seed: int = 0) -> History:
    rng = np.random.default_rng(seed)
    drawn = [space.sample(rng) for _ in range(n)]
    return History(space, tuple(Observation(i, v, objective(v)) for i, v in enumerate(drawn)))


class SamplerContract:
    """Subclass it, give `make`, and list the kinds of space that the sampler cannot have."""

    beyond: tuple[str, ...] = ()
    n = 7

    def make(self, space: SearchSpace, seed: int, trial_number: int) -> BaseSampler:
        """The sampler of one trial."""
        raise NotImplementedError

    def asked(self, space: SearchSpace, seed: int, n: int | None = None) -> list[Asked]:
        """The candidates of a study, each scored before the next is asked for."""
        study = optuna.create_study(direction="maximize")
        found = []
        for number in range(self.n if n is None else n):
            study.sampler = self.make(space, seed, number)
            found.append(ask(study, space, FALLBACK))
            study.tell(number, objective(found[-1].values))
        return found

    @pytest.mark.parametrize("kind", KINDS)
    def test_as_many_candidates_as_were_asked_for_lie_in_the_space(self, kind):
        if kind in self.beyond:
            pytest.skip("the sampler cannot have this space")
        space = KINDS[kind]
        found = self.asked(space, seed=0)
        assert len(found) == self.n and all(space.contains(trial.values) for trial in found)

    @pytest.mark.parametrize("kind", ["flat", "branches"])
    def test_equal_seeds_give_equal_candidates(self, kind):
        one, two = (self.asked(KINDS[kind], seed=3) for _ in range(2))
        assert [(t.values, t.provenance.source) for t in one] == [(t.values, t.provenance.source) for t in two]

    def test_distinct_seeds_give_distinct_candidates(self):
        space = KINDS["flat"]
        keys = [tuple(space.key(t.values) for t in self.asked(space, seed, n=3)) for seed in range(3)]
        assert len(set(keys)) == 3

    def test_a_flat_objective_of_any_optuna_user_can_be_optimised(self):
        study = optuna.create_study(direction="minimize", sampler=self.make(KINDS["flat"], 0, 0))

        def spread(trial):
            c = trial.suggest_categorical("c", ["a", "b", "c"])
            return trial.suggest_int("n", 1, 500, log=True) + trial.suggest_float("x", 0, 1) + (c == "a")

        study.optimize(spread, n_trials=self.n)
        assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * self.n

    def test_an_objective_defined_by_run_can_be_optimised(self):
        space = KINDS["branches"]
        study = optuna.create_study(direction="maximize", sampler=self.make(space, 0, 0))
        study.optimize(lambda trial: objective(space.suggest(trial)), n_trials=self.n)
        assert all(space.contains(trial.params) for trial in study.trials)

    def test_parameters_outside_the_space_are_drawn_each_for_itself(self):
        study = optuna.create_study(direction="maximize", sampler=self.make(KINDS["a log scale"], 0, 0))

        def wider(trial):
            return trial.suggest_float("x", 1e-5, 0.3, log=True) + sum(trial.suggest_float(n, 0, 1) for n in "uvw")

        study.optimize(wider, n_trials=4)
        assert len({value for trial in study.trials for n, value in trial.params.items() if n != "x"}) == 12

    def test_a_failed_trial_does_not_stop_it(self):
        space = KINDS["flat"]
        study = optuna.create_study(direction="maximize", sampler=self.make(space, 0, 0))

        def fails(trial):
            values = space.suggest(trial)
            if trial.number % 2:
                raise ArithmeticError
            return objective(values)

        study.optimize(fails, n_trials=self.n, catch=ArithmeticError)
        assert len(study.trials) == self.n
