"""What the commands say of GGUF files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offline_tune.llm.gguf_header import read_header
from offline_tune.llm.manifest import MANIFEST, MODEL_FOLDERS, read_manifest, sha256_of, shipped_model, verify


@dataclass(frozen=True, slots=True)
class Verified:
    """A model file that is sound; `listed` tells whether a manifest vouches for it."""

    file: str
    sha256: str
    listed: bool

    @property
    def sentence(self) -> str:
        """The finding in one line."""
        state = "as its manifest says" if self.listed else "in no manifest; its header is sound"
        return f"{self.file} is {state}; sha256 {self.sha256}"


def shipped(folders: Sequence[Path] = MODEL_FOLDERS) -> list[dict[str, Any]]:
    """The entries of the shipped manifest; `mib` is None where the file is missing.

    Raises:
        ModelError: there is no manifest, or its default model is missing.
    """
    folder = shipped_model(folders).parent
    return [
        {
            "file": entry.file,
            "dialect": entry.dialect,
            "licence": entry.licence,
            "sha256": entry.sha256,
            "mib": _mib(folder / entry.file),
        }
        for entry in read_manifest(folder / MANIFEST)
    ]


def line_of(entry: Mapping[str, Any]) -> str:
    """An entry of `shipped` in one line."""
    size = "missing" if entry["mib"] is None else f"{entry['mib']} MiB"
    return f"{entry['file']}  {entry['dialect']}  {size}  {entry['licence']}  sha256 {entry['sha256']}"


def verified(path: Path | None) -> Verified:
    """Check a file's header, and its digest against the manifests.

    Raises:
        ModelError: it is damaged or differs.
    """
    path = path or shipped_model()
    read_header(path)
    digest = sha256_of(path)
    return Verified(path.name, digest, verify(path, digest) is not None)


def described(path: Path | None) -> dict[str, Any]:
    """What the header says.

    Raises:
        ModelError: it cannot be read.
    """
    path = path or shipped_model()
    header = read_header(path)
    return {"file": str(path), "sha256": sha256_of(path), "bytes": path.stat().st_size, **_scalars(header.metadata)}


def _mib(path: Path) -> float | None:
    return round(path.stat().st_size / 2**20, 1) if path.is_file() else None


def _scalars(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in metadata.items()
        if isinstance(value, str | int | float) and len(str(value)) < 200
    }
