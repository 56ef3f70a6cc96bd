"""The sampler over a language model: never outside the space, never twice, mostly the model's own, reproducible."""

import math
from collections import Counter

import numpy as np
import optuna
import pytest
from contracts_samplers import (
    ACCURACY,
    CARD,
    KINDS,
    SamplerContract,
    a_history,
    chat_sampler,
    compact_sampler,
    tiny_model,
)
from optuna.distributions import CategoricalDistribution as Cat
from optuna.distributions import FloatDistribution as Float
from optuna.distributions import IntDistribution as Int

from offline_tune.errors import SpaceError, UsageError
from offline_tune.history import PROVENANCE, History, Observation
from offline_tune.llm.contract import Sampling
from offline_tune.llm.scripted import ScriptedModel
from offline_tune.prompt.vocabulary import VOCABULARY
from offline_tune.samplers.chat import ChatDrafter
from offline_tune.samplers.draft import Draft
from offline_tune.samplers.llama import LlamaSampler
from offline_tune.samplers.portfolio import Placed
from offline_tune.samplers.proposal import Provenance, Source, text_digest
from offline_tune.samplers.recipe import Recipe
from offline_tune.space import SearchSpace

FLAT, FAMILIES, FAMILIAR = KINDS["flat"], KINDS["branches"], KINDS["familiar"]
X = SearchSpace.from_distributions({"x": Float(0, 1)})
SMALL = SearchSpace.from_distributions({"n": Int(0, 9), "c": Cat(["a", "b"])})


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    loaded = tiny_model(tmp_path_factory.mktemp("model"))
    yield loaded
    loaded.close()


@pytest.fixture(params=["compact", "chat"])
def make(request, model):
    """A sampler on a space, in one dialect and then in the other."""
    return (lambda *a, **o: compact_sampler(model, *a, **o)) if request.param == "compact" else chat_sampler


class LlamaContract(SamplerContract):
    def test_no_candidate_comes_twice_while_the_space_holds_another(self):
        keys = [SMALL.key(trial.values) for trial in self.asked(SMALL, seed=0, n=SMALL.size)]
        assert len(set(keys)) == SMALL.size

    def test_a_space_that_is_used_up_gives_candidates_all_the_same(self):
        found = self.asked(SMALL, seed=0, n=SMALL.size + 2)
        assert all(SMALL.contains(trial.values) for trial in found)


class TestCompact(LlamaContract):
    beyond = ("300 categories",)

    @pytest.fixture(autouse=True)
    def _model(self, model):
        self._model = model

    def make(self, space, seed, trial_number):
        return compact_sampler(self._model, space, seed)


class TestChat(LlamaContract):
    def make(self, space, seed, trial_number):
        return chat_sampler(space, seed)


def keys(proposals, space):
    return [space.key(p.values) for p in proposals]


def sources(proposals):
    return Counter(p.provenance.source for p in proposals)


# --- plans


@pytest.mark.parametrize("n_tried", [0, 3, 12])
def test_a_plan_can_be_made_again(make, n_tried):
    history = a_history(FAMILIES, n_tried)
    plans = [make(FAMILIES, 5).plan(history, 4, 12) for _ in range(2)]
    assert [p.values for p in plans[0]] == [p.values for p in plans[1]]
    assert [p.provenance.source for p in plans[0]] == [p.provenance.source for p in plans[1]]


def test_a_plan_does_not_depend_on_the_plans_before_it(make):
    sampler, history = make(FAMILIES, 5), a_history(FAMILIES, 6)
    first = sampler.plan(history, 4, 8)
    sampler.plan(a_history(FAMILIES, 9, seed=1), 4, 12)
    assert keys(sampler.plan(history, 4, 8), FAMILIES) == keys(first, FAMILIES)


def test_another_trial_number_makes_another_plan(make):
    sampler, history = make(FLAT, 5), a_history(FLAT, 6)
    assert keys(sampler.plan(history, 4, 8), FLAT) != keys(sampler.plan(history, 4, 9), FLAT)


@pytest.mark.parametrize("n_tried", [0, 2, 5, 25])
@pytest.mark.parametrize("n", [1, 2, 4, 8])
def test_a_plan_holds_distinct_untried_candidates_of_the_space(make, n_tried, n):
    history = a_history(FAMILIES, n_tried)
    planned = make(FAMILIES).plan(history, n, n_tried)
    found = keys(planned, FAMILIES)
    assert len(set(found)) == n and not set(found) & history.keys
    assert all(FAMILIES.contains(p.values) for p in planned)


def from_model(sampler, space, n_tried, n):
    """How many of n proposals are the model's own."""
    return sources(sampler.plan(a_history(space, n_tried), n, n_tried))[Source.MODEL]


@pytest.mark.parametrize("n_tried", [0, 1])
def test_the_first_proposals_are_the_models_own_where_it_knows_the_names(model, n_tried):
    assert from_model(compact_sampler(model, FAMILIAR), FAMILIAR, n_tried, 8) >= 6


@pytest.mark.parametrize("n_tried", [0, 3])
def test_the_first_proposals_of_an_instruct_model_are_its_own(n_tried):
    assert from_model(chat_sampler(FLAT, recipe=Recipe(drafts=16)), FLAT, n_tried, 8) >= 6


def test_where_the_names_mean_nothing_it_begins_with_even_draws(model):
    planned = compact_sampler(model, FLAT).plan(a_history(FLAT, 3), 4, 3)
    assert sources(planned) == {Source.RANDOM: 4}


# --- the portfolio


def opened(n, n_tried=0, regrets=(), **changes):
    """A plan of a sampler with eight entries, after some of them were tried, each better than the one before."""
    entries = tuple({"x": round(0.1 * place, 1)} for place in range(1, 9))
    history = History(X, tuple(Observation(i, v, float(i)) for i, v in enumerate(entries[:n_tried])))
    known = Placed(entries, np.array(regrets, float).reshape(-1, 8))
    return chat_sampler(X, portfolio=known, **changes).plan(history, n, n_tried)


def test_a_study_opens_with_the_portfolio_in_its_order():
    planned = opened(4)
    assert [p.values["x"] for p in planned] == [0.1, 0.2, 0.3, 0.4] and sources(planned) == {Source.PORTFOLIO: 4}


def test_the_opening_follows_the_data_sets_that_behaved_alike():
    rising = [[0.9, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.1], [0.1, 0.5, 0.0, 0.5, 0.5, 0.5, 0.5, 0.9]]
    assert [p.values["x"] for p in opened(2, n_tried=2, regrets=rising)] == [0.8, 0.3]


def test_what_failed_in_the_opening_is_not_tried_again_and_counts_for_nothing():
    entries = tuple({"x": x} for x in (0.1, 0.2, 0.3))
    known = Placed(entries, np.array([[0.0, 0.5, 0.2]]))
    history = History(X, (Observation(0, {"x": 0.1}, reason="failed"),))
    assert [p.values["x"] for p in chat_sampler(X, portfolio=known).plan(history, 2, 1)][:2] == [0.3, 0.2]


def test_after_the_opening_the_model_goes_on_in_the_same_plan():
    planned = opened(4, n_tried=3)
    assert [p.provenance.source for p in planned[:2]] == [Source.PORTFOLIO] * 2
    assert len({p.values["x"] for p in planned} - {0.1, 0.2, 0.3}) == 4 and sources(planned)[Source.PORTFOLIO] < 4


def test_no_pass_of_the_model_is_spent_on_the_opening():
    calls = []
    opened(4, on_call=calls.append)
    assert calls == []


def test_the_opening_can_be_left_out():
    planned = opened(4, recipe=Recipe(drafts=16, opening=0))
    assert sources(planned)[Source.MODEL] == 4


def test_without_drafts_the_others_remain():
    planned = opened(4, n_tried=5, recipe=Recipe(drafts=0))
    assert len(planned) == 4 and Source.MODEL not in sources(planned)


# --- where the model has little to say


def test_where_the_model_has_too_few_the_others_come_from_elsewhere():
    planned = chat_sampler(X, 0, ScriptedModel([['{"x":0.500}'] * 4])).plan(a_history(X, 6), 4, 6)
    assert sources(planned)[Source.MODEL] == 1 and len(planned) == 4


def test_what_was_tried_is_not_proposed_even_if_the_model_writes_nothing_else():
    tried = (Observation(0, {"x": 0.5}, 1.0), Observation(1, {"x": 0.25}), Observation(2, {"x": 0.75}, pending=True))
    answers = ['{"x":0.500}', '{"x":0.250}', '{"x":0.750}', '{"x":0.500}']
    history = History(X, tried)
    planned = chat_sampler(X, 0, ScriptedModel([answers])).plan(history, 4, 3)
    assert not set(keys(planned, X)) & history.keys and sources(planned)[Source.MODEL] == 0


@pytest.mark.parametrize("left", [0, 1, 3])
def test_the_last_untried_candidates_of_a_small_space_are_found(make, left):
    tried = [{"n": n, "c": c} for n in range(10) for c in "ab"][: SMALL.size - left]
    history = History(SMALL, tuple(Observation(i, v, float(i)) for i, v in enumerate(tried)))
    assert len(make(SMALL).plan(history, 4, len(tried))) == left


def test_a_history_of_failures_is_no_obstacle(make):
    history = History(FLAT, tuple(Observation(i, o.values) for i, o in enumerate(a_history(FLAT, 6).observations)))
    assert len(make(FLAT).plan(history, 4, 6)) == 4


@pytest.mark.parametrize("score", [0.0, -1e300, 1e300])
def test_equal_scores_are_no_obstacle(make, score):
    history = History(
        FLAT, tuple(Observation(i, o.values, score) for i, o in enumerate(a_history(FLAT, 8).observations))
    )
    assert len(make(FLAT).plan(history, 4, 8)) == 4


class Strayed(ChatDrafter):
    """A drafter whose grammar lets something through."""

    def draft(self, history, k, seed, first_trial):
        drafts, call = super().draft(history, k, seed, first_trial)
        return (Draft({"x": 1.5}, -1.0), *drafts[1:]), call


def test_a_draft_outside_the_space_is_never_trained():
    drafter = Strayed(ScriptedModel(), X, CARD, (), ACCURACY, Sampling())
    with pytest.raises(SpaceError, match=r"'x' must lie in .*, got 1\.5"):
        LlamaSampler(drafter, 0, recipe=Recipe(drafts=4)).plan(a_history(X, 0), 4, 0)


# --- provenance and calls


def test_every_pass_of_the_model_is_told_once(make):
    calls = []
    sampler = make(FLAT, on_call=calls.append)
    sampler.plan(a_history(FLAT, 5), 4, 5)
    assert [call.first_trial for call in calls] == [5]


def test_a_call_holds_the_prompt_and_every_answer(model):
    calls = []
    compact_sampler(model, FAMILIAR, on_call=calls.append).plan(a_history(FAMILIAR, 5), 4, 5)
    (call,) = calls
    pieces = call.prompt.split()
    assert pieces[0] == "<s>" and pieces[-1] == "<propose>" and pieces.count("<outcome>") == 5
    assert set(pieces) <= set(VOCABULARY.pieces) and len(call.answers) == 16 and call.tokens_in == len(pieces)


def test_a_proposal_names_the_call_that_it_came_from(make):
    calls = []
    sampler = make(FLAT, 9, on_call=calls.append, model_sha256="ab" * 32)
    for proposal in sampler.plan(a_history(FLAT, 5), 4, 5):
        stamp = proposal.provenance
        assert stamp.prompt_digest == text_digest(calls[0].prompt) and stamp.grammar_digest == calls[0].grammar_digest
        assert (stamp.seed, stamp.model_sha256, stamp.seconds) == (9, "ab" * 32, calls[0].seconds)


def test_only_the_models_own_have_a_log_probability(model):
    for proposal in compact_sampler(model, FAMILIAR).plan(a_history(FAMILIAR, 5), 16, 5):
        logprob = proposal.provenance.logprob
        assert (logprob is not None) == (proposal.provenance.source is Source.MODEL)
        assert logprob is None or (math.isfinite(logprob) and logprob < 0)


def test_every_proposal_of_the_compact_dialect_has_a_forecast(model):
    planned = compact_sampler(model, FLAT).plan(a_history(FLAT, 5), 4, 5)
    assert all(-4 < p.provenance.predicted < 2 and p.provenance.improvement > -0.01 for p in planned)


@pytest.mark.parametrize("n_scored", [0, 1])
def test_without_a_scale_there_is_no_forecast(model, n_scored):
    (proposal,) = compact_sampler(model, FLAT).plan(a_history(FLAT, n_scored), 1, n_scored)
    assert proposal.provenance.predicted is None and proposal.provenance.improvement is None


def test_the_provenance_stays_with_the_trial(make):
    study = optuna.create_study(direction="maximize", sampler=make(FAMILIAR, 3, model_sha256="cd" * 32))
    study.optimize(lambda trial: FAMILIAR.suggest(trial)["subsample"], n_trials=3)
    stamps = [Provenance.from_json(trial.user_attrs[PROVENANCE]) for trial in study.trials]
    assert {(stamp.seed, stamp.model_sha256) for stamp in stamps} == {(3, "cd" * 32)}
    assert len({stamp.prompt_digest for stamp in stamps}) == 3  # each saw one trial more


# --- without the model


def test_where_the_model_may_not_be_asked_it_is_not(make):
    calls = []
    planned = make(FLAT, on_call=calls.append, may_call=lambda: False).plan(a_history(FLAT, 6), 4, 6)
    assert calls == [] and len(planned) == 4
    assert set(sources(planned)) <= {Source.LOCAL, Source.RANDOM}
    assert all(p.provenance.prompt_digest == "" and p.provenance.predicted is None for p in planned)


def test_a_budget_of_calls_is_asked_before_each(make):
    calls = []
    sampler = make(FAMILIAR, on_call=calls.append, may_call=lambda: len(calls) < 2)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(lambda trial: FAMILIAR.suggest(trial)["subsample"], n_trials=5)
    assert len(calls) == 2 and len(study.trials) == 5


# --- as an Optuna sampler


def test_scheduled_proposals_are_handed_out_in_order(make):
    sampler = make(FLAT)
    planned = sampler.plan(a_history(FLAT, 5), 3, 0)
    sampler.schedule(planned)
    study = optuna.create_study(sampler=sampler)
    assert [FLAT.suggest(study.ask()) for _ in planned] == [dict(p.values) for p in planned]


def test_a_minimised_study_is_understood(model):
    calls = []
    sampler = compact_sampler(model, FAMILIAR, on_call=calls.append)
    study = optuna.create_study(direction="minimize", sampler=sampler)
    study.optimize(lambda trial: (FAMILIAR.suggest(trial), float(trial.number == 0))[1], n_trials=3)
    outcomes = [piece for piece in calls[-1].prompt.split() if piece.startswith("<y")]
    assert outcomes == ["<y21>", "<y42>"]  # the first is the worse one by two medians


def test_a_trial_that_runs_elsewhere_is_shown_as_pending(model):
    calls = []
    study = optuna.create_study(sampler=compact_sampler(model, FAMILIAR, on_call=calls.append))
    for _ in range(2):
        FAMILIAR.suggest(study.ask())
    assert calls[-1].prompt.split().count("<pending>") == 1


def test_other_parameters_of_an_objective_do_not_hide_its_history(model):
    calls = []
    study = optuna.create_study(sampler=compact_sampler(model, FAMILIAR, on_call=calls.append))
    study.optimize(lambda trial: FAMILIAR.suggest(trial)["subsample"] + trial.suggest_float("other", 0, 1), n_trials=3)
    assert calls[-1].prompt.split().count("<outcome>") == 2


def test_a_negative_seed_is_refused(make):
    with pytest.raises(UsageError, match="a seed must be 0 or more, got -1; raise it"):
        make(FLAT, -1)


def test_one_draft_is_enough(make):
    assert len(make(FLAT, recipe=Recipe(drafts=1)).plan(a_history(FLAT, 5), 4, 5)) == 4


def test_more_drafts_than_the_model_draws_at_once_come_in_waves(model):
    planned = compact_sampler(model, FAMILIAR, recipe=Recipe(drafts=40)).plan(a_history(FAMILIAR, 0), 32, 0)
    assert sources(planned)[Source.MODEL] >= 24


@pytest.mark.slow
def test_many_plans_keep_to_the_rules(model):
    rng = np.random.default_rng(0)
    for _ in range(60):
        n_tried, n = int(rng.integers(0, 40)), int(rng.integers(1, 12))
        history = a_history(FAMILIES, n_tried, seed=int(rng.integers(1000)))
        planned = compact_sampler(model, FAMILIES, int(rng.integers(1000))).plan(history, n, n_tried)
        assert len(set(keys(planned, FAMILIES)) - history.keys) == n
