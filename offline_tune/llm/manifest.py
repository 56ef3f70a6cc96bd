"""The manifest of models, `models.toml`: which file is meant, by its SHA-256, and where it comes from.

Entries look like this; the first, or the one marked `default = true`, is the shipped model:

    [[model]]
    file = "compact.gguf"
    sha256 = "64 hexadecimal digits"
    licence = "Apache-2.0"
    dialect = "compact"
    training = "how it came to be: a sentence, or a table"

Knows nothing of what is inside a model file.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offline_tune.errors import ModelError
from offline_tune.llm.contract import Dialect

MANIFEST = "models.toml"
_PACKAGE = Path(__file__).parents[1]
# the installed package carries its models inside, a checkout beside it
MODEL_FOLDERS = (_PACKAGE / "models", _PACKAGE.parent / "models")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """One model file that somebody vouches for.

    Attributes:
        file: plain name, in the folder of the manifest.
        sha256: 64 hexadecimal digits, lower case.
        licence: of the weights, an SPDX name.
        dialect: how the model wants to be asked.
        training: how it came to be, in words or as a table.
        default: whether it is the one to use when the user names none.
    """

    file: str
    sha256: str
    licence: str
    dialect: Dialect
    training: str | Mapping[str, Any] = ""
    default: bool = False


def read_manifest(path: Path) -> tuple[ModelEntry, ...]:
    """Read a models.toml; at least one entry.

    Raises:
        ModelError: it cannot be read, or an entry lacks a key or holds a wrong value.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path} must be readable, got {error.strerror}; restore it") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ModelError(f"{path} must be TOML, got {str(error)[:80]!r}; correct or restore it") from None
    tables = document.get("model")
    if not isinstance(tables, list) or not tables:
        raise ModelError(f"{path} must hold at least one [[model]], got {len(document)} other keys; restore it")
    entries = tuple(_entry(path, table) for table in tables)
    if len({entry.file for entry in entries}) < len(entries):
        raise ModelError(f"{path} must list each file once, got {len(entries)} entries with repeats; remove one")
    return entries


def shipped_model(folders: Sequence[Path] = MODEL_FOLDERS) -> Path:
    """The model that comes with offline_tune.

    Raises:
        ModelError: no folder has a manifest, or its default file is missing.
    """
    manifest = _shipped_manifest(folders)
    if manifest is None:
        raise ModelError(f"a shipped model must lie in {folders[0]}, got no {MANIFEST}; reinstall, or give --model")
    entries = read_manifest(manifest)
    path = manifest.parent / next((e for e in entries if e.default), entries[0]).file
    if not path.is_file():
        raise ModelError(f"the shipped model must lie at {path}, got no file there; reinstall, or give --model")
    return path


def verify(path: Path, sha256: str | None = None, folders: Sequence[Path] = MODEL_FOLDERS) -> ModelEntry | None:
    """Compare a model file with the manifests that list it: the one beside it, then the shipped one.

    Args:
        path: the model file.
        sha256: its digest where it is known already; computed otherwise.
        folders: where a shipped manifest may lie.

    Returns:
        The entry that vouches for the file; None for a user's own, unlisted model.

    Raises:
        ModelError: the file is listed with another digest, cannot be read, or a manifest is malformed.
    """
    beside, shipped = path.parent / MANIFEST, _shipped_manifest(folders)
    manifests = [m for m in dict.fromkeys((beside, shipped)) if m is not None and m.is_file()]
    digest = sha256 or sha256_of(path)
    for manifest in manifests:
        entries = read_manifest(manifest)
        same = next((e for e in entries if e.sha256 == digest), None)
        if same is not None:
            return same
        named = next((e for e in entries if e.file == path.name), None)
        if named is not None:
            raise ModelError(
                f"{path} must have the sha256 {named.sha256} of {manifest}, got {digest}; "
                "the file was changed or damaged: restore it, or rename it if it is your own model"
            )
    return None


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(
            f"the model file must be readable, got {str(path)!r} ({error.strerror}); check --model"
        ) from None


def _shipped_manifest(folders: Sequence[Path]) -> Path | None:
    return next((folder / MANIFEST for folder in folders if (folder / MANIFEST).is_file()), None)


def _entry(path: Path, table: object) -> ModelEntry:
    if not isinstance(table, dict):
        raise ModelError(f"{path} must hold [[model]] tables, got {str(table)[:60]!r}; correct it")
    file = _text(path, table, "file", r"[^/\\\0]+\.gguf")
    dialect = _text(path, table, "dialect", "chat|compact")
    training = table.get("training", "")
    return ModelEntry(
        file=file,
        sha256=_text(path, table, "sha256", "[0-9a-f]{64}"),
        licence=_text(path, table, "licence", ".+"),
        dialect="compact" if dialect == "compact" else "chat",
        training=training if isinstance(training, dict) else str(training),
        default=table.get("default") is True,
    )


def _text(path: Path, table: Mapping[str, object], key: str, pattern: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or re.fullmatch(pattern, value) is None:
        raise ModelError(f"{path} must give each model a {key} like {pattern}, got {str(value)[:60]!r}; correct it")
    return value
