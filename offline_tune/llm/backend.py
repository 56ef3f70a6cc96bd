"""llama.cpp as this process loads it: the tested version, its log, what its build can do.

Knows nothing of models or grammars.
"""

from __future__ import annotations

import ctypes
import os
from collections import deque
from collections.abc import Sequence
from functools import cache
from typing import Any

from offline_tune.errors import ModelError, UsageError

# the ctypes structures mirror one llama.h: another version may read memory that is not there
TESTED_VERSIONS = ("0.3.36",)
_DEVICES = ("auto", "cpu", "cuda", "metal")
_ERROR_LEVEL = 4
_log: deque[str] = deque(maxlen=8)
_callbacks: list[Any] = []


@cache
def library() -> Any:
    """The module of llama.cpp's C functions, loaded once, silent, with passive waiting threads.

    Raises:
        ModelError: it is not installed, cannot be loaded, or is of a version that was not tested.
    """
    # libgomp spins between steps unless told otherwise, and stalls when a training holds the cores; it reads this once
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        import llama_cpp
        from llama_cpp import llama_cpp as api
    except (ImportError, OSError, RuntimeError) as error:
        raise ModelError(
            f"llama-cpp-python must be importable, got {str(error)[:80]!r}; "
            f"run: pip install llama-cpp-python=={TESTED_VERSIONS[-1]}"
        ) from None
    check_version(llama_cpp.__version__)
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


def features() -> str:
    """What the build and this machine can do, in llama.cpp's own words: `CPU : SSE3 = 1 | AVX2 = 1 ...`."""
    return str(library().llama_print_system_info().decode("utf-8", "replace"))


def gpu_layers(device: str, available: str | None = None) -> int:
    """How many layers go to an accelerator: 0, or -1 for all.

    Args:
        device: "auto", "cpu", "cuda" or "metal".
        available: llama.cpp's feature line; this build's if None.

    Raises:
        UsageError: another word.
        ModelError: the build has no such accelerator.
    """
    if device not in _DEVICES:
        raise UsageError(
            f"--device must be one of {', '.join(_DEVICES)}, got {device[:60]!r}; auto suits most machines"
        )
    if device == "cpu":
        return 0
    found = _accelerators(features() if available is None else available)
    if device == "auto":
        return -1 if found else 0
    if device not in found:
        raise ModelError(
            f"--device {device} needs a llama.cpp built for it, got one for {', '.join(('cpu', *found))}; "
            "reinstall llama-cpp-python with that backend, or use --device cpu"
        )
    return -1


def may_repack(available: str) -> bool:
    """Whether weights may be laid out anew for this processor.

    On processors with AMX llama.cpp moves quantised weights into AMX tiles, and there the build under test loads a
    tile configuration that the compiler dropped: the process dies (ggml-org/llama.cpp#20824, #26954).
    """
    return "AMX_INT8 = 1" not in available


def _accelerators(available: str) -> Sequence[str]:
    words = {"CUDA": "cuda", "ROCm": "cuda", "MTL": "metal", "Metal": "metal"}
    return tuple(dict.fromkeys(device for word, device in words.items() if f"{word} :" in available))


def _silence(api: Any) -> None:
    callback = api.llama_log_callback(_keep_errors)
    _callbacks.append(callback)  # llama.cpp keeps the bare pointer, so it must live as long as the process
    api.llama_log_set(callback, ctypes.c_void_p(0))


def _keep_errors(level: int, text: bytes, _: object) -> None:
    if level == _ERROR_LEVEL:
        _log.append(text.decode("utf-8", "replace"))
