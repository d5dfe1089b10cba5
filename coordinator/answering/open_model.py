"""Puts a coordinator together over a model's slices: memory, nodes, engine.

Covers: the order in which things are opened, checked and closed. Does not cover: making slices
(models/local_model.py), requests (answers.py), flags and output (cli/).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Protocol

from common.compute.backend import backend_named
from common.machine.operating_system import give_free_heap_back, own_memory, usable_core_count
from common.weights.manifest import read_manifest
from common.weights.tile_source import TileStats
from coordinator.answering.answer_series import AnswerSeries
from coordinator.answering.run_options import RunOptions
from coordinator.engine.ends import Ends
from coordinator.engine.engine import Engine
from coordinator.engine.head import Head
from coordinator.engine.schedule import Schedule, Tell
from coordinator.local.memory import allot_memory
from coordinator.local.pool import LocalNodes, LocalOptions
from coordinator.ranks.identity import RanksIdentity
from coordinator.ranks.link_watch import LinkWatch, measure_sessions
from coordinator.ranks.ranks import Ranks
from coordinator.ranks.transports.connecting import connect_nodes
from protos.shardmesh.v1 import shard_pb2


class RunnableModel(Protocol):
    """What there is to know of a model that was cut into slices."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def node_names(self) -> Sequence[str]:
        """Members of the mesh that hold it, by rank; none where it is on no mesh."""

    @property
    def identity(self) -> RanksIdentity:
        """What every node must hold."""

    @property
    def own_directory(self) -> Path:
        """The coordinator's own slice."""

    @property
    def node_directories(self) -> Sequence[Path]:
        """The nodes' slices by rank; none where nodes have them already."""


class OpenModel:
    """An engine over connected nodes, ready for requests. Use as a context manager."""

    def __init__(
        self, model: RunnableModel, run: RunOptions, local: LocalNodes | None,
        series: AnswerSeries | None = None, told: Callable[[str], None] = lambda text: None,
        schedule: Schedule | None = None,
    ) -> None:  # fmt: skip
        """Start or connect nodes and open everything. `local` is started here, and closed by whoever made it.

        Args: told: called, from another thread, with a sentence about a node that is slow while it is waited for;
        schedule: of requests whose ranks were lost; a new one if not given.
        Raises: SliceError, NodeError, ResourceError and their kinds.
        """
        self._series = series = series or AnswerSeries()
        self._closing = ExitStack()
        with ExitStack() as opening:
            directory = model.own_directory
            manifest = read_manifest(directory)
            backend = backend_named(run.backend, use_gpu=run.use_gpu)
            backend.set_thread_count(1, usable_core_count())  # of the head: no node computes meanwhile
            directories = model.node_directories
            memory = allot_memory(
                directory, manifest, directories, local, weights=run.weights, kv_budget_bytes=run.kv_budget_bytes,
                memory_budget=run.memory_budget, position_capacity=run.position_capacity,
                tokenizer_bytes=run.tokenizer_bytes,
            )  # fmt: skip
            ends = Ends(directory, manifest, leaves_page_cache=memory.head.page_cache != "bypass")
            opening.callback(ends.close)
            head = Head(directory, manifest, memory.head, backend, run.activations)
            opening.callback(head.close)
            addresses = list(run.node_addresses)
            if local is not None:
                addresses = [node.address for node in local.start(LocalOptions(
                    slice_directories=directories, weights=memory.nodes, kv_budget_bytes=memory.kv_bytes,
                    backend=run.backend, use_gpu=run.use_gpu,
                ))]  # fmt: skip
            self.nodes = connect_nodes(addresses, run.mesh, run.reach_seconds, run.travel.rounds)
            for node in self.nodes:
                opening.callback(node.close)
            ranks = Ranks(
                clients=[node.client for node in self.nodes], identity=model.identity, series=series.rounds,
                node_names=[node.label for node in self.nodes], wire=run.travel.dtype, told=told,
                activations=run.activations,
            )  # fmt: skip
            opening.callback(ranks.close)
            ranks.open()
            measure_sessions(ranks)
            if run.mesh is not None:  # the ways within one host do not change
                opening.callback(LinkWatch([node.echoes for node in self.nodes], ranks.path).close)
            prompt_tokens = series.requests.of(model.name).prompt_tokens
            self.engine = Engine(ranks, ends, head, schedule or Schedule(), series.sweeps, prompt_tokens)
            self._ends, self._head = ends, head
            series.memory.budget_bytes.value = memory.budget_bytes
            series.weights.follow(self.own_weights)
            opening.callback(series.weights.let_go)
            series.requests.opened(model.name, self.engine.schedule.room_taken)
            opening.callback(series.requests.closed)
            self._closing = opening.pop_all()

    def own_weights(self) -> TileStats:
        """Return the state of the coordinator's own weights: head, embedding and norms."""
        stats, ends = self._head.stats, self._ends
        return replace(
            stats, resident_bytes=stats.resident_bytes + ends.resident_bytes,
            bytes_read_total=stats.bytes_read_total + ends.bytes_read_total,
            checksum_nanoseconds=stats.checksum_nanoseconds + ends.checksum_nanoseconds,
        )  # fmt: skip

    def node_stats(self) -> list[shard_pb2.GetStatsResponse]:
        """Return every node's state, in rank order, once it has heard which sequences have ended. Raises: NodeError.

        In the engine's thread, or while it rests.
        """
        self.engine.settle()
        return self._stats()

    def memory(self) -> dict[str, dict[str, int]]:
        """Return the memory of every process, in bytes: "coordinator", then "node0" and on; from any thread.

        With it, what else it tells of itself: "process_id", and "checksum_nanoseconds" (TileStats).

        Raises: NodeError.
        """
        own, weights = own_memory(), self.own_weights()
        memory = {
            "coordinator": {
                "process_id": os.getpid(), "peak_rss_bytes": own.peak_rss_bytes, "pss_bytes": own.pss_bytes,
                "window_bytes": weights.window_bytes, "resident_bytes": weights.resident_bytes,
                "read_bytes": weights.bytes_read_total, "cached_read_bytes": weights.cached_bytes_total,
                "checksum_nanoseconds": weights.checksum_nanoseconds,
            }
        }  # fmt: skip
        for stats in self._stats():
            memory[f"node{stats.rank}"] = {
                "process_id": stats.process_id, "peak_rss_bytes": stats.peak_rss_bytes, "pss_bytes": stats.pss_bytes,
                "window_bytes": stats.window_bytes, "resident_bytes": stats.resident_bytes,
                "peak_weight_bytes": stats.peak_weight_bytes, "kv_bytes": stats.kv_bytes,
                "read_bytes": stats.read_bytes, "cached_read_bytes": stats.cached_read_bytes,
                "checksum_nanoseconds": stats.checksum_nanoseconds,
            }  # fmt: skip
        return memory

    def rest(self) -> list[Tell]:
        """Tell the ranks that all sequences have ended, and give back what the last ones took; in the engine's thread.

        Raises: NodeError.
        """
        news = self.engine.step()
        give_free_heap_back()
        return news

    def interrupt(self) -> None:
        """Break off a sweep under way, which ends in NodeLost. From any thread."""
        self.engine.ranks.interrupt()

    def _stats(self) -> list[shard_pb2.GetStatsResponse]:
        return [node.stats() for node in self.nodes]

    def close(self) -> None:
        """End the sessions and free everything. May be called twice."""
        self._closing.close()

    def __enter__(self) -> OpenModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
