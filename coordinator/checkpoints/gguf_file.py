"""The header of a GGUF file: metadata, and where each tensor lies. Checks sizes before it believes them.

Covers: GGUF versions 2 and 3, little-endian; models that llama.cpp's gguf-split has split. The `gguf` package's own
reader makes a numpy object of every token: 2.4 s and 150 MB for 49,152 of them, where this takes a tenth.
Does not cover: tensor data (gguf_reader.py), what the metadata means (gguf_metadata.py and tokenizer/gguf_vocab.py).
Source: the GGUF specification; block sizes from the `gguf` package.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from common.errors import CheckpointError
from coordinator.checkpoints.config_values import shown
from coordinator.checkpoints.gguf_place import MAGIC, part_paths
from coordinator.checkpoints.lean_gguf import GGML_QUANT_SIZES, GGMLQuantizationType

_VERSIONS = (2, 3)
_MAX_DIMENSION_COUNT = 4
_MAX_STRING_BYTES = 16 << 20
_MAX_COUNT = 1 << 24
"""Entries of a list, tensors of a file: far above any vocabulary."""
_DEFAULT_ALIGNMENT = 32

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
"""GGUF value type and its struct format."""
_NUMBERS = {layout: struct.Struct(layout) for layout in _SCALARS.values()}
"""Ready before a file is read: made between its texts, each would keep a megabyte of their memory."""
_PIECE_BYTES = 1 << 20
"""Of a list of texts: read at once."""
_STRING = 8
_ARRAY = 9
_TEXT_SIZE = struct.Struct("<Q")


@dataclass(frozen=True, kw_only=True)
class GgufTensor:
    """One tensor as the header describes it."""

    name: str
    shape: tuple[int, ...]
    """Slowest dimension first, as numpy has it; the file has it the other way round."""
    encoding: GGMLQuantizationType
    offset_bytes: int
    """From the start of the file."""
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class GgufHeader:
    """All that a GGUF file says before its data."""

    path: Path
    metadata: dict[str, Any]
    """Numbers, truth values, texts, and lists of one kind of them."""
    tensors: tuple[GgufTensor, ...]
    metadata_bytes: int
    """Where the metadata ends, from the start of the file."""


def read_gguf_header(path: Path, *, with_texts: bool = True) -> GgufHeader:
    """Return the header of `path`. Args: with_texts: False leaves the texts of lists empty, which takes half as long.

    Raises: CheckpointError: not a GGUF file of a known version, cut short, or with sizes that the file cannot have.
    """
    try:
        file_bytes = path.stat().st_size
        with path.open("rb") as file:
            return _HeaderParser(path, file, file_bytes, with_texts=with_texts).parse()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error


def read_gguf_parts(path: Path) -> tuple[GgufHeader, ...]:
    """Return the header of `path`, and of the parts after it where the model is split; metadata is the first one's.

    The texts of lists are empty: a vocabulary is nothing that weights need.

    Raises: CheckpointError: see read_gguf_header; a part is missing, or is not of this model.
    """
    first = read_gguf_header(path, with_texts=False)
    count = first.metadata.get("split.count", 1)
    if not isinstance(count, int) or count < 2:
        return (first,)
    parts = (first, *(read_gguf_header(part, with_texts=False) for part in part_paths(path, count)[1:]))
    for number, part in enumerate(parts):
        if (part.metadata.get("split.no"), part.metadata.get("split.count")) != (number, count):
            raise CheckpointError(f"{part.path} is not part {number + 1} of {count}; download it again")
    tensor_count = sum(len(part.tensors) for part in parts)
    if first.metadata.get("split.tensors.count", tensor_count) != tensor_count:
        raise CheckpointError(f"{path} and its other parts hold {tensor_count} tensors, and it announces "
                              f"{shown(first.metadata['split.tensors.count'])}; download them again")  # fmt: skip
    return parts


class _HeaderParser:
    """Reads one value after another; every length is compared with what is left of the file."""

    def __init__(self, path: Path, file: BufferedReader, file_bytes: int, *, with_texts: bool) -> None:
        self._path = path
        self._file = file
        self._file_bytes = file_bytes
        self._with_texts = with_texts
        self._position = 0

    def parse(self) -> GgufHeader:
        if self._take(len(MAGIC)) != MAGIC:
            raise CheckpointError(f"{self._path} is not a GGUF file")
        version = self._number("<I")
        if version not in _VERSIONS:
            raise CheckpointError(f"{self._path} has GGUF version {version}; 2 and 3, little-endian, can be read")
        tensor_count, entry_count = self._number("<Q"), self._number("<Q")
        self._check_count(tensor_count, 8 + 4 + 8 + 4 + 8)
        self._check_count(entry_count, 8 + 4 + 1)
        metadata: dict[str, Any] = {}
        for _ in range(entry_count):
            key = self._text()
            if key in metadata:
                raise CheckpointError(f"{self._path} has the key {shown(key)} twice")
            metadata[key] = self._value(self._number("<I"))
        metadata_bytes = self._position
        entries = [self._tensor_entry() for _ in range(tensor_count)]
        alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20 or alignment & (alignment - 1):
            raise CheckpointError(f"{self._path}: 'general.alignment' is {shown(alignment)}; a power of two is needed")
        data_start = -(-self._position // alignment) * alignment
        tensors = tuple(self._placed(entry, data_start) for entry in entries)
        return GgufHeader(path=self._path, metadata=metadata, tensors=tensors, metadata_bytes=metadata_bytes)

    def _tensor_entry(self) -> tuple[str, tuple[int, ...], GGMLQuantizationType, int]:
        name = self._text()
        dimension_count = self._number("<I")
        if not 1 <= dimension_count <= _MAX_DIMENSION_COUNT:
            raise CheckpointError(f"{self._path}: {shown(name)} has {dimension_count} dimensions")
        shape = tuple(reversed([self._number("<Q") for _ in range(dimension_count)]))
        encoding = self._number("<I")
        try:
            return name, shape, GGMLQuantizationType(encoding), self._number("<Q")
        except ValueError:
            raise CheckpointError(f"{self._path}: {shown(name)} has the unknown encoding {encoding}") from None

    def _placed(self, entry: tuple[str, tuple[int, ...], GGMLQuantizationType, int], data_start: int) -> GgufTensor:
        """Return the tensor with its place in the file, once that is known to exist."""
        name, shape, encoding, offset = entry
        block_values, block_bytes = GGML_QUANT_SIZES[encoding]
        if shape[-1] % block_values:
            raise CheckpointError(f"{self._path}: rows of {shown(name)} are not whole blocks of {encoding.name}")
        size = block_bytes * (shape[-1] // block_values)
        for dimension in shape[:-1]:
            size *= dimension
        if not size or data_start + offset + size > self._file_bytes:
            raise CheckpointError(f"{self._path} ends before its tensor {shown(name)}; download it again")
        return GgufTensor(name=name, shape=shape, encoding=encoding, offset_bytes=data_start + offset, size_bytes=size)

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY:
            item_kind, count = self._number("<I"), self._number("<Q")
            if item_kind == _STRING:
                self._check_count(count, 8)
                return self._texts(count)
            layout = self._layout(item_kind)
            item_bytes = _NUMBERS[layout].size
            self._check_count(count, item_bytes)
            # Not struct.unpack, which keeps this layout for the next list of as many.
            return list(struct.Struct(f"<{count}{layout[1]}").unpack(self._take(count * item_bytes)))
        return self._number(self._layout(kind))

    def _layout(self, kind: int) -> str:
        if kind not in _SCALARS:
            raise CheckpointError(
                f"{self._path} is damaged at byte {self._position}, a value of kind {kind}; download it again"
            )
        return _SCALARS[kind]

    def _text(self) -> str:
        size = self._number("<Q")
        self._check_text(size, self._position)
        return self._take(size).decode("utf-8", errors="replace")

    def _texts(self, count: int) -> list[str]:
        """Return so many texts, as `_text` would one after another: a vocabulary has 100,000 of them."""
        keeps = self._with_texts
        texts = [] if keeps else [""] * count
        size_at, size_bytes = _TEXT_SIZE.unpack_from, _TEXT_SIZE.size
        data, start = b"", 0
        while count:
            piece = self._file.read(_PIECE_BYTES)
            data, start = data[start:] + piece, 0
            least, before = len(data) - size_bytes, start
            while count and start <= least:
                (size,) = size_at(data, start)
                end = start + size_bytes + size
                if end > len(data):
                    self._check_text(size, self._position + start - before + size_bytes)
                    break
                if keeps:
                    texts.append(data[start + size_bytes : end].decode("utf-8", "replace"))
                start = end
                count -= 1
            self._position += start - before
            if not piece and count:
                raise self._cut_short()
        self._file.seek(self._position)
        return texts

    def _check_text(self, size: int, position: int) -> None:
        if size > _MAX_STRING_BYTES:
            raise CheckpointError(
                f"{self._path} is damaged at byte {position}, a text of {size} bytes; download it again"
            )

    def _number(self, layout: str) -> Any:
        number = _NUMBERS[layout]
        return number.unpack(self._take(number.size))[0]

    def _check_count(self, count: int, least_bytes: int) -> None:
        if count > _MAX_COUNT or count * least_bytes > self._file_bytes - self._position:
            raise CheckpointError(f"{self._path} cannot hold the {count} values that it announces; download it again")

    def _take(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) != size:
            raise self._cut_short()
        self._position += size
        return data

    def _cut_short(self) -> CheckpointError:
        return CheckpointError(f"{self._path} ends inside its header; download it again")
