"""The model over llama.cpp: K texts together are what each would be alone, or an error, never something else."""

import os
import re
import threading

import gguf
import gguf_maker
import numpy as np
import pytest

from offline_tune.errors import DecodingError, ModelError, UsageError
from offline_tune.llm.contract import Sampling
from offline_tune.llm.llama import load_model
from offline_tune.llm.mask import allowed
from offline_tune.llm.matcher import AutomatonMatcher, TokenAutomaton

REGEX = r'\{"lr":(1e-[1-5]|0\.[0-9]{2}),"depth":([2-9]|1[0-6]),"on":(true|false)\}'
LONGEST = 40
GRAMMAR_ENGINES = ("llguidance", "outlines-core")
PLAIN = Sampling()
# llama.cpp computes a row in another order when its neighbours are others; random models spread over about +-4
CLOSE = 0.05


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def path(folder):
    return gguf_maker.make_spm(folder / "spm.gguf")


@pytest.fixture(scope="module")
def model(path):
    loaded = load_model(path, k_max=16)
    yield loaded
    loaded.close()


@pytest.fixture
def prompt(model):
    return [*model.prompt_start, *model.tokenize("<task>lr=0.1 loss=0.3; " * 8, special=True)]


def draw(model, prompt, seeds=range(8), regex=REGEX, sampling=PLAIN, max_tokens=LONGEST):
    return model.complete(prompt, model.matcher(regex), len(seeds), sampling, seeds, max_tokens)


def logits_at(model, prompt, tokens):
    """The logits after prompt and tokens, each evaluated by itself."""
    every = [*prompt, *tokens]
    return model.logits_after(every[:-1], [every[-1:]])[0]


def replay(model, prompt, matcher, tokens):
    """For each sampled position of a text: its token, the allowed ids, the logits."""
    done = 0
    while done < len(tokens):
        forced = matcher.forced()
        if not forced:
            yield tokens[done], allowed(matcher, model.info.n_vocab), logits_at(model, prompt, tokens[:done])
        step = forced or tokens[done : done + 1]
        matcher.advance(step)
        done += len(step)


def log_softmax(x):
    x = x.astype(np.float64)
    return x - np.logaddexp.reduce(x)


class Delegate:
    """A matcher that does what another does, for tests that change one thing."""

    def __init__(self, inner):
        self.inner = inner

    finished = property(lambda self: self.inner.finished)

    def mask_into(self, row):
        self.inner.mask_into(row)

    def forced(self):
        return self.inner.forced()

    def advance(self, tokens):
        self.inner.advance(tokens)

    def clone(self):
        return type(self)(self.inner.clone())


class Unforced(Delegate):
    def forced(self):
        return ()


def branching_automaton(model, words=("0", "1", "2", "3", "12", "10")):
    """head, a choice of six, one fixed token, a branch: after 0 two more choices, else the end token."""
    ids = [model.token_id(w) for w in words]
    key, comma = model.token_id("lr"), model.token_id('","')
    end = 6
    states = (
        {key: 1},
        {ids[0]: 2, **dict.fromkeys(ids[1:], 4)},
        {comma: 3},
        dict.fromkeys(ids, 5),
        {comma: 5},
        {ids[0]: end, ids[1]: end},
        {},
    )
    return TokenAutomaton(states)


@pytest.mark.parametrize("make", [gguf_maker.make_spm, gguf_maker.make_bpe], ids=["spm", "bpe"])
def test_every_text_matches_the_grammar(make, folder):
    model = load_model(make(folder / "any.gguf"), k_max=16)
    texts = [c.text for c in draw(model, model.tokenize("go", special=True), range(16), sampling=Sampling(2.0))]
    assert len(texts) == 16
    assert all(re.fullmatch(REGEX, text) for text in texts)


def test_logits_equal_those_of_the_reference_wrapper(model, path, prompt):
    from llama_cpp import Llama

    reference = Llama(str(path), n_ctx=512, logits_all=True, n_threads=1, verbose=False)
    reference.eval(prompt)
    found = model.logits_after(prompt[:-1], [prompt[-1:]])[0]
    assert found == pytest.approx(reference.scores[len(prompt) - 1], abs=CLOSE)


def test_logits_of_ragged_continuations_equal_those_one_by_one(model, prompt):
    continuations = [[260 + i % 5] * (1 + i % 4) for i in range(12)]
    together = model.logits_after(prompt, continuations)
    alone = np.stack([logits_at(model, prompt, tokens) for tokens in continuations])
    assert together.shape == (12, model.info.n_vocab)
    assert together == pytest.approx(alone, abs=CLOSE)


def test_continuations_of_more_rows_than_one_pass_are_split(model):
    prompt, rng = [1, 259], np.random.default_rng(0)
    continuations = rng.integers(259, 270, (6, 150)).tolist()
    together = model.logits_after(prompt, continuations)
    alone = np.concatenate([model.logits_after(prompt, [tokens]) for tokens in continuations])
    assert together == pytest.approx(alone, abs=CLOSE)


def test_more_continuations_than_forks_run_in_waves(model, prompt):
    continuations = [[token] for token in range(100, 140)]
    together = model.logits_after(prompt, continuations)
    assert together[[0, 17, 39]] == pytest.approx(
        np.stack([logits_at(model, prompt, continuations[i]) for i in (0, 17, 39)]), abs=CLOSE
    )


def test_no_continuation_gives_no_rows(model, prompt):
    assert model.logits_after(prompt, []).shape == (0, model.info.n_vocab)
    assert model.logits_after(prompt, [], slice(3, 5)).shape == (0, 2)


def test_columns_are_those_of_all_logits(model, prompt):
    continuations = [[260], [261, 262]]
    found = model.logits_after(prompt, continuations, slice(250, 270))
    assert np.array_equal(found, model.logits_after(prompt, continuations)[:, 250:270])


def test_what_the_prompt_cache_held_changes_no_bit(model, path, prompt):
    fresh = draw(load_model(path, k_max=16), prompt)
    for other in (prompt[:90], [1, *prompt[5:]], [*prompt, 260, 261], prompt):
        draw(model, other, range(3))
        model.logits_after(other, [[260], [261, 262]])
    assert draw(model, prompt) == fresh


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
def test_a_quantised_model_answers_and_its_cache_changes_no_bit(folder, kind):
    path = gguf_maker.make_spm(folder / f"{kind}.gguf", width=256, quantized=kind)
    used, fresh = load_model(path), load_model(path)
    draw(used, [1] * 150, range(3))
    used.logits_after([1] * 100, [[260]])
    assert draw(used, [1] * 200) == draw(fresh, [1] * 200)


def test_a_longer_prompt_is_evaluated_from_the_last_whole_chunk(model):
    rng = np.random.default_rng(1)
    long = [1, *rng.integers(259, 270, 200).tolist()]
    model.logits_after(long[:150], [[260]])
    before = model.counters.tokens_evaluated
    model.logits_after(long, [[260]])
    assert model.counters.tokens_evaluated - before == len(long) - 128 + 1


def test_the_same_prompt_is_not_evaluated_again(model, prompt):
    first = model.logits_after(prompt, [[260]])
    before = model.counters.tokens_evaluated
    assert np.array_equal(model.logits_after(prompt, [[260]]), first)
    assert model.counters.tokens_evaluated - before == 1


def test_each_text_is_what_it_would_be_alone(model, prompt):
    together = draw(model, prompt, range(8))
    alone = [draw(model, prompt, [seed])[0] for seed in range(8)]
    assert [c.text for c in together] == [c.text for c in alone]
    assert [c.logprob for c in together] == pytest.approx([c.logprob for c in alone], abs=CLOSE)


def test_equal_seeds_give_equal_texts_and_others_differ(model, prompt):
    first, second = (draw(model, prompt, range(8), sampling=Sampling(1.5)) for _ in range(2))
    assert first == second
    assert len({c.text for c in first}) > 1


def test_more_seeds_than_forks_are_answered_in_order(path, prompt, model):
    small = load_model(path, k_max=2)
    assert [c.text for c in draw(small, prompt, range(7))] == [draw(model, prompt, [s])[0].text for s in range(7)]


@pytest.mark.parametrize("k", [1, 3, 64, 256])
def test_any_number_of_texts_of_any_length_is_drawn(path, prompt, model, k):
    regex, few = "[0-9]{1,9}(,[0-9]{1,9}){0,2}", load_model(path, k_max=5)
    found = draw(few, prompt, range(k), regex, Sampling(2.0))
    assert found == draw(few, prompt, range(k), regex, Sampling(2.0))
    assert all(re.fullmatch(regex, c.text) for c in found)
    for seed in {0, k // 2, k - 1}:
        assert found[seed].text == draw(model, prompt, [seed], regex, Sampling(2.0))[0].text


def test_both_grammar_engines_write_texts_of_the_grammar(model, prompt):
    completions = model.complete(prompt, model.matcher(REGEX, "outlines-core"), 16, Sampling(2.0), range(16), LONGEST)
    assert all(re.fullmatch(REGEX, c.text) for c in completions)
    assert len({c.text for c in completions}) > 8


def test_both_grammar_engines_draw_the_same_texts_over_bytes(folder):
    model = load_model(gguf_maker.make_spm(folder / "plain.gguf", words=()))
    drawn = [model.complete([1, 50], model.matcher(REGEX, by), 8, PLAIN, range(8), 50) for by in GRAMMAR_ENGINES]
    assert drawn[0] == drawn[1]


def test_fewer_forks_run_at_once_where_the_cache_is_small(path):
    model = load_model(path, n_ctx=300, k_max=8)
    assert len(draw(model, [1] * 20, range(8), max_tokens=250)) == 8


def test_logprobs_equal_a_manual_computation(model, prompt):
    completion = draw(model, prompt, [3])[0]
    raw, decisions, rejected = 0.0, [], []
    for token, ids, logits in replay(model, prompt, model.matcher(REGEX), completion.tokens):
        decisions.append(log_softmax(logits[ids])[list(ids).index(token)])
        raw += log_softmax(logits)[token]
        rejected.append(1 - np.exp(log_softmax(logits)[ids]).sum())
    assert completion.decisions == pytest.approx(decisions, abs=CLOSE)
    assert completion.logprob == pytest.approx(sum(decisions), abs=CLOSE)
    assert completion.raw_logprob == pytest.approx(raw, abs=2 * CLOSE)
    assert completion.rejected_mass == pytest.approx(np.mean(rejected), abs=0.01)


def test_temperature_zero_takes_the_most_probable_token(model, prompt):
    completion = draw(model, prompt, [9], sampling=Sampling(temperature=0))[0]
    for token, ids, logits in replay(model, prompt, model.matcher(REGEX), completion.tokens):
        assert token == ids[np.argmax(logits[ids])]


def test_logprobs_do_not_depend_on_the_sampling(model, prompt):
    cold = draw(model, prompt, [0], sampling=Sampling(temperature=0))[0]
    warm = {c.text: c for c in draw(model, prompt, range(40), sampling=Sampling(0.3, 0.95, 0.01))}
    assert warm[cold.text].logprob == pytest.approx(cold.logprob, abs=CLOSE)


def test_an_automaton_forced_or_not_gives_the_same_texts(model, prompt):
    matcher = AutomatonMatcher(branching_automaton(model))
    jumped, walked = (model.complete(prompt, m, 16, Sampling(), range(16), 6) for m in (matcher, Unforced(matcher)))
    assert [c.tokens for c in jumped] == [c.tokens for c in walked]
    assert [c.logprob for c in jumped] == pytest.approx([c.logprob for c in walked], abs=CLOSE)
    assert len({len(c.tokens) for c in jumped}) == 2


def test_a_regex_forced_or_not_gives_the_same_texts_over_bytes(folder):
    model = load_model(gguf_maker.make_spm(folder / "bytes.gguf", words=()), k_max=8)
    matcher = model.matcher(REGEX)
    jumped, walked = (model.complete([1, 50], m, 8, Sampling(), range(8), 50) for m in (matcher, Unforced(matcher)))
    assert [c.text for c in jumped] == [c.text for c in walked]


def test_forced_tokens_cost_no_pass_of_their_own(model, prompt):
    counters = model.counters
    draw(model, prompt, [0], regex="abc[01]" + "depth" * 5 + "[01]")
    assert model.counters.tokens_sampled - counters.tokens_sampled == 2


def test_a_grammar_without_a_choice_is_written_without_the_network(model, prompt):
    before = model.counters.tokens_evaluated
    completions = draw(model, prompt, range(3), regex="depth")
    assert [c.text for c in completions] == ["depth"] * 3
    assert (completions[0].logprob, completions[0].rejected_mass) == (0.0, 0.0)
    assert model.counters.tokens_evaluated == before


def test_a_text_may_end_where_the_grammar_lets_it(model, prompt):
    completions = draw(model, prompt, range(40), regex="[ab]{1,5}", sampling=Sampling(3.0))
    assert {len(c.text) for c in completions} >= {1, 2, 5}
    assert not any(gguf_maker.EOS in c.tokens for c in completions)


def test_the_matcher_of_the_caller_stays_where_it_is(model, prompt):
    matcher = model.matcher(REGEX)
    before = matcher.forced()
    model.complete(prompt, matcher, 2, Sampling(), [0, 1], LONGEST)
    assert matcher.forced() == before


def test_a_recurrent_model_forks_too(folder):
    model = load_model(gguf_maker.make_mamba(folder / "mamba.gguf"), k_max=8)
    together = draw(model, [1] * 70, range(8))
    assert [c.text for c in together] == [draw(model, [1] * 70, [s])[0].text for s in range(8)]
    assert model.logits_after([1] * 70, [[5], [6, 7]])[1] == pytest.approx(
        logits_at(model, [1] * 70, [6, 7]), abs=CLOSE
    )


def test_counters_add_up(path):
    model = load_model(path, k_max=4)
    draw(model, [1] * 10, range(4), regex="[01][01]")
    counters = model.counters
    assert (counters.calls, counters.tokens_evaluated, counters.tokens_sampled) == (1, 10 + 4, 8)
    assert counters.seconds > 0


def test_prompt_start_is_the_beginning_of_text_where_the_file_asks_for_it(model, folder):
    assert model.prompt_start == (gguf_maker.BOS,)
    assert load_model(gguf_maker.make_bpe(folder / "bpe.gguf")).prompt_start == ()


# what goes wrong: each is an error, and the model answers afterwards as if nothing had happened


class Failing(Delegate):
    def advance(self, tokens):
        if len(tokens) == 1:
            raise DecodingError("the matcher must go on, got a failure on purpose; mend it")
        super().advance(tokens)


class Overtaking(Delegate):
    """Allows a token that its grammar then refuses."""

    def mask_into(self, row):
        row[:] = 0
        row[0] = 1 << 5


class Foreign(Delegate):
    def mask_into(self, row):
        row[:] = 2**32 - 1


class Empty(Delegate):
    def mask_into(self, row):
        row[:] = 0


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (Failing, "the matcher must go on, got a failure on purpose"),
        (Overtaking, r"the grammar must allow tokens \[5\], got a refusal"),
        (Foreign, "the grammar must allow tokens 0 to 272, got 0 to 287; it was made for another model"),
        (Empty, "the grammar must allow a token, got none; it cannot be written"),
    ],
)
def test_a_matcher_that_fails_returns_nothing_and_leaves_the_model_usable(model, prompt, broken, message):
    before = draw(model, prompt)
    with pytest.raises(DecodingError, match=message):
        model.complete(prompt, broken(model.matcher(REGEX)), 4, Sampling(), range(4), LONGEST)
    assert draw(model, prompt) == before


def test_an_endless_grammar_is_refused_at_max_tokens(model, prompt):
    before = draw(model, prompt)
    with pytest.raises(DecodingError, match="at most max_tokens = 20 tokens, got 21 and no end; raise max_tokens"):
        draw(model, prompt, regex="[ab]{60,}c", max_tokens=20)
    assert draw(model, prompt) == before


def test_a_forced_head_beyond_max_tokens_is_refused(model, prompt):
    with pytest.raises(DecodingError, match="at most max_tokens = 2 tokens"):
        draw(model, prompt, max_tokens=2)


def test_a_prompt_that_does_not_fit_is_refused_with_its_numbers(model):
    with pytest.raises(
        DecodingError, match=r"fit a context of 512 tokens, got 500 \+ 40; show fewer trials, .* \(trained: 512\)"
    ):
        draw(model, [1] * 500)


def test_continuations_that_do_not_fit_are_refused(model):
    with pytest.raises(DecodingError, match=r"fit a context of 512 tokens, got 500 \+ 13"):
        model.logits_after([1] * 500, [[5], [5] * 13])


def test_logits_that_are_not_numbers_are_refused(folder):
    model = load_model(gguf_maker.make_spm(folder / "nan.gguf", nan=True), k_max=2)
    with pytest.raises(DecodingError, match="must give numbers as logits, got 273 of 273 that are NaN"):
        draw(model, [1, 5], [0])
    with pytest.raises(DecodingError, match="must give numbers as logits, got some that are NaN"):
        model.logits_after([1, 5], [[6]])


def test_after_logits_that_are_not_numbers_the_model_answers_as_before(folder):
    path = gguf_maker.make_spm(folder / "one.gguf")
    poisoned = gguf.GGUFReader(path, "r+")
    next(tensor for tensor in poisoned.tensors if tensor.name == "token_embd.weight").data[77] = np.nan
    poisoned.data.flush()
    model = load_model(path, k_max=4)
    before = draw(model, [1, 76], range(4))
    for use in (lambda: draw(model, [1, 77], range(4)), lambda: model.logits_after([1], [[77], [76]])):
        with pytest.raises(DecodingError, match="the model must give numbers as logits, got"):
            use()
        assert draw(model, [1, 76], range(4)) == before


@pytest.mark.parametrize(
    ("k", "seeds", "max_tokens", "message"),
    [
        (0, [], 9, "k must be at least 1 with one seed each, got 0 and 0 seeds"),
        (2, [1], 9, "k must be at least 1 with one seed each, got 2 and 1 seeds"),
        (1, [-1], 9, "seeds must be 0 or more, got -1"),
        (1, [0], 0, "max_tokens must be at least 1, got 0"),
    ],
)
def test_requests_out_of_range_are_refused(model, prompt, k, seeds, max_tokens, message):
    with pytest.raises(UsageError, match=message):
        model.complete(prompt, model.matcher("a"), k, Sampling(), seeds, max_tokens)


@pytest.mark.parametrize(
    ("prompt", "got"), [([], "at least one token, got none"), ([1, -1], "got -1"), ([273], "got 273")]
)
def test_prompts_out_of_the_vocabulary_are_refused(model, prompt, got):
    with pytest.raises(UsageError, match=f"a prompt must hold .*{got}"):
        draw(model, prompt)


def test_continuations_out_of_the_vocabulary_are_refused(model):
    with pytest.raises(UsageError, match="a continuation must hold at least one token, got none"):
        model.logits_after([1], [[5], []])


def test_a_malformed_regex_is_refused(model):
    with pytest.raises(DecodingError, match=r"a regular expression that llguidance compiles, got '\(a' \(.*unclosed"):
        model.matcher("(a")


def test_another_grammar_engine_is_refused(model):
    with pytest.raises(UsageError, match="must be one of llguidance, outlines-core, got 'gbnf'; leave it out"):
        model.matcher("a", "gbnf")


def test_an_unknown_piece_is_refused(model):
    with pytest.raises(ModelError, match="the vocabulary must hold the token 'zebra', got 273 tokens without it"):
        model.token_id("zebra")


def test_another_thread_is_refused(model, prompt):
    caught = []

    def call():
        with pytest.raises(UsageError, match="called by the thread that loaded it, got thread 'other'") as raised:
            draw(model, prompt)
        caught.append(raised)

    other = threading.Thread(target=call, name="other")
    other.start()
    other.join()
    assert caught


def test_a_call_within_a_call_is_refused(model, prompt):
    class Reentrant(Delegate):
        def advance(self, tokens):
            model.logits_after([1], [[5]])

    with pytest.raises(UsageError, match="idle to be called, got one in the middle of a call"):
        model.complete(prompt, Reentrant(model.matcher(REGEX)), 1, Sampling(), [0], LONGEST)


def test_closing_within_a_call_is_refused(model, prompt):
    class Closing(Delegate):
        def advance(self, tokens):
            model.close()

    with pytest.raises(UsageError, match="idle to be closed, got one in the middle of a call"):
        model.complete(prompt, Closing(model.matcher(REGEX)), 1, Sampling(), [0], LONGEST)


def test_a_closed_model_and_its_matchers_raise(path):
    model = load_model(path)
    matcher = model.matcher(REGEX)
    model.close()
    model.close()
    for use in (lambda: allowed(matcher, 273), lambda: draw(model, [1]), lambda: model.logits_after([1], [[5]])):
        with pytest.raises(UsageError, match="a model must be open to be used, got a closed one; load it again"):
            use()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_ctx": 513}, "n_ctx must be from 16 to the model's trained 512, got 513"),
        ({"n_ctx": 0}, "n_ctx must be from 16 to the model's trained 512, got 0"),
        ({"k_max": 256}, "k_max must be from 1 to 255, got 256"),
        ({"n_threads": 0}, "n_threads must be from 1 to 512, got 0"),
        ({"device": "tpu"}, "--device must be one of auto, cpu, cuda, metal, got 'tpu'"),
    ],
)
def test_arguments_out_of_range_are_refused(path, options, message):
    with pytest.raises(UsageError, match=message):
        load_model(path, **options)


def test_a_cache_beyond_the_memory_is_refused_before_it_is_allocated(folder):
    path = gguf_maker.make_spm(folder / "long.gguf", n_ctx=2**31)
    with pytest.raises(ModelError, match=r"cache must fit into memory, got 524\d{3} MiB needed and \d+ MiB free; load"):
        load_model(path, n_ctx=2**31)


def test_weights_beyond_the_memory_are_refused_before_they_are_read(folder):
    path = gguf_maker.make_spm(folder / "vast.gguf")
    os.truncate(path, 1 << 43)  # a hole: it takes no room
    with pytest.raises(ModelError, match=r"must fit into memory, got 8388608 MiB of weights and \d+ MiB free; choose"):
        load_model(path)
    path.unlink()


def test_a_file_that_llama_cpp_refuses_is_an_error_with_its_reason(folder):
    path = gguf_maker.make_spm(folder / "strange.gguf", extra={"llama.rope.freq_base": "x"})
    with pytest.raises(ModelError, match=r"llama.cpp must load .*strange.gguf, got: .*rope.freq_base has wrong type"):
        load_model(path)


def test_a_file_with_another_hash_than_its_manifest_is_not_loaded(tmp_path):
    path = gguf_maker.make_spm(tmp_path / "a.gguf")
    manifest = '[[model]]\nfile = "a.gguf"\nsha256 = "{}"\nlicence = "MIT"\ndialect = "chat"\n'
    (tmp_path / "models.toml").write_text(manifest.format("0" * 64))
    with pytest.raises(ModelError, match="must have the sha256 0000"):
        load_model(path)


def test_the_info_is_what_the_file_says(model, path):
    info = model.info
    assert (info.architecture, info.dialect, info.n_ctx_train, info.n_vocab) == ("llama", "chat", 512, 273)
    assert (info.path, info.file_bytes, len(info.sha256)) == (path, path.stat().st_size, 64)
    assert model.vocabulary[gguf_maker.WORDS_0] == gguf_maker.WORDS[0]
