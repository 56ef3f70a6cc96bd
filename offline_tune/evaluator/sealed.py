"""A folder of files under SHA-256 digests, written whole or not at all.

Its `manifest.json` holds a format number, the facts of whoever writes it, and the digest of every other file. A file
is read once: the bytes whose digest was checked are the bytes that are handed on.

Knows nothing of models.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from offline_tune.errors import ArtifactError, OutputError

FORMAT = 1
MANIFEST = "manifest.json"


def seal(folder: Path, files: Mapping[str, bytes], facts: Mapping[str, Any], *, replace: bool = False) -> None:
    """Write files, facts and digests; either all of it appears at `folder`, or nothing changes.

    Args:
        folder: made here, with its parents.
        files: contents by relative names with "/".
        facts: JSON values; "format" and "files" are added.
        replace: whether an earlier sealed folder may be replaced; anything else there never is.

    Raises:
        OutputError: `folder` is occupied or cannot be written.
    """
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    manifest = json.dumps({"format": FORMAT, **facts, "files": digests}, indent=1).encode()
    try:
        check_free(folder, replace=replace)
        with _drafted(folder) as draft:
            for name, content in {**files, MANIFEST: manifest}.items():
                target = draft / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
            _move(draft, folder)
    except OSError as error:
        raise OutputError(f"a model needs a folder that can be written, got {error}; choose another") from None


def unseal(folder: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The facts and the files of a sealed folder; files that it does not list are not read.

    Raises:
        ArtifactError: there is no sealed folder, one of another format, or a file that is missing or damaged.
    """
    facts = _facts(folder)
    return facts, {name: _checked(folder, name, digest) for name, digest in facts["files"].items()}


def check_free(folder: Path, *, replace: bool = False) -> None:
    """Find out, before the work, whether `seal` would refuse this place.

    Raises:
        OutputError: `folder` is occupied.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / MANIFEST).is_file():
        raise OutputError(f"a model needs a folder of its own, got {str(folder)!r} with other content; choose another")
    if not replace:
        raise OutputError(f"an earlier model must not be replaced unasked, got {str(folder)!r}; choose another folder")


def _facts(folder: Path) -> dict[str, Any]:
    try:
        facts = json.loads((folder / MANIFEST).read_bytes())
    except OSError as error:
        raise ArtifactError(
            f"a model needs a folder with {MANIFEST}, got {str(folder)!r} ({error.strerror}); name an exported model"
        ) from None
    except (ValueError, RecursionError):
        raise ArtifactError(f"{MANIFEST} must be JSON, got another text in {str(folder)!r}; export it again") from None
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        got = facts.get("format") if isinstance(facts, dict) else facts
        raise ArtifactError(f"the format must be {FORMAT}, got {str(got)[:60]!r}; use the version that exported it")
    if not isinstance(facts.get("files"), dict):
        raise ArtifactError(f"{MANIFEST} must list files and digests, got none in {str(folder)!r}; export it again")
    return facts


def _checked(folder: Path, name: str, digest: object) -> bytes:
    parts = name.split("/")
    if any(part in ("", ".", "..") or "\\" in part or ":" in part or "\0" in part for part in parts):
        raise ArtifactError(f"{MANIFEST} may name files of its own folder only, got {name[:60]!r}; do not use it")
    try:
        content = (folder / name).read_bytes()
    except OSError as error:
        raise ArtifactError(
            f"every file of a model must be there, got {name[:60]!r} ({error.strerror}); export it again"
        ) from None
    if hashlib.sha256(content).hexdigest() != digest:
        raise ArtifactError(f"a file must be as it was written, got {name[:60]!r} with another digest; export it again")
    return content


@contextmanager
def _drafted(folder: Path) -> Iterator[Path]:
    """A draft folder on the same disk, gone afterwards."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    bench = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        draft = bench / "draft"
        draft.mkdir()
        yield draft
    finally:
        shutil.rmtree(bench, ignore_errors=True)


def _move(draft: Path, folder: Path) -> None:
    """Put the draft in place; an earlier export is first moved to the draft's bench, and back if that fails."""
    earlier = draft.with_name("earlier")
    if folder.exists():
        os.replace(folder, earlier)
    try:
        os.replace(draft, folder)
    except OSError:
        if earlier.exists():
            os.replace(earlier, folder)
        raise
