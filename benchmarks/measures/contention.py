"""How long a pass may take while other programs hold every core.

Passes differ in rows, so each is compared with its own median: the 99th percentile of these multiples is the figure.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.measures.child import ask
from benchmarks.measures.table import Row, tail
from benchmarks.measures.workload import prompt_text
from offline_tune.llm.contract import LanguageModel
from offline_tune.llm.threads import usable_cores


def under_load(name: str, path: Path, threads: int, k: int, repeats: int) -> Row:
    """Passes of a fresh process beside one busy process for each core."""
    found = ask("contention", path, threads, k, repeats)
    before, after = (f"{found[which] * 1e3:.2g} ms" for which in ("quiet_p50", "p50"))
    note = (
        f"wall time; threads {threads}, busy processes {found['busy']}, {found['passes']} passes, p50 {after}; "
        f"before they came {found['quiet']:.2g} x, {before}"
    )
    return Row("decode p99 over p50, every core busy", name, k, [found["loaded"]], " x", at_most=3, note=note)


def main() -> None:
    """The child: record one call, play it in quiet, then under load."""
    from benchmarks.measures.replay import Recorder
    from offline_tune.llm.llama import load_model

    path, threads, k, repeats = Path(sys.argv[1]), *map(int, sys.argv[2:])
    recorder = Recorder()
    model = load_model(path, k_max=max(k, 8), n_threads=threads)
    call = _call(model, k)
    call()
    with recorder.record() as recording:
        call()
    quiet = [recording.play() for _ in range(repeats)]
    with busy(usable_cores()) as n:
        loaded = [recording.play() for _ in range(repeats)]
    middles = {"p50": loaded, "quiet_p50": quiet}
    print(
        json.dumps(
            {
                "busy": n,
                "passes": sum(map(len, loaded)),
                "loaded": tail(loaded),
                "quiet": tail(quiet),
                **{name: float(np.median(times)) for name, times in middles.items()},
            }
        )
    )


@contextmanager
def busy(n: int) -> Iterator[int]:
    """N processes that do nothing but take time."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield n
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _call(model: LanguageModel, k: int) -> Callable[[], object]:
    """K candidates in the model's own dialect; a short history, for passes as short as they come."""
    from benchmarks.measures import replay, shipped

    return shipped.drawing(model, k) if model.info.dialect == "compact" else replay.drawing(model, k, prompt_text(4))


if __name__ == "__main__":
    main()
