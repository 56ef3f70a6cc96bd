"""Train and export the shipped model: `python -m offline_tune.pretrain --help`.

Progress goes to stderr, one line in fifty steps; a killed training goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from offline_tune.pretrain.export import export_gguf
from offline_tune.pretrain.llama import LlamaConfig
from offline_tune.pretrain.sources import load_sources
from offline_tune.pretrain.train import Plan, load_checkpoint, train


def main() -> None:
    """Train until the plan is fulfilled, then write the GGUF."""
    options = _options()
    torch.set_num_threads(options.threads)
    sources = load_sources(options.landscapes)
    if not sources.training:
        _say("no landscapes: training on synthetic functions alone")
    plan = Plan(tokens=int(options.tokens * 1e6), decay_tokens=int(options.decay * 1e6), seed=options.seed)
    train(LlamaConfig(), plan, sources, options.checkpoint, options.device, _say)
    model, progress = load_checkpoint(options.checkpoint)
    told = f"{progress.step} steps, {progress.tokens} tokens, {progress.seconds:.0f} s; " + (
        f"landscapes of {len(sources.training)} sources and synthetic functions" if sources.training else "synthetic"
    )
    sys.stdout.write(f"{options.out} {export_gguf(model, options.out, told)}\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m offline_tune.pretrain", description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the GGUF to write")
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/tuner.pt"))
    parser.add_argument(
        "--landscapes", type=Path, help="folder of evaluated configurations; see pretrain/landscapes.py"
    )
    parser.add_argument("--tokens", type=float, default=27.0, help="millions, the whole training")
    parser.add_argument(
        "--decay", type=float, default=8.0, help="millions at the end in which the rate goes to nothing"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
