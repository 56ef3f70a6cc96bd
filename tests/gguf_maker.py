"""Tiny GGUF files with random weights, for tests: they load and decode in milliseconds and know nothing.

The architecture is `llama`; the tokenizer is either SentencePiece-like (bytes, and words of the caller's) or
byte-level BPE. Every part that a test wants to break is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import gguf
import numpy as np

UNKNOWN, BOS, EOS = 0, 1, 2
BYTE_0 = 3
WORDS_0 = BYTE_0 + 256
WORDS = ('{"', '":', '","', "0", "1", "2", "3", "lr", "depth", "12", "10", "ab", "<task>", "<best>")
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NORMAL, UNKNOWN_TYPE, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6


def make_spm(path: Path, words: Sequence[str] = WORDS, **options: object) -> Path:
    """A model over `<unk> <s> </s>`, 256 bytes and `words` (types: user-defined)."""
    tokens, types = _spm_tokens(words)
    return make_gguf(path, tokens=tokens, types=types, **options)  # type: ignore[arg-type]


def make_bpe(path: Path, words: Sequence[str] = ("<|im_start|>", "<|im_end|>", "<tool>"), **options: object) -> Path:
    """A model over GPT-2's 256 byte letters, a few merges and special `words`, the last of which is user-defined."""
    letters = byte_letters()
    merges = ["a b", "1 2", "e r"]
    tokens = [*letters, *(m.replace(" ", "") for m in merges), "<|end|>", *words]
    types = [NORMAL] * (len(letters) + len(merges)) + [CONTROL] * len(words) + [USER_DEFINED]
    end = len(letters) + len(merges)
    return make_gguf(path, tokens=tokens, types=types, merges=merges, bos=end, eos=end, **options)  # type: ignore[arg-type]


def make_mamba(path: Path, width: int = 32, inner: int = 64, state: int = 16, rank: int = 2) -> Path:
    """A recurrent model over the words of `make_spm`: it cannot go back within a prompt."""
    tokens, types = _spm_tokens(WORDS)
    writer = gguf.GGUFWriter(path, "mamba")
    _write_shape(writer, 512, width, 1, 0, len(tokens))
    writer.add_ssm_conv_kernel(4)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(rank)
    _write_tokenizer(writer, tokens, types, (), BOS, EOS, None)
    matrix = _matrices(np.random.default_rng(0))
    _write_ends(writer, matrix, len(tokens), width, 4.0)
    for name, values in {
        "attn_norm.weight": np.ones(width, np.float32),
        "ssm_in.weight": matrix(2 * inner, width),
        "ssm_conv1d.weight": matrix(inner, 4),
        "ssm_conv1d.bias": np.zeros(inner, np.float32),
        "ssm_x.weight": matrix(rank + 2 * state, inner),
        "ssm_dt.weight": matrix(inner, rank),
        "ssm_dt.bias": np.zeros(inner, np.float32),
        "ssm_a": -np.abs(matrix(inner, state)) - 0.1,
        "ssm_d": np.ones(inner, np.float32),
        "ssm_out.weight": matrix(width, inner),
    }.items():
        writer.add_tensor(f"blk.0.{name}", values)
    return _finish(writer, path)


def make_gguf(
    path: Path,
    *,
    tokens: Sequence[str],
    types: Sequence[int],
    merges: Sequence[str] = (),
    bos: int = BOS,
    eos: int = EOS,
    width: int = 32,
    layers: int = 2,
    heads: int = 2,
    n_ctx: int = 512,
    spread: float = 4.0,
    seed: int = 0,
    nan: bool = False,
    quantized: str | None = None,
    half: bool = False,
    tensors: bool = True,
    tokenizer: bool = True,
    pre: str = "gpt-2",
    arch: str = "llama",
    template: str | None = None,
    extra: Mapping[str, str | int | float | bool] | None = None,
) -> Path:
    """Write a GGUF. `spread` is about the standard deviation of the logits; `nan` poisons the output norm;
    `quantized` names a storage type for the matrices of the layers, such as "Q8_0" (blocks of 32); `half` stores
    all matrices in half precision; `pre` names llama.cpp's way to cut a text before merging.
    """
    writer = gguf.GGUFWriter(path, arch)
    _write_shape(writer, n_ctx, width, layers, heads, len(tokens))
    if tokenizer:
        _write_tokenizer(writer, tokens, types, merges, bos, eos, template, pre)
    for key, value in (extra or {}).items():
        _ADD[type(value)](writer, key, value)
    if tensors:
        matrix = _matrices(np.random.default_rng(seed), half)
        _write_tensors(writer, matrix, len(tokens), width, layers, spread, nan, quantized)
    return _finish(writer, path)


def _spm_tokens(words: Sequence[str]) -> tuple[list[str], list[int]]:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *words]
    return tokens, [UNKNOWN_TYPE, CONTROL, CONTROL, *[BYTE] * 256, *[USER_DEFINED] * len(words)]


def _finish(writer: gguf.GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


_ADD = {
    str: gguf.GGUFWriter.add_string,
    int: gguf.GGUFWriter.add_uint32,
    float: gguf.GGUFWriter.add_float32,
    bool: gguf.GGUFWriter.add_bool,
}


def _write_shape(writer: gguf.GGUFWriter, n_ctx: int, width: int, layers: int, heads: int, n_vocab: int) -> None:
    writer.add_name("random")
    writer.add_context_length(n_ctx)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(2 * width)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    if heads:
        writer.add_rope_dimension_count(width // heads)
    writer.add_vocab_size(n_vocab)


def _write_tokenizer(
    writer: gguf.GGUFWriter,
    tokens: Sequence[str],
    types: Sequence[int],
    merges: Sequence[str],
    bos: int,
    eos: int,
    template: str | None,
    pre: str = "gpt-2",
) -> None:
    writer.add_tokenizer_model("gpt2" if merges else "llama")
    writer.add_token_list(list(tokens))
    writer.add_token_types(list(types))
    if merges:
        writer.add_tokenizer_pre(pre)
        writer.add_token_merges(list(merges))
    else:
        writer.add_token_scores([0.0] * len(tokens))
        writer.add_unk_token_id(UNKNOWN)
        writer.add_add_space_prefix(False)
    writer.add_bos_token_id(bos)
    writer.add_eos_token_id(eos)
    writer.add_add_bos_token(not merges)
    if template is not None:
        writer.add_chat_template(template)


def _write_tensors(
    writer: gguf.GGUFWriter,
    matrix: Callable[..., np.ndarray],
    n_vocab: int,
    width: int,
    layers: int,
    spread: float,
    nan: bool,
    quantized: str | None,
) -> None:
    _write_ends(writer, matrix, n_vocab, width, spread, np.nan if nan else 1.0)
    for layer in range(layers):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            _write_matrix(writer, f"blk.{layer}.{name}.weight", matrix(width, width), quantized)
        for name, shape in (
            ("ffn_gate", (2 * width, width)),
            ("ffn_up", (2 * width, width)),
            ("ffn_down", (width, 2 * width)),
        ):
            _write_matrix(writer, f"blk.{layer}.{name}.weight", matrix(*shape), quantized)
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(width, np.float32))


def _write_matrix(writer: gguf.GGUFWriter, name: str, values: np.ndarray, quantized: str | None) -> None:
    if quantized is None:
        writer.add_tensor(name, values)
    else:
        kind = gguf.GGMLQuantizationType[quantized]
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)


def _matrices(rng: np.random.Generator, half: bool = False) -> Callable[..., np.ndarray]:
    drawn, kept = (np.float32, np.float16) if half else (np.float64, np.float32)

    def matrix(rows: int, columns: int, scale: float = 1.0) -> np.ndarray:
        return (rng.standard_normal((rows, columns), drawn) * drawn(scale / np.sqrt(columns))).astype(kept)

    return matrix


def _write_ends(
    writer: gguf.GGUFWriter,
    matrix: Callable[..., np.ndarray],
    n_vocab: int,
    width: int,
    spread: float,
    norm: float = 1.0,
) -> None:
    writer.add_tensor("token_embd.weight", matrix(n_vocab, width, np.sqrt(width)))
    writer.add_tensor("output.weight", matrix(n_vocab, width, spread))
    writer.add_tensor("output_norm.weight", np.full(width, norm, np.float32))


def byte_letters() -> list[str]:
    """How GPT-2 spells each byte: the printable ones as themselves, the others from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return [chr(b) if b in printable else chr(256 + others.index(b)) for b in range(256)]
