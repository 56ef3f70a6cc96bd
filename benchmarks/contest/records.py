"""Results as JSON lines that are only ever added, so that a killed contest goes on and rivals are measured once."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from contest.contestants import Run

Key = tuple[str, str, int]  # problem, contestant with its label, seed


class Records:
    """The runs of a work file; those of another form of a problem are not looked at."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._runs: dict[Key, tuple[tuple[float, float], Run]] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                stored = json.loads(line)
            except ValueError:
                continue  # the half of a line that a kill left
            run = Run(tuple(stored["scores"]), tuple(stored["seconds"]), stored["invalid"], stored["duplicates"])
            key = (stored["problem"], stored["contestant"], stored["seed"])
            if key not in self._runs or len(self._runs[key][1].scores) <= len(run.scores):
                self._runs[key] = ((stored["best"], stored["middle"]), run)

    def get(self, problem: str, contestant: str, seed: int, bounds: tuple[float, float], trials: int) -> Run | None:
        """A run of at least so many trials on the problem with these bounds."""
        found = self._runs.get((problem, contestant, seed))
        if found is None or found[0] != bounds or len(found[1].scores) < trials:
            return None
        return found[1]

    def add(self, problem: str, contestant: str, seed: int, bounds: tuple[float, float], run: Run) -> None:
        """Write a run and take it in."""
        line = {"problem": problem, "contestant": contestant, "seed": seed, "best": bounds[0], "middle": bounds[1]}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**line, **asdict(run)}) + "\n")
        self._runs[problem, contestant, seed] = (bounds, run)
