"""Random-weight Llamas over vocabularies like those of real models, for tests and benchmarks.

`small_vocabulary` is a byte-pair encoding of some 4,000 pieces, learnt from the texts that come with Python;
`large_vocabulary` has the size, the order and the awkward pieces of Llama 3's 128,256: all digit triples, quotes that
grow together with braces, commas and colons, halves of UTF-8 characters, runs of more than 32 bytes, three tokens
that end a generation. `read_vocabulary` takes that of a real file. Weights know nothing, so any text is likely.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, pairwise, product
from pathlib import Path

import gguf
import numpy as np
from gguf_maker import CONTROL, NORMAL, byte_letters, make_gguf

_LETTERS = tuple(byte_letters())
_SMALL, _LARGE, _LARGE_ENDS = 4_096, 128_256, 128_000
# what a search space is written with, so that its pieces grow together as they do in models that have read JSON
_JSON = (
    '{"learning_rate":1.00e-3,"max_depth":10,"subsample":0.75,"booster":"gbtree","use_bias":true,"seed":null}',
    '{"optimizer":"adamw","weight_decay":2.5e-05,"layers":[64,128,256],"schedule":{"kind":"cosine","warmup":500}}',
    '{"a":"","b":[],"c":{},"d":"x","e":-1}, {"f": "y", "g": false}',
)
_FOREIGN = (
    "naïve café Größe œuvre данные модель обучение 数据 模型 学习率 データ モデル ελληνικά עברית 🙂🤖🚀 — “quoted” … ½"
)
_WORDS = re.compile(r"'(?:[sdmt]|ll|ve|re)| ?[^\W\d_]+| ?\d{1,3}| ?(?:[^\s\w]|_)+|\s+")


@dataclass(frozen=True)
class BpeVocabulary:
    """A byte-pair encoding: pieces in GPT-2's letters, by id.

    Attributes:
        pre: llama.cpp's name for how a text is cut before merging.
        ends: ids of the tokens that end a generation.
    """

    pieces: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...]
    pre: str
    bos: int
    eos: int
    ends: tuple[int, ...]


def make_random_llama(path: Path, vocabulary: BpeVocabulary, *, width: int = 64, **options: object) -> Path:
    """A Llama of one layer in half precision; `options` go to `gguf_maker.make_gguf`."""
    shape = {"layers": 1, "heads": 2, "n_ctx": 65_536, "half": True, **options}
    return make_gguf(
        path,
        tokens=vocabulary.pieces,
        types=vocabulary.types,
        merges=vocabulary.merges,
        pre=vocabulary.pre,
        bos=vocabulary.bos,
        eos=vocabulary.eos,
        width=width,
        **shape,  # type: ignore[arg-type]
    )


Pair = tuple[str, str]


@cache
def small_vocabulary() -> BpeVocabulary:
    """4,096 tokens, the last two of which open and end a text."""
    specials = ("<|begin_of_text|>", "<|end_of_text|>")
    merges = _learn(_SMALL - len(_LETTERS) - len(specials))
    return _assemble(merges, specials, "gpt-2", bos=specials[0], eos=specials[1], ends=specials[1:])


@cache
def large_vocabulary() -> BpeVocabulary:
    """128,256 tokens; the specials begin at 128,000 as in Llama 3."""
    first = (*_digit_triples(), *_halves(), *_runs(), *_learn(6_000))
    merges: dict[str, Pair] = {}
    for pair in chain(first, _compounds([*map("".join, first)])):
        merges.setdefault("".join(pair), pair)
        if len(merges) == _LARGE_ENDS - len(_LETTERS):
            break
    named = {0: "begin_of_text", 1: "end_of_text", 6: "start_header_id", 7: "end_header_id", 8: "eom_id", 9: "eot_id"}
    specials = tuple(f"<|{named.get(i, f'reserved_special_token_{i}')}|>" for i in range(_LARGE - _LARGE_ENDS))
    ends = ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")
    return _assemble(tuple(merges.values()), specials, "llama-bpe", bos=specials[0], eos=specials[1], ends=ends)


def read_vocabulary(path: Path) -> BpeVocabulary:
    """The byte-pair encoding of a GGUF file, such as `ggml-vocab-llama-bpe.gguf` of llama.cpp's sources."""
    fields = gguf.GGUFReader(path).fields
    pieces = tuple(fields["tokenizer.ggml.tokens"].contents())
    bos, eos = (int(fields[f"tokenizer.ggml.{which}_token_id"].contents()) for which in ("bos", "eos"))
    return BpeVocabulary(
        pieces=pieces,
        types=tuple(fields["tokenizer.ggml.token_type"].contents()),
        merges=tuple(fields["tokenizer.ggml.merges"].contents()),
        pre=fields["tokenizer.ggml.pre"].contents(),
        bos=bos,
        eos=eos,
        ends=tuple(i for i, p in enumerate(pieces) if i == eos or p in ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")),
    )


def _assemble(
    merges: Sequence[Pair], specials: Sequence[str], pre: str, *, bos: str, eos: str, ends: Sequence[str]
) -> BpeVocabulary:
    pieces = (*_LETTERS, *map("".join, merges), *specials)
    first = len(pieces) - len(specials)
    ids = {special: first + i for i, special in enumerate(specials)}
    return BpeVocabulary(
        pieces=pieces,
        types=(NORMAL,) * first + (CONTROL,) * len(specials),
        merges=tuple(map(" ".join, merges)),
        pre=pre,
        bos=ids[bos],
        eos=ids[eos],
        ends=tuple(ids[end] for end in ends),
    )


def _corpus() -> str:
    from pydoc_data.topics import topics

    return "\n".join([*topics.values(), *_JSON * 200, *[_FOREIGN] * 50])


@cache
def _learn(n: int) -> tuple[Pair, ...]:
    """The first n merges of a byte-pair encoding of the corpus, the most frequent pair first (Sennrich 2016)."""
    words = Counter(_WORDS.findall(_corpus()))
    spelt = [[_LETTERS[byte] for byte in word.encode()] for word in words]
    counts, homes = Counter[Pair](), defaultdict[Pair, set[int]](set)
    for home, (pieces, weight) in enumerate(zip(spelt, words.values(), strict=True)):
        for pair in pairwise(pieces):
            counts[pair] += weight
            homes[pair].add(home)
    weights = list(words.values())
    queue = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(queue)
    merges: dict[Pair, None] = {}
    made = set(_LETTERS)
    while len(merges) < n:
        count, pair = heapq.heappop(queue)
        if -count != counts[pair] or pair in merges:
            continue  # counted again since
        changed = _merge(pair, spelt, weights, counts, homes)
        if "".join(pair) not in made:
            made.add("".join(pair))
            merges[pair] = None
        for other in changed:
            heapq.heappush(queue, (-counts[other], other))
    return tuple(merges)


def _merge(pair: Pair, spelt: list[list[str]], weights: list[int], counts: Counter[Pair], homes: dict) -> set[Pair]:
    """Join a pair wherever it stands; returns the pairs whose counts changed."""
    changed: set[Pair] = set()
    for home in homes.pop(pair):
        before = spelt[home]
        after = spelt[home] = _joined(before, pair)
        for pieces, sign in ((before, -1), (after, 1)):
            for found in pairwise(pieces):
                counts[found] += sign * weights[home]
                changed.add(found)
        for found in pairwise(after):
            homes[found].add(home)
    changed.discard(pair)
    return changed


def _joined(pieces: list[str], pair: Pair) -> list[str]:
    found: list[str] = []
    for piece in pieces:
        if found and (found[-1], piece) == pair:
            found[-1] += piece
        else:
            found.append(piece)
    return found


def _digit_triples() -> Iterator[Pair]:
    digits = "0123456789"
    yield from product(digits, digits)
    yield from product(map("".join, product(digits, digits)), digits)


def _runs() -> Iterator[Pair]:
    """Runs of one character, doubled up to 128 bytes."""
    for byte in b' \n\t-=*/#_."\\':
        run = _LETTERS[byte]
        while len(run) < 128:
            yield run, run
            run += run


def _halves() -> Iterator[Pair]:
    """The first two bytes of three, of all that is written in East Asia."""
    yield from product(_LETTERS[0xE2:0xEA], _LETTERS[0x80:0xC0])


def _compounds(pieces: Sequence[str]) -> Iterator[Pair]:
    """Pairs of pieces without end, the frequent ones first; no number grows beyond three digits."""
    rng = np.random.default_rng(0)
    while True:
        places = (rng.random((10_000, 2)) ** 2 * len(pieces)).astype(int)
        for left, right in ((pieces[a], pieces[b]) for a, b in places.tolist()):
            if not (left[-1].isdigit() and right[0].isdigit()):
                yield left, right
