"""The ends of the model that never leave this device: embedding rows and norms from the coordinator's slice.

Covers: rows read from disk one by one, norms, biases that must be added once, not once per rank.
Does not cover: the head (head.py), what is done with norms and biases (common/compute/residual.py).
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from common.compute.residual import LayerVectors, Residual, norm_rows
from common.errors import InputError, SliceCorrupt, SliceReadError
from common.machine.direct_io import OpenedFile, forget, open_file
from common.weights.checksums import Checksum, Comparison
from common.weights.encodings import GROUP_OUTPUTS, is_encoded, packed_bytes
from common.weights.manifest import EMBEDDING_FILE, HEAD_FILE, NORMS_FILE, SliceManifest
from common.weights.packed_blocks import output_row
from common.weights.reader import TileRange
from common.weights.slice_format import ATTENTION, FFN, TensorPlace, TileLayout
from common.weights.stored_numbers import NUMPY_DTYPES, Floats, widened
from common.weights.tile_places import tile_places

PIECE_BYTES = 256 << 10


class Ends:
    """Embedding, norms and late biases of one model. Close it to close its file."""

    def __init__(self, directory: Path, manifest: SliceManifest, *, leaves_page_cache: bool = True) -> None:
        """Read the norms and open the embedding. Args: leaves_page_cache: rows that were read may stay in it.

        Raises: SliceReadError, SliceCorrupt.
        """
        spec = manifest.spec
        layouts = manifest.layouts()
        self._spec = spec
        name = HEAD_FILE if manifest.shares_head else EMBEDDING_FILE
        self._layouts = layouts[name].tiles
        self._rows = _rows_of(self._layouts[0].tensors[0])
        places = tile_places(directory, manifest)
        self._places = places[name]
        self._verified_tiles: set[int] = set()
        self.checksum_nanoseconds = 0
        """Processor time that checking tiles took when they were first read."""
        norms = self._read_norms(layouts[NORMS_FILE].tiles[0], places[NORMS_FILE][0])
        self.residual = Residual(
            blocks={
                ATTENTION: _layer_vectors(norms["attention_norm"], norms.get("output_bias")),
                FFN: _layer_vectors(norms["ffn_norm"], norms.get("down_bias")),
            },
            norm_epsilon=spec.norm_epsilon,
        )
        self._final_norm = norms["final_norm"]
        self.resident_bytes = sum(array.nbytes for array in norms.values())
        self.bytes_read_total = layouts[NORMS_FILE].tiles[0].byte_count
        self._first_tokens = [tile.first for tile in self._layouts]
        self._files: dict[Path, OpenedFile] = {}
        try:
            for path in dict.fromkeys(place.path for place in self._places):
                self._files[path] = _opened(path, leaves_page_cache=leaves_page_cache)
        except SliceReadError:
            self.close()
            raise

    def close(self) -> None:
        while self._files:
            os.close(self._files.popitem()[1].fd)

    def embed(self, token_ids: Sequence[int]) -> Floats:
        """Return the embedding rows of `token_ids`: float32 [token_count, hidden_size].

        Raises: InputError: an id outside the vocabulary; SliceReadError, SliceCorrupt: the file fails.
        """
        rows = np.empty((len(token_ids), self._spec.hidden_size), np.float32)
        for row, token_id in zip(rows, token_ids, strict=True):
            row[:] = self._row(token_id)
        return rows

    def head_input(self, hidden: Floats) -> Floats:
        """Return the normed input of the head."""
        return norm_rows(hidden, None, self._final_norm, self._spec.norm_epsilon)

    def _row(self, token_id: int) -> Floats:
        if not 0 <= token_id < self._spec.vocab_size:
            raise InputError(f"token {token_id} is outside this model's vocabulary of {self._spec.vocab_size}")
        tile_index = bisect_right(self._first_tokens, token_id) - 1
        tile, place = self._layouts[tile_index], self._places[tile_index]
        file = self._files.get(place.path)
        if file is None:
            raise SliceReadError(f"{place.path}: not read, because it was closed")
        if tile_index not in self._verified_tiles:
            self._check_tile(file.fd, place)
            self._verified_tiles.add(tile_index)
            self.bytes_read_total += place.byte_count
        first, byte_count = self._rows.place(token_id - tile.first)
        data = _read(file.fd, place.path, place.offset + first, byte_count)
        self.bytes_read_total += byte_count
        forget(file, place.offset, place.byte_count)
        return self._rows.row(data, token_id - tile.first)

    def _read_norms(self, layout: TileLayout, place: TileRange) -> dict[str, Floats]:
        try:
            descriptor = os.open(place.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise SliceReadError(f"cannot open {place.path}: {error.strerror}") from error
        try:
            data = _read(descriptor, place.path, place.offset, place.byte_count)
        finally:
            os.close(descriptor)
        assert place.checksum is not None
        comparison = Comparison(place.checksum)
        comparison.update(data)
        self._end(comparison, place.checksum, place.path)
        return {part.name: np.ndarray(part.shape, np.float32, data, part.offset) for part in layout.tensors}

    def _check_tile(self, descriptor: int, place: TileRange) -> None:
        """Compare piece by piece: a buffer for all of a tile would be memory that nobody has counted."""
        assert place.checksum is not None
        comparison = Comparison(place.checksum)
        for start in range(0, place.byte_count, PIECE_BYTES):
            size = min(PIECE_BYTES, place.byte_count - start)
            comparison.update(_read(descriptor, place.path, place.offset + start, size))
        self._end(comparison, place.checksum, place.path)

    def _end(self, comparison: Comparison, checksum: Checksum, path: Path) -> None:
        self.checksum_nanoseconds += comparison.nanoseconds
        if not comparison.agrees():
            raise SliceCorrupt(f"{path} is damaged (its {checksum.kind} differs); slice the model again with "
                               "--split-bin")  # fmt: skip


def _opened(path: Path, *, leaves_page_cache: bool) -> OpenedFile:
    """Open what rows lie in. They are no whole blocks, so never with O_DIRECT; what was read is given back instead."""
    try:
        return replace(open_file(path, bypass_page_cache=False), leaves_pages=not leaves_page_cache)
    except OSError as error:
        raise SliceReadError(f"cannot open {path}: {error.strerror}") from error


class _PlainRows:
    """Rows of plain numbers, one after another."""

    def __init__(self, dtype: str, hidden_size: int) -> None:
        self._dtype = NUMPY_DTYPES[dtype]
        self._row_bytes = hidden_size * self._dtype.itemsize

    def place(self, row: int) -> tuple[int, int]:
        """Return where in a tile what a row is made of begins, and its bytes."""
        return row * self._row_bytes, self._row_bytes

    def row(self, data: bytearray, row: int) -> Floats:
        """Return the row. Args: data: at `place`."""
        return widened(np.frombuffer(data, self._dtype))


class _BlockRows:
    """Rows as a head has them, each an output: in groups whose blocks lie side by side."""

    def __init__(self, encoding: str, hidden_size: int) -> None:
        self._encoding, self._hidden_size = encoding, hidden_size
        self._group_bytes = packed_bytes(encoding, hidden_size, GROUP_OUTPUTS)

    def place(self, row: int) -> tuple[int, int]:
        return row // GROUP_OUTPUTS * self._group_bytes, self._group_bytes

    def row(self, data: bytearray, row: int) -> Floats:
        return output_row(self._encoding, np.frombuffer(data, np.uint8), self._hidden_size, row % GROUP_OUTPUTS)


def _rows_of(place: TensorPlace) -> _PlainRows | _BlockRows:
    """Return how rows lie in a tile of embeddings."""
    if is_encoded(place.dtype):
        return _BlockRows(place.dtype, place.shape[0])
    return _PlainRows(place.dtype, place.shape[1])


def _layer_vectors(norms: Floats, late_biases: Floats | None) -> LayerVectors:
    return LayerVectors(norms=list(norms), late_biases=None if late_biases is None else list(late_biases))


def _read(descriptor: int, path: Path, offset: int, byte_count: int) -> bytearray:
    buffer = bytearray(byte_count)
    view = memoryview(buffer)
    while view:
        try:
            count = os.preadv(descriptor, [view], offset + byte_count - len(view))
        except OSError as error:
            raise SliceReadError(f"cannot read {path}: {error.strerror}") from error
        if not count:
            raise SliceCorrupt(f"{path} is cut short; slice the model again with --split-bin")
        view = view[count:]
    return buffer
