"""Writes packs of tiles while a checkpoint is read block by block: one open pack for each slice that lacks some.

Covers: packs in the order of a sweep, digests, a pack's last step. Does not cover: which tiles are lacking
(packed_slices.py), what is in a tile (tiles.py), files in the store (common/weights/pack_store.py).
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Sequence

from common.weights.checksums import xxh3_of
from common.weights.pack_store import PackStore
from common.weights.packs import PACK_BYTES, SliceTile, pack_layout, packed
from coordinator.slicing.tiles import TilePacker, TileTensors, write_all


class SlicePacks:
    """The packs of what one slice lacks. Close it."""

    def __init__(
        self, store: PackStore, model_identity: str, lacking: Sequence[SliceTile], progress: Callable[[int], None],
        pack_bytes: int = PACK_BYTES,
    ) -> None:  # fmt: skip
        """Args: progress: called with the bytes of each tile that is written."""
        self._store, self._model_identity, self._progress = store, model_identity, progress
        self._packs = deque(packed(lacking, pack_bytes))
        self.total_bytes = sum(pack_layout(tiles).file_bytes for tiles in self._packs)
        self._open: _OpenPack | None = None
        self.written: list[str] = []
        """Packs that are whole, by name."""

    def write(self, tile: SliceTile, tensors: TileTensors, packer: TilePacker) -> None:
        """Write the next tile. Raises: OSError; InputError: its dtype is too small for it."""
        if self._open is None:
            tiles = self._packs.popleft()
            self._open = _OpenPack(self._store, self._store.free_name([one.key for one in tiles]), tiles)
        self._open.write(tile, packer.pack(tile.layout, tensors))
        self._progress(tile.layout.byte_count)
        if self._open.is_whole:
            self._open.publish(self._model_identity)
            self.written.append(self._open.name)
            self._open = None

    def close(self) -> None:
        """Remove what is no whole pack."""
        if self._open is not None:
            self._open.discard()
            self._open = None


class _OpenPack:
    """One pack that is being written."""

    def __init__(self, store: PackStore, name: str, tiles: Sequence[SliceTile]) -> None:
        self._store, self.name, self._tiles = store, name, tiles
        store.directory.mkdir(exist_ok=True)
        self._part = store.part(name)
        self._descriptor = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        self._digests: list[tuple[str, str]] = []
        write_all(self._descriptor, memoryview(pack_layout(tiles).header))

    @property
    def is_whole(self) -> bool:
        return len(self._digests) == len(self._tiles)

    def write(self, tile: SliceTile, data: memoryview) -> None:
        assert self._tiles[len(self._digests)] is tile
        self._digests.append((hashlib.sha256(data).hexdigest(), xxh3_of(data)))
        write_all(self._descriptor, data)

    def publish(self, model_identity: str) -> None:
        os.fsync(self._descriptor)
        os.close(self._descriptor)
        self._store.publish(self.name, model_identity, self._tiles, self._digests, self._part)

    def discard(self) -> None:
        os.close(self._descriptor)
        self._part.unlink(missing_ok=True)
