"""Measurements that need a process of their own: what a library reads once, and memory that nobody else has touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from benchmarks.measures.workload import ROOT


def ask(module: str, *arguments: object) -> dict[str, Any]:
    """Run a module of this package by itself; returns the object that it prints.

    Raises:
        RuntimeError: it failed.
    """
    # without the settings of the caller, so that the package's own take effect
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, "-m", f"benchmarks.measures.{module}", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{module} must end well, got {done.returncode}: {done.stderr.strip()[-300:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found
