"""Drafts of an instruct model, in the chat dialect: words in, one JSON object out."""

from __future__ import annotations

from collections.abc import Sequence

from offline_tune.cards import DataCard, ModelCard
from offline_tune.grammar import compile_grammar
from offline_tune.history import History
from offline_tune.llm.chat import chat_tokens
from offline_tune.llm.contract import LanguageModel, Sampling
from offline_tune.prompt.chat import chat_messages
from offline_tune.prompt.message import Message
from offline_tune.samplers.draft import Draft, Forecast, call_seeds
from offline_tune.samplers.proposal import Answer, Call
from offline_tune.space import SearchSpace, Values
from offline_tune.task import Metric

_CHARACTERS_A_TOKEN = 3.0  # the first guess at how much text fits


class ChatDrafter:
    """Asks an instruct model.

    Raises:
        SpaceError: the space cannot be written as a grammar.
    """

    def __init__(
        self,
        model: LanguageModel,
        space: SearchSpace,
        card: DataCard,
        model_cards: Sequence[ModelCard],
        metric: Metric,
        sampling: Sampling,
    ) -> None:
        self._model, self._space, self._sampling = model, space, sampling
        self._card, self._model_cards, self._metric = card, model_cards, metric
        self._grammar = compile_grammar(space)

    @property
    def space(self) -> SearchSpace:
        """The space of every draft."""
        return self._space

    @property
    def grammar_digest(self) -> str:
        """The digest of the regular expression."""
        return self._grammar.digest

    @property
    def familiarity(self) -> float:
        """One: an instruct model reads any name."""
        return 1.0

    def draft(self, history: History, k: int, seed: int, first_trial: int) -> tuple[tuple[Draft, ...], Call]:
        """K candidates after one prompt."""
        messages, prompt = self._prompt(history)
        before = self._model.counters
        completions = self._model.complete(
            prompt,
            self._model.matcher(self._grammar.regex),
            k,
            self._sampling,
            call_seeds(seed, first_trial, k),
            self._grammar.longest.utf8,
        )
        after = self._model.counters
        call = Call(
            first_trial=first_trial,
            prompt="\n\n".join(f"[{m.role}]\n{m.content}" for m in messages),
            grammar_digest=self.grammar_digest,
            answers=tuple(Answer(text=c.text, logprob=c.logprob, rejected_mass=c.rejected_mass) for c in completions),
            tokens_in=len(prompt),
            tokens_out=after.tokens_sampled - before.tokens_sampled,
            seconds=after.seconds - before.seconds,
        )
        return tuple(Draft(self._grammar.read(c.text), c.logprob) for c in completions), call

    def _prompt(self, history: History) -> tuple[tuple[Message, ...], list[int]]:
        """The fullest prompt that leaves room for the answer; how many tokens a text takes only the model can say."""
        room = self._model.n_ctx - self._grammar.longest.utf8
        max_chars = int(room * _CHARACTERS_A_TOKEN)
        while True:
            messages = chat_messages(self._card, self._model_cards, history, self._metric, max_chars=max_chars)
            prompt = chat_tokens(self._model, messages)
            if len(prompt) <= room:
                return messages, prompt
            length = sum(len(message.content) for message in messages)
            max_chars = min(length - 1, int(length * room / len(prompt)))

    def forecast(self, history: History, candidates: tuple[Values, ...]) -> tuple[Forecast, ...] | None:
        """None: an instruct model's idea of a score is not calibrated."""
        return None
