"""The shipped model at its work: candidates and forecasts for ten parameters and thirty trials, on one core."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from benchmarks.measures.matching import jump_of
from benchmarks.measures.replay import Recorder, share
from benchmarks.measures.table import Row, seconds
from benchmarks.measures.workload import forget, history, ten_parameters
from offline_tune.llm.contract import LanguageModel, Sampling
from offline_tune.llm.matcher import AutomatonMatcher
from offline_tune.prompt.compact import CompactDialect
from offline_tune.prompt.vocabulary import VOCABULARY
from offline_tune.samplers.compact import CompactDrafter, candidate_automaton

TRIALS, TARGET = 30, 0.5


def proposals(name: str, model: LanguageModel, repeats: int) -> list[Row]:
    """Seconds of a round's parts: the prompt evaluated anew, in the cache, or changed by one trial more."""
    space = ten_parameters()
    drafter = CompactDrafter(model, space, Sampling())
    told = [history(space, TRIALS + more) for more in (0, 1)]
    drafts = {k: drafter.draft(told[0], k, 0, 0)[0] for k in (16, 64)}
    fresh = count(1)

    def draft(k: int, which: int) -> None:
        drafter.draft(told[which], k, 0, next(fresh))

    def forecast() -> None:
        drafter.forecast(told[0], tuple(d.values for d in drafts[64]))

    def round_before(which: int) -> None:
        forget(model)
        draft(1, which)

    rows = []
    for k in (64, 16):
        for trials, what, before in (
            (0, "prompt new", lambda: forget(model)),
            (0, "prompt cached", lambda: round_before(0)),
            (1, "one trial more than before", lambda: round_before(0)),
        ):
            timed = _timed(model, lambda k=k, t=trials: draft(k, t), before, repeats)
            rows.append(_row(f"propose {k}, {TRIALS} trials, {what}", name, k, timed, TARGET if k == 64 else None))
    for what, before in (("prompt new", lambda: forget(model)), ("prompt cached", lambda: round_before(0))):
        rows.append(_row(f"forecast 64, {TRIALS} trials, {what}", name, 64, _timed(model, forecast, before, repeats)))
    return rows


def network_share(recorder: Recorder, name: str, model: LanguageModel, ks: tuple[int, ...], repeats: int) -> list[Row]:
    """Passes alone over the entire call, for candidates after a prompt that is in the cache already."""
    return [share(recorder, name, k, drawing(model, k), repeats) for k in ks]


def drawing(model: LanguageModel, k: int) -> Callable[[], object]:
    """The call that draws k candidates."""
    prompt, matcher, most = _question(model)
    return lambda: model.complete(prompt, matcher, k, Sampling(), range(k), most)


def jump(name: str, model: LanguageModel, repeats: int) -> Row:
    """One candidate with and without the jump over forced tokens; every second token is forced, so 2 is the most."""
    return jump_of(name, model, *_question(model), repeats)


def _question(model: LanguageModel) -> tuple[list[int], AutomatonMatcher, int]:
    """Prompt, grammar and longest answer, as the drafter has them."""
    space = ten_parameters()
    dialect = CompactDialect(space)
    automaton = candidate_automaton(dialect)
    prompt = [*dialect.prompt_tokens(history(space, TRIALS), model.n_ctx // 2), VOCABULARY.ids["<propose>"]]
    return prompt, AutomatonMatcher(automaton), automaton.longest


def _timed(
    model: LanguageModel, action: Callable[[], object], before: Callable[[], object], repeats: int
) -> tuple[list[float], int]:
    """Seconds of each repeat, and how many tokens one evaluates."""
    times = []
    for _ in range(repeats):
        before()
        evaluated = model.counters.tokens_evaluated
        times.append(seconds(action))
    return times, model.counters.tokens_evaluated - evaluated


def _row(what: str, name: str, k: int, timed: tuple[list[float], int], target: float | None = None) -> Row:
    times, evaluated = timed
    return Row(what, name, k, times, " s", at_most=target, note=f"processor time, {evaluated} tokens evaluated")
