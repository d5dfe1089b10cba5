"""One slice to one node: what the node lacks is cut from the checkpoint and sent, through every break of the link.

Covers: going on where the last transfer stopped, sending a file again that has arrived damaged, giving up.
Does not cover: several nodes (shipment.py), messages of a file (file_sending.py), the receiving end
(shardnode/slices/slice_store.py).

Nothing is kept on this side: a file of which half has arrived is cut again from its start, which costs processor time
but no bytes on the link, and its SHA-256 comes out of that. Files of a slice in packs are packs of the tiles that the
node lacks, whatever brought it the others.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import grpc

from common.errors import (
    InputError,
    NodeError,
    NodeLost,
    ProtocolError,
    ShardmeshError,
    SliceCorrupt,
    SliceMismatch,
)
from common.weights.packs import SliceTile, pack_layout, pack_name, packed, slice_tiles
from common.weights.slice_description import SliceDescription
from common.weights.slice_format import BLOCK_KINDS, FileLayout, block_file_name
from common.wire.reaching import wait_until_reached
from common.wire.rpc import failures_of
from coordinator.shipping.block_feed import BlockFeed
from coordinator.shipping.file_sending import SIGN_OF_LIFE_SECONDS, FileSending
from coordinator.slicing.tiles import TileTensors
from protos.shardmesh.v1 import slices_pb2, slices_pb2_grpc

REACH_SECONDS, CALL_SECONDS = 2.0, 30.0
LEAST_BYTES_PER_SECOND = 20_000
"""A link slower than this is taken for a dead one."""
VERIFIED_BYTES_PER_SECOND = 10_000_000
"""What a slow disk and a small processor look at, of packs that a node is to verify."""
DAMAGED_LIMIT = 3
"""Times that one file may arrive damaged before it is a fault and no accident."""
PAUSE_SECONDS = (0.2, 2.0)
"""Between two attempts to reach a node: the first one, and the longest."""

Connect = Callable[[], grpc.Channel]
"""Returns a channel to the node, wherever it is at the moment. Raises: NodeLost: the mesh does not hear it."""


@dataclass(kw_only=True)
class Transferred:
    """How far one slice is, in bytes."""

    total_bytes: int
    arrived_bytes: int = 0
    sent_bytes: int = 0
    """Of files, by us, those sent twice included."""


class SliceSender:
    """Sends one slice. Not safe for several threads, but for `progress`."""

    def __init__(
        self, name: str, description: SliceDescription, connect: Connect, feed: BlockFeed, stopping: threading.Event
    ) -> None:
        self.name = name
        self.description = description
        self._connect, self._feed, self._stopping = connect, feed, stopping
        layouts = description.layouts()
        if description.encodings is None:
            self._tiles: list[SliceTile] = []
        else:
            self._tiles = slice_tiles(description)
            layouts = {pack_name([tile.key for tile in tiles]): pack_layout(tiles) for tiles in packed(self._tiles)}
        self._blocks = {
            block_file_name(layer, kind): (layer, kind)
            for layer in range(description.spec.layer_count)
            for kind in BLOCK_KINDS
        }
        self.progress = Transferred(total_bytes=sum(layout.file_bytes for layout in layouts.values()))

    def is_there(self, *, verify: bool = False) -> bool:
        """Ask the node whether it has the whole slice. Raises: DiskFull: no room for the rest; NodeError."""
        channel = self._connect()
        try:
            return self._offer(channel, verify=verify).is_whole
        finally:
            channel.close()

    def send(self, patience_seconds: float) -> None:
        """Send what the node lacks, and make the slice whole there.

        Args: patience_seconds: how long nothing may arrive before it gives up.
        Raises: DiskFull, SliceError, NodeError: the node named; CheckpointError: the source cannot be read.
        """
        rank = self.description.rank
        last_arrival, arrived_bytes, pause = time.monotonic(), -1, PAUSE_SECONDS[0]
        try:
            while True:
                try:
                    self._send_over_one_link()
                    return
                except (NodeError, ProtocolError) as error:
                    self._feed.leave(rank)
                    if self.progress.arrived_bytes > arrived_bytes:
                        last_arrival, pause = time.monotonic(), PAUSE_SECONDS[0]
                    arrived_bytes = self.progress.arrived_bytes
                    if time.monotonic() - last_arrival > patience_seconds or self._stopping.is_set():
                        raise NodeLost(f"{error}; {self.progress.arrived_bytes / 1e6:.0f} of "
                                       f"{self.progress.total_bytes / 1e6:.0f} MB have arrived and stay: load again, "
                                       "and it goes on from there") from error  # fmt: skip
                    self._stopping.wait(pause)
                    pause = min(2 * pause, PAUSE_SECONDS[1])
        finally:
            self._feed.leave(rank)

    def _send_over_one_link(self) -> None:
        channel = self._connect()
        try:
            offer = self._offer(channel)
            if offer.is_whole:
                return
            if self.description.encodings is None:
                self._send_files(channel, {file.name: file for file in offer.files})
            else:
                for pack in offer.packs:
                    self._send_pack(channel, pack)
            stub = slices_pb2_grpc.SliceServiceStub(channel)
            request = slices_pb2.PublishSliceRequest(slice_id=self.description.slice_id)
            with failures_of(self.name):
                stub.PublishSlice(request, timeout=CALL_SECONDS)
        finally:
            channel.close()

    def _send_files(self, channel: grpc.Channel, arrived: dict[str, slices_pb2.ArrivedFile]) -> None:
        """Send the block files that the node lacks."""
        rank, layouts = self.description.rank, self.description.layouts()
        for layer in range(self.description.spec.layer_count):
            for kind in BLOCK_KINDS:
                name = block_file_name(layer, kind)
                file = arrived.get(name, slices_pb2.ArrivedFile())
                if name not in layouts or file.digests.sha256:
                    continue

                def tiles(layer: int = layer, kind: str = kind, name: str = name) -> Iterator[TileTensors]:
                    block = self._feed.take(rank, layer, kind)
                    return (block.tile(tile) for tile in layouts[name].tiles)

                self._send_file(channel, name, layouts[name], file.byte_count, tiles)

    def _send_pack(self, channel: grpc.Channel, pack: slices_pb2.LackingPack) -> None:
        """Send a pack of tiles that the node lacks. Raises: ProtocolError: it asks for what no slice has."""
        numbers = list(pack.tiles)
        if not numbers or numbers != sorted(set(numbers)) or not 0 <= numbers[0] <= numbers[-1] < len(self._tiles):
            raise ProtocolError(
                f"{self.name} asks for tiles that its slice has not; install the same shardmesh on both"
            )
        wanted = [self._tiles[number] for number in numbers]

        def tiles() -> Iterator[TileTensors | None]:
            for file, group in itertools.groupby(wanted, key=lambda tile: tile.file):
                place = self.description.rank, *self._blocks[file]
                while not self._feed.is_ready(*place, SIGN_OF_LIFE_SECONDS):
                    yield None
                block = self._feed.take(*place)
                for tile in group:
                    yield block.tile(tile.layout)

        self._send_file(channel, pack.name, pack_layout(wanted), pack.byte_count, tiles)

    def _offer(self, channel: grpc.Channel, *, verify: bool = False) -> slices_pb2.OfferSliceResponse:
        request = slices_pb2.OfferSliceRequest(
            description=json.dumps(self.description.to_json()).encode(), verify=verify
        )
        wait_until_reached(channel, REACH_SECONDS, f"{self.name} is not reachable; is its shardnode running?")
        stub = slices_pb2_grpc.SliceServiceStub(channel)
        limit = CALL_SECONDS + (self.progress.total_bytes / VERIFIED_BYTES_PER_SECOND if verify else 0)
        try:
            with failures_of(self.name):
                offer: slices_pb2.OfferSliceResponse = stub.OfferSlice(request, timeout=limit)
        except InputError:
            self._check_knows_format(stub)
            raise
        if offer.slice_id != self.description.slice_id:
            raise ProtocolError(f"{self.name} calls the slice by another name; install the same shardmesh on both")
        self.progress.arrived_bytes = self._arrived_bytes(offer)
        return offer

    def _check_knows_format(self, stub: slices_pb2_grpc.SliceServiceStub) -> None:
        """Raise SliceMismatch if the node is of a build that cannot know what it was offered."""
        with failures_of(self.name):
            held = stub.ListSlices(slices_pb2.ListSlicesRequest(), timeout=CALL_SECONDS)
        own = self.description.format_version
        if own > max(1, held.slice_format):
            raise SliceMismatch(f"{self.name} takes no slices of format {own}, of matrices as their file has them: "
                                "install the same version of shardmesh on it, or load with --weights-dtype float16"
                                )  # fmt: skip

    def _arrived_bytes(self, offer: slices_pb2.OfferSliceResponse) -> int:
        if offer.is_whole:
            return self.progress.total_bytes
        if self.description.encodings is None:
            return sum(file.byte_count for file in offer.files)
        lacking_bytes = 0
        for pack in offer.packs:
            wanted = [self._tiles[number] for number in pack.tiles if 0 <= number < len(self._tiles)]
            lacking_bytes += pack_layout(wanted).file_bytes - pack.byte_count
        return max(0, self.progress.total_bytes - lacking_bytes)

    def _send_file(
        self, channel: grpc.Channel, name: str, layout: FileLayout, first_byte: int,
        tiles: Callable[[], Iterator[TileTensors | None]],
    ) -> None:  # fmt: skip
        """Send a file, from its start again where it has arrived damaged."""
        before_bytes = self.progress.arrived_bytes - first_byte
        for attempt in range(DAMAGED_LIMIT):
            start = slices_pb2.FileStart(slice_id=self.description.slice_id, name=name, first_byte=first_byte)
            sending = FileSending(start, layout, tiles(), self._count)
            limit = CALL_SECONDS + layout.file_bytes / LEAST_BYTES_PER_SECOND
            stub = slices_pb2_grpc.SliceServiceStub(channel)
            try:
                with failures_of(self.name):
                    stub.SendFile(iter(sending), timeout=limit)
                return
            except SliceCorrupt:
                if attempt + 1 == DAMAGED_LIMIT:
                    raise
                first_byte = 0
                self.progress.arrived_bytes = before_bytes
            except ShardmeshError:
                if sending.failure is not None:
                    raise sending.failure from None
                raise

    def _count(self, byte_count: int) -> bool:
        """Count bytes that are on their way; tell whether to go on."""
        self.progress.sent_bytes += byte_count
        self.progress.arrived_bytes += byte_count
        return not self._stopping.is_set()
