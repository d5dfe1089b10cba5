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
from common.weights.slice_format import ATTENTION, FFN, TensorPlace, TileLayout
from common.weights.stored_numbers import NUMPY_DTYPES, Floats, widened

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
        self._layout = layouts[name]
        self._rows = _rows_of(self._layout.tiles[0].tensors[0])
        self._tile_checksums = manifest.files[name].tile_checksums
        self._verified_tiles: set[int] = set()
        self._path = directory / name
        self.checksum_nanoseconds = 0
        """Processor time that checking tiles took when they were first read."""
        norms = self._read_norms(directory / NORMS_FILE, layouts[NORMS_FILE].tiles[0],
                                 layouts[NORMS_FILE].tile_offsets[0],
                                 manifest.files[NORMS_FILE].tile_checksums[0])  # fmt: skip
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
        self._first_tokens = [tile.first for tile in self._layout.tiles]
        try:
            # Rows are no whole blocks, so never with O_DIRECT; what was read is given back instead.
            opened = open_file(self._path, bypass_page_cache=False)
        except OSError as error:
            raise SliceReadError(f"cannot open {self._path}: {error.strerror}") from error
        self._file: OpenedFile | None = replace(opened, leaves_pages=not leaves_page_cache)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file.fd)
            self._file = None

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
        if self._file is None:
            raise SliceReadError(f"{self._path}: not read, because it was closed")
        tile_index = bisect_right(self._first_tokens, token_id) - 1
        tile, offset = self._layout.tiles[tile_index], self._layout.tile_offsets[tile_index]
        if tile_index not in self._verified_tiles:
            self._check_tile(self._file.fd, offset, tile.byte_count, self._tile_checksums[tile_index])
            self._verified_tiles.add(tile_index)
            self.bytes_read_total += tile.byte_count
        first, byte_count = self._rows.place(token_id - tile.first)
        data = _read(self._file.fd, self._path, offset + first, byte_count)
        self.bytes_read_total += byte_count
        forget(self._file, offset, tile.byte_count)
        return self._rows.row(data, token_id - tile.first)

    def _read_norms(self, path: Path, layout: TileLayout, offset: int, checksum: Checksum) -> dict[str, Floats]:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise SliceReadError(f"cannot open {path}: {error.strerror}") from error
        try:
            data = _read(descriptor, path, offset, layout.byte_count)
        finally:
            os.close(descriptor)
        comparison = Comparison(checksum)
        comparison.update(data)
        self._end(comparison, checksum, path)
        return {place.name: np.ndarray(place.shape, np.float32, data, place.offset) for place in layout.tensors}

    def _check_tile(self, descriptor: int, offset: int, byte_count: int, checksum: Checksum) -> None:
        """Compare piece by piece: a buffer for all of a tile would be memory that nobody has counted."""
        comparison = Comparison(checksum)
        for start in range(0, byte_count, PIECE_BYTES):
            piece = _read(descriptor, self._path, offset + start, min(PIECE_BYTES, byte_count - start))
            comparison.update(piece)
        self._end(comparison, checksum, self._path)

    def _end(self, comparison: Comparison, checksum: Checksum, path: Path) -> None:
        self.checksum_nanoseconds += comparison.nanoseconds
        if not comparison.agrees():
            raise SliceCorrupt(f"{path} is damaged (its {checksum.kind} differs); slice the model again with "
                               "--split-bin")  # fmt: skip


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
