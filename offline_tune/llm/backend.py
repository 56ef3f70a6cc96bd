"""llama.cpp as this process loads it: the tested version, its log, what its build can do.

Knows nothing of models or grammars.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections import deque
from dataclasses import dataclass
from functools import cache
from typing import Any

from offline_tune.errors import ModelError
from offline_tune.llm import threads

# the ctypes structures mirror one llama.h: another version may read memory that is not there
TESTED_VERSIONS = ("0.3.36",)
# llama.cpp's names of its backends, and the words of --device
_ACCELERATORS = {"CUDA": "cuda", "ROCm": "cuda", "MTL": "metal", "Metal": "metal"}
_ERROR_LEVEL = 4
_log: deque[str] = deque(maxlen=8)
_attention: deque[str] = deque(maxlen=1)
_callbacks: list[Any] = []
_too_early: list[str] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """What the llama.cpp in this process can do.

    Attributes:
        version: of llama-cpp-python.
        features: llama.cpp's own line: `CPU : SSE3 = 1 | AVX2 = 1 ...`.
        n_sequences: most sequences of one context.
        offload: whether it sees a GPU that it can use.
        mmap: whether weights are read from the file in place.
        mlock: whether they can be kept from being swapped out.
    """

    version: str
    features: str
    n_sequences: int
    offload: bool
    mmap: bool
    mlock: bool

    @property
    def accelerators(self) -> tuple[str, ...]:
        """The words of --device that it was built for, beside cpu."""
        named = (word for name, word in _ACCELERATORS.items() if f"{name} :" in self.features)
        return tuple(dict.fromkeys(named))

    @property
    def processor(self) -> tuple[str, ...]:
        """The features of the processor that it makes use of."""
        _, _, cpu = self.features.partition("CPU :")
        return tuple(re.findall(r"(\w+) = 1", cpu))


@cache
def library() -> Any:
    """The module of llama.cpp's C functions, loaded once, silent, with passive waiting threads.

    Raises:
        ModelError: it is not installed, cannot be loaded, or is of a version that was not tested.
    """
    before = threads.ask_for_passive_waiting()
    try:
        import llama_cpp
        from llama_cpp import llama_cpp as api
    except (ImportError, OSError, RuntimeError, AttributeError) as error:  # the last: a library of another version
        raise ModelError(
            f"llama-cpp-python must be importable, got {str(error)[:80]!r}; "
            f"run: pip install llama-cpp-python=={TESTED_VERSIONS[-1]}"
        ) from None
    check_version(str(getattr(llama_cpp, "__version__", "none")))
    _too_early[:] = threads.shared(before, threads.loaded_runtimes())
    _silence(api)
    api.llama_backend_init()
    return api


def check_version(version: str) -> None:
    """Refuse a llama-cpp-python that this release was not tested with.

    Raises:
        ModelError: it is another version.
    """
    if version not in TESTED_VERSIONS:
        raise ModelError(
            f"llama-cpp-python must be {' or '.join(TESTED_VERSIONS)}, got {version}; "
            f"run: pip install llama-cpp-python=={TESTED_VERSIONS[-1]}"
        )


def library_complaint() -> str:
    """What llama.cpp last logged as an error, one line, and forgets it; empty if nothing."""
    text = " ".join(" ".join(_log).split())
    _log.clear()
    return text[:200]


def build() -> Build:
    """What the loaded llama.cpp can do.

    Raises:
        ModelError: there is none (see `library`).
    """
    api = library()
    import llama_cpp

    return Build(
        version=str(llama_cpp.__version__),
        features=features(),
        n_sequences=int(api.llama_max_parallel_sequences()),
        offload=bool(api.llama_supports_gpu_offload()),
        mmap=bool(api.llama_supports_mmap()),
        mlock=bool(api.llama_supports_mlock()),
    )


def waiting() -> threads.Waiting:
    """How idle threads of llama.cpp wait in this process."""
    library()
    return threads.Waiting(os.environ.get(threads.POLICY, "").lower(), tuple(_too_early))


def attention_of_last_context() -> str:
    """What llama.cpp made of flash attention "auto" in the context made last: `enabled`, `disabled`, or empty."""
    return _attention[-1] if _attention else ""


def features() -> str:
    """What the build and this machine can do, in llama.cpp's own words: `CPU : SSE3 = 1 | AVX2 = 1 ...`."""
    return str(library().llama_print_system_info().decode("utf-8", "replace"))


def may_repack(available: str) -> bool:
    """Whether weights may be laid out anew for this processor.

    On processors with AMX llama.cpp moves quantised weights into AMX tiles, and there the build under test loads a
    tile configuration that the compiler dropped: the process dies (ggml-org/llama.cpp#20824, #26954).
    """
    return "AMX_INT8 = 1" not in available


def _silence(api: Any) -> None:
    callback = api.llama_log_callback(_listen)
    _callbacks.append(callback)  # llama.cpp keeps the bare pointer, so it must live as long as the process
    api.llama_log_set(callback, ctypes.c_void_p(0))


def _listen(level: int, text: bytes, _: object) -> None:
    if level == _ERROR_LEVEL:
        _log.append(text.decode("utf-8", "replace"))
    elif b"Flash Attention" in text:  # nothing but its log tells
        _attention.append(text.decode("utf-8", "replace").split()[-1])
