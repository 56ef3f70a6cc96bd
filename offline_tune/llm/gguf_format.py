"""The bytes of a GGUF header: bounds-checked reading of an untrusted file.

Layout (llama.cpp's docs/gguf.md, versions 2 and 3, little-endian): magic `GGUF`, u32 version, u64 tensor count,
u64 key count; each key a string, a u32 type and a value; each tensor a name, u32 dimension count, u64 dimensions,
u32 type and a u64 offset into the data section, which starts at the next multiple of `general.alignment`.
A string is a u64 length and its bytes.

Nothing is allocated by a size that the file claims: every claim is first compared with the bytes that are left.
Knows nothing of which models can be used; `llm.gguf_header` decides that.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from offline_tune.errors import ModelError

Scalar = str | int | float

VERSIONS = (2, 3)
MAX_KEYS = 65_536
MAX_TENSORS = 65_536
MAX_NAME_BYTES = 65_535
MAX_STRING_BYTES = 4 << 20
MAX_ARRAY_STRINGS = 4 << 20
MAX_ELEMENTS = 1 << 48
DEFAULT_ALIGNMENT = 32
TOKENS = "tokenizer.ggml.tokens"

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_SCALARS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: _U32,
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: _U64,
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_STRING, _ARRAY = 8, 9

# ggml's storage types, by id: (elements of a block, bytes of a block). A type that is not here has no checked end.
BLOCKS = {
    0: (1, 4),  # F32
    1: (1, 2),  # F16
    2: (32, 18),  # Q4_0
    3: (32, 20),  # Q4_1
    6: (32, 22),  # Q5_0
    7: (32, 24),  # Q5_1
    8: (32, 34),  # Q8_0
    10: (256, 84),  # Q2_K
    11: (256, 110),  # Q3_K
    12: (256, 144),  # Q4_K
    13: (256, 176),  # Q5_K
    14: (256, 210),  # Q6_K
    15: (256, 292),  # Q8_K
    16: (256, 66),  # IQ2_XXS
    17: (256, 74),  # IQ2_XS
    18: (256, 98),  # IQ3_XXS
    19: (256, 50),  # IQ1_S
    20: (32, 18),  # IQ4_NL
    21: (256, 110),  # IQ3_S
    22: (256, 82),  # IQ2_S
    23: (256, 136),  # IQ4_XS
    24: (1, 1),  # I8
    25: (1, 2),  # I16
    26: (1, 4),  # I32
    27: (1, 8),  # I64
    28: (1, 8),  # F64
    29: (256, 56),  # IQ1_M
    30: (1, 2),  # BF16
    34: (256, 54),  # TQ1_0
    35: (256, 66),  # TQ2_0
    39: (32, 17),  # MXFP4
}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where one tensor lies: its shape, ggml's storage type, and its first byte in the data section."""

    name: str
    shape: tuple[int, ...]
    type_id: int
    offset: int

    @property
    def n_elements(self) -> int:
        """The product of the dimensions."""
        return math.prod(self.shape)

    @property
    def n_bytes(self) -> int:
        """Bytes it takes, rounded up to blocks; 0 where the storage type is unknown here."""
        elements, size = BLOCKS.get(self.type_id, (1, 0))
        return -(-self.n_elements // elements) * size


@dataclass(frozen=True, slots=True)
class ParsedHeader:
    """What the header says, none of it believed beyond the file's bounds.

    Attributes:
        version: of the format.
        metadata: scalar keys.
        array_lengths: the lengths of keys that hold arrays; their contents are skipped.
        tokens: the strings of `tokenizer.ggml.tokens`, the one array that is kept.
        tensors: in the order of the file.
        data_start: first byte of the data section.
    """

    version: int
    metadata: Mapping[str, Scalar]
    array_lengths: Mapping[str, int]
    tokens: tuple[bytes, ...]
    tensors: tuple[TensorInfo, ...]
    data_start: int


def parse(data: bytes | mmap.mmap, name: str) -> ParsedHeader:
    """Read the header at the start of `data`, the entire file. `name` stands in messages.

    Raises:
        ModelError: anything that is not a well-formed header within the file.
    """
    cursor = _Cursor(data, name)
    version = _version(cursor)
    n_tensors = cursor.count(MAX_TENSORS, 24, "tensors")
    n_keys = cursor.count(MAX_KEYS, 13, "keys")
    metadata, arrays = _keys(cursor, n_keys)
    tensors = tuple(_tensor(cursor) for _ in range(n_tensors))
    alignment = _alignment(cursor, metadata)
    start = -(-cursor.position // alignment) * alignment
    _check_tensors(cursor, tensors, start, alignment)
    return ParsedHeader(
        version,
        MappingProxyType(metadata),
        MappingProxyType({key: array.length for key, array in arrays.items()}),
        arrays[TOKENS].strings if TOKENS in arrays else (),
        tensors,
        start,
    )


class _Cursor:
    """A position in the file that never passes its end."""

    def __init__(self, data: bytes | mmap.mmap, name: str) -> None:
        self.data = data
        self.name = name
        self.size = len(data)
        self.position = 0
        self.array_strings = 0

    def claim(self, n_bytes: int) -> int:
        """The position before the next `n_bytes`, which are passed."""
        start = self.position
        if n_bytes > self.size - start:
            raise ModelError(
                f"{self.name} must hold its whole header, got the end of the file at byte {self.size}; "
                "it is truncated: copy or download it again"
            )
        self.position = start + n_bytes
        return start

    def number(self, form: struct.Struct) -> int | float:
        value: int | float = form.unpack_from(self.data, self.claim(form.size))[0]
        return value

    def integer(self, form: struct.Struct) -> int:
        return int(self.number(form))

    def count(self, most: int, least_bytes: int, what: str) -> int:
        """A number of things that take at least `least_bytes` each."""
        value = self.integer(_U64)
        if value > most or value * least_bytes > self.size:
            raise self.damaged(f"at most {most} {what} that fit into the file", value)
        return value

    def text(self, most: int, errors: str) -> str:
        length = self.integer(_U64)
        if length > most:
            raise self.damaged(f"strings of at most {most} bytes", length)
        start = self.claim(length)
        try:
            return self.data[start : start + length].decode("utf-8", errors)
        except UnicodeDecodeError:
            raise self.damaged("names in UTF-8", f"other bytes at {start}") from None

    def strings(self, count: int, keep: bool) -> tuple[bytes, ...]:
        """An array of strings; passed without a copy unless they are to be kept."""
        self.array_strings += count
        if self.array_strings > MAX_ARRAY_STRINGS:
            raise self.damaged(f"at most {MAX_ARRAY_STRINGS} strings in arrays", self.array_strings)
        found = []
        for _ in range(count):
            start = self.claim(self.integer(_U64))
            if keep:
                found.append(self.data[start : self.position])
        return tuple(found)

    def damaged(self, rule: str, value: object) -> ModelError:
        return ModelError(f"{self.name} must hold {rule}, got {value}; it is damaged: copy or download it again")


def _version(cursor: _Cursor) -> int:
    magic = bytes(cursor.data[:4])
    if magic != b"GGUF":
        raise ModelError(
            f"{cursor.name} must be a GGUF file, got one that starts with {magic!r}; give a model in GGUF format"
        )
    cursor.claim(4)
    version = cursor.integer(_U32)
    if version not in VERSIONS:
        raise ModelError(
            f"{cursor.name} must be GGUF version 2 or 3, little-endian, got version {version}; "
            "convert it with a current llama.cpp"
        )
    return version


class _Array(NamedTuple):
    length: int
    strings: tuple[bytes, ...]


def _keys(cursor: _Cursor, count: int) -> tuple[dict[str, Scalar], dict[str, _Array]]:
    metadata: dict[str, Scalar] = {}
    arrays: dict[str, _Array] = {}
    for _ in range(count):
        key = cursor.text(MAX_NAME_BYTES, "strict")
        if key in metadata or key in arrays:
            raise cursor.damaged("each key once", f"{key[:60]!r} twice")
        type_id = cursor.integer(_U32)
        if type_id == _ARRAY:
            arrays[key] = _array(cursor, keep=key == TOKENS)
        elif type_id == _STRING:
            metadata[key] = cursor.text(MAX_STRING_BYTES, "replace")
        else:
            metadata[key] = cursor.number(_scalar(cursor, type_id))
    return metadata, arrays


def _array(cursor: _Cursor, keep: bool) -> _Array:
    type_id = cursor.integer(_U32)
    count = cursor.integer(_U64)
    if type_id == _STRING:
        return _Array(count, cursor.strings(count, keep))
    cursor.claim(count * _scalar(cursor, type_id).size)
    return _Array(count, ())


def _scalar(cursor: _Cursor, type_id: int) -> struct.Struct:
    form = _SCALARS.get(type_id)
    if form is None:
        raise cursor.damaged("values of GGUF's scalar types", f"type {type_id}")
    return form


def _tensor(cursor: _Cursor) -> TensorInfo:
    name = cursor.text(MAX_NAME_BYTES, "strict")
    n_dimensions = cursor.integer(_U32)
    if not 1 <= n_dimensions <= 4:
        raise cursor.damaged("tensors of 1 to 4 dimensions", n_dimensions)
    shape = tuple(cursor.integer(_U64) for _ in range(n_dimensions))
    if not 0 < math.prod(shape) <= MAX_ELEMENTS:
        raise cursor.damaged(f"tensors of 1 to {MAX_ELEMENTS} elements", shape)
    return TensorInfo(name, shape, cursor.integer(_U32), cursor.integer(_U64))


def _alignment(cursor: _Cursor, metadata: Mapping[str, Scalar]) -> int:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment not in (1 << i for i in range(3, 17)):
        raise cursor.damaged("an alignment that is a power of two from 8 to 65536", str(alignment)[:60])
    return alignment


def _check_tensors(cursor: _Cursor, tensors: tuple[TensorInfo, ...], start: int, alignment: int) -> None:
    names: set[str] = set()
    for tensor in tensors:
        if tensor.name in names:
            raise cursor.damaged("each tensor once", f"{tensor.name[:60]!r} twice")
        names.add(tensor.name)
        if tensor.offset % alignment:
            raise cursor.damaged(f"tensors at multiples of {alignment}", f"offset {tensor.offset}")
        end = start + tensor.offset + tensor.n_bytes
        if end > cursor.size:
            raise ModelError(
                f"{cursor.name} must hold its tensors up to byte {end}, got a file of {cursor.size} bytes; "
                "it is truncated: copy or download it again"
            )
