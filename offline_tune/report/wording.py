"""How names, values and amounts are shown to a person: on one line, without control characters, cut to a length.

Names and choices may come from a data file or a user's space, so nothing here trusts them. Escaping for HTML is not
done here: the template does it.
"""

from __future__ import annotations

import math
import unicodedata

from offline_tune.space import Value

_CUT = "…"


def printable(text: object, limit: int = 60) -> str:
    r"""Text on one line, at most `limit` columns wide in a terminal.

    >>> printable("two\nlines\x1b[31m")
    'two lines[31m'
    """
    line = "".join(c for c in " ".join(str(text).split()) if c.isprintable())
    if not line:
        return "(empty)" if not str(text).strip() else "(unprintable)"
    return line if columns(line) <= limit else _cut(line, limit)


def columns(line: str) -> int:
    """How many columns a printable line takes in a terminal; East Asian wide characters take two."""
    return sum(map(_width, line))


def value_text(value: Value, limit: int = 40) -> str:
    """A hyperparameter's value, numbers to four significant digits.

    >>> value_text(0.012345678), value_text(300), value_text(True), value_text(None)
    ('0.01235', '300', 'true', 'none')
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.4g}"
    return printable(value, limit)


def duration(seconds: float) -> str:
    """Seconds in a person's units; a dash where they are not known.

    >>> duration(0.0123), duration(12.34), duration(200), duration(7300)
    ('0.01 s', '12.3 s', '3 min 20 s', '2 h 1 min')
    """
    if not math.isfinite(seconds):
        return "-"
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def amount(n: int, one: str, many: str = "") -> str:
    """A count with its noun.

    >>> amount(1, "trial"), amount(32561, "row")
    ('1 trial', '32,561 rows')
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def _width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _cut(line: str, limit: int) -> str:
    room, kept = limit - 1, list[str]()
    for character in line:
        room -= _width(character)
        if room < 0:
            break
        kept.append(character)
    return "".join(kept).rstrip() + _CUT
