"""Answers in free JSON: always whole, always parsed, always valid.

Roles ask through Outlines, whose `Generator` and output types users know, but the text comes from this project's own
decoder on the model that is loaded already (`structured.adapter`). Whatever is asked is first made finite
(`structured.schema`, `structured.pattern`), so its longest answer is known before the first token is drawn.

>>> from offline_tune.llm.scripted import ScriptedModel
>>> schema = {"type": "object", "properties": {"fault": {"enum": ["overfitting", "none"]}}, "required": ["fault"]}
>>> answer(ScriptedModel([['{"fault":"none"}']]), "What went wrong?", schema, seed=1)
{'fault': 'none'}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from offline_tune.llm.contract import LanguageModel, Sampling
from offline_tune.prompt.message import Message

__all__ = ["answer", "answers", "outlines_model"]

_PLAIN = Sampling()


def answer(
    model: LanguageModel,
    prompt: str | Sequence[int] | Sequence[Message],
    schema: Any,
    *,
    seed: int,
    sampling: Sampling = _PLAIN,
    max_tokens: int | None = None,
) -> Any:
    """The model's answer to one prompt; see `answers`."""
    (found,) = answers(model, prompt, schema, seeds=[seed], sampling=sampling, max_tokens=max_tokens)
    return found


def answers(
    model: LanguageModel,
    prompt: str | Sequence[int] | Sequence[Message],
    schema: Any,
    *,
    seeds: Sequence[int],
    sampling: Sampling = _PLAIN,
    max_tokens: int | None = None,
) -> tuple[Any, ...]:
    """One answer for each seed, drawn together after one prompt.

    Args:
        model: a loaded model; only the thread that loaded it may ask.
        prompt: a question, the messages of a chat, or token ids that are ready to be continued.
        schema: a JSON Schema (see `structured.schema` for what is taken), the `Form` that was made of one, or any
            output type of Outlines: `JsonSchema`, a pydantic model, a dataclass, a `Literal`, a term.
        seeds: integers, 0 or more; an answer depends on its own.
        sampling: how tokens are drawn.
        max_tokens: a budget; the bound of the schema if None. A smaller one is refused, since no answer is ever cut.

    Returns:
        For each seed the parsed value; the text itself where the type is a pattern.

    Raises:
        UsageError: the schema cannot be bounded, or an argument does not fit.
        DecodingError: the grammar could not be enforced, or prompt and answer do not fit the context.
        ModelError: the model's chat template cannot render the messages.
    """
    import outlines

    asked = outlines_model(model)
    form = asked.type_adapter.format_output_type(schema)
    generator = outlines.Generator(asked, form, backend="llguidance")
    texts = generator(
        prompt,
        seed=list(seeds),
        max_tokens=max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        min_p=sampling.min_p,
    )
    return tuple(form.read(text) for text in texts)


def outlines_model(model: LanguageModel) -> Any:
    """`model` as Outlines sees models, for `outlines.Generator(..., backend="llguidance")`.

    The weights are not loaded again; see `structured.adapter.OutlinesModel` for the options of a call.
    """
    # Outlines takes half a second to import, which a run without roles should not pay
    from offline_tune.llm.structured.adapter import OutlinesModel

    return OutlinesModel(model)
