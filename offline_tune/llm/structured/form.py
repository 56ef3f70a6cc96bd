"""Finite sets of answers: how they are written, and what is among them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from offline_tune.distribution import quoted
from offline_tune.errors import DecodingError
from offline_tune.grammar import Length, text_regex
from offline_tune.llm.structured.pattern import Strings, either, parse_pattern


@dataclass(frozen=True)
class Form:
    """A finite set of answers.

    Attributes:
        strings: the answers as they are written.
        accepts: whether a value is among them; of the parsed value if `is_json`, else of the text.
        is_json: whether an answer is JSON, or text that stands for itself.
    """

    strings: Strings
    accepts: Callable[[object], bool] = field(compare=False, repr=False)
    is_json: bool = True

    @property
    def regex(self) -> str:
        """Matches every answer as it is written, and nothing else."""
        return self.strings.regex

    @property
    def longest(self) -> Length:
        """The length of the longest answer; none takes more tokens than that has bytes."""
        return self.strings.longest

    def read(self, text: str) -> Any:
        """The value of an answer.

        Raises:
            DecodingError: the text is no answer; a grammar that holds never lets it come so far.
        """
        try:
            value = json.loads(text) if self.is_json else text
            is_answer = len(text) <= self.longest.characters and self.accepts(value)
        except ValueError:
            is_answer = False
        if not is_answer:
            raise DecodingError(
                f"an answer must be one of its schema's, got {quoted(text)}; this is a bug of the decoder, report it"
            )
        return value


def bounded_text(pattern: str) -> Form:
    """The strings of a pattern as answers that stand for themselves.

    Raises:
        UsageError: see `parse_pattern`.
    """
    strings = parse_pattern(pattern, in_json=False)
    return Form(strings, text_check(strings), is_json=False)


def union(forms: Sequence[Form]) -> Form:
    """The answers of all forms of JSON."""
    if len(forms) == 1:
        return forms[0]
    return Form(either([f.strings for f in forms]), lambda value: any(f.accepts(value) for f in forms))


def text_check(strings: Strings) -> Callable[[object], bool]:
    """Whether a value is one of these strings."""
    expression = re.compile(strings.regex)
    return lambda value: isinstance(value, str) and expression.fullmatch(value) is not None


def one_text(text: str) -> Strings:
    """The set that holds this text alone."""
    return Strings(text_regex(text), len(text), Length(len(text), len(text.encode("utf-8", "replace"))))


def written(value: object) -> str:
    """The one spelling of a value."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
