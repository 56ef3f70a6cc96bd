"""The engines that follow a grammar, as matchers over one vocabulary of bytes and words."""

from llguidance import LLTokenizer, TokenizerWrapper
from reference_matcher import ReferenceMatcher

from offline_tune.llm.index import Indexer
from offline_tune.llm.mask import allowed
from offline_tune.llm.matcher import RegexMatcher

END = 0
WORDS = (b'{"', b'":', b',"', b'"}', b"10", b"00", b"e-", b"true", b"ab", b"abc", b"lr", b'e":', "é".encode(), b"\xa9x")
PIECES = (None, *(bytes([byte]) for byte in range(256)), *WORDS)
N_VOCAB = len(PIECES)
LONGEST_FIRST = sorted(range(1, N_VOCAB), key=lambda token: -len(PIECES[token]))


def tokens_of(text: bytes) -> list[int]:
    """The longest tokens from left to right."""
    tokens = []
    while text:
        tokens.append(next(token for token in LONGEST_FIRST if text.startswith(PIECES[token])))
        text = text[len(PIECES[tokens[-1]]) :]
    return tokens


def text_of(tokens) -> bytes:
    return b"".join(PIECES[token] or b"" for token in tokens)


class _Tokenizer:
    """What llguidance asks of a tokenizer."""

    eos_token_id, bos_token_id, special_token_ids = END, None, (END,)
    tokens = (b"\xff</s>", *PIECES[1:])

    def __call__(self, text) -> list[int]:
        return tokens_of(text if isinstance(text, bytes) else text.encode())


_LLGUIDANCE = LLTokenizer(TokenizerWrapper(_Tokenizer()), eos_token=END)
_INDEXER = Indexer(PIECES, [END])

ENGINES = {
    "llguidance": lambda regex: RegexMatcher(_LLGUIDANCE, regex),
    "outlines-core": _INDEXER.matcher,
    "reference": lambda regex: ReferenceMatcher(PIECES, [END], regex),
}


def may_follow(matcher) -> list[int]:
    return allowed(matcher, N_VOCAB).tolist()


def walk(matcher, choose, use_forced: bool) -> list[int]:
    """The tokens of one text, each chosen from the allowed ones; the forced ones at once, or one by one."""
    tokens = []
    while not matcher.finished:
        step = (matcher.forced() if use_forced else ()) or (choose(may_follow(matcher)),)
        matcher.advance(step)
        tokens += step
    return tokens
