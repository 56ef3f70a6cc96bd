"""The chat dialect's messages as a prompt: a model's own template gives the structure, contents stay contents.

The template is rendered with a mark in the place of each content. What lies between the marks is structure, read
with special tokens; contents are read without, so that a column called `<|im_end|>` is nine letters and no command.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from offline_tune.errors import ModelError, UsageError
from offline_tune.llm.contract import LanguageModel
from offline_tune.llm.template import render
from offline_tune.prompt.message import Message

MAX_PROMPT = 1 << 19


def chat_tokens(model: LanguageModel, messages: Sequence[Message]) -> list[int]:
    """The prompt that asks `model` to answer the last message.

    A template that knows no system messages gets the system's words in front of the first user message.

    Raises:
        UsageError: no message, or contents that are too long.
        ModelError: the model's template cannot render these messages.
    """
    _check(messages)
    try:
        parts = _parts(model, messages)
    except ModelError:
        if messages[0].role != "system" or len(messages) < 2:
            raise
        parts = _parts(model, _without_system(messages))
    tokens = [t for text, is_structure in parts for t in model.tokenize(text, is_structure)]
    start = list(model.prompt_start)
    return tokens if tokens[: len(start)] == start else start + tokens


def render_chat(template: str | None, messages: Sequence[Message], bos: str, eos: str) -> str:
    """The prompt as text, for people to read; `chat_tokens` makes the one that models read.

    Args:
        template: Jinja, untrusted; None or blank for a plain form.
        messages: the turns, the last of which is to be answered.
        bos: how the vocabulary spells the beginning of a text.
        eos: how it spells the end.

    Raises:
        UsageError: no message, or contents that are too long.
        ModelError: the template cannot render these messages.
    """
    _check(messages)
    if template is None or not template.strip():
        return "".join(f"### {m.role.capitalize()}:\n{m.content}\n\n" for m in messages) + "### Assistant:\n"
    return render(
        template,
        {
            "messages": [{"role": m.role, "content": m.content} for m in messages],
            "bos_token": bos,
            "eos_token": eos,
            "add_generation_prompt": True,
        },
    )


def _parts(model: LanguageModel, messages: Sequence[Message]) -> list[tuple[str, bool]]:
    """The prompt in pieces: a text, and whether it is structure."""
    template = model.info.chat_template
    mark = _unused_mark([template or "", *(m.content for m in messages)])
    marked = [replace(m, content=f"{mark}{i}{mark}") for i, m in enumerate(messages)]
    text = render_chat(template, marked, _spelling(model, "bos"), _spelling(model, "eos"))
    pieces = re.split(f"{mark}([0-9]+){mark}", text)
    missing = {str(i) for i in range(len(messages))} - set(pieces[1::2])
    if missing or any(mark in piece for piece in pieces):
        raise ModelError(
            f"the model's chat template must show each of {len(messages)} messages, got {len(missing)} lost or cut; "
            "choose another model"
        )
    return [
        (messages[int(piece)].content, False) if i % 2 else (piece, True) for i, piece in enumerate(pieces) if piece
    ]


def _without_system(messages: Sequence[Message]) -> Sequence[Message]:
    system, first, *others = messages
    return (replace(first, content=f"{system.content}\n\n{first.content}"), *others)


def _unused_mark(texts: Sequence[str]) -> str:
    """A character of Unicode's private use area that none of the texts holds."""
    used = set().union(*texts)
    return next(mark for mark in map(chr, range(0xE000, 0xF900)) if mark not in used)


def _spelling(model: LanguageModel, which: str) -> str:
    token = model.info.metadata.get(f"tokenizer.ggml.{which}_token_id")
    return model.vocabulary[token] if isinstance(token, int) and 0 <= token < len(model.vocabulary) else ""


def _check(messages: Sequence[Message]) -> None:
    size = sum(len(m.content) for m in messages)
    if not messages or size > MAX_PROMPT:
        raise UsageError(
            f"a chat must have messages of at most {MAX_PROMPT} characters, got {len(messages)} with {size}; "
            "show fewer trials"
        )
