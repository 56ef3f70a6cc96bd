"""How messages speak of names and values that come from a file.

Such text is untrusted: it may hold quotes, newlines, 10,000 characters or orders to a reader. It is shown as an
escaped literal on one line, cut to a length.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_LIMIT = 60
_LONGEST_COMPARED = 200


def quoted(value: object, limit: int = _LIMIT) -> str:
    """An escaped, quoted, one-line spelling of a value, of at most `limit` characters."""
    spelling = repr(str(value)[:limit])
    if len(spelling) <= limit and len(str(value)) <= limit:
        return spelling
    return f"{spelling[: limit - 4]}...{spelling[0]}"


def listed(values: Iterable[object], most: int = 3) -> str:
    """The first values quoted, and how many more there are."""
    everything = list(values)
    shown = ", ".join(quoted(value) for value in everything[:most])
    return shown if len(everything) <= most else f"{shown} and {len(everything) - most:,} more"


def suggestion(name: str, names: Iterable[str]) -> str:
    """What to do about an unknown name: the closest known one, or else the first ones."""
    # Comparing is quadratic in the length of the names, so monstrous ones are not compared.
    by_folded = {known.casefold(): known for known in names if len(known) <= _LONGEST_COMPARED}
    close = get_close_matches(name[:_LONGEST_COMPARED].casefold(), list(by_folded), n=1)
    if close:
        return f"did you mean {quoted(by_folded[close[0]])}?"
    return f"choose one of {listed(by_folded.values(), most=8)}"
