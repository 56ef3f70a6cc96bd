"""Who tunes: rivals on Optuna, portfolios, and the sampler of this project in several forms. All see the same scores.

A contestant is a name. A name of the classics may begin with `portfolio + `, which spends the first `HEAD` trials on
the portfolio; otherwise the default candidate comes first where there is one.
"""

from __future__ import annotations

import time
import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import optuna
from contest.problems import Problem
from optuna.samplers import BaseSampler, CmaEsSampler, RandomSampler
from optuna.trial import TrialState

from offline_tune.history import History, Observation
from offline_tune.llm.contract import Sampling
from offline_tune.llm.llama import LlamaModel, load_model
from offline_tune.samplers.classic import classic_sampler
from offline_tune.samplers.compact import CompactDrafter
from offline_tune.samplers.llama import LlamaSampler
from offline_tune.samplers.portfolio import Placed
from offline_tune.samplers.recipe import Recipe
from offline_tune.space import Values

HEAD = 5
LIKE = {"tpe": "tpe", "gp": "gp", "random": "random", "cma-es": "cma-es"}
RIVALS = ("random", "tpe", "gp", "cma-es", "portfolio", "portfolio + tpe", "portfolio + gp")
# Forms of the sampler, one part switched off in each but the first.
FORMS: Mapping[str, Recipe] = {
    "llama": Recipe(),
    "no names": Recipe(),
    "random weights": Recipe(),
    "no model": Recipe(drafts=0, by_forecast=False, classical=(1.0, 1.0), unfamiliar=(1.0, 1.0)),
    "no ranking": Recipe(by_forecast=False),
    "no portfolio": Recipe(),
    "fixed order": Recipe(),
    "no classical part": Recipe(classical=(0.0, 0.0), unfamiliar=(0.0, 0.0)),
    "16 drafts": Recipe(drafts=16),
}


@dataclass(frozen=True)
class Run:
    """One contestant on one problem with one seed, trial by trial: the true score, and seconds for the proposal."""

    scores: tuple[float | None, ...]
    seconds: tuple[float, ...]
    invalid: int
    duplicates: int


def compete(problem: Problem, name: str, seed: int, trials: int, model: Path | None = None) -> Run:
    """Let one contestant tune.

    Args:
        problem: what to tune.
        name: of `RIVALS` or `FORMS`.
        seed: of the contestant; it draws differently on each problem.
        trials: how many.
        model: the GGUF of the sampler's forms.
    """
    seed = zlib.crc32(f"{problem.key} {seed}".encode())
    if name in FORMS:
        propose, tell = _llama(problem, name, seed, model)
    else:
        propose, tell = _classic(problem, name, seed)
    scores: list[float | None] = []
    seconds, keys, invalid = [], set(), 0
    try:
        for _ in range(trials):
            began = time.perf_counter()
            values = propose()
            seconds.append(time.perf_counter() - began)
            scores.append(problem.score(values))
            invalid += not problem.space.contains(values)
            keys.add(problem.space.key(values))
            tell(None if scores[-1] is None else scores[-1] + problem.noise(values))
    finally:
        problem.close()
    return Run(tuple(scores), tuple(seconds), invalid, trials - len(keys))


def _classic(problem: Problem, name: str, seed: int) -> tuple[Callable[[], Values], Callable[[float | None], None]]:
    study = optuna.create_study(direction="maximize", sampler=RandomSampler(seed=seed))
    for values in _first(problem, name):
        study.enqueue_trial(dict(values))
    base = name.removeprefix("portfolio").removeprefix(" + ") or "random"
    cma = CmaEsSampler(seed=seed, n_startup_trials=1, independent_sampler=RandomSampler(seed=seed))
    open_trials: list[optuna.Trial] = []

    def propose() -> Values:
        number = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL)))
        study.sampler = cma if base == "cma-es" else _quietly(base, problem, seed, number)
        open_trials.append(study.ask())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # samplers speak of what they cannot do with choices and branches
            return problem.space.suggest(open_trials[-1])

    def tell(score: float | None) -> None:
        if score is None:
            study.tell(open_trials.pop(), state=TrialState.FAIL)
        else:
            study.tell(open_trials.pop(), score)

    return propose, tell


def _first(problem: Problem, name: str) -> tuple[Values, ...]:
    """What is tried before the sampler is asked."""
    if name == "portfolio":
        return problem.portfolio.entries
    if name.startswith("portfolio + "):
        return problem.portfolio.entries[:HEAD]
    return () if problem.default is None else (problem.default,)


def _portfolio(problem: Problem, name: str) -> Placed:
    """What a form of the sampler is given: nothing, the bare list, or what is known of it."""
    if name in ("no portfolio", "no names"):
        return Placed()
    known = problem.portfolio
    return Placed(known.entries, known.regrets[:0]) if name == "fixed order" else known


def _quietly(base: str, problem: Problem, seed: int, number: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return classic_sampler(base, problem.space, seed, number)


def _llama(
    problem: Problem, name: str, seed: int, path: Path | None
) -> tuple[Callable[[], Values], Callable[[float | None], None]]:
    shown, real = problem.anonymous() if name == "no names" else (problem, dict)
    model = _model(path if name != "random weights" else _random_weights(path))
    drafter = CompactDrafter(model, shown.space, Sampling())
    sampler = LlamaSampler(drafter, seed, recipe=FORMS[name], portfolio=_portfolio(problem, name))
    history = [History(shown.space)]

    def propose() -> Values:
        number = len(history[0].observations)
        values = sampler.plan(history[0], 1, number)[0].values
        history[0] = history[0].extended([Observation(number, values)])
        return real(values)

    def tell(score: float | None) -> None:
        *before, last = history[0].observations
        reason = "" if score is not None else "failed"
        told = Observation(last.number, last.values, score, reason=reason)
        history[0] = History(shown.space, (*before, told))

    return propose, tell


@lru_cache(maxsize=2)
def _model(path: Path) -> LlamaModel:
    return load_model(path)


@lru_cache(maxsize=1)
def _random_weights(path: Path) -> Path:
    """A model of the shipped shape that has learnt nothing."""
    import tempfile

    import torch

    from offline_tune.pretrain.export import export_gguf
    from offline_tune.pretrain.llama import Llama, LlamaConfig

    torch.manual_seed(0)
    out = Path(tempfile.mkdtemp()) / "random.gguf"
    export_gguf(Llama(LlamaConfig()), out, "none")
    return out


def regret(problem_best: float, problem_middle: float, scores: tuple[float | None, ...], worst: float) -> np.ndarray:
    """Of the best so far after each trial, at most `worst`."""
    known = [-np.inf if score is None else score for score in scores]
    gaps = (problem_best - np.maximum.accumulate(known)) / (problem_best - problem_middle)
    return np.minimum(gaps, worst)
