"""Drafters: one dialect each, every draft in the space, prompts that fit the context."""

import gguf_maker
import numpy as np
import pytest
from contracts_samplers import ACCURACY, CARD, KINDS, a_history, tiny_model
from optuna.distributions import CategoricalDistribution as Cat
from optuna.distributions import FloatDistribution as Float
from optuna.distributions import IntDistribution as Int
from spaces import SPACES, when

from offline_tune.errors import DecodingError, ModelError, SpaceError
from offline_tune.history import History, Observation
from offline_tune.llm.contract import Sampling
from offline_tune.llm.llama import load_model
from offline_tune.llm.scripted import ScriptedModel
from offline_tune.prompt.compact import CompactDialect
from offline_tune.prompt.outcome import CENTRES
from offline_tune.prompt.vocabulary import N_OUTCOMES, VOCABULARY
from offline_tune.samplers.chat import ChatDrafter
from offline_tune.samplers.compact import CompactDrafter, best_families
from offline_tune.space import Parameter, SearchSpace

FAMILIES = KINDS["branches"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    loaded = tiny_model(tmp_path_factory.mktemp("model"))
    yield loaded
    loaded.close()


def compact(model, space):
    return CompactDrafter(model, space, Sampling())


def chat(space, model=None):
    return ChatDrafter(model or ScriptedModel(), space, CARD, (), ACCURACY, Sampling())


# --- compact


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "300 categories"])
def test_every_draft_lies_in_the_space(model, kind):
    space = KINDS[kind]
    drafts, call = compact(model, space).draft(a_history(space, 5), 12, seed=0, first_trial=5)
    assert len(drafts) == len(call.answers) == 12
    assert all(space.contains(draft.values) for draft in drafts)
    assert [draft.logprob for draft in drafts] == [answer.logprob for answer in call.answers]


def test_drafts_depend_on_the_seed_and_the_trial(model):
    drafter, history = compact(model, KINDS["flat"]), a_history(KINDS["flat"], 3)
    found = [drafter.draft(history, 4, seed, trial)[0] for seed, trial in ((0, 3), (0, 3), (1, 3), (0, 4))]
    assert found[0] == found[1] and found[0] != found[2] and found[0] != found[3]


def test_a_draft_does_not_depend_on_how_many_are_drawn(model):
    drafter, history = compact(model, KINDS["flat"]), a_history(KINDS["flat"], 3)
    few, many = (drafter.draft(history, k, 0, 3)[0] for k in (3, 12))
    assert [d.values for d in few] == [d.values for d in many[:3]]


def test_an_untrained_model_writes_many_different_candidates(model):
    drafts, _ = compact(model, FAMILIES).draft(History(FAMILIES), 40, seed=0, first_trial=0)
    assert len({FAMILIES.key(d.values) for d in drafts}) > 35 and {d.values["family"] for d in drafts} == {
        "ridge",
        "forest",
        "xgboost",
    }


def test_half_of_the_drafts_are_held_to_the_families_that_did_best(model):
    best = {**FAMILIES.default, "family": "forest", "forest.max_features": 0.5, "forest.bootstrap": True}
    del best["ridge.alpha"]
    drafts, _ = compact(model, FAMILIES).draft(History(FAMILIES, (Observation(0, best, 1.0),)), 40, 0, 1)
    assert [d.values["family"] for d in drafts[20:]] == ["forest"] * 20


def test_the_best_families_come_first_and_failed_ones_not_at_all():
    alike = {"scale": "none"}
    tried = [
        ("ridge", {"ridge.alpha": 1.0}, 0.5),
        ("forest", {"forest.max_features": 0.5, "forest.bootstrap": True}, 0.7),
    ]
    trials = [Observation(i, {"family": f, **v, **alike}, score) for i, (f, v, score) in enumerate(tried)]
    trials.append(Observation(2, {**FAMILIES.default, **alike}))
    assert best_families(History(FAMILIES, tuple(trials))) == ["forest", "ridge"]


@pytest.mark.parametrize(
    "space",
    [
        SearchSpace.from_distributions({"family": Int(1, 100), "x": Float(0, 1)}),
        SearchSpace((Parameter("kind", Cat(["u", "v"])), Parameter("family", Cat(["a", "b"]), when=when("kind", "u")))),
        SearchSpace.from_distributions({"family": Cat(["svm"]), "x": Float(0, 1)}),
    ],
)
def test_a_parameter_that_is_only_called_family_is_no_root(model, space):
    history = a_history(space, 4)
    assert best_families(history) == []
    drafts, _ = compact(model, space).draft(history, 6, 0, 4)
    assert all(space.contains(draft.values) for draft in drafts)


def test_a_long_history_fits_the_prompt(model):
    drafter = compact(model, FAMILIES)
    drafts, call = drafter.draft(a_history(FAMILIES, 400), 4, 0, 400)
    assert call.tokens_in + 8 <= model.n_ctx and len(drafts) == 4


def test_a_context_that_is_too_short_is_refused(tmp_path):
    tiny_model(tmp_path).close()
    space = SearchSpace.from_distributions({f"unknown {i}": Int(0, 9) for i in range(24)})
    model = load_model(tmp_path / "tiny.gguf", n_ctx=64, k_max=2)
    with pytest.raises(DecodingError, match="must hold the space and a candidate, 101 tokens, got 64; use fewer"):
        compact(model, space)
    model.close()


@pytest.mark.parametrize(
    "kind", [{f"c{i}": Cat(["a", "b"]) for i in range(13)}, {"x": Cat([f"{i}" for i in range(65)])}]
)
def test_a_space_beyond_the_dialect_is_refused_before_the_first_trial(model, kind):
    with pytest.raises(SpaceError, match=r"the shipped model can tell at most \d+ (unnamed )?choices apart, got"):
        compact(model, SearchSpace.from_distributions(kind))


def test_a_model_that_only_says_it_is_compact_is_refused(tmp_path):
    said = {"offline_tune.dialect": "compact", "offline_tune.dialect_version": 1}
    model = load_model(gguf_maker.make_spm(tmp_path / "other.gguf", extra=said), k_max=1)
    with pytest.raises(ModelError, match=r"must have its 7\d+ tokens, got 273 others in other\.gguf; use the shipped"):
        compact(model, FAMILIES)
    model.close()


def test_equal_spaces_have_equal_digests(model):
    one, two = (compact(model, SearchSpace.from_distributions({"x": Int(0, 9)})) for _ in range(2))
    other = compact(model, SearchSpace.from_distributions({"x": Int(0, 8)}))
    assert one.grammar_digest == two.grammar_digest != other.grammar_digest


@pytest.mark.parametrize("n_scored", [0, 1])
def test_there_is_no_forecast_without_a_scale(model, n_scored):
    assert compact(model, FAMILIES).forecast(a_history(FAMILIES, n_scored), (FAMILIES.default,)) is None


def test_there_is_no_forecast_of_nothing(model):
    assert compact(model, FAMILIES).forecast(a_history(FAMILIES, 5), ()) is None


def test_a_forecast_is_the_models_distribution_over_outcomes(model):
    history, dialect = a_history(FAMILIES, 5), CompactDialect(FAMILIES)
    (forecast,) = compact(model, FAMILIES).forecast(history, (FAMILIES.default,))
    logits = model.logits_after(dialect.prompt_tokens(history, 900), [dialect.query_tokens(FAMILIES.default)])[0]
    weights = np.exp(logits.astype(float))[VOCABULARY.first_outcome :][:N_OUTCOMES]
    assert forecast.mean == pytest.approx(weights @ CENTRES / weights.sum(), abs=1e-3)


def test_forecasts_come_in_the_order_of_their_candidates(model):
    drafter, history = compact(model, FAMILIES), a_history(FAMILIES, 5)
    asked = tuple(FAMILIES.sample(np.random.default_rng(seed)) for seed in range(20))
    together = drafter.forecast(history, asked)
    alone = [drafter.forecast(history, (values,))[0] for values in asked]
    assert [f.mean for f in together] == pytest.approx([f.mean for f in alone], abs=1e-3)


# --- chat


@pytest.mark.parametrize("kind", KINDS)
def test_every_answer_lies_in_the_space(kind):
    space = KINDS[kind]
    drafts, call = chat(space).draft(a_history(space, 5), 3, seed=0, first_trial=5)
    assert [space.write(draft.values) for draft in drafts] == [answer.text for answer in call.answers]


def test_names_and_choices_that_give_orders_stay_names_and_choices():
    space = SPACES["odd names"]
    drafts, call = chat(space).draft(a_history(space, 5), 3, 0, 5)
    assert all(space.contains(draft.values) for draft in drafts) and "<|im_start|>" not in call.prompt


def test_a_scripted_answer_becomes_the_candidate():
    space = SearchSpace.from_distributions({"n": Int(1, 500), "on": Cat([True, False])})
    drafts, _ = chat(space, ScriptedModel([['{"n":42,"on":false}', '{"n":7,"on":true}']])).draft(
        History(space), 2, 0, 0
    )
    assert [dict(draft.values) for draft in drafts] == [{"n": 42, "on": False}, {"n": 7, "on": True}]


def test_the_call_shows_what_was_asked():
    _, call = chat(FAMILIES).draft(a_history(FAMILIES, 5), 2, 0, 5)
    assert call.prompt.startswith("[system]\nYou tune") and "\n\n[user]\n# Task" in call.prompt and call.tokens_out > 0


@pytest.mark.parametrize("n_ctx", [3_000, 4_000, 6_000])
def test_a_prompt_is_shortened_until_its_tokens_fit(n_ctx):
    model = ScriptedModel(n_ctx=n_ctx)  # its tokens are single bytes, so three characters a token is far off
    _, call = chat(FAMILIES, model).draft(a_history(FAMILIES, 60), 2, 0, 60)
    assert n_ctx / 2 < call.tokens_in < n_ctx and "# Next" in call.prompt


def test_a_context_for_less_than_the_shortest_prompt_is_refused():
    with pytest.raises(DecodingError, match=r"the shortest prompt for this space has .* characters, got room for"):
        chat(FAMILIES, ScriptedModel(n_ctx=700)).draft(a_history(FAMILIES, 5), 2, 0, 5)


def test_an_instruct_model_forecasts_nothing():
    assert chat(FAMILIES).forecast(a_history(FAMILIES, 5), (FAMILIES.default,)) is None


def test_the_digest_of_a_chat_grammar_names_its_language():
    assert chat(FAMILIES).grammar_digest == chat(FAMILIES).grammar_digest != chat(KINDS["flat"]).grammar_digest
