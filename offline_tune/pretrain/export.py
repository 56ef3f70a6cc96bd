"""From a checkpoint to a GGUF that llama.cpp loads as any other Llama."""

from __future__ import annotations

import hashlib
from pathlib import Path

import gguf
import numpy as np
from gguf.quants import quantize
from numpy.typing import NDArray

from offline_tune.errors import ModelError
from offline_tune.pretrain.llama import Llama
from offline_tune.prompt.vocabulary import DIALECT, DIALECT_VERSION, VOCABULARY

_CONTROL = 3  # llama.cpp token types: 2 unknown, 3 control, 4 user defined, 6 byte
_UNKNOWN, _USER_DEFINED, _BYTE = 2, 4, 6
_BLOCK = 32  # numbers that share a scale in q8_0
_LAYERS = ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down")


def export_gguf(model: Llama, path: Path, training: str, quantised: bool = True) -> str:
    """Write a model; matrices as q8_0 (or f32 for comparisons), norms as f32. Replaces `path` atomically.

    Args:
        model: what to write.
        path: the file.
        training: one line on how it was trained, stored in the metadata.
        quantised: q8_0 instead of f32.

    Returns:
        The file's sha256, hexadecimal.

    Raises:
        ModelError: the width or the inner width is no multiple of 32, the block of q8_0.
    """
    shape = (model.config.width, model.config.feed_forward)
    if quantised and any(size % _BLOCK for size in shape):
        raise ModelError(f"widths must be multiples of {_BLOCK} for q8_0, got {shape}; change them or export f32")
    partial = path.with_suffix(".partial")
    writer = gguf.GGUFWriter(partial, "llama")
    _write_metadata(writer, model, training)
    for name, weight in _tensors(model):
        if quantised and weight.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, quantize(weight, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.replace(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write_metadata(writer: gguf.GGUFWriter, model: Llama, training: str) -> None:
    config, pieces = model.config, VOCABULARY.pieces
    writer.add_name("offline_tune tuner")
    writer.add_license("apache-2.0")
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.width)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.feed_forward)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.heads)
    writer.add_layer_norm_rms_eps(config.norm_epsilon)
    writer.add_rope_dimension_count(config.width // config.heads)
    writer.add_rope_freq_base(config.rope_base)
    writer.add_vocab_size(len(pieces))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(list(pieces))
    writer.add_token_scores([0.0] * len(pieces))
    writer.add_token_types([_token_type(index) for index in range(len(pieces))])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_string("offline_tune.dialect", DIALECT)
    writer.add_uint32("offline_tune.dialect_version", DIALECT_VERSION)
    writer.add_string("offline_tune.training", training)


def _token_type(index: int) -> int:
    if index == 0:
        return _UNKNOWN
    if index < 3:
        return _CONTROL
    return _BYTE if index < 3 + 256 else _USER_DEFINED


def _tensors(model: Llama) -> list[tuple[str, NDArray[np.float32]]]:
    tensors = {"token_embd.weight": model.embedding.table(), "output_norm.weight": model.norm.weight}
    for index, block in enumerate(model.blocks):
        tensors |= {f"blk.{index}.{layer}.weight": getattr(block, layer).weight for layer in _LAYERS}
    return [(name, np.asarray(tensor.detach().float().cpu().numpy())) for name, tensor in tensors.items()]
