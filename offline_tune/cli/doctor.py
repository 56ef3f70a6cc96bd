"""`offline-tune doctor`: what holds on this machine, each point with what to do where it does not."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from offline_tune import __version__, airgap
from offline_tune.errors import OfflineTuneError
from offline_tune.llm.threads import usable_cores

if TYPE_CHECKING:
    from offline_tune.llm.backend import Build
    from offline_tune.llm.llama import LlamaModel
    from offline_tune.llm.placement import Layers, Placement
    from offline_tune.llm.threads import Waiting

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


def examine(
    model: Path | None = None, device: str = "auto", gpu_layers: Layers = "all", threads: int = 0
) -> tuple[Finding, ...]:
    """Look at everything; `model` is loaded instead of the shipped one, and as the other arguments say."""
    return (*_machine(), *_network(), *_engine(), *_model(model, device, gpu_layers, threads))


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


def _engine() -> Iterator[Finding]:
    """What the installed llama.cpp can do, without any model."""
    from offline_tune.llm.backend import build, waiting

    try:
        found = build()
    except OfflineTuneError as error:
        yield Finding("llama.cpp", False, str(error))
        return
    can = ", ".join(name for name, has in (("mmap", found.mmap), ("mlock", found.mlock)) if has)
    limits = f"llama-cpp-python {found.version}, up to {found.n_sequences} sequences"
    yield Finding("llama.cpp", True, f"{limits}, {can}" if can else limits)
    yield Finding("processor features", True, " ".join(found.processor) or "none that llama.cpp names")
    yield _accelerator(found)
    yield _waiting(waiting())


def _accelerator(found: Build) -> Finding:
    if not found.accelerators:
        return Finding("accelerator", False, "llama.cpp was built for cpu alone (see README)", required=False)
    names = ", ".join(found.accelerators)
    if not found.offload:
        return Finding("accelerator", False, f"built for {names}, but reaches none; check its driver", required=False)
    return Finding("accelerator", True, f"{names}; layers and KV cache can lie there")


def _waiting(found: Waiting) -> Finding:
    if found.passive:
        return Finding("idle threads", True, "sleep (OMP_WAIT_POLICY=PASSIVE)", required=False)
    reason = f"{', '.join(found.too_early)} was loaded before the policy was set" if found.too_early else found.policy
    return Finding(
        "idle threads", False, f"may stall other processes ({reason}); set OMP_WAIT_POLICY=PASSIVE", required=False
    )


def _model(model: Path | None, device: str, gpu_layers: Layers, threads: int) -> Iterator[Finding]:
    from offline_tune.llm.llama import load_model
    from offline_tune.llm.manifest import shipped_model

    try:
        loaded = load_model(model or shipped_model(), device=device, gpu_layers=gpu_layers, n_threads=threads or None)
    except OfflineTuneError as error:
        yield Finding("model", False, str(error))
        return
    try:
        yield from _loaded(loaded)
    finally:
        loaded.close()


def _loaded(model: LlamaModel) -> Iterator[Finding]:
    info, placement = model.info, model.placement
    size = f"{info.n_parameters / 1e6:.1f} M parameters"
    yield Finding("model", True, f"{info.path.name}, {size}, dialect {info.dialect}, {model.n_ctx} tokens")
    yield Finding("placement", True, _placed(placement))
    yield Finding("threads", True, _threads(placement))
    try:
        for check in model.self_check():
            yield Finding(f"checked {check.name}", check.ok, check.detail)
    except OfflineTuneError as error:
        yield Finding("checked model", False, str(error))


def _placed(placement: Placement) -> str:
    attention = f"flash attention {'on' if placement.flash_attention else 'off'}"
    if placement.n_gpu_layers == 0:
        return f"cpu, {attention} (a batch of texts is slower with it there)"
    layers = "all layers" if placement.n_gpu_layers < 0 else f"{placement.n_gpu_layers} layers"
    return f"{placement.device}, {layers} and their KV cache, {attention}"


def _threads(placement: Placement) -> str:
    chosen = f"{placement.n_threads} of {usable_cores()} cores"
    if placement.calibration is None:
        return chosen
    tried = sorted(placement.calibration.seconds.items())
    return f"{chosen}; a step took {', '.join(f'{1e3 * each:.1f} ms with {n}' for n, each in tried)}"
