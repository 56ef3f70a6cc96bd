"""A loaded model as Outlines sees models, with the promises of this project's decoder.

`outlines.from_llamacpp` would load the weights again and draw through `llama_cpp.Llama`, where (Outlines 1.3.3,
llama-cpp-python 0.3.36) a grammar is a callback whose exceptions are lost, so that *unconstrained* text comes back; the
text is cut at 16 tokens unless told otherwise; a prompt is evaluated anew for each answer; one of several
end-of-generation tokens counts; minimum and maximum are ignored or, by llguidance, refuse legal decimals; and a
tokenizer is built for each schema (0.8 s with 128,256 tokens). A subclass of `Llama` over our weights would keep all
of that and need a second context. So Outlines gets a model of its own kind: one that enforces output types itself.
Outlines hands the type over as it is, the adapter below makes it finite, and `LanguageModel.complete` draws under it,
with llguidance, all end tokens, jumps over forced tokens and the prompt cache. Any fault raises.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any

from outlines.inputs import Chat
from outlines.models import VLLMOffline
from outlines.models.base import Model, ModelTypeAdapter
from outlines.types.dsl import CFG, JsonSchema, Term, python_types_to_terms, to_regex

from offline_tune.distribution import quoted
from offline_tune.errors import UsageError
from offline_tune.llm.chat import chat_tokens
from offline_tune.llm.contract import LanguageModel, Sampling
from offline_tune.llm.structured.form import Form, bounded_text
from offline_tune.llm.structured.schema import bounded
from offline_tune.prompt.message import Message

_ROLES = ("system", "user", "assistant")


class OutlinesModel(Model):  # type: ignore[misc]
    """A `LanguageModel` for `outlines.Generator`.

    Calls take `seed` (one integer for one answer, or a list for as many), `temperature`, `top_p`, `min_p` as in
    `Sampling`, and `max_tokens`, which must be the bound of the output type or more and is that if left out.

    >>> import outlines
    >>> from typing import Literal
    >>> from offline_tune.llm.scripted import ScriptedModel
    >>> model = OutlinesModel(ScriptedModel([["yes"]]))
    >>> outlines.Generator(model, Literal["yes", "no"], backend="llguidance")("Is it fit?", seed=1)
    'yes'
    """

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self.type_adapter = TypeAdapter(model)

    def generate(
        self,
        model_input: object,
        output_type: object = None,
        *,
        seed: int | Sequence[int] = 0,
        max_tokens: int | None = None,
        **sampling: float,
    ) -> str | list[str]:
        """The answer to one prompt, or a list of them for a list of seeds.

        Raises:
            UsageError: the output type cannot be bounded, or an option does not fit.
            DecodingError: the grammar could not be enforced, or prompt and answer do not fit the context.
        """
        form = self.type_adapter.format_output_type(output_type)
        prompt = self.type_adapter.format_input(model_input)
        seeds = list(seed) if isinstance(seed, Sequence) else [int(seed)]
        longest = form.longest.utf8
        if max_tokens is not None and max_tokens < longest:
            raise UsageError(
                f"max_tokens must be at least {longest}, the longest answer, got {max_tokens}; "
                "shorten the strings and lists of the schema instead"
            )
        drawn = self.model.complete(
            prompt, self.model.matcher(form.regex), len(seeds), _sampling(sampling), seeds, max(longest, 1)
        )
        for completion in drawn:
            form.read(completion.text)
        texts = [completion.text for completion in drawn]
        return texts if isinstance(seed, Sequence) else texts[0]

    def generate_batch(self, model_input: Sequence[object], output_type: object = None, **options: Any) -> list[Any]:
        """The answers to several prompts, in their order; the part that begins them all is evaluated once."""
        form = self.type_adapter.format_output_type(output_type)
        return [self.generate(prompt, form, **options) for prompt in model_input]

    def generate_stream(self, model_input: object, output_type: object = None, **options: Any) -> Iterator[Any]:
        """The answer in one piece: a part of it would not be what was asked for."""
        yield self.generate(model_input, output_type, **options)


# Outlines asks whether a model is one of its own classes. Those that get the output type itself, not a logits
# processor, are "black boxes", and of these the offline engine is the one that runs in this process.
VLLMOffline.register(OutlinesModel)


class TypeAdapter(ModelTypeAdapter):  # type: ignore[misc]
    """What Outlines users write, as prompts and forms."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model

    def format_input(self, model_input: object) -> Sequence[int]:
        """The tokens of a question, of a chat (Outlines' or ours), or token ids as they are.

        Raises:
            UsageError: it is none of these.
            ModelError: the model's template cannot render the chat.
        """
        if isinstance(model_input, str):
            return chat_tokens(self._model, [Message("user", model_input)])
        if isinstance(model_input, Chat):
            return chat_tokens(self._model, [_message(message) for message in model_input.messages])
        parts = list(model_input) if isinstance(model_input, Sequence) and not isinstance(model_input, bytes) else []
        if parts and all(isinstance(part, Message) for part in parts):
            return chat_tokens(self._model, parts)
        if parts and all(isinstance(part, Integral) for part in parts):
            return parts
        raise UsageError(
            f"a prompt must be text, a chat, messages or token ids, got {quoted(model_input)}; put it as text"
        )

    def format_output_type(self, output_type: object = None) -> Form:
        """The finite form of an output type: a schema, a `Form`, a Python type or a term of Outlines.

        Raises:
            UsageError: it cannot be bounded.
        """
        if isinstance(output_type, Form):
            return output_type
        if isinstance(output_type, Mapping):
            return bounded(output_type)
        term = _term(output_type)
        if not isinstance(term, JsonSchema):
            return bounded_text(_regex(term))
        if term.whitespace_pattern:
            raise UsageError(
                f"an answer has no whitespace between its parts, got the whitespace_pattern "
                f"{quoted(term.whitespace_pattern)}; leave it out"
            )
        return bounded(json.loads(term.schema))


def _term(output_type: object) -> Term:
    if output_type is None:
        raise UsageError("an output type must be given, got none: free text has no end; give a JSON Schema")
    try:
        return python_types_to_terms(output_type)
    except Exception as error:  # noqa: BLE001  # a type says in its own code what its schema is
        raise UsageError(
            "an output type must be a JSON Schema or a type that Outlines knows, got "
            f"{quoted(output_type)} ({quoted(str(error))}); give a dict that holds a schema"
        ) from None


def _regex(term: Term) -> str:
    if isinstance(term, CFG):
        raise UsageError(
            f"an output type must end, got a context-free grammar {quoted(term.definition)}; "
            "write a schema or a pattern with counted repeats"
        )
    if _holds_schema(term):
        raise UsageError(
            f"an output type must be a schema or a pattern, got both in {quoted(term)}; use anyOf in one schema"
        )
    return str(to_regex(term))


def _holds_schema(term: Term) -> bool:
    parts = [*getattr(term, "terms", ()), *([term.term] if hasattr(term, "term") else [])]
    return isinstance(term, JsonSchema) or any(map(_holds_schema, parts))


def _message(message: Mapping[str, object]) -> Message:
    role, content = message.get("role"), message.get("content")
    if role not in _ROLES or not isinstance(content, str):
        raise UsageError(
            f"a message must have a role of {', '.join(_ROLES)} and text as content, got {quoted(message)}; correct it"
        )
    return Message(role, content)  # type: ignore[arg-type]


def _sampling(options: Mapping[str, Any]) -> Sampling:
    try:
        return Sampling(**options)
    except TypeError:
        raise UsageError(
            "a call may have seed, max_tokens, temperature, top_p and min_p as numbers, got "
            f"{quoted(dict(options))}; leave out the others"
        ) from None
