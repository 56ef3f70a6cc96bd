"""`offline-tune doctor`: what holds on this machine, each point with what to do where it does not."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from offline_tune import __version__, airgap
from offline_tune.errors import OfflineTuneError

_LIBRARIES = ("sklearn", "xgboost", "lightgbm", "catboost", "optuna", "llguidance")


@dataclass(frozen=True, slots=True)
class Finding:
    """One point. A required one that is not ok makes the command fail."""

    what: str
    ok: bool
    detail: str
    required: bool = True

    @property
    def mark(self) -> str:
        """How a person sees at once what holds."""
        return "ok" if self.ok else "NO" if self.required else "no"


def examine(model: Path | None = None) -> tuple[Finding, ...]:
    """Look at everything; `model` is loaded instead of the shipped one."""
    return (*_machine(), *_network(), _model(model))


def _machine() -> Iterator[Finding]:
    import psutil

    memory = psutil.virtual_memory()
    python = f"{__version__} on Python {platform.python_version()}, {platform.platform()}"
    yield Finding("offline-tune", sys.version_info >= (3, 11), python)
    yield Finding("processor", True, f"{os.cpu_count()} cores, {memory.available / 2**30:.1f} GiB of memory free")
    for name in _LIBRARIES:
        yield _library(name)


def _library(name: str) -> Finding:
    try:
        module = import_module(name)
    except (ImportError, OSError) as error:
        return Finding(name, False, f"cannot be imported ({error}); install offline-tune again")
    return Finding(name, True, str(getattr(module, "__version__", "present")))


def _network() -> Iterator[Finding]:
    status = airgap.status()
    yield Finding("audit hook", status.audit_hook, "Python refuses every connection that is not local")
    detail = "this process and its children have no network at all" if status.namespace else status.namespace_missing
    yield Finding("network namespace", status.namespace, detail, required=False)
    for attempt in airgap.probe():
        # Another program does not know of the hook: only a namespace stops it, and not every system allows one.
        required = attempt.name != "subprocess" or status.namespace
        yield Finding(f"tried {attempt.name}", attempt.refused, _answer(attempt), required=required)


def _answer(attempt: airgap.Probe) -> str:
    return f"stopped by the {attempt.by}" if attempt.refused else f"not stopped {attempt.detail}".rstrip()


def _model(model: Path | None) -> Finding:
    from offline_tune.llm.llama import load_model
    from offline_tune.llm.manifest import shipped_model

    try:
        loaded = load_model(model or shipped_model(), k_max=1)
    except OfflineTuneError as error:
        return Finding("model", False, str(error))
    try:
        info = loaded.info
        size = f"{info.n_parameters / 1e6:.1f} M parameters"
        return Finding("model", True, f"{info.path.name}, {size}, dialect {info.dialect}, {loaded.n_ctx} tokens")
    finally:
        loaded.close()
