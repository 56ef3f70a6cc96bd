"""Options that mean the same in every command, and how their values are read."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_MEBIBYTES = {"": 1, "m": 1, "g": 1024}


class Duration(click.ParamType[float]):
    """`90`, `90s`, `10m`, `2h`: seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds."""
        if isinstance(value, int | float):
            return float(value)
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", str(value).strip().lower())
        if match is None:
            self.fail(f"a duration must be a number with s, m, h or d, got {value!r}; write 10m for ten minutes")
        return float(match[1]) * _SECONDS[match[2]]


class Memory(click.ParamType[int]):
    """`512`, `512m`, `4g`: MiB."""

    name = "memory"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """MiB."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([mg]?)(?:i?b)?", str(value).strip().lower())
        if match is None:
            self.fail(f"a memory size must be a number with m or g, got {value!r}; write 4g for 4 GiB")
        return int(float(match[1]) * _MEBIBYTES[match[2]])


class Layers(click.ParamType[Any]):
    """`all`, or a number."""

    name = "layers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The word, or the number; what llama.cpp can do with it is judged where it is known."""
        text = str(value).strip().lower()
        if text != "all" and not re.fullmatch(r"-?[0-9]{1,9}", text):
            self.fail(f"layers must be all or a number, got {str(value)[:60]!r}; all suits a model that fits")
        return text if text == "all" else int(text)


DURATION, MEMORY, PATH, LAYERS = Duration(), Memory(), click.Path(path_type=Path), Layers()
DEVICES = click.Choice(["auto", "cpu", "cuda", "metal"])

as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
model = click.option("--model", type=PATH, help="A GGUF model.  [default: the shipped one]")


def together(options: Sequence[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    """Several options as one decorator, shown in this order."""

    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


placement = together(
    [
        click.option("--device", type=DEVICES, default="auto", show_default=True, help="Where the GGUF model runs."),
        click.option(
            "--gpu-layers",
            type=LAYERS,
            default="all",
            show_default=True,
            help="Layers of it on the accelerator, where not all fit there.",
        ),
        click.option("--threads", type=int, default=0, help="Threads of it.  [default: the fastest number of them]"),
    ]
)
new_placement = together(
    [
        click.option("--device", type=DEVICES, help="Another device for the GGUF model."),
        click.option("--gpu-layers", type=LAYERS, help="Another number of layers on the accelerator."),
        click.option("--threads", type=int, help="Another number of threads; 0 looks for the fastest."),
    ]
)
budget = together(
    [
        click.option(
            "--trials", type=int, default=30, show_default=True, help="Trials to finish, failed ones included."
        ),
        click.option("--time-limit", type=DURATION, help="Start no batch of trials after this long (90s, 10m, 2h)."),
        click.option("--trial-time-limit", type=DURATION, default="5m", show_default=True, help="Longest trial."),
        click.option("--trial-memory", type=MEMORY, help="Most memory of one trial (512m, 4g)."),
        click.option("--llm-calls", type=int, help="Passes of the language model; afterwards local steps propose."),
        click.option("--llm-tokens", type=int, help="Tokens of its prompts and answers; afterwards the same."),
    ]
)
