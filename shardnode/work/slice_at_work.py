"""One shard node's state: its slice, tiles, executor and KV cache, built from a NodeConfig.

Covers: opening the slice, backend and threads, sizes of the window, stats.
Does not cover: sessions (sessions/session.py), listeners (listeners/service.py), flags (cli.py).
Threads: `lock` is held by the session that computes a block; blocks of several sessions take turns.
"""

from __future__ import annotations

import os
import secrets
import threading
import time

from common.compute.backend import backend_named
from common.errors import InputError, InternalError
from common.machine.core_wait import StarvedTime
from common.machine.free_memory import group_memory
from common.machine.operating_system import keep_heap_small, own_memory, usable_core_count
from common.weights.manifest import COORDINATOR_RANK, read_manifest
from common.weights.open_tiles import largest_block_bytes, open_tiles
from common.weights.reader import ReadInto, read_into
from common.wire.rpc import PROTOCOL_VERSION
from protos.shardmesh.v1 import shard_pb2
from shardnode.config import NodeConfig
from shardnode.work.executor import Executor
from shardnode.work.kv_cache import KvCache
from shardnode.work.node_memory import node_memory
from shardnode.work.work_series import WorkSeries


class ShardNode:
    """The slice at work. Close it to end its reader threads."""

    def __init__(
        self, config: NodeConfig, read_into: ReadInto = read_into, *, series: WorkSeries | None = None
    ) -> None:
        """Open the slice.

        Args: read_into: how bytes are read from a file; another one to inject faults. series: the process's, of the
        slices before this one too.
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
        self._series = series or WorkSeries()
        self.is_closed = False
        self.lock = threading.Lock()
        self.incarnation = secrets.randbits(62)
        self.compute_nanoseconds = 0
        self.tile_wait_nanoseconds = 0
        self.queue_nanoseconds = 0
        self.starved = StarvedTime()
        self._series.follow(lambda: self.tiles.stats, self.kv_cache)
        self._series.follow_waits(lambda: self.queue_nanoseconds / 1e9, lambda: self.starved.nanoseconds() / 1e9)

    def close(self) -> None:
        """Let go of the slice; sessions that still use it get an error. May be called twice."""
        self.is_closed = True
        self.starved.close()
        self.tiles.close()  # who waits for a tile ends
        with self.lock:  # a kernel may still be reading what stays
            self.executor.forget()
            self._series.let_go()

    def wait_for_turn(self) -> int:
        """Take `lock`, to be released; return the nanoseconds that other sessions' blocks took meanwhile."""
        if self.lock.acquire(blocking=False):
            return 0
        asked = time.perf_counter_ns()
        self.lock.acquire()
        queued = time.perf_counter_ns() - asked
        self.queue_nanoseconds += queued
        return queued

    def count(self, kind: str, compute_nanoseconds: int, tile_wait_nanoseconds: int = 0) -> None:
        """Add one block's times to the totals; call with `lock` held."""
        self.compute_nanoseconds += compute_nanoseconds
        self._series.compute_seconds[kind].observe(compute_nanoseconds / 1e9)
        if tile_wait_nanoseconds:
            self.tile_wait_nanoseconds += tile_wait_nanoseconds
            self._series.tile_wait_seconds.value += tile_wait_nanoseconds / 1e9

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
            page_cache_bytes=group_memory().page_cache_bytes,
            read_bytes=tiles.bytes_read_total,
            cached_read_bytes=tiles.cached_bytes_total,
            compute_nanoseconds=self.compute_nanoseconds,
            tile_wait_nanoseconds=self.tile_wait_nanoseconds,
            checksum_nanoseconds=tiles.checksum_nanoseconds,
            open_sequence_count=self.kv_cache.sequence_count,
        )
