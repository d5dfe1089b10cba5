"""Does a node refuse memory that is not what a coordinator says, and read nothing beyond it?

Covers: offers and rounds made by hand. Does not cover: rounds that are right (test_round_memory.py), the memory itself
(tests/unit/test_memory_file.py).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence

import pytest

from common.errors import ProtocolError, ShapeError
from common.weights.stored_numbers import Floats
from common.wire.memory_file import MemoryFile, make_memory
from common.wire.rpc import MAX_MESSAGE_BYTES
from protos.shardmesh.v1 import shard_pb2
from shardnode.sessions.session import Session
from shardnode.work.slice_at_work import ShardNode
from tests.support.session_messages import open_sequence, open_session, random_rows, run_block
from tests.support.sliced_models import SlicedModel

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory files are Linux's")

ROWS = 256
"""Long enough to be shared: 256 rows of 64 numbers are 64 KiB."""
MEMORY_BYTES = 512 * 64 * 4


@pytest.fixture(scope="module")
def node(sliced: SlicedModel) -> Iterator[ShardNode]:
    """Return a node without listeners."""
    made = ShardNode(sliced.node_config(kv_budget_bytes=1 << 24))
    yield made
    made.close()


@pytest.fixture
def memories() -> Iterator[list[MemoryFile]]:
    """Return memory for inputs and for answers, as a coordinator makes it."""
    made = [make_memory(MEMORY_BYTES, peers_write=peers_write) for peers_write in (False, True)]
    yield [memory for memory in made if memory is not None]
    for memory in made:
        if memory is not None:
            memory.close()


def opened(sliced: SlicedModel, node: ShardNode, files: Sequence[int], byte_count: int) -> Session:
    """Return a session that was offered memory, sequence 1 open; it closes copies of `files`."""
    session = Session(node)
    session.take_files([os.dup(file) for file in files])
    request = open_session(1, sliced.identity)
    request.open_session.memory_bytes = byte_count
    try:
        assert session.handle(request).session_opened.uses_memory == bool(files and byte_count)
        session.handle(open_sequence(2, position_capacity=ROWS))
    except BaseException:
        session.close()
        raise
    return session


def in_memory_round(call_id: int, rows: Floats) -> shard_pb2.RoundsRequest:
    """Return a round whose input is said to lie in memory."""
    request = run_block(call_id, rows)
    request.run_block.input.ClearField("data")
    request.run_block.input.is_in_memory = True
    return request


def test_a_round_by_hand_is_answered_in_memory(
    sliced: SlicedModel, node: ShardNode, memories: list[MemoryFile]
) -> None:
    """A peer written from the .proto files alone can do it; the tests below refuse what they spoil, nothing else."""
    session = opened(sliced, node, [memory.descriptor for memory in memories], MEMORY_BYTES)
    rows = random_rows(ROWS, sliced.spec.hidden_size)
    in_band = session.handle(run_block(3, rows)).block_result.partial
    memories[0].floats[: rows.size] = rows.ravel()
    partial = session.handle(in_memory_round(4, rows)).block_result.partial
    assert (partial.is_in_memory, partial.data) == (True, b"")
    assert memories[1].floats[: rows.size].tobytes() == in_band.data
    session.close()


OFFERS: dict[str, tuple[Callable[[list[int]], Sequence[int]], int]] = {
    "more bytes than there are": (lambda files: files, MEMORY_BYTES + 4),
    "fewer bytes than there are": (lambda files: files, MEMORY_BYTES - 4),
    "a negative size": (lambda files: files, -4),
    "more than any message": (lambda files: files, MAX_MESSAGE_BYTES + 4),
    "the largest size": (lambda files: files, 2**63 - 1),
    "one file": (lambda files: files[:1], MEMORY_BYTES),
    "three files": (lambda files: [*files, files[0]], MEMORY_BYTES),
    "files the wrong way round": (lambda files: files[::-1], MEMORY_BYTES),
    "a pipe": (lambda files: [files[0], os.pipe()[1]], MEMORY_BYTES),
}


@pytest.mark.parametrize("name", OFFERS)
def test_an_offer_that_is_not_what_it_says_is_refused(
    sliced: SlicedModel, node: ShardNode, memories: list[MemoryFile], name: str
) -> None:
    """Sizes and kinds are the system's word, not the peer's."""
    spoil, byte_count = OFFERS[name]
    with pytest.raises(ProtocolError):
        opened(sliced, node, spoil([memory.descriptor for memory in memories]), byte_count)


def test_files_without_an_offer_and_offers_without_files_are_no_memory(
    sliced: SlicedModel, node: ShardNode, memories: list[MemoryFile]
) -> None:
    """Both happen between versions; the session works in messages, and memory is refused in it."""
    for files, byte_count in (([memory.descriptor for memory in memories], 0), ([], MEMORY_BYTES)):
        session = opened(sliced, node, files, byte_count)
        rows = random_rows(ROWS, sliced.spec.hidden_size)
        assert session.handle(run_block(3, rows)).block_result.partial.data
        with pytest.raises(ShapeError, match="memory"):
            session.handle(in_memory_round(4, rows))
        session.close()


SPOILED: dict[str, Callable[[shard_pb2.RunBlock], object]] = {
    "bytes as well": lambda block: setattr(block.input, "data", b"\0" * (ROWS * 64 * 4)),
    "another shape": lambda block: block.input.shape.append(1),
    "another dtype": lambda block: block.input.ClearField("dtype"),
    "more rows than the segments": lambda block: block.input.shape.__setitem__(0, ROWS + 1),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_round_in_memory_is_refused(
    sliced: SlicedModel, node: ShardNode, memories: list[MemoryFile], name: str
) -> None:
    """What lies in memory is checked against the plan as what lies in a message is."""
    session = opened(sliced, node, [memory.descriptor for memory in memories], MEMORY_BYTES)
    request = in_memory_round(3, random_rows(ROWS, sliced.spec.hidden_size))
    SPOILED[name](request.run_block)
    with pytest.raises(ShapeError):
        session.handle(request)
    session.close()


def test_rows_beyond_the_memory_are_refused(sliced: SlicedModel, node: ShardNode, memories: list[MemoryFile]) -> None:
    """Nothing behind its end is read, however many rows a peer announces."""
    session = opened(sliced, node, [memory.descriptor for memory in memories], MEMORY_BYTES)
    with pytest.raises(ShapeError, match="there is not"):
        session.handle(in_memory_round(3, random_rows(513, sliced.spec.hidden_size)))
    session.close()
