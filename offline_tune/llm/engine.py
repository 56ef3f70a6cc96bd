"""One llama.cpp model with one context: token ids in, logits out.

Knows positions, sequences and the prompt cache; nothing of text, grammars or sampling.

Notation: one *prefix* sequence holds the prompt, up to k_max *forks* continue it; all share n_cells cells of one
unified KV cache, where a fork of the prefix costs no copy. Logits are float32 rows of n_vocab.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offline_tune.errors import DecodingError, ModelError
from offline_tune.llm.backend import features, library, library_complaint, may_repack
from offline_tune.llm.batch import Batch, Rows, Span, rows_of
from offline_tune.llm.vocabulary import Vocabulary

Logits = NDArray[np.float32]

MAX_SEQUENCES = 256
# Rows of one pass. Floats depend on how rows are grouped, so prompts are always cut at multiples of CHUNK and a
# cached chunk is used only whole: a prompt has the same logits, to the bit, whatever was in the cache before.
CHUNK = 64
MAX_ROWS = 512
# cells set aside for each fork, beyond one context for the prompt; of more forks than fit each begins where one ends
FORK_CELLS = 64
_SMALLER_ON_GPU = "leave layers on the processor with a smaller --gpu-layers, or use --device cpu"


def cells(n_ctx: int, k_max: int) -> int:
    """How many tokens a cache must hold for prompts of up to `n_ctx` tokens and `k_max` forks."""
    return n_ctx + k_max * FORK_CELLS


class Engine:
    """A loaded model, its context and its prompt cache.

    Attributes:
        vocabulary: of the model.
        n_cells: tokens that the cache holds, prompt and forks together.
        k_max: forks that can run at once.
        n_parameters: elements of all tensors.
        evaluated: tokens that went through the network so far.
    """

    def __init__(self, path: Path, *, n_ctx: int, k_max: int, n_threads: int, n_gpu_layers: int) -> None:
        self._api = library()
        model = self._load(path, n_gpu_layers)
        context = self._context(model, cells(n_ctx, k_max), k_max, n_threads, on_gpu=n_gpu_layers != 0)
        self._pointer = context
        self._memory = self._api.llama_get_memory(context)
        self._free = weakref.finalize(self, _free, self._api, context, model)
        self.vocabulary = Vocabulary(self._api.llama_model_get_vocab(model))
        self.n_cells = int(self._api.llama_n_ctx(context))
        self.n_parameters = int(self._api.llama_model_n_params(model))
        self.k_max = k_max
        self.evaluated = 0
        self._can_rewind = not (self._api.llama_model_is_recurrent(model) or self._api.llama_model_is_hybrid(model))
        self._batch = Batch(MAX_ROWS)
        self._address, self._outputs = 0, np.empty((0, self.vocabulary.size), np.float32)
        self._held: list[tuple[int, ...]] = []
        self._last: Logits | None = None

    @property
    def n_sequences(self) -> int:
        """Sequences that the context has, as llama.cpp tells it."""
        return int(self._api.llama_n_seq_max(self._pointer))

    def use_threads(self, n: int) -> None:
        """Evaluate with `n` threads from now on."""
        self._api.llama_set_n_threads(self._pointer, n, n)

    def hold(self, prompt: Sequence[int], head: Sequence[int] = ()) -> Logits:
        """Make the prefix sequence hold `prompt` and `head`; what it held before is used as far as it agrees.

        Args:
            prompt: at least one token.
            head: tokens that follow it in every fork; apart, because the next call may have the prompt alone.

        Returns:
            The logits after the last token; a copy.
        """
        chunks = [*_chunks(prompt), *_chunks(head)]
        if chunks == self._held and self._last is not None:
            return self._last
        common = min(self._agreement(chunks), len(chunks) - 1)
        self._rewind(common)
        for chunk in chunks[len(self._held) :]:
            span = Span(self.k_max, sum(map(len, self._held)), chunk)
            self._last = self.forward([span])[0].copy()
            self._held.append(chunk)
        assert self._last is not None
        return self._last

    def hold_at_least(self, prompt: Sequence[int]) -> None:
        """Make the prefix sequence begin with `prompt`; a head that it held may stay behind it."""
        chunks = _chunks(prompt)
        if not self._can_rewind or self._agreement(chunks) < len(chunks):
            self.hold(prompt)

    def fork(self, sequences: Iterable[int], length: int) -> None:
        """Let `sequences`, which hold nothing, continue the first `length` tokens of the prefix."""
        for sequence in sequences:
            self._api.llama_memory_seq_cp(self._memory, self.k_max, sequence, 0, length if self._can_rewind else -1)

    def forward(self, spans: Sequence[Span]) -> Logits:
        """Evaluate the spans together.

        Returns:
            The logits after each one's last token, shape (len(spans), n_vocab), valid until the next call.

        Raises:
            DecodingError: llama.cpp could not evaluate them.
        """
        rows = rows_of(spans)
        n = len(rows.tokens)
        if n <= MAX_ROWS:
            return self._evaluate(rows)
        parts = (rows.part(start, start + MAX_ROWS) for start in range(0, n, MAX_ROWS))
        return np.concatenate([self._evaluate(part).copy() for part in parts])

    def release(self, sequences: Iterable[int]) -> None:
        """Forget forks; the prefix stays."""
        for sequence in sequences:
            self._api.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def clear(self) -> None:
        """Forget everything and overwrite it, so that nothing of a failed pass is left."""
        self._held, self._last = [], None
        self._api.llama_memory_clear(self._memory, True)

    def close(self) -> None:
        """Free the memory; idempotent."""
        self.vocabulary.retire()
        self._free()

    def _agreement(self, chunks: Sequence[tuple[int, ...]]) -> int:
        """How many leading chunks the prefix holds already."""
        n = 0
        while n < min(len(chunks), len(self._held)) and chunks[n] == self._held[n]:
            n += 1
        return n

    def _rewind(self, n_chunks: int) -> None:
        """Cut the prefix behind its first chunks; all of it where the model cannot go back a part of the way."""
        self._last = None
        length = sum(map(len, self._held[:n_chunks]))
        if self._can_rewind and self._api.llama_memory_seq_rm(self._memory, self.k_max, length, -1):
            del self._held[n_chunks:]
        else:
            self._api.llama_memory_seq_rm(self._memory, self.k_max, -1, -1)
            self._held = []

    def _evaluate(self, rows: Rows) -> Logits:
        """The logits of the wanted rows, in order."""
        self._batch.fill(rows)
        code = self._api.llama_decode(self._pointer, self._batch.struct)
        if code != 0:
            complaint = library_complaint() or "no reason given"
            raise DecodingError(
                f"llama.cpp must evaluate {len(rows.tokens)} tokens, got code {code} ({complaint}); "
                "shorten the prompt, or load the model with a larger n_ctx"
            )
        self.evaluated += len(rows.tokens)
        n = rows.wanted.count(True)
        return self._logits(rows.wanted.index(True), n) if n else self._outputs[:0]

    def _logits(self, first: int, n: int) -> Logits:
        """The logits of n wanted rows, which llama.cpp keeps together, by the place of the first in the pass."""
        pointer = self._api.llama_get_logits_ith(self._pointer, first)
        if not pointer:
            raise DecodingError(f"llama.cpp must return logits of {n} rows, got none; load the model again")
        address = ctypes.addressof(pointer.contents)
        if address != self._address:  # rarely: llama.cpp writes to the same place again and again
            memory: Any = (ctypes.c_float * (MAX_ROWS * self.vocabulary.size)).from_address(address)
            self._address, self._outputs = address, np.frombuffer(memory, np.float32).reshape(MAX_ROWS, -1)
        return self._outputs[:n]

    def _load(self, path: Path, layers: int) -> Any:
        parameters = self._api.llama_model_default_params()
        parameters.n_gpu_layers = layers
        parameters.use_extra_bufts = may_repack(features())
        library_complaint()
        model = self._api.llama_model_load_from_file(os.fsencode(path), parameters)
        if not model:
            raise ModelError(
                f"llama.cpp must load {path}, got: {library_complaint() or 'no reason'}; "
                + ("choose a model of an architecture that it knows" if layers == 0 else _SMALLER_ON_GPU)
            )
        return model

    def _context(self, model: Any, n_cells: int, k_max: int, n_threads: int, *, on_gpu: bool) -> Any:
        parameters = self._api.llama_context_default_params()
        parameters.n_ctx = n_cells
        parameters.n_batch, parameters.n_ubatch = MAX_ROWS, CHUNK
        parameters.n_seq_max = k_max + 1
        # apart, a fork would copy the prompt, and a partial copy would abort the process
        parameters.kv_unified = True
        parameters.n_threads = parameters.n_threads_batch = n_threads
        parameters.offload_kqv = parameters.op_offload = on_gpu
        # On a processor the fused operation takes up to four times as long for a batch of forks, and its floats depend
        # on the number of threads.
        api = self._api
        parameters.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_AUTO if on_gpu else api.LLAMA_FLASH_ATTN_TYPE_DISABLED
        library_complaint()
        context = self._api.llama_init_from_model(model, parameters)
        if not context:
            self._api.llama_model_free(model)
            raise ModelError(
                f"llama.cpp must allot a context of {n_cells} tokens, got: {library_complaint() or 'no memory'}; "
                "load the model with a smaller n_ctx or k_max"
            )
        return context


def _free(api: Any, context: Any, model: Any) -> None:
    api.llama_free(context)
    api.llama_model_free(model)


def _chunks(tokens: Sequence[int]) -> list[tuple[int, ...]]:
    return [tuple(tokens[i : i + CHUNK]) for i in range(0, len(tokens), CHUNK)]
