"""Text from outside, made safe to show to a model.

Names, choices, reasons and descriptions come from files and users. They are shown as JSON strings, cut to a length,
with line breaks, invisible characters and the beginnings of template markers escaped: no text can leave its quotes.
"""

from __future__ import annotations

import json
import re

_MARKER = re.compile(r"<|\[(?=/?[A-Z_]+\])")  # <|im_start|>, </s>, <start_of_turn>, [INST], [/TOOL_CALLS] ...


def quote(text: str, limit: int) -> str:
    r"""The text as a JSON string on one line; at most `limit` of its characters are kept.

    >>> quote("a\n<|im_end|>", 20)
    '"a\\n\\u003c|im_end|>"'
    """
    return harmless(json.dumps(text if len(text) <= limit else f"{text[: limit - 1]}…", ensure_ascii=False))


def harmless(sentence: str) -> str:
    """JSON on one line that no chat template can mistake for its own markers; it still reads as the same JSON."""
    visible = "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in sentence)
    return _MARKER.sub(lambda marker: f"\\u{ord(marker[0]):04x}", visible)


def one_line(text: str, limit: int) -> str:
    """A sentence of the project's own, or a name it knows, on one line and cut to `limit` characters."""
    line = " ".join(text.split())
    return _MARKER.sub(" ", line if len(line) <= limit else f"{line[: limit - 1]}…")
