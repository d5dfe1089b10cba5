"""All ranks as one: opens sessions, sends each round to every rank that has a part in it, adds the parts.

Covers: messages of a round, which ranks take part, which sequences a rank refuses or spoils, the record of each round.
Does not cover: transports (transports/), addition itself (reduction.py), what to run (engine/engine.py), one round
after another (layer_pass.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from common.compute.residual import Residual
from common.errors import NodeFault, ShapeError, ShardmeshError
from common.model.sweep_size import rows_per_sweep
from common.weights.slice_format import ITEM_BYTES
from common.weights.stored_numbers import Floats, widened
from common.wire.residual_message import encode_residual
from common.wire.tensor_codec import decode_tensor, encode_tensor, wire_number
from coordinator.ranks.identity import RanksIdentity
from coordinator.ranks.past_rounds import Observe, PastRounds, RoundTimes
from coordinator.ranks.path_watch import PathWatch
from coordinator.ranks.quick_rounds import QuickRounds
from coordinator.ranks.rank_sessions import RankSessions
from coordinator.ranks.reduction import reduce_and_check
from coordinator.ranks.round_limits import RoundLimits, kind_of_round
from coordinator.ranks.round_memory import RoundMemory
from coordinator.ranks.round_messages import RoundMessages
from coordinator.ranks.round_metrics import RoundMetrics
from coordinator.ranks.round_record import PastRound, Result, parts_of
from coordinator.ranks.round_series import RoundSeries
from coordinator.ranks.round_tensors import partials_of, result_of, sum_of
from coordinator.ranks.slow_nodes import SlowNodeWatch
from coordinator.ranks.spoiled import not_finite, refusals
from coordinator.ranks.sweep import Summed, Sweep
from coordinator.ranks.transports.transport import ShardClient, whole_response
from protos.shardmesh.v1 import shard_pb2

Fill = Callable[[shard_pb2.RoundsRequest], None]
LAYERS = "layers"


@dataclass(kw_only=True)
class Ranks:
    """One session with every rank. After any error it is of no more use: close it and make another."""

    clients: Sequence[ShardClient]
    identity: RanksIdentity
    series: RoundSeries = field(default_factory=RoundSeries)
    node_names: Sequence[str] = ()
    """By rank, as series call them: a member's name; without a mesh, which is what () means, node0, node1 and on."""
    times: RoundTimes = field(default_factory=RoundTimes)
    wire: str = "float32"
    """How rounds' tensors travel in messages, float32 or bfloat16; one node's whole layers are float32 always."""
    told: Callable[[str], None] = lambda text: None
    """Called, from another thread, with a sentence about a node that is slow while it is waited for."""
    kv_budget_bytes: list[int] = field(default_factory=list)
    """By rank, once it is open: the most that keys and values of all sequences may take there."""
    observers: list[Observe] = field(default_factory=list)
    """Called with rounds that are over, in the engine's thread; the ranks' own come first."""
    _call_id: int = 0

    def __post_init__(self) -> None:
        self._memory = RoundMemory((), 0)
        self._past = PastRounds(self.observers)
        self._limits = RoundLimits()
        self.node_names = self.node_names or [f"node{rank}" for rank in range(len(self.clients))]
        names, noted = [client.name for client in self.clients], self.series.slow_noted(self.node_names)
        self._slowness = SlowNodeWatch(names, self.told, noted)
        self._sessions = RankSessions(self.clients, self.node_names, self.series, self._slowness, self._past)
        metrics = RoundMetrics(self.series, self.node_names)
        self._carriers = [client.carrier for client in self.clients]
        self.path = PathWatch(self.node_names, self.series.path, self._carriers)
        self.observers[:0] = [
            metrics.observe, self._slowness.observe, self._limits.observe, self.times.observe, self.path.observe
        ]  # fmt: skip
        self._taking_part = self.identity.taking_part()
        self._say_with(())

    def open(self) -> None:
        """Open a session on every rank. Raises: SliceMismatch: a node holds something else; NodeError: one is gone."""
        self._slowness.start()
        hidden_size = self.identity.spec.hidden_size
        self._memory = RoundMemory(
            [rank for rank, client in enumerate(self.clients) if client.passes_files and self.wire == "float32"],
            rows_per_sweep(hidden_size) * hidden_size * ITEM_BYTES["float32"],
        )
        try:
            self._open_sessions()
            self.series.carried(self.node_names, self._carriers, is_open=True)
        finally:
            self._memory.close_files()

    def forget(self, sequence_ids: Collection[int]) -> None:
        """Tell every rank of sequences that have ended, without waiting; for when no sweep follows that could.

        Raises: NodeError: a node is gone.
        """
        request = self._request()
        request.change_sequences.closed.extend(sequence_ids)
        message = request.SerializeToString()
        for rank in range(len(self.clients)):
            self._sessions.submit(rank, message)

    def settle(self, rank: int | None = None) -> None:
        """Wait until every rank, or one, has heard of all that was forgotten. Raises: NodeError."""
        self._tell(lambda request: request.change_sequences.SetInParent(), "sequences_changed", rank)

    def input_place(self, shape: Sequence[int]) -> Floats | None:
        """Return where the next round's input, float32 of that shape, is best written, if anywhere; until it begins."""
        return self._memory.input_place(shape)

    def run_block(self, kind: str, layer: int, sweep: Sweep, rows: Floats) -> Summed:
        """Run one round and return the block's output.

        Args: rows: the block's normed input, float32 [row_count, hidden_size].
        Raises: NodeError and what a node reports, the node named; NodeFault: all its numbers are not finite.
        """
        started = time.perf_counter()
        self._call_id += 1
        tells_waits = self.path.is_looking
        tried = self._quick.run(kind, layer, sweep, rows, self._call_id, started, tells_waits=tells_waits)
        if tried is not None and tried.total is not None:
            return Summed(tried.total, {}, layer + 1)
        limit_seconds = self._limits.seconds(kind, rows.shape[0])
        taking_part = self._taking_part[kind]  # a rank that holds nothing of a block is not asked
        in_memory = self._memory.ranks() if self._memory.input_place(rows.shape) is not None else ()
        of_a_kind = kind_of_round(kind, rows.shape[0])
        if tried is not None:  # what C has left
            self._sessions.limit(taking_part, limit_seconds)
            sent, sent_bytes = tried.sent, dict.fromkeys(taking_part, tried.sent_bytes)
        else:
            sent, sent_bytes = self._ask(kind, layer, sweep, rows, limit_seconds, tells_waits=tells_waits)
        self._past.pass_on_late(sent)
        answers = self._sessions.collect(taking_part, self._call_id, "block_result", of_a_kind)
        results = [result_of(answer) for answer in answers]
        partials: Sequence[Floats] = ()
        summed = None if in_memory else sum_of(answers, rows.shape, self.wire)
        if summed is None or not summed[1]:
            partials = partials_of(
                taking_part, answers, rows.shape, in_memory, self._memory, self.wire, self._refused
            )  # fmt: skip
        total, is_finite = summed or reduce_and_check(partials)
        spoiled: dict[int, ShardmeshError] = {}
        if not is_finite or any(result.refused for result in results):
            where = f"the {kind} block of layer {layer}"
            spoiled = self._spoiled(sweep, taking_part, results, total, () if is_finite else partials, where)
        parts = parts_of(taking_part, answers, results, sent_bytes, with_waits=self.path.is_looking)
        self._past.note(
            PastRound(sweep, kind, layer, 1, rows.shape[0], started, sent, time.perf_counter(), parts)
        )  # fmt: skip
        return Summed(output=total, spoiled=spoiled, next_layer=layer + 1)

    def _ask(
        self, kind: str, layer: int, sweep: Sweep, rows: Floats, limit_seconds: float, *, tells_waits: bool
    ) -> tuple[float, dict[int, int]]:  # fmt: skip
        """Send each rank its message of a round; return when that was done, and how long each one is."""
        sent, sent_bytes, of_a_kind = 0.0, dict[int, int](), kind_of_round(kind, rows.shape[0])
        for ranks, message in self._messages.of_block(kind, layer, sweep, rows, self._call_id, tells_waits=tells_waits):
            sent_bytes.update(dict.fromkeys(ranks, len(message)))
            is_all = len(ranks) == len(self._taking_part[kind])
            sent = self._sessions.ask(ranks, message, of_a_kind, limit_seconds, is_all=is_all)
        return sent, sent_bytes

    @property
    def is_one_node(self) -> bool:
        """Whether one rank holds all, so that it can run whole layers."""
        return len(self.clients) == 1

    def load_norms(self, residual: Residual) -> None:
        """Give the only node what lies between blocks. Raises: NodeError."""
        self._tell(lambda request: encode_residual(residual, request.load_norms), "norms_loaded")

    def run_layers(self, first_layer: int, sweep: Sweep, hidden: Floats) -> Summed:
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
        layers.tells_waits = self.path.is_looking
        if first_layer == 0 and sweep.changes is not None:
            layers.changes.CopyFrom(sweep.changes)
        encode_tensor(hidden, layers.input)
        message = request.SerializeToString()
        self._sessions.submit(0, message)
        sent = time.perf_counter()
        self._past.pass_on_late(sent)
        answers = self._sessions.collect([0], self._call_id, "layers_result", kind_of_round(LAYERS, hidden.shape[0]))
        result = whole_response(answers[0]).layers_result
        if not 1 <= result.layer_count <= left:
            raise self._sessions.counted(
                0, NodeFault(f"{self.clients[0].name} answered {result.layer_count} of {left} layers")
            )
        try:
            output = widened(decode_tensor(result.output, shape=hidden.shape))
        except ShapeError as error:
            raise self._refused(0, error) from error
        total, is_finite = reduce_and_check([output])
        next_layer = first_layer + result.layer_count
        spoiled: dict[int, ShardmeshError] = {}
        if not is_finite or result.refused:
            where = f"layers {first_layer} to {next_layer - 1}"
            spoiled = self._spoiled(sweep, [0], [result], total, () if is_finite else [output], where)
        parts = parts_of([0], answers, [result], {0: len(message)}, with_waits=self.path.is_looking)
        finished = time.perf_counter()
        self._past.note(PastRound(
            sweep, LAYERS, first_layer, result.layer_count, hidden.shape[0], started, sent, finished, parts
        ))  # fmt: skip
        return Summed(output=total, spoiled=spoiled, next_layer=next_layer)

    def interrupt(self) -> None:
        """Have a round under way end in NodeLost at once. From any thread."""
        for client in self.clients:
            client.interrupt()

    def close(self) -> None:
        """End every session; what the nodes hold for us is freed. May be called twice."""
        self._slowness.close()
        if self.path.is_open:  # those that come after these have the same series
            self.path.close()
            self.series.carried(self.node_names, self._carriers, is_open=False)
        for client in self.clients:
            client.close()

    def _open_sessions(self) -> None:
        request = self._request()
        for rank in range(len(self.clients)):
            self.identity.describe(rank, request.open_session)
            request.open_session.wire_dtype = wire_number(self.wire)
            files = self._memory.offer(rank, request.open_session)
            self._sessions.submit(rank, request.SerializeToString(), files)
        answers = self._sessions.collect(
            range(len(self.clients)), self._call_id, "session_opened", "session_opened"
        )  # fmt: skip
        all_opened = [whole_response(answer).session_opened for answer in answers]
        for rank, opened in enumerate(all_opened):
            self._memory.opened(rank, opened)
        self.kv_budget_bytes = [opened.kv_budget_bytes for opened in all_opened]
        packed = [
            rank for rank, opened in enumerate(all_opened) if opened.takes_packed and self.clients[rank].takes_packed
        ]
        self._say_with(packed)

    def _say_with(self, packed: Collection[int]) -> None:
        """Make what messages are made with. Args: packed: ranks that understand packed rounds."""
        self._messages = RoundMessages(self._taking_part, packed, self._memory, self.wire)
        self._quick = QuickRounds(self._messages, self._sessions, self._past, self._taking_part)

    def _request(self) -> shard_pb2.RoundsRequest:
        self._call_id += 1
        return shard_pb2.RoundsRequest(call_id=self._call_id)

    def _tell(self, fill: Fill, expected: str, rank: int | None = None) -> None:
        ranks = range(len(self.clients)) if rank is None else [rank]
        request = self._request()
        fill(request)
        message = request.SerializeToString()
        for one in ranks:
            self._sessions.submit(one, message)
        self._sessions.collect(ranks, self._call_id, expected, expected)

    def _spoiled(
        self, sweep: Sweep, ranks: Sequence[int], results: Sequence[Result], total: Floats,
        partials: Sequence[Floats], where: str,
    ) -> dict[int, ShardmeshError]:  # fmt: skip
        """Return the sequences that a round ends. Args: results: of `ranks`; partials: too, if not all are finite.

        Raises: NodeFault: all are spoiled, or a node refuses what nobody asked.
        """
        names = [client.name for client in self.clients]
        try:
            refused = dict(zip(ranks, (result.refused for result in results), strict=True))
            found = refusals(sweep, refused, names, self._sessions.blame)
            if partials:
                found = {**not_finite(sweep, total, ranks, partials, names, where, self._sessions.blame), **found}
        except NodeFault:
            self._past.pass_on()
            self._slowness.idle()
            raise
        return found

    def pass_on(self) -> None:
        """Have everybody look at the records of all rounds so far; for the end of a sweep."""
        self._past.pass_on()

    def _refused(self, rank: int, error: ShapeError) -> ShardmeshError:
        return self._sessions.counted(
            rank, NodeFault(f"{self.clients[rank].name} answered with no such tensor: {error}")
        )
