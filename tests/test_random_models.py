"""The vocabularies of the random models are as awkward as those of real ones, and llama.cpp reads them."""

import re

import pytest
from gguf_maker import byte_letters
from random_models import large_vocabulary, make_random_llama, read_vocabulary, small_vocabulary

from offline_tune.errors import DecodingError
from offline_tune.llm.contract import Sampling
from offline_tune.llm.llama import load_model

BOTH = pytest.mark.parametrize("vocabulary", [small_vocabulary, large_vocabulary], ids=["small", "large"])
TEXT = '{"learning_rate":1.23e-4,"n":123456,"naïve 数据 🙂":"a\\"b"}  return the value'


def spelt(text):
    letters = byte_letters()
    return "".join(letters[byte] for byte in text.encode())


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    loaded = load_model(make_random_llama(tmp_path_factory.mktemp("large") / "large.gguf", large_vocabulary()), k_max=8)
    yield loaded
    loaded.close()


@BOTH
def test_a_vocabulary_has_its_size_no_piece_twice_and_every_byte(vocabulary):
    pieces = vocabulary().pieces
    assert (
        len(set(pieces)) == len(pieces) == {"small_vocabulary": 4_096, "large_vocabulary": 128_256}[vocabulary.__name__]
    )
    assert set(byte_letters()) <= set(pieces)


@BOTH
def test_json_grows_together_with_words_and_quotes(vocabulary):
    assert {'{"', '":', ',"', '":"', "learning", "Ġreturn", "Ġthe"} <= set(vocabulary().pieces)


def test_the_large_vocabulary_has_all_digit_triples_and_no_longer_numbers():
    pieces = set(large_vocabulary().pieces)
    assert {f"{n:03}" for n in range(1000)} | {f"{n:02}" for n in range(100)} <= pieces
    assert not any(re.search("[0-9]{4}", piece) for piece in pieces)


def test_the_large_vocabulary_has_halves_of_characters_and_long_runs():
    pieces = set(large_vocabulary().pieces)
    assert {spelt("数")[:2], spelt("🙂")[:2], spelt(" " * 64), "=" * 64} <= pieces


def test_a_vocabulary_is_read_back_from_a_file(tmp_path):
    assert read_vocabulary(make_random_llama(tmp_path / "small.gguf", small_vocabulary())) == small_vocabulary()


def test_llama_cpp_finds_all_three_ends_of_a_generation(large):
    ends = {"<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"}
    assert {large.vocabulary[i] for i in large_vocabulary().ends} == ends
    for end in large_vocabulary().ends:
        matcher = large.matcher("ab?")
        matcher.advance(large.tokenize("a", special=False))
        matcher.advance([end])
        assert matcher.finished


def test_a_text_ends_with_any_of_them_and_holds_none(large):
    found = large.complete([1], large.matcher("[ab]{1,4}"), 64, Sampling(5.0), range(64), 9)
    assert {len(c.text) for c in found} == {1, 2, 3, 4}
    assert not any(set(c.tokens) & set(large_vocabulary().ends) for c in found)


def test_a_special_token_is_no_end_and_no_text(large):
    matcher = large.matcher("ab?")
    matcher.advance(large.tokenize("a", special=False))
    with pytest.raises(DecodingError, match=r"must allow tokens \[128006\], got a refusal"):
        matcher.advance([large.token_id("<|start_header_id|>")])


def test_texts_are_cut_as_real_models_cut_them(large):
    pieces = [large.vocabulary[token] for token in large.tokenize(TEXT, special=False)]
    assert pieces[:9] == ['{"', "learning", "_", "rate", '":', "1", ".", "23", "e"]
    assert "123" in pieces and "456" in pieces


def test_every_text_survives_its_tokens(large):
    text = TEXT + "".join(map(chr, range(1, 0x2000, 7))) + "\U00080041\U0010ffff" + "x" * 100 + " " * 130
    escaped = "".join(f"\\{c}" if c in r"\.^$*+?()[]{}|" else c for c in text)
    (completion,) = large.complete([1], large.matcher(escaped), 1, Sampling(), [0], len(text.encode()))
    assert completion.text == text
