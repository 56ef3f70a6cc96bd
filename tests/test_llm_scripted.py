"""The double keeps the contract of a language model: what its grammar would not accept, it does not say."""

import re
import threading

import numpy as np
import pytest

from offline_tune.errors import DecodingError, ModelError, UsageError
from offline_tune.llm.chat import Message, chat_tokens
from offline_tune.llm.contract import Sampling
from offline_tune.llm.matcher import AutomatonMatcher, TokenAutomaton
from offline_tune.llm.scripted import ScriptedModel

REGEX = r'\{"lr":[1-9]e-[1-5]\}'
PLAIN = Sampling()


def ask(model, k=1, regex=REGEX, seeds=None, sampling=PLAIN, max_tokens=20):
    seeds = range(k) if seeds is None else seeds
    return model.complete([1], model.matcher(regex), k, sampling, seeds, max_tokens)


def automaton(model, choices=("<0>", "<1>", "<2>")):
    ids = [model.token_id(word) for word in choices]
    return AutomatonMatcher(TokenAutomaton(({model.token_id("<lr>"): 1}, dict.fromkeys(ids, 2), {})))


@pytest.fixture
def compact():
    return ScriptedModel([["<lr><2>"]], words=("<lr>", "<0>", "<1>", "<2>"), dialect="compact")


def test_answers_come_in_the_order_of_the_script():
    model = ScriptedModel([['{"lr":1e-1}', '{"lr":2e-2}'], ['{"lr":3e-3}']])
    assert [c.text for c in ask(model, 2)] == ['{"lr":1e-1}', '{"lr":2e-2}']
    assert [c.text for c in ask(model, 1)] == ['{"lr":3e-3}']


@pytest.mark.parametrize("answer", ['{"lr":0e-1}', '{"lr":1e-1} ', '{"lr":1e-', "", "é"])
def test_an_answer_that_the_grammar_would_not_accept_is_refused(answer):
    with pytest.raises(DecodingError, match=r"the script must hold texts of the grammar, got .*; correct the script"):
        ask(ScriptedModel([[answer]]))


def test_after_the_script_answers_are_drawn_from_the_grammar():
    model = ScriptedModel()
    texts = {c.text for c in ask(model, 50)}
    assert all(re.fullmatch(REGEX, text) for text in texts)
    assert len(texts) > 20


def test_equal_seeds_draw_equal_answers():
    first, second = ask(ScriptedModel(), 4, seeds=[3, 4, 3, 5]), ask(ScriptedModel(), 4, seeds=[3, 4, 3, 5])
    assert first == second
    assert first[0] == first[2] != first[1]


def test_after_the_script_an_answer_may_be_refused():
    with pytest.raises(DecodingError, match="an answer for each call, got one call more; lengthen it"):
        ask(ScriptedModel(then_uniform=False))


def test_a_call_with_another_number_of_answers_is_refused():
    with pytest.raises(DecodingError, match="must hold 2 answers for this call, got 1"):
        ask(ScriptedModel([["a"]]), 2)


def test_logprobs_are_those_of_an_even_model():
    scripted, drawn = ask(ScriptedModel([['{"lr":1e-1}']]))[0], ask(ScriptedModel())[0]
    assert scripted.logprob == pytest.approx(-np.log(9 * 5)) == pytest.approx(drawn.logprob)
    assert scripted.raw_logprob == pytest.approx(-2 * np.log(257)) == pytest.approx(drawn.raw_logprob)
    assert scripted.rejected_mass == pytest.approx(1 - 7 / 257) == pytest.approx(drawn.rejected_mass)


def test_an_answer_may_end_where_the_grammar_lets_it():
    assert ask(ScriptedModel([["aa"]]), regex="a{1,5}")[0].text == "aa"


def test_an_automaton_is_followed_by_words(compact):
    (completion,) = compact.complete([1], automaton(compact), 1, Sampling(), [0], 2)
    assert completion.tokens == (compact.token_id("<lr>"), compact.token_id("<2>"))
    assert (completion.text, completion.logprob) == ("<lr><2>", pytest.approx(-np.log(3)))


def test_an_automaton_is_drawn_from_evenly(compact):
    compact.complete([1], automaton(compact), 1, Sampling(), [0], 2)
    completions = compact.complete([1], automaton(compact), 300, Sampling(), range(300), 2)
    counts = np.unique([c.text for c in completions], return_counts=True)[1]
    assert counts.size == 3
    assert counts.min() > 70


def test_words_are_read_where_special_and_bytes_elsewhere(compact):
    assert compact.tokenize("<lr>a", special=True) == [compact.token_id("<lr>"), 1 + ord("a")]
    assert compact.tokenize("<lr>", special=False) == [1 + b for b in b"<lr>"]
    assert compact.spell(compact.tokenize("x<lr>é", special=True)) == "x<lr>é"


def test_logits_are_equal(compact):
    assert np.array_equal(compact.logits_after([1], [[2], [3, 4]]), np.zeros((2, 261), np.float32))


def test_prompts_and_counters_are_kept():
    model = ScriptedModel()
    ask(model, 2)
    model.logits_after([5, 6], [[1]])
    counters = model.counters
    assert model.prompts == [(1,), (5, 6)]
    assert (counters.calls, counters.tokens_evaluated, counters.tokens_sampled) == (2, 3, 4)


def test_a_chat_can_be_put_to_it():
    model = ScriptedModel(chat_template="{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}")
    assert model.spell(chat_tokens(model, [Message("user", "hi")])) == "<user>hi"


def test_an_unknown_piece_is_refused():
    with pytest.raises(ModelError, match="must hold the token 'zebra', got 257 without it; give it as a word"):
        ScriptedModel().token_id("zebra")


def test_an_endless_grammar_is_refused():
    with pytest.raises(DecodingError, match="at most max_tokens = 5 tokens, got more and no end"):
        ask(ScriptedModel(), regex="a{9}", max_tokens=5)


def test_what_does_not_fit_is_refused():
    with pytest.raises(DecodingError, match=r"fit a context of 16 tokens, got 1 \+ 20; show fewer trials"):
        ask(ScriptedModel(n_ctx=16))


@pytest.mark.parametrize("prompt", [[], [257], [-1]])
def test_prompts_out_of_the_vocabulary_are_refused(prompt):
    with pytest.raises(UsageError, match="a prompt must hold token ids from 0 to 256, got"):
        ScriptedModel().logits_after(prompt, [[1]])


def test_another_thread_is_refused():
    model, caught = ScriptedModel(), []

    def call():
        with pytest.raises(UsageError, match="called by the thread that loaded it") as raised:
            model.logits_after([1], [[1]])
        caught.append(raised)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert caught


def test_a_closed_model_raises():
    model = ScriptedModel()
    model.close()
    with pytest.raises(UsageError, match="must be open to be used, got a closed one"):
        model.logits_after([1], [[1]])
