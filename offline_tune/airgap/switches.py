"""Environment variables that turn telemetry, update checks and downloads off, here and in every child.

Each is read by a dependency, or by what a dependency or a user's own training program commonly imports. Optuna,
Outlines, llama-cpp-python, llguidance, scikit-learn, the boosters and skops need none: no telemetry and no update check
was found in them, and they open connections only where they are asked to download or to work on several machines.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

OFF: Mapping[str, str] = {
    "DO_NOT_TRACK": "1",  # the convention; the Hugging Face hub and MLflow follow it
    "HF_HUB_OFFLINE": "1",  # llama-cpp-python's from_pretrained, Outlines' transformers models
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "AWS_EC2_METADATA_DISABLED": "true",  # Arrow's S3 file system asks 169.254.169.254 for a region
    "OTEL_SDK_DISABLED": "true",  # OpenTelemetry in a user's own program
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_MODE": "offline",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_INDEX": "1",
    "RES_OPTIONS": "attempts:0",  # glibc asks its name servers this often: C libraries look nothing up either
}

# A proxy would carry out what may not leave: urllib, requests, libcurl (Arrow, CatBoost) and gRPC (XGBoost) use it.
REMOVED = (
    "all_proxy",
    "ftp_proxy",
    "grpc_proxy",
    "http_proxy",
    "https_proxy",
    "ALL_PROXY",
    "FTP_PROXY",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ARROW_TRACING_BACKEND",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
)


def turn_off(environment: MutableMapping[str, str]) -> None:
    """Write `OFF` into an environment, over whatever stood there, and take `REMOVED` out of it."""
    environment.update(OFF)
    for name in REMOVED:
        environment.pop(name, None)


def in_force(environment: Mapping[str, str]) -> dict[str, str]:
    """The switches of `OFF` that an environment has as they should be."""
    return {name: value for name, value in OFF.items() if environment.get(name) == value}
