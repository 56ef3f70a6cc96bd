"""`offline-tune doctor`: what holds on this machine, each point with what to do where it does not."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from offline_tune import __version__, airgap
from offline_tune.errors import OfflineTuneError


@dataclass(frozen=True, slots=True)
class Finding:
    """One point. A required one that is not ok makes the command fail."""

    what: str
    ok: bool
    detail: str
    required: bool = True


def examine() -> tuple[Finding, ...]:
    """Look at everything."""
    return (*_machine(), *_network(), *_model())


def _machine() -> Iterator[Finding]:
    import psutil

    memory = psutil.virtual_memory()
    yield Finding("offline-tune", True, f"{__version__} on Python {platform.python_version()}, {platform.platform()}")
    yield Finding("processor", True, f"{os.cpu_count()} cores, {memory.available / 2**30:.1f} GiB of memory free")
    for name in ("sklearn", "xgboost", "lightgbm", "catboost", "optuna", "llguidance"):
        yield _library(name)


def _library(name: str) -> Finding:
    try:
        module = __import__(name)
    except ImportError as error:
        return Finding(name, False, f"cannot be imported ({error}); install offline-tune again")
    return Finding(name, True, str(getattr(module, "__version__", "present")))


def _network() -> Iterator[Finding]:
    status = airgap.status()
    yield Finding("audit hook", status.audit_hook, "Python refuses every connection that is not local")
    detail = "this process and its children have no network at all" if status.namespace else status.namespace_missing
    yield Finding("network namespace", status.namespace, detail, required=False)
    for attempt in airgap.probe():
        yield Finding(f"tried {attempt.name}", attempt.refused, attempt.detail, required=status.namespace)


def _model() -> Iterator[Finding]:
    from offline_tune.llm.llama import load_model
    from offline_tune.llm.manifest import shipped_model

    try:
        path = shipped_model()
        model = load_model(path)
    except OfflineTuneError as error:
        yield Finding("model", False, str(error))
        return
    try:
        info = model.info
        millions = info.n_parameters / 1e6
        yield Finding(
            "model", True, f"{path.name}, {millions:.1f} M parameters, dialect {info.dialect}, {model.n_ctx} tokens"
        )
    finally:
        model.close()
    yield Finding("python", sys.version_info >= (3, 11), "3.11 or newer")
