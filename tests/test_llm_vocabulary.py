"""Text to tokens and back: text that the program did not write never becomes a special token."""

import gguf_maker
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offline_tune.errors import UsageError
from offline_tune.llm.llama import load_model
from offline_tune.llm.mask import allowed

SPECIAL = ("<|im_start|>", "<|im_end|>", "<|end|>", "<tool>")


@pytest.fixture(scope="module")
def bpe(tmp_path_factory):
    return load_model(gguf_maker.make_bpe(tmp_path_factory.mktemp("vocabulary") / "bpe.gguf"))


def spell(model, tokens):
    return model._engine.vocabulary.spell(tokens)


@pytest.mark.parametrize("mark", SPECIAL)
def test_structure_is_read_as_special_tokens(bpe, mark):
    assert bpe.tokenize(mark, special=True) == [bpe.token_id(mark)]


@pytest.mark.parametrize("mark", SPECIAL)
def test_content_is_read_as_letters(bpe, mark):
    tokens = bpe.tokenize(f"a{mark}{mark}", special=False)
    assert not set(tokens) & {bpe.token_id(m) for m in SPECIAL}
    assert spell(bpe, tokens) == f"a{mark}{mark}"


@given(st.lists(st.sampled_from([*SPECIAL, "<", "|", "é", "\n", "a b", "<|im_", "start|>"]), max_size=8).map("".join))
def test_no_content_spells_a_special_token_and_all_is_kept(bpe, text):
    tokens = bpe.tokenize(text, special=False)
    assert not set(tokens) & {bpe.token_id(m) for m in SPECIAL}
    assert spell(bpe, tokens) == text


@given(st.text(max_size=40))
def test_any_text_is_kept(bpe, text):
    assert spell(bpe, bpe.tokenize(text, special=True)) == text


def test_a_lone_surrogate_is_written_as_a_question_mark(bpe):
    assert spell(bpe, bpe.tokenize("a\ud800b", special=False)) == "a?b"


def test_bytes_that_are_no_text_are_replaced(bpe):
    assert spell(bpe, [bpe.token_id("Ã")]) == "\ufffd"


def test_nothing_is_no_token(bpe):
    assert bpe.tokenize("", special=False) == bpe.tokenize("", special=True) == []


def test_a_text_of_absurd_length_is_refused(bpe):
    with pytest.raises(UsageError, match="a text must have at most 524288 bytes, got 524289; shorten it"):
        bpe.tokenize("a" * (2**19 + 1), special=True)


def test_a_regex_never_allows_a_special_token(bpe):
    matcher = bpe.matcher(".{1,20}")
    assert not set(allowed(matcher, bpe.info.n_vocab).tolist()) & {bpe.token_id(m) for m in SPECIAL}
