"""How much of a call is the network: the same passes again, without grammar, sampling or any of our code.

What llama.cpp is asked during a call is recorded at its door, so that it matters not who asks: every pass with its
rows, and what happens to the cache in between.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks.measures.table import Row, interleaved, ratios
from benchmarks.measures.workload import grammar, prompt_tokens, seeds
from offline_tune.llm.backend import library
from offline_tune.llm.contract import LanguageModel, Sampling

_FIELDS = {"token": np.int32, "pos": np.int32, "n_seq_id": np.int32, "logits": np.int8}
RECORDED = ("llama_decode", *(f"llama_memory_{what}" for what in ("clear", "seq_cp", "seq_keep", "seq_rm", "seq_add")))


class Recorder:
    """Sits before llama.cpp's functions. Make it before a model is loaded: who loads may keep the functions."""

    def __init__(self) -> None:
        self._api = library()
        self._calls: list[tuple[Callable[..., object], tuple[Any, ...]]] | None = None
        for name in RECORDED:
            setattr(self._api, name, self._watched(getattr(self._api, name)))

    @contextmanager
    def record(self) -> Iterator[Recording]:
        """What happens inside, ready to be played again."""
        recording = Recording(self._api.llama_synchronize)
        self._calls = recording.calls
        try:
            yield recording
        finally:
            self._calls = None

    def _watched(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any) -> Any:
            if self._calls is not None:
                self._calls.append((function, tuple(map(_copy, arguments))))
            return function(*arguments)

        return watched


class Recording:
    """Calls to llama.cpp in their order, on the cache that they began with."""

    def __init__(self, synchronize: Callable[[Any], None]) -> None:
        self.calls: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self._synchronize = synchronize

    @property
    def rows(self) -> list[int]:
        """Of each pass."""
        return [arguments[1].n_tokens for _, arguments in self.calls if hasattr(arguments[-1], "n_tokens")]

    def play(self) -> list[float]:
        """Once more; the wall seconds of each pass."""
        found = []
        for function, arguments in self.calls:
            began = time.perf_counter()
            code = function(*arguments)
            if hasattr(arguments[-1], "n_tokens"):
                if code != 0:
                    raise RuntimeError(f"a recorded pass must run again, got code {code}")
                self._synchronize(arguments[0])  # an accelerator returns before it is done
                found.append(time.perf_counter() - began)
        return found


def network_share(
    recorder: Recorder, name: str, model: LanguageModel, text: str, ks: tuple[int, ...], repeats: int
) -> list[Row]:
    """Passes alone over the entire call, for candidates after a prompt that is in the cache already."""
    return [share(recorder, name, k, drawing(model, k, text), repeats) for k in ks]


def drawing(model: LanguageModel, k: int, text: str) -> Callable[[], object]:
    """The call that draws k candidates after `text`."""
    spoken, prompt = grammar(), prompt_tokens(model, text)
    matcher = model.matcher(spoken.regex)
    return lambda: model.complete(prompt, matcher, k, Sampling(), seeds(k), spoken.longest.utf8)


def share(recorder: Recorder, name: str, k: int, call: Callable[[], object], repeats: int) -> Row:
    """Passes alone over the entire `call`, which must leave the cache as it found it."""
    call()
    with recorder.record() as recording:
        call()
    if not recording.rows:
        raise RuntimeError("the call must reach llama_decode, got no pass; record what the engine calls now")
    found = interleaved({"passes": recording.play, "all": call}, repeats if k < 64 else 1)
    rows, took = recording.rows, float(np.median(found["all"]))
    return Row(
        "decode-only replay over total",
        name,
        k,
        ratios(found["passes"], found["all"]),
        at_least=0.93 if k >= 4 else None,
        note=f"{len(rows)} passes, {sum(rows)} rows, {took:.3g} s, prompt cached",
    )


def _copy(argument: Any) -> Any:
    """A batch with memory of its own; anything else as it is."""
    if not hasattr(argument, "n_tokens"):
        return argument
    n, copy = argument.n_tokens, type(argument)()
    ctypes.memmove(ctypes.byref(copy), ctypes.byref(argument), ctypes.sizeof(copy))
    kept: list[Any] = []
    for field, kind in _FIELDS.items():
        pointer = getattr(argument, field)
        if pointer:
            kept.append(np.ctypeslib.as_array(pointer, (n,)).astype(kind))
            setattr(copy, field, ctypes.cast(kept[-1].ctypes.data, type(pointer)))
    if argument.seq_id:
        rows = [[argument.seq_id[i][j] for j in range(argument.n_seq_id[i])] for i in range(n)]
        kept += [np.array(row, np.int32) for row in rows]
        pointers = (ctypes.c_void_p * n)(*(array.ctypes.data for array in kept[-n:]))
        kept.append(pointers)
        copy.seq_id = ctypes.cast(pointers, type(argument.seq_id))
    copy.kept = kept  # the memory lives as long as the batch
    return copy
