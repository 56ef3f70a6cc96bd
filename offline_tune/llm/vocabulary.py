"""A model's vocabulary: text to token ids and back.

The one place that decides what may be read as a special token. Knows nothing of contexts or grammars.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

from offline_tune.errors import DecodingError, ModelError, UsageError
from offline_tune.llm.backend import library

_MAX_TEXT_BYTES = 1 << 19


class Vocabulary:
    """The tokens of one loaded model. Dies with it: `retire` makes every later call raise."""

    def __init__(self, pointer: Any) -> None:
        self._api = library()
        self._pointer = pointer
        self._retired = False
        self._spelt: set[str] = set()
        self._pieces: dict[int, bytes] = {}
        self.size: int = self._api.llama_vocab_n_tokens(pointer)

    @property
    def pointer(self) -> Any:
        """llama.cpp's vocabulary.

        Raises:
            UsageError: the model was closed.
        """
        if self._retired:
            raise UsageError("a model must be open to be used, got a closed one; load it again")
        return self._pointer

    def retire(self) -> None:
        """The model is about to be freed."""
        self._retired = True

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """All tokens that end a generation, not the one `eos` alone."""
        return frozenset(t for t in range(self.size) if self._api.llama_vocab_is_eog(self.pointer, t))

    @cached_property
    def prompt_start(self) -> tuple[int, ...]:
        """The beginning-of-text token, where the file asks for one."""
        if not self._api.llama_vocab_get_add_bos(self.pointer):
            return ()
        token = int(self._api.llama_vocab_bos(self.pointer))
        return (token,) if token >= 0 else ()

    @cached_property
    def spellings(self) -> tuple[str, ...]:
        """The tokens as the file spells them, by id."""
        return tuple(map(self._spelling, range(self.size)))

    @cached_property
    def pieces(self) -> tuple[bytes | None, ...]:
        """The bytes of each token, by id; None for those that no text may hold."""
        control, defined = self._api.LLAMA_TOKEN_ATTR_CONTROL, self._api.LLAMA_TOKEN_ATTR_USER_DEFINED
        get = self._api.llama_vocab_get_attr

        def piece(token: int) -> bytes | None:
            kind, spelt = get(self.pointer, token), self._piece(token)
            is_mark = kind & control or (kind & defined and spelt[:1] == b"<" and spelt[-1:] == b">")
            return None if is_mark or token in self.end_ids else spelt

        return tuple(map(piece, range(self.size)))

    def token_id(self, piece: str) -> int:
        """The first token spelt `piece` in the file.

        Raises:
            ModelError: there is none.
        """
        try:
            return self._ids[piece]
        except KeyError:
            raise ModelError(
                f"the vocabulary must hold the token {piece[:60]!r}, got {self.size} tokens without it; "
                "choose a model made for this dialect"
            ) from None

    def tokenize(self, text: str, special: bool) -> list[int]:
        """Ids that spell `text`, nothing added; see `LanguageModel.tokenize`."""
        if special:
            return self._tokens(text, special=True)
        return [token for part in self._apart(text) for token in self._tokens(part, special=False)]

    def spell(self, tokens: Iterable[int]) -> str:
        """The text of `tokens`; bytes that are no UTF-8 become U+FFFD."""
        return b"".join(map(self._piece, tokens)).decode("utf-8", "replace")

    def check(self, tokens: Sequence[int], what: str) -> None:
        """Refuse an empty sequence and ids outside the vocabulary: llama.cpp would read past its tables.

        Raises:
            UsageError: it is empty or holds such an id.
        """
        if len(tokens) == 0:
            raise UsageError(f"{what} must hold at least one token, got none; begin with the model's prompt_start")
        wrong = [t for t in (min(tokens), max(tokens)) if not 0 <= t < self.size]
        if wrong:
            raise UsageError(
                f"{what} must hold token ids from 0 to {self.size - 1}, got {wrong[0]}; tokenize with this model"
            )

    def check_spelling(self, text: str) -> None:
        """Refuse characters that no tokens spell: vocabularies lack bytes that their makers never read.

        Punctuation of ASCII is taken for granted, so that a regular expression can be checked as it is.

        Raises:
            DecodingError: there is such a character.
        """
        for character in sorted(set(text) - self._spelt):
            if character.isascii() and not character.isalnum():
                continue
            if character not in self.spell(self.tokenize(character, special=False)):
                raise DecodingError(
                    f"the vocabulary must spell every character of a name or choice, got {character!a}, which no "
                    "token holds; rename what contains it, or choose another model"
                )
            self._spelt.add(character)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {piece: token for token, piece in reversed(list(enumerate(self.spellings)))}

    @cached_property
    def _special(self) -> re.Pattern[str] | None:
        """Finds where a special token's spelling begins, overlapping ones too."""
        # llama.cpp reads user-defined tokens in any text, even with parse_special off, and models declare
        # markers such as <|user|> as such; spellings of one letter or of spaces only mark nothing
        control, defined = self._api.LLAMA_TOKEN_ATTR_CONTROL, self._api.LLAMA_TOKEN_ATTR_USER_DEFINED
        get = self._api.llama_vocab_get_attr
        kept = (token for token in range(self.size) if get(self.pointer, token) & (control | defined))
        marks = [mark for mark in map(self._spelling, kept) if len(mark) > 1 and mark.strip(" \t\r\n▁")]
        return re.compile(f"(?={'|'.join(map(re.escape, marks))})") if marks else None

    def _apart(self, text: str) -> list[str]:
        """`text` cut within each spelling of a special token, so that no part holds one."""
        if self._special is None:
            return [text]
        cuts = [0, *dict.fromkeys(found.start() + 1 for found in self._special.finditer(text)), len(text)]
        return [text[a:b] for a, b in pairwise(cuts)]

    def _tokens(self, text: str, *, special: bool) -> list[int]:
        raw = text.encode("utf-8", "replace")
        if len(raw) > _MAX_TEXT_BYTES:
            raise UsageError(f"a text must have at most {_MAX_TEXT_BYTES} bytes, got {len(raw)}; shorten it")
        room = len(raw) + 2
        while True:
            ids = (self._api.llama_token * room)()
            n = self._api.llama_tokenize(self.pointer, raw, len(raw), ids, room, False, special)
            if n >= 0:
                return list(ids[:n])
            room = -n

    def _spelling(self, token: int) -> str:
        text: bytes | None = self._api.llama_vocab_get_text(self.pointer, token)
        return (text or b"").decode("utf-8", "backslashreplace")

    def _piece(self, token: int) -> bytes:
        if token not in self._pieces:
            self._pieces[token] = self._piece_of(token)
        return self._pieces[token]

    def _piece_of(self, token: int) -> bytes:
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            n = self._api.llama_token_to_piece(self.pointer, token, buffer, size, 0, True)
            if n >= 0:
                return buffer.raw[:n]
            size = -n
