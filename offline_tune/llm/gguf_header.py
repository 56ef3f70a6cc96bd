"""From a model file to what is known of it before any engine opens it, or to the reason why it cannot be used.

Knows which models can answer under a grammar: causal ones with weights and a tokenizer. Loads nothing.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from offline_tune.errors import ModelError
from offline_tune.llm.contract import Dialect
from offline_tune.llm.gguf_format import ParsedHeader, Scalar, parse

DIALECT_KEY = "offline_tune.dialect"
DIALECT_VERSION_KEY = "offline_tune.dialect_version"
DIALECT_VERSIONS = (1,)
LEAST_CONTEXT = 16
MAX_LAYERS = 512

# llama.cpp's architectures that embed, translate, hear or denoise: none of them continues a text
NOT_CAUSAL = frozenset(
    {
        "bert",
        "clip",
        "dream",
        "eurobert",
        "gemma-embedding",
        "jina-bert-v2",
        "jina-bert-v3",
        "llada",
        "llada-moe",
        "llama-embed",
        "modern-bert",
        "neo-bert",
        "nomic-bert",
        "nomic-bert-moe",
        "rnd1",
        "t5",
        "t5encoder",
        "wavtokenizer-dec",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufHeader:
    """A model that can be used, as far as its header tells.

    Attributes:
        version: of the GGUF format.
        architecture: llama.cpp's name.
        dialect: how the model wants to be asked; "chat" where the file does not say.
        n_ctx_train: longest text in training, tokens.
        n_vocab: tokens in the vocabulary.
        n_parameters: elements of all tensors.
        file_bytes: size of the file.
        chat_template: Jinja text, untrusted; None where the file has none.
        metadata: scalar keys; arrays are left out.
    """

    version: int
    architecture: str
    dialect: Dialect
    n_ctx_train: int
    n_vocab: int
    n_parameters: int
    file_bytes: int
    chat_template: str | None
    metadata: Mapping[str, Scalar]

    @property
    def cache_bytes_per_token(self) -> int:
        """Bytes that one token takes in a KV cache of 16-bit numbers; 0 for a model without attention."""
        heads = self._number("attention.head_count", 1)
        if heads == 0:
            return 0
        width = self._number("embedding_length", 0)
        rows = self._number("attention.head_count_kv", heads)
        key = self._number("attention.key_length", width // heads)
        value = self._number("attention.value_length", width // heads)
        return self._number("block_count", 0) * rows * (key + value) * 2

    def _number(self, key: str, default: int) -> int:
        """A hyperparameter of the architecture; the default where it differs by layer or is missing."""
        value = self.metadata.get(f"{self.architecture}.{key}")
        return value if isinstance(value, int) else default


def read_header(path: Path) -> GgufHeader:
    """Read and judge the header of a GGUF file.

    Raises:
        ModelError: the file is missing, empty, not a GGUF, truncated or damaged, or the model in it cannot
            continue a text (no weights, no tokenizer, an embedding model, a part of a split model), or speaks an
            unknown dialect.
    """
    name = repr(path.name)[1:-1]  # a line break in a file name must not break the message
    parsed, size = _parse_file(path, name)
    metadata = parsed.metadata
    _refuse_part(name, metadata)
    architecture = _architecture(name, metadata)
    n_vocab = _tokenizer_size(name, parsed)
    _refuse_without_weights(name, parsed)
    _refuse_impossible_shape(name, metadata, architecture)
    return GgufHeader(
        version=parsed.version,
        architecture=architecture,
        dialect=_dialect(name, metadata),
        n_ctx_train=_context(name, metadata, architecture),
        n_vocab=n_vocab,
        n_parameters=sum(t.n_elements for t in parsed.tensors),
        file_bytes=size,
        chat_template=_template(metadata),
        metadata=metadata,
    )


def _parse_file(path: Path, name: str) -> tuple[ParsedHeader, int]:
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for its writer
            raise ModelError(f"the model must be a file, got {str(path)!r}; check --model")
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size == 0:
                raise ModelError(f"{name} must be a GGUF file, got an empty one; copy or download it again")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return parse(data, name), size
    except FileNotFoundError:
        raise ModelError(f"the model file must exist, got {str(path)!r}; check --model") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelError(f"the model file must be readable, got {str(path)!r} ({reason}); check --model") from None


def _refuse_part(name: str, metadata: Mapping[str, Scalar]) -> None:
    parts = metadata.get("split.count", 0)
    if isinstance(parts, int) and parts > 1:
        raise ModelError(
            f"{name} must be a whole model, got one of {parts} parts; join them with llama-gguf-split --merge"
        )


def _architecture(name: str, metadata: Mapping[str, Scalar]) -> str:
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or not architecture:
        raise ModelError(f"{name} must name its general.architecture, got none; convert the model again")
    pooling = metadata.get(f"{architecture}.pooling_type", 0)
    if architecture in NOT_CAUSAL or pooling != 0 or metadata.get(f"{architecture}.attention.causal") is False:
        raise ModelError(
            f"{name} must be a model that writes text, got architecture {architecture[:60]!r} for embeddings or "
            "other tasks; choose an instruct model such as Llama 3, Qwen or SmolLM2"
        )
    return architecture


def _tokenizer_size(name: str, parsed: ParsedHeader) -> int:
    kind, tokens = parsed.metadata.get("tokenizer.ggml.model"), parsed.tokens
    if kind in (None, "", "none", "no_vocab") or not tokens:
        raise ModelError(
            f"{name} must hold a tokenizer, got {len(tokens)} tokens of model {str(kind)[:60]!r}; "
            "convert the model again"
        )
    # llama.cpp ends the process on either of these
    distinct = set(tokens)
    repeated = len(tokens) - len(distinct)
    if repeated > max(0, tokens.count(b"") - 1):
        raise ModelError(f"{name} must hold each token once, got {repeated} repeated ones; convert the model again")
    missing = sum(f"<0x{b:02X}>".encode() not in distinct and bytes([b]) not in distinct for b in range(256))
    if kind == "llama" and missing:
        raise ModelError(f"{name} must hold a token for each byte, got {missing} without one; convert the model again")
    return len(tokens)


def _refuse_without_weights(name: str, parsed: ParsedHeader) -> None:
    if not parsed.tensors:
        raise ModelError(f"{name} must hold weights, got a vocabulary only; give the full model file")


def _refuse_impossible_shape(name: str, metadata: Mapping[str, Scalar], architecture: str) -> None:
    """Refuse numbers on which llama.cpp would end the process."""
    layers = metadata.get(f"{architecture}.block_count")
    if not isinstance(layers, int) or not 1 <= layers <= MAX_LAYERS:
        raise ModelError(
            f"{name} must have 1 to {MAX_LAYERS} layers, got {str(layers)[:60]}; copy or download the model again"
        )
    for key, value in metadata.items():
        is_epsilon = key.startswith(architecture) and key.endswith("epsilon")
        if isinstance(value, float) and not (math.isfinite(value) and (value >= 0 or not is_epsilon)):
            raise ModelError(
                f"{name} must hold usable numbers, got {key[:60]!r} of {value:g}; copy or download the model again"
            )


def _context(name: str, metadata: Mapping[str, Scalar], architecture: str) -> int:
    key = f"{architecture[:60]}.context_length"
    length = metadata.get(f"{architecture}.context_length")
    if not isinstance(length, int) or length < LEAST_CONTEXT:
        raise ModelError(
            f"{name} must have a {key} of at least {LEAST_CONTEXT} tokens, got {str(length)[:60]}; "
            "convert the model again"
        )
    return length


def _dialect(name: str, metadata: Mapping[str, Scalar]) -> Dialect:
    dialect = metadata.get(DIALECT_KEY, "chat")
    if dialect not in ("chat", "compact"):
        raise ModelError(
            f"{name} must speak the dialect chat or compact ({DIALECT_KEY}), got {str(dialect)[:60]!r}; "
            "upgrade offline_tune or choose another model"
        )
    version = metadata.get(DIALECT_VERSION_KEY, DIALECT_VERSIONS[0])
    if version not in DIALECT_VERSIONS:
        raise ModelError(
            f"{name} must speak version {' or '.join(map(str, DIALECT_VERSIONS))} of its dialect, "
            f"got {str(version)[:60]}; upgrade offline_tune or choose another model"
        )
    return "compact" if dialect == "compact" else "chat"


def _template(metadata: Mapping[str, Scalar]) -> str | None:
    template = metadata.get("tokenizer.chat_template")
    return template if isinstance(template, str) and template.strip() else None
