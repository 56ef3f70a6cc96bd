"""What the commands say of GGUF files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from offline_tune.llm.gguf_header import read_header
from offline_tune.llm.manifest import read_manifest, sha256_of, shipped_model, verify


def shipped() -> list[dict[str, Any]]:
    """The entries of the shipped manifest."""
    folder = shipped_model().parent
    return [
        {
            "file": entry.file,
            "dialect": entry.dialect,
            "licence": entry.licence,
            "sha256": entry.sha256,
            "mib": round((folder / entry.file).stat().st_size / 2**20, 1),
        }
        for entry in read_manifest(folder / "models.toml")
    ]


def verified(path: Path | None) -> str:
    """One line: the file is what a manifest says, or no manifest lists it.

    Raises:
        ModelError: it is damaged or differs.
    """
    path = path or shipped_model()
    read_header(path)
    entry = verify(path)
    state = "as its manifest says" if entry else "in no manifest; its header is sound"
    return f"{path.name} is {state}; sha256 {sha256_of(path)}"


def described(path: Path | None) -> dict[str, Any]:
    """What the header says.

    Raises:
        ModelError: it cannot be read.
    """
    path = path or shipped_model()
    header = read_header(path)
    return {"file": str(path), "sha256": sha256_of(path), "bytes": path.stat().st_size, **_scalars(header.metadata)}


def _scalars(metadata: Any) -> dict[str, Any]:
    return {
        name: value
        for name, value in metadata.items()
        if isinstance(value, str | int | float) and len(str(value)) < 200
    }
