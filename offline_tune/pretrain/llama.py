"""A small Llama in torch, layer for layer what llama.cpp computes for the architecture `llama`.

Notation: b sequences, t positions, d width, h heads, v vocabulary, p parameters that the vocabulary knows, l levels.
Embedding and output share one matrix. The row of a value token is the sum of two learnt vectors, one for its
parameter and one for its level, so that what is learnt of one parameter's order serves all; the GGUF holds the sums.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from offline_tune.prompt.vocabulary import (
    CHOICES,
    N_CHOICE_SLOTS,
    N_LEVELS,
    N_NUMBER_SLOTS,
    N_OUTCOMES,
    NUMBERS,
    VOCABULARY,
)

_KINDS = 3  # of level vectors: numbers, words of known choices, places of unknown choices


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaConfig:
    """The shape of a model; `width` must be a multiple of 2 * `heads`, and of 32 for 8-bit export."""

    width: int = 192
    layers: int = 4
    heads: int = 3
    feed_forward: int = 512
    context: int = 4096
    rope_base: float = 10_000.0
    norm_epsilon: float = 1e-5

    def to_dict(self) -> dict[str, float]:
        """The fields by name."""
        return asdict(self)


class Norm(nn.Module):
    """Root-mean-square normalisation with a learnt scale."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., d)."""
        return functional.rms_norm(x, (x.shape[-1],), self.weight, self.epsilon)


class Block(nn.Module):
    """Attention with rotary positions, then a gated feed-forward."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        width, inner = config.width, config.feed_forward
        self.heads = config.heads
        self.attn_norm, self.ffn_norm = (Norm(width, config.norm_epsilon) for _ in range(2))
        self.attn_q, self.attn_k, self.attn_v, self.attn_output = (
            nn.Linear(width, width, bias=False) for _ in range(4)
        )
        self.ffn_gate, self.ffn_up = (nn.Linear(width, inner, bias=False) for _ in range(2))
        self.ffn_down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, prefix: int, mask: Tensor) -> Tensor:
        """X (b, t, d), cos and sin (b, 1, t, d/h/2), mask (b, 1, t - prefix, t) -> (b, t, d)."""
        b, t, d = x.shape
        normed = self.attn_norm(x)
        q, k, v = (
            layer(normed).view(b, t, self.heads, -1).transpose(1, 2)
            for layer in (self.attn_q, self.attn_k, self.attn_v)
        )
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        attended = functional.scaled_dot_product_attention(
            q[:, :, :prefix], k[:, :, :prefix], v[:, :, :prefix], is_causal=True
        )
        if prefix < t:
            asked = functional.scaled_dot_product_attention(q[:, :, prefix:], k, v, attn_mask=mask)
            attended = torch.cat([attended, asked], dim=2)
        x = x + self.attn_output(attended.transpose(1, 2).reshape(b, t, d))
        normed = self.ffn_norm(x)
        raised: Tensor = self.ffn_down(functional.silu(self.ffn_gate(normed)) * self.ffn_up(normed))
        return x + raised


class Embedding(nn.Module):
    """The rows of all tokens, value tokens by parts."""

    kinds: Tensor  # (p,) which level vectors a parameter uses

    def __init__(self, width: int) -> None:
        super().__init__()
        n_parameters = len(VOCABULARY.parameters)
        self.plain = nn.Parameter(0.02 * torch.randn(VOCABULARY.first_value, width))
        self.parameter = nn.Parameter(0.02 * torch.randn(n_parameters, width))
        self.levels = nn.Parameter(0.02 * torch.randn(_KINDS, N_LEVELS, width))
        with torch.no_grad():
            # Neighbouring levels start as neighbouring vectors: without it, order has to be learnt token by token.
            self.levels[0] = _ordered(N_LEVELS, width)
            first = VOCABULARY.first_outcome
            self.plain[first : first + N_OUTCOMES] = _ordered(N_OUTCOMES, width)
        known = [0] * len(NUMBERS) + [1] * len(CHOICES)
        kinds = [*known, *[0] * N_NUMBER_SLOTS, *[2] * N_CHOICE_SLOTS]
        self.register_buffer("kinds", torch.tensor(kinds), persistent=False)

    def table(self) -> Tensor:
        """(v, d) the row of each token."""
        values = self.parameter[:, None] + self.levels[self.kinds]  # (p, 1, d) + (p, l, d) -> (p, l, d)
        return torch.cat([self.plain, values.flatten(0, 1)])

    def value_logits(self, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Logits over the levels of each target's own parameter, and the target's level.

        Args:
            hidden: (n, d).
            targets: (n,) ids of value tokens.

        Returns:
            (n, l) and (n,). The parameter's part of the rows is the same for all levels, so it cancels out.
        """
        place = targets - VOCABULARY.first_value
        kind = self.kinds[place // N_LEVELS]
        logits = torch.einsum("nd,kld->nkl", hidden, self.levels)
        return logits[torch.arange(len(kind), device=kind.device), kind], place % N_LEVELS

    def outcome_logits(self, hidden: Tensor) -> Tensor:
        """(n, d) -> (n, N_OUTCOMES)."""
        first = VOCABULARY.first_outcome
        return functional.linear(hidden, self.plain[first : first + N_OUTCOMES])


class Llama(nn.Module):
    """Tokens in, hidden states or logits out."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = Norm(config.width, config.norm_epsilon)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
        self.embedding = Embedding(config.width)

    def forward(
        self, tokens: Tensor, positions: Tensor, prefix: int, mask: Tensor, wanted: Tensor | None = None
    ) -> Tensor:
        """Hidden states of a batch: a causal prefix, then questions that look at it and at themselves.

        Args:
            tokens: (b, t) ids.
            positions: (b, t) rotary positions.
            prefix: how many positions are the prefix; t for plain causal sequences.
            mask: (b, t - prefix, t) True where a question's position may look.
            wanted: (b, t) True where states are needed; None for everywhere.

        Returns:
            (n_wanted, d), or (b, t, d) where `wanted` is None.
        """
        x = functional.embedding(tokens, self.embedding.table())
        cos, sin = _angles(positions, self.config)
        for block in self.blocks:
            x = block(x, cos, sin, prefix, mask[:, None])
        normed: Tensor = self.norm(x if wanted is None else x[wanted])
        return normed

    def logits(self, tokens: Tensor) -> Tensor:
        """(b, t) plain causal sequences -> (b, t, v), as llama.cpp gives them."""
        b, t = tokens.shape
        positions = torch.arange(t).expand(b, t)
        hidden = self(tokens, positions, t, torch.ones(b, 0, t, dtype=torch.bool))
        return functional.linear(hidden, self.embedding.table())


def _ordered(count: int, width: int) -> Tensor:
    """(count, width) vectors that change slowly from row to row."""
    place = torch.linspace(0, 1, count)[:, None]
    rate = 2 ** torch.linspace(-1, 4, width)[None]
    phase = torch.rand(1, width) * 2 * torch.pi
    return 0.028 * torch.cos(2 * torch.pi * place * rate + phase)


def _angles(positions: Tensor, config: LlamaConfig) -> tuple[Tensor, Tensor]:
    size = config.width // config.heads
    rate = config.rope_base ** (-torch.arange(0, size, 2, device=positions.device).float() / size)
    angle = positions[:, None, :, None].float() * rate
    return angle.cos(), angle.sin()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    # Interleaved pairs: the order that llama.cpp uses for this architecture.
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2).type_as(x)
