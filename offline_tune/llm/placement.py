"""Where a model runs: on the processor, or some or all of its layers on an accelerator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from offline_tune.errors import ModelError, UsageError
from offline_tune.llm.backend import Build, build
from offline_tune.llm.gguf_header import MAX_LAYERS
from offline_tune.llm.threads import Calibration

DEVICES = ("auto", "cpu", "cuda", "metal")
MOST_GPU_LAYERS = MAX_LAYERS + 1  # the output counts as one
Layers = int | Literal["all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a loaded model runs.

    Attributes:
        device: "cpu", "cuda" or "metal".
        n_gpu_layers: layers on the accelerator; -1 for all of them.
        flash_attention: whether the fused operation is used.
        n_threads: threads of the processor.
        calibration: how they were chosen; None where they were given, or the model is small.
    """

    device: str
    n_gpu_layers: int
    flash_attention: bool
    n_threads: int
    calibration: Calibration | None


def place(device: str, layers: Layers = "all", built: Build | None = None) -> tuple[str, int]:
    """The device that is meant, and llama.cpp's number of layers there: 0 on the processor, -1 for all.

    Args:
        device: "auto", "cpu", "cuda" or "metal"; "auto" takes an accelerator where the build has one and sees it.
        layers: how many go to the accelerator; more than the model has are all.
        built: what llama.cpp can do; asked of it if None.

    Raises:
        UsageError: another word or number, or layers for an accelerator that is not to be used.
        ModelError: the build has no such accelerator, or sees none.
    """
    _check_words(device, layers)
    if device == "cpu":
        return "cpu", 0
    built = built or build()
    found = built.accelerators if built.offload else ()
    if device == "auto" and not found and layers in ("all", 0):
        return "cpu", 0
    if not found or device not in ("auto", *found):
        raise _missing(device, layers, built)
    if layers == 0:
        return "cpu", 0
    return found[0] if device == "auto" else device, -1 if layers == "all" else layers


def _check_words(device: str, layers: Layers) -> None:
    if device not in DEVICES:
        raise UsageError(f"--device must be one of {', '.join(DEVICES)}, got {device[:60]!r}; auto suits most machines")
    if layers == "all":
        return
    if not isinstance(layers, int) or not 0 <= layers <= MOST_GPU_LAYERS:
        raise UsageError(
            f"--gpu-layers must be all, or a number from 0 to {MOST_GPU_LAYERS}, got {str(layers)[:60]}; "
            "all suits a model that fits into the accelerator's memory"
        )
    if device == "cpu" and layers:
        raise UsageError(f"--gpu-layers {layers} needs an accelerator, got --device cpu; leave one of them out")


def _missing(device: str, layers: Layers, built: Build) -> ModelError:
    asked = f"--gpu-layers {layers}" if device == "auto" else f"--device {device}"
    if device in built.accelerators or (device == "auto" and built.accelerators):
        return ModelError(
            f"{asked} needs an accelerator that llama.cpp can reach, got none; check its driver, or use --device cpu"
        )
    return ModelError(
        f"{asked} needs a llama.cpp built for it, got one for {', '.join(('cpu', *built.accelerators))}; "
        "reinstall llama-cpp-python with that backend (see README), or use --device cpu"
    )
