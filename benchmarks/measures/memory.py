"""What a model takes beside its file and its KV cache: resident memory of a fresh process, step by step.

Weights are mapped from the file; what of the mapping is resident is not counted (all tensors, where they were not
mapped). The KV cache is counted by its size, for llama.cpp writes all of it at the start.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks.measures.child import ask
from benchmarks.measures.table import Row


def beyond_model(name: str, path: Path, ks: Sequence[int], trials: int) -> list[Row]:
    """MB beyond weights and KV cache, once k candidates were drawn; with and without llama.cpp's vocabulary."""
    tables = ask("memory", path)["tables"]
    return [row for k in ks for row in _rows(name, k, ask("memory", path, k, trials), tables)]


def _rows(name: str, k: int, found: Mapping[str, Any], tables: float) -> list[Row]:
    note = (
        f"of it import {found['imported']:.0f}, load {found['loaded']:.0f}, {k} candidates {found['drawn']:.0f}; "
        f"not counted: weights {found['weights']:.0f} ({found['how']}), KV cache {found['cache']:.0f}"
    )
    own = f"those tables, {tables:.0f} MB, are part of the model as any program loads it"
    total = found["imported"] + found["loaded"] + found["drawn"]
    return [
        Row("memory beyond weights and KV cache", name, k, [total], " MB", at_most=60, note=note),
        Row("  and beyond llama.cpp's vocabulary tables", name, k, [total - tables], " MB", at_most=60, note=own),
    ]


def main() -> None:
    """The child: the vocabulary alone, or a model that draws; prints MB."""
    path = Path(sys.argv[1])
    sizes = _drawing(path, *map(int, sys.argv[2:])) if sys.argv[2:] else _vocabulary(path)
    print(json.dumps({name: size if isinstance(size, str) else size / 1e6 for name, size in sizes.items()}))


def _vocabulary(path: Path) -> dict[str, int | str]:
    """What llama.cpp takes to hold the tokens of a file without its weights."""
    from offline_tune.llm.backend import library

    api = library()
    start = _private(path)
    parameters = api.llama_model_default_params()
    parameters.vocab_only = True
    model = api.llama_model_load_from_file(str(path).encode(), parameters)
    tables = _private(path) - start
    api.llama_model_free(model)
    return {"tables": tables}


def _drawing(path: Path, k: int, trials: int) -> dict[str, int | str]:
    """Resident bytes after the import, the loading and k candidates, each beyond the step before."""
    # what a tuner holds without any model
    from benchmarks.measures import workload
    from offline_tune.llm.gguf_header import read_header

    text, header = workload.prompt_text(trials), read_header(path)
    start = _private(path)
    from offline_tune.llm.backend import library
    from offline_tune.llm.engine import cells
    from offline_tune.llm.llama import load_model

    library()
    imported = _private(path)
    model = load_model(path, k_max=k, n_threads=1)
    mapped = _mapped(path) > 0
    cache = header.cache_bytes_per_token * cells(model.n_ctx, k)
    expected = cache + (0 if mapped else header.file_bytes)
    loaded = _private(path) - expected
    from benchmarks.measures.replay import drawing

    drawing(model, k, text)()
    drawn = _private(path) - expected
    return {
        "imported": imported - start,
        "loaded": loaded - imported,
        "drawn": drawn - loaded,
        "weights": _mapped(path) or header.file_bytes,
        "cache": cache,
        "how": "mapped" if mapped else "copied",
    }


def _private(path: Path) -> int:
    """Resident bytes without those of the model file's mapping."""
    return int(psutil.Process().memory_info().rss) - _mapped(path)


def _mapped(path: Path) -> int:
    """Resident bytes of the file's mapping."""
    process = psutil.Process()
    if not hasattr(process, "memory_maps"):
        return 0
    return sum(m.rss for m in process.memory_maps(grouped=True) if m.path == str(path.resolve()))


if __name__ == "__main__":
    main()
