"""The messages of one file on its way to a node: a block file, or a pack of tiles that the node lacks.

Covers: bytes as the link takes them, from where the last transfer stopped; digests, which come out of cutting.
Does not cover: which files (slice_sender.py), what is in a tile (slicing/tiles.py).
Threads: gRPC's takes the messages.

A node ends a file whose sender says nothing for long (common/wire/call_limits.py). So who cuts what is there already,
or waits for other nodes, says so now and then, in messages of no bytes, which every node takes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

from common.errors import ShardmeshError
from common.weights.slice_format import FileLayout
from coordinator.shipping.block_feed import FeedClosed
from coordinator.slicing.tiles import TilePacker, TileTensors
from protos.shardmesh.v1 import slices_pb2

SIGN_OF_LIFE = slices_pb2.SendFileRequest(chunk=b"")
SIGN_OF_LIFE_SECONDS = 10.0
CHUNK_BYTES = 1 << 18
"""What a cut link costs at most. 1 MiB is the fastest message of gRPC in Python, 2.1 GiB/s, and this gives half: ten
times what the links of a home carry."""


class FileSending:
    """The messages of one file, made in gRPC's thread as the link takes them."""

    def __init__(
        self, start: slices_pb2.FileStart, layout: FileLayout, tiles: Iterator[TileTensors | None],
        sent: Callable[[int], bool],
    ) -> None:  # fmt: skip
        """Args: tiles: the tensors of each tile of `layout`, and None while the next one is waited for; sent: told of
        bytes that are on their way, and says whether to go on."""
        self._start, self._layout, self._tiles, self._sent = start, layout, tiles, sent
        self.failure: Exception | None = None
        """What went wrong on this side: gRPC would log it and tell nobody."""

    def __iter__(self) -> Iterator[slices_pb2.SendFileRequest]:
        try:
            yield from self._messages()
        except (ShardmeshError, FeedClosed) as error:
            self.failure = error

    def _messages(self) -> Iterator[slices_pb2.SendFileRequest]:
        yield slices_pb2.SendFileRequest(start=self._start)
        digests = slices_pb2.FileDigests()
        whole = hashlib.sha256()
        position = 0
        for is_tile, data in self._parts():
            if data is None:
                if not self._sent(0):
                    return
                yield SIGN_OF_LIFE
                continue
            whole.update(data)
            if is_tile:
                digests.tile_sha256.append(hashlib.sha256(data).hexdigest())
            start = max(0, self._start.first_byte - position)
            if start >= len(data):
                yield SIGN_OF_LIFE
            for offset in range(start, len(data), CHUNK_BYTES):
                chunk = bytes(data[offset : offset + CHUNK_BYTES])
                if not self._sent(0):
                    return
                yield slices_pb2.SendFileRequest(chunk=chunk)
                self._sent(len(chunk))
            position += len(data)
        digests.sha256 = whole.hexdigest()
        yield slices_pb2.SendFileRequest(end=digests)

    def _parts(self) -> Iterator[tuple[bool, memoryview | None]]:
        """Yield the file's header, then its tiles; each is good until the next. None: the next one is waited for."""
        packer = TilePacker()
        yield False, memoryview(self._layout.header)
        coming = iter(self._layout.tiles)
        for tensors in self._tiles:
            yield (False, None) if tensors is None else (True, packer.pack(next(coming), tensors))
        assert next(coming, None) is None, "a tile's tensors for each tile"
