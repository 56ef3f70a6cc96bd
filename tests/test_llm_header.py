"""The header of a GGUF file is untrusted: what is sound is read exactly, all else is one ModelError, quickly."""

import os
import struct
import time

import gguf_maker
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offline_tune.errors import ModelError
from offline_tune.llm.gguf_format import BLOCKS, TensorInfo, parse
from offline_tune.llm.gguf_header import read_header

ARCH = "general.architecture"


def string(text):
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def key(name, type_id, value):
    return string(name) + struct.pack("<I", type_id) + value


def tensor(name=b"t", shape=(2, 2), type_id=0, offset=0):
    sizes = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return string(name) + sizes + struct.pack("<IQ", type_id, offset)


def header(keys=(), tensors=(), version=3, n_keys=None, n_tensors=None):
    counts = struct.pack("<IQQ", version, len(tensors) if n_tensors is None else n_tensors, n_keys or len(keys))
    return b"GGUF" + counts + b"".join(keys) + b"".join(tensors)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = gguf_maker.make_spm(tmp_path_factory.mktemp("gguf") / "good.gguf", template="{{ messages }}")
    return path.read_bytes()


@pytest.fixture
def spm(tmp_path):
    return lambda **options: read_header(gguf_maker.make_spm(tmp_path / "m.gguf", **options))


def test_a_sound_header_is_read_exactly(spm):
    found = spm(n_ctx=300, template="{{ x }}")
    assert (found.version, found.architecture, found.dialect, found.n_ctx_train) == (3, "llama", "chat", 300)
    assert (found.n_vocab, found.chat_template) == (273, "{{ x }}")
    assert found.n_parameters == 2 * 273 * 32 + 32 + 2 * (4 * 32 * 32 + 3 * 64 * 32 + 2 * 32)
    assert found.metadata["llama.block_count"] == 2


def test_scalars_of_every_type_are_read():
    packed = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 7: "?", 10: "Q", 11: "q", 6: "f", 12: "d"}
    keys = [key(str(i), i, struct.pack("<" + form, 1)) for i, form in packed.items()]
    assert parse(header(keys), "f").metadata == dict.fromkeys(map(str, packed), 1)


def test_arrays_are_measured_and_skipped():
    strings = struct.pack("<IQ", 8, 2) + string("a") + string("bc")
    numbers = struct.pack("<IQ", 4, 3) + bytes(12)
    found = parse(header([key("s", 9, strings), key("n", 9, numbers), key("x", 4, bytes(4))]), "f")
    assert (dict(found.array_lengths), dict(found.metadata)) == ({"s": 2, "n": 3}, {"x": 0})


def test_block_sizes_are_those_of_the_format():
    from gguf.constants import GGML_QUANT_SIZES

    theirs = {int(kind): size for kind, size in GGML_QUANT_SIZES.items()}
    assert {kind: theirs[kind] for kind in BLOCKS} == BLOCKS


@pytest.mark.parametrize(("type_id", "n_bytes"), [(0, 4 * 257), (8, 34 * 9), (12, 144 * 2), (999, 0)])
def test_a_tensor_takes_whole_blocks(type_id, n_bytes):
    assert TensorInfo("t", (257,), type_id, 0).n_bytes == n_bytes


@pytest.mark.parametrize("dialect", ["chat", "compact"])
def test_the_file_chooses_the_dialect(spm, dialect):
    extra = {"offline_tune.dialect": dialect, "offline_tune.dialect_version": 1}
    assert spm(extra=extra).dialect == dialect


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tensors": False}, "m.gguf must hold weights, got a vocabulary only; give the full model file"),
        ({"tokenizer": False}, "m.gguf must hold a tokenizer, got 0 tokens of model 'None'; convert"),
        ({"arch": "bert"}, "must be a model that writes text, got architecture 'bert'"),
        ({"arch": "nomic-bert"}, "must be a model that writes text, got architecture 'nomic-bert'"),
        ({"extra": {"llama.pooling_type": 1}}, "must be a model that writes text, got architecture 'llama'"),
        ({"extra": {"llama.attention.causal": False}}, "must be a model that writes text"),
        ({"extra": {"split.count": 3}}, "must be a whole model, got one of 3 parts; join them"),
        ({"words": ("<s>",)}, "m.gguf must hold each token once, got 1 repeated ones; convert"),
        ({"extra": {"llama.rope.scale": float("nan")}}, "must hold usable numbers, got 'llama.rope.scale' of nan"),
        ({"extra": {"llama.x_epsilon": -1.0}}, "must hold usable numbers, got 'llama.x_epsilon' of -1"),
        ({"n_ctx": 8}, "must have a llama.context_length of at least 16 tokens, got 8"),
        ({"extra": {"offline_tune.dialect": "verse"}}, "the dialect chat or compact .*, got 'verse'; upgrade"),
        ({"extra": {"offline_tune.dialect_version": 2}}, "must speak version 1 of its dialect, got 2; upgrade"),
        ({"extra": {"general.alignment": 3}}, "an alignment that is a power of two from 8 to 65536, got 3"),
    ],
)
def test_an_unsuitable_model_is_refused_with_its_reason(spm, options, message):
    with pytest.raises(ModelError, match=message):
        spm(**options)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"PK\3\4zip", r"must be a GGUF file, got one that starts with b'PK\\x03\\x04'"),
        (b"GGU", "must be a GGUF file, got one that starts with b'GGU'"),
        (b"GGUF", "must hold its whole header, got the end of the file at byte 4; it is truncated"),
        (header(version=1), "must be GGUF version 2 or 3, little-endian, got version 1"),
        (b"GGUF" + struct.pack(">I", 3), "must be GGUF version 2 or 3, little-endian, got version 50331648"),
        (header(n_keys=2**63), "must hold at most 65536 keys that fit into the file, got 9223372036854775808"),
        (header(n_tensors=60_000), "must hold at most 65536 tensors that fit into the file, got 60000"),
        (header([key("a", 4, bytes(4))] * 2), "must hold each key once, got 'a' twice"),
        (header([key("a", 77, bytes(4))]), "must hold values of GGUF's scalar types, got type 77"),
        (header([key("a", 9, struct.pack("<IQ", 9, 1))]), "must hold values of GGUF's scalar types, got type 9"),
        (header([key("a", 9, struct.pack("<IQ", 4, 2**62))]), "must hold its whole header"),
        (header([key("a", 9, struct.pack("<IQ", 8, 2**62))]), "must hold at most 4194304 strings in arrays"),
        (
            header([key("a", 8, struct.pack("<Q", 2**62))]),
            "must hold strings of at most 4194304 bytes, got 4611686018427387904",
        ),
        (header([key(b"\xff", 4, bytes(4))]), "must hold names in UTF-8, got other bytes at 32"),
        (header([], [tensor(shape=(1,) * 5)]), "must hold tensors of 1 to 4 dimensions, got 5"),
        (header([], [tensor(shape=(2**40, 2**40))]), "must hold tensors of 1 to 281474976710656 elements"),
        (header([], [tensor(shape=(0,))]), "must hold tensors of 1 to 281474976710656 elements"),
        (header([], [tensor(offset=8)]), "must hold tensors at multiples of 32, got offset 8"),
        (header([], [tensor()] * 2) + bytes(99), "must hold each tensor once, got 't' twice"),
        (header([], [tensor()]), r"must hold its tensors up to byte \d+, got a file of \d+ bytes; it is truncated"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_damaged_header_is_refused_with_its_reason(raw, message):
    with pytest.raises(ModelError, match=f"f.gguf {message}"):
        parse(raw, "f.gguf")


@pytest.mark.parametrize("layers", [0, 513])
def test_an_impossible_number_of_layers_is_refused(good, tmp_path, layers):
    name = b"llama.block_count"
    value = good.index(name) + len(name) + 4
    (tmp_path / "m.gguf").write_bytes(good[:value] + struct.pack("<I", layers) + good[value + 4 :])
    with pytest.raises(ModelError, match=rf"m.gguf must have 1 to 512 layers, got {layers}; copy or download"):
        read_header(tmp_path / "m.gguf")


def test_a_vocabulary_that_lacks_a_byte_is_refused(good, tmp_path):
    (tmp_path / "m.gguf").write_bytes(good.replace(b"<0x5E>", b"<0z5E>"))
    with pytest.raises(ModelError, match=r"m.gguf must hold a token for each byte, got 1 without one; convert"):
        read_header(tmp_path / "m.gguf")


def test_the_cache_of_a_token_is_measured(spm):
    assert spm(width=32, layers=2, heads=2).cache_bytes_per_token == 2 * 2 * (16 + 16) * 2


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"the model file must exist, got .*no.gguf'; check --model"):
        read_header(tmp_path / "no.gguf")


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "empty.gguf").touch()
    with pytest.raises(ModelError, match=r"empty.gguf must be a GGUF file, got an empty one"):
        read_header(tmp_path / "empty.gguf")


@pytest.mark.parametrize("name", ["a" * 300, "a\0b"])
def test_a_name_that_no_file_can_have_is_refused(tmp_path, name):
    with pytest.raises(ModelError, match=r"the model file must (be readable|exist), got .*; check --model"):
        read_header(tmp_path / name)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ModelError, match="the model must be a file, got"):
        read_header(tmp_path)


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(ModelError, match="the model must be a file, got"):
        read_header(tmp_path / "pipe.gguf")


def test_a_line_break_in_a_file_name_does_not_break_the_message(tmp_path):
    (tmp_path / "a\nb.gguf").touch()
    with pytest.raises(ModelError, match=r"^a\\nb.gguf must be a GGUF file, got an empty one"):
        read_header(tmp_path / "a\nb.gguf")


def judge(raw):
    """Parse, and hold that nothing but a ModelError comes of it, soon."""
    start = time.perf_counter()
    try:
        parse(raw, "f.gguf")
    except ModelError as error:
        assert "\n" not in str(error)
    assert time.perf_counter() - start < 1


def test_every_truncation_is_refused(good):
    for length in [*range(200), *range(200, len(good), 97), len(good) - 1]:
        with pytest.raises(ModelError):
            parse(good[:length], "f.gguf")


@given(st.binary(max_size=300))
def test_any_bytes_are_judged(raw):
    judge(raw)
    judge(b"GGUF\3\0\0\0" + raw)


@settings(max_examples=300)
@given(data=st.data())
def test_flipped_bits_are_judged(good, data):
    raw = bytearray(good[:9000])
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    judge(bytes(raw) + good[9000:])


@settings(max_examples=200)
@given(position=st.integers(8, 9000), value=st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]))
def test_absurd_sizes_are_judged(good, position, value):
    judge(good[:position] + struct.pack("<Q", value) + good[position + 8 :])
