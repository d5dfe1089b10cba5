"""Turns source tensors into the tiles of a slice, and writes tiles to block files.

Covers: which rows and columns of which source tensor make a tile, dtype conversion, digests; weights that are no
finite numbers (finite.py) are refused.
Does not cover: directories and their lives (splitter.py), offsets (common/weights/slice_format.py).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch

from common.errors import InputError
from common.weights.manifest import EMBEDDING_FILE, NORMS_FILE, FileEntry
from common.weights.slice_format import ATTENTION, FileLayout, TileLayout
from common.weights.tile_tensors import TORCH_DTYPES
from coordinator.checkpoints.checkpoint import Checkpoint
from coordinator.checkpoints.tensor_names import EMBEDDING, FINAL_NORM, HEAD
from coordinator.slicing.finite import read_finite, read_finite_rows, row_not_finite

TileTensors = Mapping[str, torch.Tensor]
"""The tensors of one tile by their names in the layout, in any float dtype."""


class BlockTiles:
    """Makes the tiles of one block for all ranks; holds the one tensor that is cut by column meanwhile."""

    def __init__(self, checkpoint: Checkpoint, layer: int, kind: str) -> None:
        self._checkpoint = checkpoint
        self._prefix = f"model.layers.{layer}."
        self._kind = kind
        by_column = "self_attn.o_proj" if kind == ATTENTION else "mlp.down_proj"
        self._by_column = read_finite(checkpoint, f"{self._prefix}{by_column}.weight")

    def tile(self, layout: TileLayout) -> TileTensors:
        """Return the tensors of one tile, projections as [in, out]."""
        return self._attention(layout) if self._kind == ATTENTION else self._ffn(layout)

    def _attention(self, layout: TileLayout) -> TileTensors:
        spec = self._checkpoint.spec
        head = spec.head_size
        queries = (layout.first * head, (layout.first + layout.count) * head)
        keys = (layout.kv_first * head, (layout.kv_first + layout.kv_count) * head)
        parts = [("q_proj", queries), ("k_proj", keys), ("v_proj", keys)]
        tensors = {
            "qkv": torch.cat([self._rows(f"self_attn.{name}.weight", rows) for name, rows in parts]).t(),
            "output": self._by_column[:, queries[0] : queries[1]].t(),
        }
        if spec.qkv_bias:
            tensors["qkv_bias"] = torch.cat([self._rows(f"self_attn.{name}.bias", rows) for name, rows in parts])
        if spec.qk_norm:
            tensors["query_norm"] = read_finite(self._checkpoint, f"{self._prefix}self_attn.q_norm.weight")
            tensors["key_norm"] = read_finite(self._checkpoint, f"{self._prefix}self_attn.k_norm.weight")
        return tensors

    def _ffn(self, layout: TileLayout) -> TileTensors:
        columns = (layout.first, layout.first + layout.count)
        names = ("mlp.gate_proj", "mlp.up_proj")
        tensors = {
            "gate_up": torch.cat([self._rows(f"{name}.weight", columns) for name in names]).t(),
            "down": self._by_column[:, columns[0] : columns[1]].t(),
        }
        if self._checkpoint.spec.ffn_bias:
            tensors["gate_up_bias"] = torch.cat([self._rows(f"{name}.bias", columns) for name in names])
        return tensors

    def _rows(self, name: str, rows: tuple[int, int]) -> torch.Tensor:
        return read_finite_rows(self._checkpoint, self._prefix + name, *rows)


def coordinator_tile(checkpoint: Checkpoint, file_name: str, layout: TileLayout) -> TileTensors:
    """Return the tensors of one tile of the coordinator's own slice."""
    spec = checkpoint.spec
    if file_name == NORMS_FILE:
        return _norms(checkpoint)
    rows = (layout.first, layout.first + layout.count)
    if file_name == EMBEDDING_FILE:
        return {"embedding": read_finite_rows(checkpoint, EMBEDDING, *rows)}
    if spec.tied_embeddings:  # looked at as the embedding
        return {"head": checkpoint.read_rows(EMBEDDING, *rows).t()}
    return {"head": read_finite_rows(checkpoint, HEAD, *rows).t()}


def _norms(checkpoint: Checkpoint) -> TileTensors:
    spec = checkpoint.spec

    def all_layers(name: str) -> torch.Tensor:
        names = (f"model.layers.{layer}.{name}" for layer in range(spec.layer_count))
        return torch.stack([read_finite(checkpoint, name).float() for name in names])

    tensors = {
        "attention_norm": all_layers("input_layernorm.weight"),
        "ffn_norm": all_layers("post_attention_layernorm.weight"),
        "final_norm": read_finite(checkpoint, FINAL_NORM),
    }
    if spec.output_bias:
        tensors["output_bias"] = all_layers("self_attn.o_proj.bias")
    if spec.ffn_bias:
        tensors["down_bias"] = all_layers("mlp.down_proj.bias")
    return tensors


class TilePacker:
    """Lays tensors out as tiles; one buffer of the largest tile is reused."""

    def __init__(self) -> None:
        self._buffer = torch.empty(0, dtype=torch.uint8)

    def pack(self, layout: TileLayout, tensors: TileTensors) -> memoryview:
        """Return the tile as it lies in its file, until the next call. Raises: InputError: the dtype is too small."""
        if self._buffer.numel() < layout.byte_count:
            self._buffer = torch.empty(layout.byte_count, dtype=torch.uint8)
        buffer = self._buffer[: layout.byte_count]
        buffer.zero_()
        for place in layout.tensors:
            space = buffer[place.offset : place.offset + place.byte_count]
            target = space.view(TORCH_DTYPES[place.dtype]).view(place.shape)
            source = tensors[place.name]
            target.copy_(source)
            is_narrowed = target.dtype not in (torch.float32, source.dtype)
            if is_narrowed and row_not_finite(target) is not None:
                others = "bfloat16 or float32" if target.dtype is torch.float16 else "float32"
                raise InputError(f"this model has weights in '{place.name}' that {place.dtype} cannot hold; "
                                 f"use --weights-dtype {others}")  # fmt: skip
        return buffer.numpy().data


class TileWriter:
    """Writes block files tile by tile and counts the bytes."""

    def __init__(self, progress: Callable[[int], None]) -> None:
        self._progress = progress
        self._written_bytes = 0
        self._packer = TilePacker()

    def write(self, path: Path, layout: FileLayout, tiles: Iterable[TileTensors]) -> FileEntry:
        """Write one file durably and return its size and digests."""
        file_digest = hashlib.sha256()
        tile_digests = []
        with open(path, "wb", buffering=0) as file:
            _write_all(file.fileno(), memoryview(layout.header))
            file_digest.update(layout.header)
            for tile_layout, tensors in zip(layout.tiles, tiles, strict=True):
                data = self._packer.pack(tile_layout, tensors)
                tile_digests.append(hashlib.sha256(data).hexdigest())
                file_digest.update(data)
                _write_all(file.fileno(), data)
                self._written_bytes += len(data)
                self._progress(self._written_bytes)
            self._written_bytes += len(layout.header)
            os.fsync(file.fileno())
        return FileEntry(size_bytes=layout.file_bytes, sha256=file_digest.hexdigest(), tile_sha256=tuple(tile_digests))


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
