"""One shard node's state: its slice, tiles, executor and KV cache, built from a NodeConfig.

Covers: opening the slice, backend and threads, sizes of the window, stats.
Does not cover: sessions (sessions/session.py), listeners (listeners/service.py), flags (cli.py).
Threads: `lock` is held by the session that computes a block; blocks of several sessions take turns.
"""

from __future__ import annotations

import os
import secrets
import threading

from common.compute.backend import backend_named
from common.errors import InputError, InternalError
from common.machine.operating_system import keep_heap_small, own_memory, usable_core_count
from common.weights.manifest import COORDINATOR_RANK, read_manifest
from common.weights.open_tiles import largest_block_bytes, open_tiles
from common.weights.reader import ReadInto, read_into
from common.weights.slice_format import BLOCK_KINDS
from common.wire.rpc import PROTOCOL_VERSION
from protos.shardmesh.v1 import shard_pb2
from shardnode.config import NodeConfig
from shardnode.metrics import NodeMetrics
from shardnode.work.executor import Executor
from shardnode.work.kv_cache import KvCache
from shardnode.work.node_memory import node_memory


class ShardNode:
    """The slice at work. Close it to end its reader threads."""

    def __init__(
        self, config: NodeConfig, read_into: ReadInto = read_into, *, metrics: NodeMetrics | None = None
    ) -> None:
        """Open the slice.

        Args: read_into: how bytes are read from a file; another one to inject faults. metrics: of a node that served
        another slice before.
        """
        if config.slice_directory is None:
            raise InternalError("a node without a slice")
        self.config = config
        self.manifest = read_manifest(config.slice_directory)
        if self.manifest.rank == COORDINATOR_RANK:
            raise InputError(
                f"{config.slice_directory} is the coordinator's own slice; name one of the node directories"
            )
        self.thread_count = config.thread_count or usable_core_count()
        backend = backend_named(config.backend, use_gpu=config.use_gpu)
        backend.set_thread_count(self.thread_count, config.row_thread_count or self.thread_count)
        backend.check(self.manifest.spec)
        kv_budget_bytes, weights = node_memory(config, self.manifest)
        if weights.budget_bytes is not None:
            keep_heap_small()
        self.tiles = open_tiles(
            config.slice_directory, self.manifest, weights,
            block_bytes=largest_block_bytes(self.manifest), read_into=read_into,
        )  # fmt: skip
        self.executor = Executor(self.manifest, self.tiles, backend)
        kv_head_count = len(self.manifest.share.kv_heads(self.manifest.spec))
        self.kv_cache = KvCache(self.manifest.spec, kv_head_count, kv_budget_bytes, backend)
        self.metrics = metrics or NodeMetrics()
        self.is_closed = False
        self._compute_seconds = {kind: self.metrics.compute_seconds.labels(kind=kind) for kind in BLOCK_KINDS}
        self.lock = threading.Lock()
        self.incarnation = secrets.randbits(62)
        self.compute_nanoseconds = 0
        self.tile_wait_nanoseconds = 0
        self._watch_sizes()

    def close(self) -> None:
        """Let go of the slice; sessions that still use it get an error. May be called twice."""
        self.is_closed = True
        self.tiles.close()  # who waits for a tile ends
        with self.lock:  # a kernel may still be reading what stays
            self.executor.forget()

    def count(self, kind: str, compute_nanoseconds: int, tile_wait_nanoseconds: int = 0) -> None:
        """Add one block's times to the totals; call with `lock` held."""
        self.compute_nanoseconds += compute_nanoseconds
        self._compute_seconds[kind].observe(compute_nanoseconds / 1e9)
        if tile_wait_nanoseconds:
            self.tile_wait_nanoseconds += tile_wait_nanoseconds
            self.metrics.tile_wait_seconds.inc(tile_wait_nanoseconds / 1e9)

    def stats(self) -> shard_pb2.GetStatsResponse:
        """Return what the node holds and has used."""
        tiles = self.tiles.stats
        memory = own_memory()
        return shard_pb2.GetStatsResponse(
            protocol_version=PROTOCOL_VERSION,
            model_identity=self.manifest.model_identity,
            plan_digest=self.manifest.plan.digest,
            rank=self.manifest.rank,
            weights_dtype=self.manifest.dtype,
            incarnation=self.incarnation,
            process_id=os.getpid(),
            rss_bytes=memory.rss_bytes,
            peak_rss_bytes=memory.peak_rss_bytes,
            pss_bytes=memory.pss_bytes,
            window_bytes=tiles.window_bytes,
            resident_bytes=tiles.resident_bytes,
            peak_weight_bytes=tiles.peak_held_bytes,
            kv_bytes=self.kv_cache.reserved_bytes,
            kv_budget_bytes=self.kv_cache.budget_bytes,
            read_bytes=tiles.bytes_read_total,
            compute_nanoseconds=self.compute_nanoseconds,
            tile_wait_nanoseconds=self.tile_wait_nanoseconds,
            checksum_nanoseconds=tiles.checksum_nanoseconds,
            open_sequence_count=self.kv_cache.sequence_count,
        )

    def _watch_sizes(self) -> None:
        metrics = self.metrics
        metrics.kv_budget_bytes.set(self.kv_cache.budget_bytes)
        metrics.rss_bytes.set_function(lambda: own_memory().rss_bytes)
        metrics.window_bytes.set_function(lambda: self.tiles.stats.window_bytes)
        metrics.resident_bytes.set_function(lambda: self.tiles.stats.resident_bytes)
        metrics.peak_weight_bytes.set_function(lambda: self.tiles.stats.peak_held_bytes)
        metrics.kv_bytes.set_function(lambda: self.kv_cache.reserved_bytes)
        metrics.read_bytes.set_function(lambda: self.tiles.stats.bytes_read_total)
        metrics.sequences.set_function(lambda: self.kv_cache.sequence_count)
