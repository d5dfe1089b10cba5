"""Where every tensor of a slice lies: tiles, block files, offsets. Pure arithmetic, the same on both sides.

Covers: cutting a block into tiles, the tensors of a tile, byte offsets, the safetensors header.
Does not cover: writing (coordinator/slicing/splitter.py), the manifest (manifest.py), reading (reader.py).

A block file is a safetensors file. A tile is one contiguous range of it that starts and ends on a
multiple of 4096 bytes, so that it can be read with direct I/O; the gaps are filled with tensors
named `*.pad*`, since the format allows no holes. Projections are stored input by output, [in, out]:
`x @ W` over such a matrix reads it in order, which on one x86-64 core was 25 % faster than `F.linear`.
Source of the file format: the safetensors documentation, section "Format".
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from common.errors import InputError
from common.model.model_spec import ModelSpec
from common.model.plan import COLUMN_GRAIN, RankShare
from common.weights.encodings import is_encoded, packed_bytes

FORMAT_VERSION = 1
"""Of slices whose matrices are all of one dtype; what has encodings of its own is ENCODED_FORMAT_VERSION."""
ENCODED_FORMAT_VERSION = 2
FORMAT_VERSIONS = (FORMAT_VERSION, ENCODED_FORMAT_VERSION)
PAGE_BYTES = 4096
TENSOR_ALIGN_BYTES = 64
DEFAULT_TILE_BYTES = 8 << 20
MAX_TILES_PER_FILE = 1 << 14
"""Above any real model's: what a hostile manifest claims must not make us build layouts without end."""
ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
SAFETENSORS_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}

ATTENTION = "attention"
FFN = "ffn"
BLOCK_KINDS = (ATTENTION, FFN)


@dataclass(frozen=True, kw_only=True)
class TensorPlace:
    """One tensor within its tile."""

    name: str
    dtype: str
    """Matrices have the slice's dtype, or an encoding of their own; vectors (biases, norms) are float32 always, as
    checkpoints often keep them."""
    shape: tuple[int, ...]
    """Of a matrix of blocks [inputs, outputs] too, however its blocks lie."""
    offset: int
    """Bytes from the start of the tile."""

    @property
    def byte_count(self) -> int:
        if is_encoded(self.dtype):
            return packed_bytes(self.dtype, *self.shape)
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True, kw_only=True)
class TileLayout:
    """A part of a block that can be computed alone, and the bytes it takes.

    Attention: query heads [first, first + count) of the model that read KV heads
    [kv_first, kv_first + kv_count), the same number of query heads for each.
    FFN: columns [first, first + count). Head: vocabulary entries [first, first + count).
    """

    first: int
    count: int
    kv_first: int = 0
    kv_count: int = 0
    tensors: tuple[TensorPlace, ...]
    byte_count: int
    """A multiple of 4096."""
    skip: int = 0
    """Inputs that the tile's last matrix, `output` or `down`, has before the tile's own: blocks are not cut through."""


@dataclass(frozen=True, kw_only=True)
class FileLayout:
    """One block file, or a pack (packs.py): a header padded to whole pages, then the tiles one after another."""

    tiles: tuple[TileLayout, ...]
    names: tuple[str, ...] = ()
    """What the tensors of each tile are called by, where tiles are of several blocks; else their places in the file."""

    @cached_property
    def header(self) -> bytes:
        """The file's first bytes: length of the JSON, the JSON, spaces up to a whole page."""
        has_blocks = any(is_encoded(place.dtype) for tile in self.tiles for place in tile.tensors)
        version = ENCODED_FORMAT_VERSION if has_blocks or self.names else FORMAT_VERSION
        names = self.names or [f"tile{index}" for index in range(len(self.tiles))]
        entries: dict[str, object] = {"__metadata__": {"format": "pt", "shardmesh": str(version)}}
        tile_start = 0
        for tile_name, tile in zip(names, self.tiles, strict=True):
            for name, dtype, shape, start, stop in _with_pads(tile):
                offsets = [tile_start + start, tile_start + stop]
                entries[f"{tile_name}.{name}"] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
            tile_start += tile.byte_count
        text = json.dumps(entries, separators=(",", ":")).encode()
        padded = _round_up(8 + len(text), PAGE_BYTES) - 8
        return padded.to_bytes(8, "little") + text.ljust(padded)

    @cached_property
    def tile_offsets(self) -> tuple[int, ...]:
        """Where each tile starts, in bytes from the start of the file."""
        offsets = []
        position = len(self.header)
        for tile in self.tiles:
            offsets.append(position)
            position += tile.byte_count
        return tuple(offsets)

    @property
    def file_bytes(self) -> int:
        return len(self.header) + sum(tile.byte_count for tile in self.tiles)


def attention_layout(spec: ModelSpec, share: RankShare, dtype: str, tile_bytes: int) -> FileLayout:
    """Return the layout of one rank's attention block; the same for every layer."""
    head, hidden = spec.head_size, spec.hidden_size
    tiles = []
    for first, kv_first, kv_count, group in uniform_runs(spec, share):
        per_kv_head = hidden * head * (2 * group + 2) * ITEM_BYTES[dtype]
        for kv_offset, count in cut(kv_count, max(1, tile_bytes // per_kv_head)):
            query_count = count * group
            rows = (query_count + 2 * count) * head
            tensors: list[tuple[str, tuple[int, ...]]] = [
                ("qkv", (hidden, rows)),
                ("output", (query_count * head, hidden)),
            ]
            if spec.qkv_bias:
                tensors.append(("qkv_bias", (rows,)))
            if spec.qk_norm:
                tensors += [("query_norm", (head,)), ("key_norm", (head,))]
            tiles.append(_tile(
                tensors, dtype, first=first + kv_offset * group, count=query_count,
                kv_first=kv_first + kv_offset, kv_count=count,
            ))  # fmt: skip
    return FileLayout(tiles=tuple(tiles))


def ffn_layout(spec: ModelSpec, share: RankShare, dtype: str, tile_bytes: int) -> FileLayout:
    """Return the layout of one rank's FFN block; the same for every layer."""
    hidden = spec.hidden_size
    per_column = 3 * hidden * ITEM_BYTES[dtype]
    tiles = []
    for offset, count in cut(share.ffn_column_count, max(COLUMN_GRAIN, tile_bytes // per_column), COLUMN_GRAIN):
        tensors: list[tuple[str, tuple[int, ...]]] = [("gate_up", (hidden, 2 * count)), ("down", (count, hidden))]
        if spec.ffn_bias:
            tensors.append(("gate_up_bias", (2 * count,)))
        tiles.append(_tile(tensors, dtype, first=share.ffn_column_start + offset, count=count))
    return FileLayout(tiles=tuple(tiles))


def head_layout(spec: ModelSpec, dtype: str, tile_bytes: int) -> FileLayout:
    """Return the layout of the coordinator's head: hidden state to logits, cut by vocabulary entry."""
    per_entry = spec.hidden_size * ITEM_BYTES[dtype]
    tiles = [
        _tile([("head", (spec.hidden_size, count))], dtype, first=first, count=count)
        for first, count in cut(spec.vocab_size, max(1, tile_bytes // per_entry))
    ]
    return FileLayout(tiles=tuple(tiles))


def embedding_layout(spec: ModelSpec, dtype: str, tile_bytes: int) -> FileLayout:
    """Return the layout of the coordinator's embedding: one row per token, read row by row."""
    per_row = spec.hidden_size * ITEM_BYTES[dtype]
    tiles = [
        _tile([("embedding", (count, spec.hidden_size))], dtype, first=first, count=count)
        for first, count in cut(spec.vocab_size, max(1, tile_bytes // per_row))
    ]
    return FileLayout(tiles=tuple(tiles))


def norms_layout(spec: ModelSpec) -> FileLayout:
    """Return the layout of what the coordinator keeps in memory: norms, and biases that are added once.

    Always float32, although some of them are matrices here: they are small, and often kept more precise.
    """
    per_layer = (spec.layer_count, spec.hidden_size)
    tensors: list[tuple[str, tuple[int, ...]]] = [
        ("attention_norm", per_layer),
        ("ffn_norm", per_layer),
        ("final_norm", (spec.hidden_size,)),
    ]
    if spec.output_bias:
        tensors.append(("output_bias", per_layer))
    if spec.ffn_bias:
        tensors.append(("down_bias", per_layer))
    return FileLayout(tiles=(_tile(tensors, "float32", first=0, count=spec.layer_count),))


def block_layout(spec: ModelSpec, share: RankShare, kind: str, dtype: str, tile_bytes: int) -> FileLayout:
    """Return the layout of one block of `kind` on the rank that has `share`."""
    check_storage(dtype, tile_bytes)
    layout = attention_layout if kind == ATTENTION else ffn_layout
    return layout(spec, share, dtype, tile_bytes)


def check_storage(dtype: str, tile_bytes: int) -> None:
    """Raise InputError unless weights can be stored as `dtype` in tiles of about `tile_bytes`."""
    if dtype not in ITEM_BYTES:
        raise InputError(f"weights dtype '{dtype}' is unknown; use one of {', '.join(ITEM_BYTES)}")
    if not PAGE_BYTES <= tile_bytes <= 1 << 34:
        raise InputError(f"tile size {tile_bytes} is out of range")


def block_file_name(layer: int, kind: str) -> str:
    """Return the name of a block's file inside its slice directory."""
    return f"layer{layer:04d}.{kind}.safetensors"


def uniform_runs(spec: ModelSpec, share: RankShare) -> Iterator[tuple[int, int, int, int]]:
    """Yield (first query head, first KV head, KV head count, query heads of each) of equal-sized groups."""
    groups = []
    for kv_head in share.kv_heads(spec):
        start = max(share.query_head_start, kv_head * spec.group_size)
        stop = min(share.query_head_stop, (kv_head + 1) * spec.group_size)
        groups.append((start, kv_head, stop - start))
    position = 0
    while position < len(groups):
        first, kv_first, group = groups[position]
        stop = position
        while stop < len(groups) and groups[stop][2] == group:
            stop += 1
        yield first, kv_first, stop - position, group
        position = stop


def cut(total: int, most: int, grain: int = 1) -> Iterator[tuple[int, int]]:
    """Yield (offset, count) of as few parts as possible: `most` each, give or take one grain."""
    parts = math.ceil(total / most) if total else 0
    if parts > MAX_TILES_PER_FILE:
        raise InputError(f"{total} entries in tiles of {most} make more than {MAX_TILES_PER_FILE} tiles a file")
    offset = 0
    for index in range(parts):
        stop = total if index == parts - 1 else (total * (index + 1) // parts) // grain * grain
        if stop > offset:
            yield offset, stop - offset
        offset = max(offset, stop)


def _tile(
    tensors: Sequence[tuple[str, tuple[int, ...]]], dtype: str, *, first: int, count: int,
    kv_first: int = 0, kv_count: int = 0,
) -> TileLayout:  # fmt: skip
    stored = [(name, dtype if len(shape) > 1 else "float32", shape) for name, shape in tensors]
    return tile_of(stored, first=first, count=count, kv_first=kv_first, kv_count=kv_count)


def tile_of(
    tensors: Sequence[tuple[str, str, tuple[int, ...]]], *, first: int, count: int,
    kv_first: int = 0, kv_count: int = 0, skip: int = 0,
) -> TileLayout:  # fmt: skip
    """Return the tile that holds these tensors, (name, dtype, shape), one after another."""
    places = []
    position = 0
    for name, dtype, shape in tensors:
        place = TensorPlace(name=name, dtype=dtype, shape=shape, offset=position)
        places.append(place)
        position = _round_up(position + place.byte_count, TENSOR_ALIGN_BYTES)
    return TileLayout(
        first=first, count=count, kv_first=kv_first, kv_count=kv_count,
        tensors=tuple(places), byte_count=_round_up(position, PAGE_BYTES), skip=skip,
    )  # fmt: skip


def _with_pads(tile: TileLayout) -> Iterator[tuple[str, str, list[int], int, int]]:
    """Yield (name, safetensors dtype, shape, start, stop) of the tile's tensors and of the pads between them."""
    ends = [place.offset for place in tile.tensors[1:]] + [tile.byte_count]
    for index, (place, end) in enumerate(zip(tile.tensors, ends, strict=True)):
        stop = place.offset + place.byte_count
        if is_encoded(place.dtype):
            yield place.name, "U8", [place.byte_count], place.offset, stop
        else:
            yield place.name, SAFETENSORS_DTYPES[place.dtype], list(place.shape), place.offset, stop
        if stop < end:
            yield f"pad{index}", "U8", [end - stop], stop, end


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
