"""Turns source tensors into the tiles of a slice, and writes tiles to block files.

Covers: which rows and columns of which source tensor make a tile, dtype conversion, digests and checksums; weights
that are no finite numbers (finite.py) are refused.
Does not cover: directories and their lives (splitter.py), offsets (common/weights/slice_format.py).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from common.errors import InputError
from common.weights.checksums import xxh3_of
from common.weights.encodings import is_encoded
from common.weights.manifest import EMBEDDING_FILE, NORMS_FILE, FileEntry
from common.weights.model_encodings import ModelEncodings
from common.weights.packed_blocks import pack
from common.weights.slice_format import ATTENTION, FileLayout, TensorPlace, TileLayout
from common.weights.stored_numbers import NUMPY_DTYPES, STORED_NAMES, Bytes, Stored, narrowed, widened
from coordinator.checkpoints.checkpoint import Checkpoint
from coordinator.checkpoints.tensor_names import EMBEDDING, FINAL_NORM, HEAD
from coordinator.slicing.encoded_tiles import EncodedBlock, finite_blocks
from coordinator.slicing.finite import read_finite, read_finite_rows, row_not_finite

TileTensors = Mapping[str, Sequence[Stored]]
"""The tensors of one tile by their names in the layout: in any float dtype parts that stand side by side, of blocks one
matrix as [outputs, bytes of a row]."""

GATE_UP = ("mlp.gate_proj", "mlp.up_proj")
_ROWS, _COLUMNS = 128, 512
"""What is transposed or converted at a time, of the source: 256 KiB of float32 stay in the processor's cache."""


class BlockTiles:
    """Makes the tiles of one block for all ranks; holds the one tensor that is cut by column meanwhile."""

    def __init__(self, checkpoint: Checkpoint, layer: int, kind: str, encodings: ModelEncodings | None = None) -> None:
        """Args: encodings: of slices whose matrices have encodings of their own."""
        self._checkpoint = checkpoint
        self._prefix = f"model.layers.{layer}."
        self._kind = kind
        self._encodings = None if encodings is None else EncodedBlock(checkpoint, layer, kind, encodings)
        by_column = "self_attn.o_proj" if kind == ATTENTION else "mlp.down_proj"
        if encodings is None:
            self._by_column = read_finite(checkpoint, f"{self._prefix}{by_column}.weight")

    def tile(self, layout: TileLayout) -> TileTensors:
        """Return the tensors of one tile, projections as [in, out]."""
        if self._encodings is not None:
            return {**self._encodings.matrices(layout), **self._vectors(layout)}
        matrices = self._attention(layout) if self._kind == ATTENTION else self._ffn(layout)
        return {**matrices, **self._vectors(layout)}

    def _attention(self, layout: TileLayout) -> TileTensors:
        parts = self._attention_rows(layout)
        first, last = parts[0][1]
        return {
            "qkv": [self._rows(f"self_attn.{name}.weight", rows).T for name, rows in parts],
            "output": [self._by_column[:, first:last].T],
        }

    def _attention_rows(self, layout: TileLayout) -> list[tuple[str, tuple[int, int]]]:
        head = self._checkpoint.spec.head_size
        queries = (layout.first * head, (layout.first + layout.count) * head)
        keys = (layout.kv_first * head, (layout.kv_first + layout.kv_count) * head)
        return [("q_proj", queries), ("k_proj", keys), ("v_proj", keys)]

    def _ffn(self, layout: TileLayout) -> TileTensors:
        columns = (layout.first, layout.first + layout.count)
        return {
            "gate_up": [self._rows(f"{name}.weight", columns).T for name in GATE_UP],
            "down": [self._by_column[:, columns[0] : columns[1]].T],
        }

    def _vectors(self, layout: TileLayout) -> TileTensors:
        """Return what is float32 in any slice."""
        spec, tensors = self._checkpoint.spec, {}
        if self._kind != ATTENTION:
            columns = (layout.first, layout.first + layout.count)
            return {"gate_up_bias": [self._rows(f"{name}.bias", columns) for name in GATE_UP]} if spec.ffn_bias else {}
        if spec.qkv_bias:
            parts = self._attention_rows(layout)
            tensors["qkv_bias"] = [self._rows(f"self_attn.{name}.bias", rows) for name, rows in parts]
        if spec.qk_norm:
            tensors["query_norm"] = [read_finite(self._checkpoint, f"{self._prefix}self_attn.q_norm.weight")]
            tensors["key_norm"] = [read_finite(self._checkpoint, f"{self._prefix}self_attn.k_norm.weight")]
        return tensors

    def _rows(self, name: str, rows: tuple[int, int]) -> Stored:
        return read_finite_rows(self._checkpoint, self._prefix + name, *rows)


def coordinator_tile(checkpoint: Checkpoint, file_name: str, layout: TileLayout) -> TileTensors:
    """Return the tensors of one tile of the coordinator's own slice."""
    spec = checkpoint.spec
    if file_name == NORMS_FILE:
        return _norms(checkpoint)
    rows = (layout.first, layout.first + layout.count)
    (place,) = layout.tensors
    if is_encoded(place.dtype):
        name = EMBEDDING if file_name == EMBEDDING_FILE or spec.tied_embeddings else HEAD
        return {place.name: [finite_blocks(checkpoint, name, *rows, place.dtype)]}
    if file_name == EMBEDDING_FILE:
        return {"embedding": [read_finite_rows(checkpoint, EMBEDDING, *rows)]}
    if spec.tied_embeddings:  # looked at as the embedding
        return {"head": [checkpoint.read_rows(EMBEDDING, *rows).T]}
    return {"head": [read_finite_rows(checkpoint, HEAD, *rows).T]}


def _norms(checkpoint: Checkpoint) -> TileTensors:
    spec = checkpoint.spec

    def all_layers(name: str) -> list[Stored]:
        names = (f"model.layers.{layer}.{name}" for layer in range(spec.layer_count))
        return [np.stack([widened(read_finite(checkpoint, name)) for name in names])]

    tensors = {
        "attention_norm": all_layers("input_layernorm.weight"),
        "ffn_norm": all_layers("post_attention_layernorm.weight"),
        "final_norm": [read_finite(checkpoint, FINAL_NORM)],
    }
    if spec.output_bias:
        tensors["output_bias"] = all_layers("self_attn.o_proj.bias")
    if spec.ffn_bias:
        tensors["down_bias"] = all_layers("mlp.down_proj.bias")
    return tensors


class TilePacker:
    """Lays tensors out as tiles; one buffer of the largest tile is reused."""

    def __init__(self) -> None:
        self._buffer = np.empty(0, dtype=np.uint8)

    def pack(self, layout: TileLayout, tensors: TileTensors) -> memoryview:
        """Return the tile as it lies in its file, until the next call. Raises: InputError: the dtype is too small."""
        if self._buffer.size < layout.byte_count:
            self._buffer = np.empty(layout.byte_count, dtype=np.uint8)
        buffer = self._buffer[: layout.byte_count]
        end = 0
        for place in layout.tensors:
            start, stop = place.offset, place.offset + place.byte_count
            buffer[end:start] = 0
            if is_encoded(place.dtype):
                (rows,) = tensors[place.name]
                buffer[start:stop] = pack(place.dtype, cast("Bytes", rows), place.shape[0])
            else:
                target = buffer[start:stop].view(NUMPY_DTYPES[place.dtype]).reshape(place.shape)
                _fill(target, place, tensors[place.name])
            end = stop
        buffer[end:] = 0
        return buffer.data


def _fill(target: Stored, place: TensorPlace, parts: Sequence[Stored]) -> None:
    """Copy parts side by side. Raises: InputError: the dtype is too small."""
    column = 0
    for part in parts:
        width = part.shape[-1]
        space = target[..., column : column + width]
        column += width
        if part.ndim == 1:
            space[...] = _as_stored(part, place)
        elif part.strides[0] < part.strides[1]:  # [in, out] of a matrix that lies as [out, in]
            _copy(space.T, part.T, place)
        else:
            _copy(space, part, place)
    assert column == place.shape[-1]


def _copy(target: Stored, source: Stored, place: TensorPlace) -> None:
    """Copy a matrix whose rows lie one after another, or its target's do: by blocks, which is 3 times as fast."""
    for row in range(0, source.shape[0], _ROWS):
        for column in range(0, source.shape[1], _COLUMNS):
            block = source[row : row + _ROWS, column : column + _COLUMNS]
            target[row : row + _ROWS, column : column + _COLUMNS] = _as_stored(block, place)


def _as_stored(values: Stored, place: TensorPlace) -> Stored:
    """Return numbers in the dtype of their place. Raises: InputError: it is too small for them."""
    if STORED_NAMES[values.dtype] == place.dtype:
        return values
    stored = narrowed(widened(values), place.dtype)
    if place.dtype != "float32" and row_not_finite(stored) is not None:
        others = "bfloat16 or float32" if place.dtype == "float16" else "float32"
        raise InputError(f"this model has weights in '{place.name}' that {place.dtype} cannot hold; "
                         f"use --weights-dtype {others}")  # fmt: skip
    return stored


class TileWriter:
    """Writes block files tile by tile and counts the bytes."""

    def __init__(self, progress: Callable[[int], None]) -> None:
        self._progress = progress
        self._written_bytes = 0
        self._packer = TilePacker()

    def write(self, path: Path, layout: FileLayout, tiles: Iterable[TileTensors]) -> FileEntry:
        """Write one file durably and return its size and digests."""
        file_digest = hashlib.sha256()
        tile_digests, tile_xxh3 = [], []
        with open(path, "wb", buffering=0) as file:
            write_all(file.fileno(), memoryview(layout.header))
            file_digest.update(layout.header)
            for tile_layout, tensors in zip(layout.tiles, tiles, strict=True):
                data = self._packer.pack(tile_layout, tensors)
                tile_digests.append(hashlib.sha256(data).hexdigest())
                tile_xxh3.append(xxh3_of(data))
                file_digest.update(data)
                write_all(file.fileno(), data)
                self._written_bytes += len(data)
                self._progress(self._written_bytes)
            self._written_bytes += len(layout.header)
            os.fsync(file.fileno())
        return FileEntry(
            size_bytes=layout.file_bytes, sha256=file_digest.hexdigest(), tile_sha256=tuple(tile_digests),
            tile_xxh3=tuple(tile_xxh3),
        )  # fmt: skip


def write_all(descriptor: int, data: memoryview) -> None:
    """Write all of it. Raises: OSError."""
    while data:
        data = data[os.write(descriptor, data) :]
