"""One coordinator's session with this node: checks every message, runs blocks, forgets sequences at the end.

Covers: the order of messages, distrust of what arrives. Does not cover: its sequences (open_sequences.py), transports
(listeners), maths (work/executor.py).
Each transport makes a Session, passes it every request in order, and closes it however the stream ends.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Sequence

import numpy as np

from common.compute.matmul import FEW_ROWS
from common.errors import InputError, InternalError, ProtocolError, ShapeError, ShardmeshError, SliceMismatch
from common.program.logs import entry
from common.weights.slice_format import ATTENTION, FFN
from common.weights.stored_numbers import Floats
from common.wire.framing import close_files
from common.wire.packed_round import NEXT_BYTES, BlockDone, NextBlock, done_bytes, pack_done
from common.wire.row_codec import FLOAT32, WIRE_DTYPES, decode_rows, encode_rows, is_float32, row_bytes, rows_of
from common.wire.tensor_codec import dtype_of, encode_in_memory, encode_tensor
from protos.shardmesh.v1 import shard_pb2
from shardnode.sessions.answer_waits import AnswerWaits
from shardnode.sessions.block_turns import Computed, computed_in_turn, tell_times
from shardnode.sessions.open_sequences import MAX_ROWS, OpenSequences, TakenSegments
from shardnode.sessions.quick_blocks import QuickBlocks
from shardnode.sessions.round_memory import AcceptedMemory
from shardnode.sessions.same_slice import activations_of, check_same
from shardnode.sessions.session_series import SessionSeries
from shardnode.work.layers import WholeLayers, residual_from
from shardnode.work.slice_at_work import ShardNode

log = logging.getLogger(__name__)

_KINDS = {shard_pb2.BLOCK_KIND_ATTENTION: ATTENTION, shard_pb2.BLOCK_KIND_FFN: FFN}


class Session:
    """The messages of one stream, in order. Not safe for several threads."""

    def __init__(self, node: ShardNode, series: SessionSeries | None = None) -> None:
        """Args: series: the process's; some of its own where nobody looks."""
        self._node, self._series = node, series or SessionSeries()
        self.counts = self._series.begin()
        self._sequences = OpenSequences(node.kv_cache, self._series)
        self._hidden_size = node.manifest.spec.hidden_size
        self._last_sweep_id = -1
        self._is_open = self._is_over = False
        self._layers: WholeLayers | None = None
        self.last_round_is_long = False
        """Whether the last request was a round of many rows, as in a prompt."""
        self._files: Sequence[int] = ()
        self._memory: AcceptedMemory | None = None
        self._wire = FLOAT32
        self._waits = AnswerWaits(node)
        self._sweep_rows: TakenSegments | None = None
        """Of the last RunBlock, while its sweep lasts."""
        self.quick = QuickBlocks(node, self.counts)
        """Blocks like the one before them; whose answer raises has to say so by `failed`."""

    def handle(self, request: shard_pb2.RoundsRequest) -> shard_pb2.RoundsResponse:
        """Do what one request asks and return its response.

        Raises: ShardmeshError: the request is refused or failed; the session is over then.
        """
        self.settle()
        try:
            return self._handle(request)
        except Exception as error:
            self.failed(error)
            raise

    def answer_next(self, block: NextBlock, message: bytes | memoryview) -> tuple[bytes, Floats | None]:
        """Do what a packed message asks; return the answer, or its beginning and the float32, without gaps, behind it.

        Args: block: what `message` begins with; its rows are of no use to anybody afterwards.
        Raises: as `handle`.
        """
        self.settle()
        try:
            return self._answer_next(block, message)
        except Exception as error:
            self.failed(error)
            raise

    def failed(self, error: Exception) -> None:
        """Count and log how the session ends. Raises: SliceMismatch: that is why."""
        if self._node.is_closed:
            raise SliceMismatch("this node serves another slice now, or none; ask again") from error
        reason = error.reason if isinstance(error, ShardmeshError) else InternalError.reason
        self._series.failures.labels(reason=reason).inc()
        words = str(error) if isinstance(error, ShardmeshError) else type(error).__name__  # no circle with a frame
        log.warning("%s", entry("session failed", reason=reason, requests=self._sequences.requests, error=words))
        self._is_over = True

    def take_files(self, files: Sequence[int]) -> None:
        """Take descriptors that came with the first message; the session closes them."""
        self._files = files

    @property
    def is_idle(self) -> bool:
        """Whether no sequence is open, so that its end costs nobody an answer."""
        return not self._sequences

    def refuse_new(self, reason: ShardmeshError) -> None:
        """Open no sequence from now on, for this reason. From any thread."""
        self._sequences.refusal = reason

    def settle(self) -> None:
        """Do what can wait until a response is on its way; optional, since the next request and `close` do it too."""
        if self._layers is not None:
            self._layers.settle()

    def close(self) -> None:
        """Forget every sequence and the memory of this session."""
        self.settle()
        self._memory = None
        self._close_files()
        if not self._is_over and (requests := self._sequences.requests) is not None:
            log.warning("%s", entry("session lost", requests=requests))
            self._is_over = True
        self._sequences.close()
        self._series.end(self.counts)

    def _handle(self, request: shard_pb2.RoundsRequest) -> shard_pb2.RoundsResponse:
        self._begin_call(request.call_id)
        response = shard_pb2.RoundsResponse(call_id=request.call_id)
        body = request.WhichOneof("body")
        if body is None:
            raise InputError("a request without a body")
        if not self._is_open and body != "open_session":
            raise ProtocolError(f"{body} came before open_session")
        if body == "run_block":
            self.counts.rounds += 1
            self._run_block(request.run_block, response)
            return response
        self._forget_rows()  # its sequences may end with this
        if body == "run_layers":
            self.counts.rounds += 1
            self._run_layers(request.run_layers, response)
        elif body == "load_norms":
            self._layers = WholeLayers(
                self._node, residual_from(request.load_norms, self._node), self.quick.activations
            )
            response.norms_loaded.SetInParent()
        elif body == "change_sequences":
            response.sequences_changed.refused.extend(self._sequences.change(request.change_sequences))
        else:
            self._open_session(request.open_session, response)
        return response

    def _begin_call(self, call_id: int) -> None:
        if call_id <= self.quick.call_id:
            raise ProtocolError(f"call {call_id} came after call {self.quick.call_id}")
        self.quick.call_id = call_id
        self.last_round_is_long = False
        if self._node.is_closed:
            raise SliceMismatch("its slice is closed")

    def _open_session(self, request: shard_pb2.OpenSession, response: shard_pb2.RoundsResponse) -> None:
        if self._is_open:
            raise ProtocolError("open_session came twice")
        check_same(request, self._node.manifest)
        self._wire = dtype_of(request.wire_dtype, WIRE_DTYPES)
        self.quick.activations = activations_of(request.activations, self._node.config)
        self._memory = AcceptedMemory.accept(self._files, request.memory_bytes)
        self._close_files()
        self._is_open = True
        opened = response.session_opened
        opened.incarnation = self._node.incarnation
        opened.kv_budget_bytes = self._node.kv_cache.budget_bytes
        opened.thread_count = self._node.thread_count
        opened.process_id = os.getpid()
        opened.uses_memory = self._memory is not None
        opened.takes_packed = True
        opened.activations = request.activations

    def _run_block(self, request: shard_pb2.RunBlock, response: shard_pb2.RoundsResponse) -> None:
        if request.tells_waits:
            self._waits.begin()
        kind = _KINDS.get(request.kind)
        if kind is None:
            raise InputError(f"no block of kind {request.kind} in layer {request.layer}")
        result = response.block_result
        result.refused.extend(self._begin_sweep(request))
        memory = self._memory if request.input.is_in_memory else None
        taken, rows = self._rows(request, result.refused, memory, FLOAT32 if memory else self._wire)
        self._forget_rows()
        self._sweep_rows = taken
        partial, output, queued = self._in_turn(kind, request.layer, taken, rows)
        if output is not None:
            tell_times(result, output, queued)
        place = memory.answers.view(rows.shape) if memory else None
        if place is not None:
            encode_in_memory(partial, result.partial, place)
        else:
            encode_rows(partial, self._wire, result.partial)
        if request.tells_waits:
            self._waits.tell(result)
        if memory is None and is_float32(self._wire, taken.row_count):
            self.quick.tell(request.sweep_id, taken)

    def _answer_next(self, block: NextBlock, message: bytes | memoryview) -> tuple[bytes, Floats | None]:
        self._begin_call(block.call_id)
        if block.tells_waits:
            self._waits.begin()
        taken = self._sweep_rows
        if taken is None or block.sweep_id != self._last_sweep_id:
            raise ProtocolError(f"the next block of sweep {block.sweep_id} came before its first")
        self.counts.rounds += 1
        shape = (taken.row_count, self._hidden_size)
        memory = self._memory if block.is_in_memory else None
        place = memory.inputs.view(shape) if memory else None
        data = memoryview(message)[NEXT_BYTES:]
        rows = rows_of(data, shape, self._wire) if place is None else place
        partial, output, queued = self._in_turn(block.kind, block.layer, taken, rows)
        computed, tile_waited = (0, 0) if output is None else (output.compute_nanoseconds, output.tile_wait_nanoseconds)
        answer_place = memory.answers.view(shape) if memory else None
        if answer_place is not None:
            answer_place[...] = partial
        handling, core_wait, starved = self._waits.told(tile_waited, queued) if block.tells_waits else (0, 0, 0)
        times = (time.perf_counter_ns(), computed, tile_waited, handling, queued, core_wait, starved)
        if answer_place is not None:
            return pack_done(BlockDone(block.call_id, *times, is_in_memory=True)), None
        head = done_bytes(block.call_id, *times)
        if is_float32(self._wire, taken.row_count):
            self.quick.learn(message, block.sweep_id, taken, rows)
            return head, np.ascontiguousarray(partial)
        return head + row_bytes(partial, self._wire), None

    def _in_turn(self, kind: str, layer: int, taken: TakenSegments, rows: Floats) -> Computed:
        self.last_round_is_long = taken.row_count > FEW_ROWS
        return computed_in_turn(self._node, kind, layer, taken, rows, self.quick.activations)

    def _run_layers(self, request: shard_pb2.RunLayers, response: shard_pb2.RoundsResponse) -> None:
        if self._layers is None:
            raise ProtocolError("run_layers came before load_norms")
        if request.tells_waits:
            self._waits.begin()
        result = response.layers_result
        result.refused.extend(self._begin_sweep(request))
        taken, rows = self._rows(request, result.refused)
        layers = range(request.first_layer, request.first_layer + request.layer_count)
        if not taken.segments:
            encode_tensor(np.zeros_like(rows), result.output)
            result.layer_count = request.layer_count
            return
        output = self._layers.run(layers, taken.segments, taken.own(rows))
        encode_tensor(taken.among_all(output.hidden), result.output)
        result.layer_count = output.layer_count
        tell_times(result, output, output.queue_nanoseconds)
        if request.tells_waits:
            self._waits.tell(result)

    def _begin_sweep(self, request: shard_pb2.RunBlock | shard_pb2.RunLayers) -> list[shard_pb2.SequenceRefused]:
        """Make a sweep's changes, at the first message of it that comes; return what is refused."""
        if request.sweep_id == self._last_sweep_id:
            return []
        self._last_sweep_id = request.sweep_id
        self._waits.is_first_answer = True
        self._forget_rows()
        self.counts.sweeps += 1
        return self._sequences.change(request.changes)

    def _rows(
        self,
        request: shard_pb2.RunBlock | shard_pb2.RunLayers,
        refused: Iterable[shard_pb2.SequenceRefused],
        memory: AcceptedMemory | None = None,
        wire: str = FLOAT32,
    ) -> tuple[TakenSegments, Floats]:
        """Return whose rows a request has, and all of them. Args: memory: where its rows lie, if not in it."""
        taken = self._sequences.take(request.segments, {one.sequence_id for one in refused})
        if not taken.row_count:
            raise ShapeError(f"a round of no rows; from 1 to {MAX_ROWS} are possible")
        shape = (taken.row_count, self._node.manifest.spec.hidden_size)
        return taken, decode_rows(request.input, shape, wire, memory.inputs.view(shape) if memory else None)

    def _forget_rows(self) -> None:
        self._sweep_rows = None
        self.quick.forget()

    def _close_files(self) -> None:
        files, self._files = self._files, ()
        close_files(files)
