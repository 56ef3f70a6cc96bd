"""A loop without data: a small space, an evaluator that computes a formula, an asker that notes what it is shown."""

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from offline_tune.evaluator.contract import Outcome, Result
from offline_tune.samplers.draft import Draft
from offline_tune.samplers.llama import LlamaSampler
from offline_tune.samplers.proposal import Call, Provenance, Source
from offline_tune.samplers.recipe import Recipe
from offline_tune.space import SearchSpace
from offline_tune.study import trials
from offline_tune.study.folder import RunFolder
from offline_tune.task import Budget
from offline_tune.tuner.askers import ClassicAsker, LlamaAsker
from offline_tune.tuner.events import Silence
from offline_tune.tuner.loop import ENQUEUED, Loop

SPACE = SearchSpace.from_distributions(
    {
        "x": FloatDistribution(0.0, 1.0, step=0.01),
        "n": IntDistribution(1, 50),
        "kind": CategoricalDistribution(["a", "b"]),
    }
)
TINY = SearchSpace.from_distributions({"n": IntDistribution(1, 6)})
METRIC = "accuracy"


class Formula:
    """Scores a candidate by how near it is to x = 0.3, n = 20; `kind` b is refused."""

    def __init__(self):
        self.batches = []

    def evaluate(self, candidates, seeds, on_result=None):
        self.batches.append(len(candidates))
        results = tuple(self._result(values) for values in candidates)
        # The last ends first: the order of completion must decide nothing.
        for place in reversed(range(len(results))):
            if on_result is not None:
                on_result(place, results[place])
        return results

    def close(self):
        pass

    @staticmethod
    def _result(values):
        if values.get("kind") == "b" and values["n"] % 7 == 0:
            return Result(outcome=Outcome.FAILED, seconds=0.0, detail="7 is refused")
        score = 1 - abs(values.get("x", 0.3) - 0.3) - abs(values["n"] - 20) / 50
        return Result(outcome=Outcome.OK, seconds=0.0, scores={METRIC: score}, oof=np.full(3, score, np.float32))


class Interrupting(Formula):
    """Stops the process, as Ctrl-C would, after so many results."""

    def __init__(self, after):
        super().__init__()
        self.left = after

    def evaluate(self, candidates, seeds, on_result=None):
        def report(place, result):
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            on_result(place, result)

        return super().evaluate(candidates, seeds, report)


class Clock:
    """Seconds that pass only while something is evaluated."""

    def __init__(self, now=0.0):
        self.now = now

    def __call__(self):
        return self.now


class Slow(Formula):
    """Takes ten seconds a batch."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    def evaluate(self, candidates, seeds, on_result=None):
        self.clock.now += 10
        return super().evaluate(candidates, seeds, on_result)


class EvenDrafter:
    """A drafter that draws evenly; it notes the histories it is shown."""

    grammar_digest = "0" * 16
    familiarity = 1.0

    def __init__(self, space=SPACE):
        self.space = space
        self.shown = {}

    def draft(self, history, k, seed, first_trial):
        self.shown.setdefault(first_trial, []).append(history)
        rng = np.random.default_rng([seed, first_trial])
        drafts = tuple(Draft(self.space.snap(self.space.sample(rng)), -1.0) for _ in range(k))
        call = Call(
            first_trial=first_trial, prompt="", grammar_digest="", answers=(), tokens_in=0, tokens_out=0, seconds=0.0
        )  # fmt: skip
        return drafts, call

    def forecast(self, history, candidates):
        return None


def a_study(defaults=0):
    """A study in memory, with some defaults waiting."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    candidates = [{**SPACE.default, "x": round(0.1 * place, 2)} for place in range(defaults)]
    trials.enqueue(study, candidates, Provenance(source=Source.DEFAULT, seed=0))
    study.set_user_attr(ENQUEUED, defaults)
    return study


def a_loop(path, *, study=None, space=SPACE, defaults=0, batch=4, n_trials=10, seed=0, sampler="llama", **changes):
    """A loop, and the drafter behind its sampler."""
    drafter = EvenDrafter(space)
    llama = LlamaSampler(drafter, seed, recipe=Recipe(drafts=12))
    label = Provenance(source=Source.RANDOM, seed=seed)
    parts = {
        "study": study or a_study(defaults),
        "asker": LlamaAsker(llama, label) if sampler == "llama" else ClassicAsker(sampler, space, seed),
        "evaluator": Formula(),
        "budget": Budget(trials=n_trials),
        "listener": Silence(),
    }
    folder = RunFolder(path)
    path.mkdir(exist_ok=True)
    return Loop(space=space, metric=METRIC, folder=folder, batch=batch, seed=seed, **parts | changes), drafter


def told(study):
    """What every trial is and became, by number."""
    return [(t.number, t.state.name, t.params, t.values) for t in study.get_trials(deepcopy=False)]
