"""All ranks as one: opens sessions, sends each round to every rank that has a part in it, adds the parts.

Covers: messages of a round, which ranks take part, which sequences a rank refuses or spoils, the record of each round.
Does not cover: transports (transports/), in which order answers come (arrivals.py), addition itself (reduction.py),
what to run (engine/engine.py), one round after another (layer_pass.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from common.compute.residual import Residual
from common.errors import NodeFault, ShapeError, ShardmeshError
from common.model.sweep_size import rows_per_sweep
from common.weights.slice_format import ATTENTION, FFN
from common.wire.residual_message import encode_residual
from common.wire.tensor_codec import decode_tensor, encode_tensor, wire_number
from coordinator.metrics import CoordinatorMetrics
from coordinator.ranks.arrivals import Arrivals
from coordinator.ranks.identity import RanksIdentity
from coordinator.ranks.reduction import reduce_and_check
from coordinator.ranks.round_limits import RoundLimits, kind_of_round
from coordinator.ranks.round_memory import RoundMemory
from coordinator.ranks.round_metrics import RoundMetrics
from coordinator.ranks.round_record import Result, RoundRecord, RoundTimes, part_of
from coordinator.ranks.round_tensors import messages_of, partials_of
from coordinator.ranks.slow_nodes import SlowNodeWatch
from coordinator.ranks.spoiled import not_finite, refusals
from coordinator.ranks.sweep import Summed, Sweep
from coordinator.ranks.transports.transport import Arrived, ShardClient
from protos.shardmesh.v1 import shard_pb2

LAYERS = "layers"
_KINDS = {ATTENTION: shard_pb2.BLOCK_KIND_ATTENTION, FFN: shard_pb2.BLOCK_KIND_FFN}


@dataclass(kw_only=True)
class Ranks:
    """One session with every rank. After any error it is of no more use: close it and make another."""

    clients: Sequence[ShardClient]
    identity: RanksIdentity
    metrics: CoordinatorMetrics
    times: RoundTimes = field(default_factory=RoundTimes)
    wire: torch.dtype = torch.float32
    """How rounds' tensors travel in messages; one node's whole layers are float32 always."""
    told: Callable[[str], None] = lambda text: None
    """Called, from another thread, with a sentence about a node that is slow while it is waited for."""
    kv_budget_bytes: list[int] = field(default_factory=list)
    """By rank, once it is open: the most that keys and values of all sequences may take there."""
    observers: list[Callable[[RoundRecord], None]] = field(default_factory=list)
    """Called with each round's record, in the engine's thread; the ranks' own come first."""
    _call_id: int = 0

    def __post_init__(self) -> None:
        self._memory = RoundMemory((), 0)
        self._limits = RoundLimits()
        self._arrivals = Arrivals(self.clients)
        self._slowness = SlowNodeWatch([client.name for client in self.clients], self.told)
        metrics = RoundMetrics(self.metrics, len(self.clients))
        own = (metrics.observe, self._slowness.observe, self._limits.observe, self.times.observe)
        self.observers[:0] = own
        shares = self.identity.plan.shares
        self._taking_part = {
            ATTENTION: [rank for rank, share in enumerate(shares) if share.query_head_count],
            FFN: [rank for rank, share in enumerate(shares) if share.ffn_column_count],
        }
        # Ranks hear of a sweep's sequences with their first message of it: those without heads in layer 0's FFN.
        with_heads = self._taking_part[ATTENTION]
        self._is_first = {ATTENTION: True, FFN: any(rank not in with_heads for rank in self._taking_part[FFN])}

    def open(self) -> None:
        """Open a session on every rank.

        Raises: SliceMismatch: a node holds something else; NodeError: a node is gone.
        """
        self._slowness.start()
        hidden_size = self.identity.spec.hidden_size
        self._memory = RoundMemory(
            [rank for rank, client in enumerate(self.clients) if client.passes_files and self.wire is torch.float32],
            rows_per_sweep(hidden_size) * hidden_size * torch.float32.itemsize,
        )
        try:
            self._open_sessions()
        finally:
            self._memory.close_files()

    def forget(self, sequence_ids: Collection[int]) -> None:
        """Tell every rank of sequences that have ended, without waiting; for when no sweep follows that could.

        Raises: NodeError: a node is gone.
        """
        request = self._request()
        request.change_sequences.closed.extend(sequence_ids)
        message = request.SerializeToString()
        for client in self.clients:
            self._submit(client, message)

    def settle(self) -> None:
        """Wait until every rank has heard of all that was forgotten. Raises: NodeError."""
        self._tell_all(lambda request: request.change_sequences.SetInParent(), "sequences_changed")

    def input_place(self, shape: Sequence[int]) -> torch.Tensor | None:
        """Return where the next round's input, float32 of that shape, is best written, if anywhere; until it begins."""
        return self._memory.input_place(shape)

    def run_block(self, kind: str, layer: int, sweep: Sweep, rows: torch.Tensor) -> Summed:
        """Run one round and return the block's output.

        Args: rows: the block's normed input, float32 [row_count, hidden_size].
        Raises: NodeError and what a node reports, the node named; NodeFault: all its numbers are not finite.
        """
        started = time.perf_counter()
        request = self._request()
        block = request.run_block
        block.sweep_id = sweep.sweep_id
        block.layer = layer
        block.kind = _KINDS[kind]
        block.segments.extend(sweep.segments)
        if layer == 0 and sweep.changes is not None and self._is_first[kind]:
            block.changes.CopyFrom(sweep.changes)
        limit_seconds = self._limits.seconds(kind, rows.shape[0])
        taking_part = self._taking_part[kind]  # a rank that holds nothing of a block is not asked
        in_memory = self._memory.ranks() if self._memory.input_place(rows.shape) is not None else ()
        sent_bytes: dict[int, int] = {}
        for ranks, message in messages_of(request, block.input, rows, taking_part, self._memory, self.wire):
            for rank in ranks:
                self.clients[rank].round_limit_seconds = limit_seconds
                self._submit(self.clients[rank], message)
                sent_bytes[rank] = len(message)
        sent = time.perf_counter()
        results: dict[int, shard_pb2.BlockResult] = {}
        parts = []
        for rank, arrived in self._collect(taking_part, kind_of_round(kind, rows.shape[0]), "block_result"):
            results[rank] = result = arrived.response.block_result
            parts.append(part_of(rank, arrived, result, sent_bytes[rank]))
        parts.sort(key=lambda part: part.arrived)  # their turn may have come in another order
        in_rank_order = [results[rank] for rank in taking_part]
        partials = partials_of(
            taking_part, in_rank_order, tuple(rows.shape), in_memory, self._memory, self.wire, self._refused
        )
        total, is_finite = reduce_and_check(partials)
        spoiled = self._spoiled(
            sweep, results, None if is_finite else partials, f"the {kind} block of layer {layer}"
        )  # fmt: skip
        self._observe(RoundRecord(
            sweep_id=sweep.sweep_id, sequence_ids=sweep.sequence_ids, kind=kind, layer=layer, layer_count=1,
            row_count=rows.shape[0], started=started, sent=sent, finished=time.perf_counter(), parts=tuple(parts),
        ))  # fmt: skip
        return Summed(output=total, spoiled=spoiled, next_layer=layer + 1)

    @property
    def is_one_node(self) -> bool:
        """Whether one rank holds all of every block, so that it can run whole layers."""
        return len(self.clients) == 1

    def load_norms(self, residual: Residual) -> None:
        """Give the only node what lies between blocks. Raises: NodeError."""
        self._tell_all(lambda request: encode_residual(residual, request.load_norms), "norms_loaded")

    def run_layers(self, first_layer: int, sweep: Sweep, hidden: torch.Tensor) -> Summed:
        """Let the only node run the layers from `first_layer` on; return the residual stream and the next layer.

        Args: hidden: the residual stream before the first layer, float32 [row_count, hidden_size].
        Raises: as run_block.
        """
        started = time.perf_counter()
        left = self.identity.spec.layer_count - first_layer
        request = self._request()
        layers = request.run_layers
        layers.sweep_id, layers.first_layer, layers.layer_count = sweep.sweep_id, first_layer, left
        layers.segments.extend(sweep.segments)
        if first_layer == 0 and sweep.changes is not None:
            layers.changes.CopyFrom(sweep.changes)
        encode_tensor(hidden, layers.input)
        message = request.SerializeToString()
        self._submit(self.clients[0], message)
        sent = time.perf_counter()
        ((_, arrived),) = self._collect([0], kind_of_round(LAYERS, hidden.shape[0]), "layers_result")
        result = arrived.response.layers_result
        if not 1 <= result.layer_count <= left:
            raise self._counted(NodeFault(f"{self.clients[0].name} answered {result.layer_count} of {left} layers"))
        try:
            output = decode_tensor(result.output, shape=tuple(hidden.shape))
        except ShapeError as error:
            raise self._refused(0, error) from error
        total, is_finite = reduce_and_check([output])
        next_layer = first_layer + result.layer_count
        where = f"layers {first_layer} to {next_layer - 1}"
        spoiled = self._spoiled(sweep, {0: result}, None if is_finite else [output], where)
        self._observe(RoundRecord(
            sweep_id=sweep.sweep_id, sequence_ids=sweep.sequence_ids, kind=LAYERS, layer=first_layer,
            layer_count=result.layer_count, row_count=hidden.shape[0], started=started, sent=sent,
            finished=time.perf_counter(), parts=(part_of(0, arrived, result, len(message)),),
        ))  # fmt: skip
        return Summed(output=total, spoiled=spoiled, next_layer=next_layer)

    def interrupt(self) -> None:
        """Have a round under way end in NodeLost at once. From any thread."""
        for client in self.clients:
            client.interrupt()

    def close(self) -> None:
        """End every session; what the nodes hold for us is freed. May be called twice."""
        self._slowness.close()
        for client in self.clients:
            client.close()

    def _open_sessions(self) -> None:
        request = self._request()
        for rank, client in enumerate(self.clients):
            self.identity.describe(rank, request.open_session)
            request.open_session.wire_dtype = wire_number(self.wire)
            files = self._memory.offer(rank, request.open_session)
            self._submit(client, request.SerializeToString(), files)
        found = {}
        for rank, arrived in self._collect(range(len(self.clients)), "session_opened", "session_opened"):
            found[rank] = opened = arrived.response.session_opened
            self._memory.opened(rank, opened)
        self.kv_budget_bytes = [found[rank].kv_budget_bytes for rank in range(len(self.clients))]
        self._slowness.idle()

    def _request(self) -> shard_pb2.RoundsRequest:
        self._call_id += 1
        return shard_pb2.RoundsRequest(call_id=self._call_id)

    def _tell_all(self, fill: Callable[[shard_pb2.RoundsRequest], None], expected: str) -> None:
        request = self._request()
        fill(request)
        message = request.SerializeToString()
        for client in self.clients:
            self._submit(client, message)
        for _ in self._collect(range(len(self.clients)), expected, expected):
            pass
        self._slowness.idle()

    def _submit(self, client: ShardClient, message: bytes, files: Sequence[int] = ()) -> None:
        try:
            client.submit(message, files)
        except ShardmeshError as error:
            raise self._counted(error) from error.__cause__

    def _collect(self, ranks: Sequence[int], of_a_kind: Hashable, expected: str) -> Iterator[tuple[int, Arrived]]:
        """Yield each rank's answer to the call under way, as they come. Raises: NodeError and what a node reports."""
        before = time.perf_counter()

        def waiting(rank: int) -> None:
            self._slowness.waiting_for(rank, of_a_kind, before)

        try:
            for rank, arrived in self._arrivals.of(ranks, self._call_id, waiting):
                before = max(before, arrived.at)  # it may have been here long before its turn
                response, name = arrived.response, self.clients[rank].name
                body = response.WhichOneof("body")
                if body != expected:
                    raise NodeFault(f"{name} answered {body} where {expected} belongs")
                if response.call_id != self._call_id:
                    raise NodeFault(f"{name} answered call {response.call_id} instead of {self._call_id}")
                yield rank, arrived
        except ShardmeshError as error:
            raise self._counted(error) from error.__cause__

    def _spoiled(
        self, sweep: Sweep, results: Mapping[int, Result], partials: Sequence[torch.Tensor] | None, where: str
    ) -> dict[int, ShardmeshError]:
        """Return the sequences that a round ends. Args: results: by rank; partials: by rank, if some may not be finite.

        Raises: NodeFault: all are spoiled.
        """
        names = [client.name for client in self.clients]
        found = refusals({rank: result.refused for rank, result in results.items()}, names)
        if partials is not None:
            try:
                found = {**not_finite(sweep, sorted(results), partials, names, where), **found}
            except NodeFault as fault:
                raise self._counted(fault) from None
        for error in found.values():
            self.metrics.node_failures.labels(reason=error.reason).inc()
        return found

    def _observe(self, record: RoundRecord) -> None:
        for observe in self.observers:
            observe(record)

    def _refused(self, rank: int, error: ShapeError) -> NodeFault:
        fault = NodeFault(f"{self.clients[rank].name} answered with no such tensor: {error}")
        self._counted(fault)
        return fault

    def _counted(self, error: ShardmeshError) -> ShardmeshError:
        """Count a failure of a node and return it, to be raised."""
        self._slowness.idle()
        self.metrics.node_failures.labels(reason=error.reason).inc()
        return error
