"""Does a node survive random requests and random bytes, each answered or refused with an error of ours?

Covers: RoundsRequests from Hypothesis into a session; bytes that are no message over both transports.
Does not cover: each field on its own (test_session_distrust.py).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import InputError, NodeFault, ShardmeshError
from common.wire.framing import FrameReader, send_frame
from common.wire.rpc import MAX_MESSAGE_BYTES
from protos.shardmesh.v1 import shard_pb2, tensor_pb2
from shardnode.sessions.session import Session
from shardnode.work.slice_at_work import ShardNode
from tests.support.listening_nodes import ListeningNode, ask
from tests.support.session_messages import open_sequence, open_session
from tests.support.sliced_models import SlicedModel

Request = shard_pb2.RoundsRequest


@pytest.fixture(scope="module")
def node(sliced: SlicedModel) -> Iterator[ShardNode]:
    """Return a node without listeners that all examples mistreat."""
    made = ShardNode(sliced.node_config())
    yield made
    made.close()


tensors = st.builds(
    tensor_pb2.Tensor,
    dtype=st.sampled_from([0, 1, 1, 1, 2, 3, 99]),
    shape=st.one_of(
        st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4), st.just([1, 64]), st.just([2, 64]), st.just([4, 64])
    ),
    data=st.one_of(st.binary(max_size=64), st.just(bytes(256)), st.just(bytes(512)), st.just(b"\xff" * 256)),
)
int32s = st.one_of(st.integers(-(2**31), 2**31 - 1), st.integers(-1, 9))
int64s = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-1, 9))
segments = st.builds(
    shard_pb2.Segment, sequence_id=int64s, first_position=int32s, row_count=int32s, rotary_length=int32s
)
changes = st.builds(
    shard_pb2.SequenceChanges, closed=st.lists(int64s, max_size=2),
    opened=st.lists(st.builds(shard_pb2.OpenSequence, sequence_id=int64s, position_capacity=int32s), max_size=2),
)  # fmt: skip
bodies = st.one_of(
    st.fixed_dictionaries({"run_block": st.builds(
        shard_pb2.RunBlock, sweep_id=int64s, layer=int32s, kind=st.sampled_from([0, 1, 2, 50]),
        segments=st.lists(segments, max_size=3), input=tensors, changes=changes,
    )}),
    st.fixed_dictionaries({"load_norms": st.builds(
        shard_pb2.LoadNorms, attention_norms=tensors, ffn_norms=tensors, down_biases=tensors
    )}),
    st.fixed_dictionaries({"run_layers": st.builds(
        shard_pb2.RunLayers, sweep_id=int64s, first_layer=int32s, layer_count=int32s,
        segments=st.lists(segments, max_size=3), input=tensors, changes=changes,
    )}),
    st.fixed_dictionaries({"change_sequences": changes}),
    st.fixed_dictionaries({"open_session": st.builds(
        shard_pb2.OpenSession, protocol_version=int32s, model_identity=st.text(max_size=5), rank=int32s
    )}),
    st.just({}),
)  # fmt: skip
requests = st.builds(lambda call_id, body: Request(call_id=call_id, **body), int64s, bodies)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hostile=st.lists(requests, min_size=1, max_size=6))
def test_any_requests_end_in_answers_or_typed_errors(
    sliced: SlicedModel, node: ShardNode, hostile: list[Request]
) -> None:
    """Whatever a peer asks for, a session answers or raises one of our errors, and holds nothing afterwards."""
    session = Session(node)
    session.handle(open_session(1, sliced.identity))
    session.handle(open_sequence(2))
    try:
        for number, request in enumerate(hostile, start=3):
            request.call_id = max(request.call_id, number)
            assert session.handle(request).call_id == request.call_id
    except ShardmeshError:
        pass  # refused, as it may be; anything else fails the test
    finally:
        session.close()
    assert (node.stats().open_sequence_count, node.kv_cache.reserved_bytes) == (0, 0)
    assert not node.lock.locked()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.binary(max_size=200))
def test_raw_bytes_on_the_direct_socket_get_a_typed_failure(listening_direct: ListeningNode, raw: bytes) -> None:
    """A frame of any bytes is answered with a failure that has a reason; then the connection ends."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(listening_direct.socket_path)
        send_frame(connection, raw)
        frame = FrameReader(connection, MAX_MESSAGE_BYTES).receive()
        assert frame is not None
        response = shard_pb2.RoundsResponse.FromString(bytes(frame))
        assert response.failure.reason in ("BAD_INPUT", "PROTOCOL", "SLICE_MISMATCH")
        assert FrameReader(connection, MAX_MESSAGE_BYTES).receive() is None


@pytest.fixture(scope="module")
def listening_direct(sliced: SlicedModel) -> Iterator[ListeningNode]:
    """Return a node behind a direct socket, and check that it serves when all hostile frames are over."""
    with ListeningNode(sliced, "direct") as listening:
        yield listening
        assert ask(listening.connect(), open_session(1, sliced.identity)).HasField("session_opened")


@pytest.mark.parametrize("raw", [b"\xff" * 40, b"\x08", b"\x12\xff\xff\xff\xff\x0f"])
def test_raw_bytes_over_grpc_get_a_status(sliced: SlicedModel, raw: bytes) -> None:
    """Bytes that are no message end the stream with an error of ours; the node serves on."""
    with ListeningNode(sliced, "grpc-unix") as listening:
        client = listening.connect()
        ask(client, open_session(1, sliced.identity))
        client.submit(raw)
        with pytest.raises((NodeFault, InputError)):
            client.collect()
        assert ask(listening.connect(), open_session(1, sliced.identity)).HasField("session_opened")
