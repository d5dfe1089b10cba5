"""What becomes of answers under way once a node or the coordinator is told to end, and of what is asked meanwhile?

Covers: shardnode/listeners/service.py and coordinator/program/daemon.py from the signal's `stop` on, in this process.
Does not cover: the signal (tests/unit/test_lifecycle.py), whole programs (tests/e2e/test_nodes_by_hand.py), systemd.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import grpc
import pytest

from common.errors import NodeError, NodeLost, ShardmeshError
from common.wire.rpc import Status, channel_options, error_from, error_from_rpc
from coordinator.membership.owner_client import OwnerClient
from coordinator.membership.reach import is_alive, owner_access
from coordinator.models.node_slices import list_slices
from protos.shardmesh.v1 import generation_pb2, generation_pb2_grpc, shard_pb2
from shardnode.listeners.frames import FramesServer
from shardnode.listeners.service import NodeServer
from tests.support.listening_nodes import NAME, ListeningNode, ask
from tests.support.loaded_mesh import LoadedMesh
from tests.support.session_messages import close_sequence, open_sequence, open_session, random_rows, run_block
from tests.support.sliced_models import SlicedModel
from tests.support.waiting import wait_until

LIMIT_SECONDS = 20.0
ENDLESS = 30_000


@contextmanager
def told_to_end(work: Callable[[], None]) -> Iterator[Future[None]]:
    """Have `work` run in a thread of its own; it has ended afterwards."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        yield future
        future.result(LIMIT_SECONDS)


def refusal_of(response: shard_pb2.RoundsResponse) -> ShardmeshError:
    """Return why the only sequence that was to be opened was not."""
    (refused,) = response.sequences_changed.refused
    failure = refused.failure
    return error_from(Status(code=failure.status, reason=failure.reason, message=failure.message), NAME)


@pytest.fixture(params=["grpc-unix", "grpc-tcp", "frames-tls"])
def node(request: pytest.FixtureRequest, sliced: SlicedModel) -> Iterator[ListeningNode]:
    """Return a node as services have it."""
    with ListeningNode(sliced, request.param) as made:
        yield made


def draining(node: ListeningNode, limit_seconds: float) -> Callable[[], None]:
    """Return what a node does when it is told to end."""
    server = node._server
    if isinstance(server, NodeServer):
        return lambda: server.drain(limit_seconds)
    assert isinstance(server, FramesServer)
    return lambda: server._live.drain(limit_seconds)


def test_a_node_that_is_told_to_end_serves_its_sessions_and_begins_nothing(
    node: ListeningNode, sliced: SlicedModel, caplog: pytest.LogCaptureFixture
) -> None:
    """Rounds go on until the answer ends, and then the session does; others are refused in words meanwhile."""
    client, idle = node.connect(), node.connect()
    for one in (client, idle):
        ask(one, open_session(1, sliced.identity))
    ask(client, open_sequence(2))
    caplog.set_level(logging.INFO)
    with told_to_end(draining(node, LIMIT_SECONDS)) as ended:
        wait_until(lambda: "ending" in caplog.text, limit_seconds=LIMIT_SECONDS, what="a word of it")
        with pytest.raises(NodeLost):  # no answer needed it
            ask(idle, open_sequence(2))
        with pytest.raises(NodeError, match=f"{re.escape(NAME)}: it was told to end and begins nothing new; ask again"):
            ask(node.connect(), open_session(1, sliced.identity))
        rows = random_rows(2, sliced.spec.hidden_size)
        assert ask(client, run_block(3, rows)).block_result.partial.data
        assert "ask again when it is back" in str(refusal_of(ask(client, open_sequence(4, sequence_id=2))))
        assert ask(client, run_block(5, rows[:1], layer=1)).block_result.partial.data
        assert not ended.done()
        ask(client, close_sequence(6))
    assert "ending sessions=1 most_seconds=20" in caplog.text
    assert "not complete" not in caplog.text


def test_an_answer_that_a_node_has_waited_for_in_vain_ends_in_words(
    node: ListeningNode, sliced: SlicedModel, caplog: pytest.LogCaptureFixture
) -> None:
    """With its next round, which says why; the log does too."""
    client = node.connect()
    ask(client, open_session(1, sliced.identity))
    ask(client, open_sequence(2))
    with told_to_end(draining(node, 0.01)):
        wait_until(
            lambda: "ending what is not complete sessions=1 seconds=0.01" in caplog.text,
            limit_seconds=LIMIT_SECONDS,
            what="the limit",
        )
        with pytest.raises(NodeLost, match=rf"{re.escape(NAME)}: it was told to end, .* not complete within 0.01 s"):
            ask(client, run_block(3, random_rows(1, sliced.spec.hidden_size)))


def test_a_node_that_nobody_needs_ends_at_once(node: ListeningNode, sliced: SlicedModel) -> None:
    """Whether nobody has a session with it or a coordinator keeps one for its next answer."""
    ask(node.connect(), open_session(1, sliced.identity))
    with told_to_end(draining(node, 3600)):
        pass


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[LoadedMesh]:
    """Return a mesh that has a model, and that the test ends."""
    with LoadedMesh(tmp_path) as made:
        yield made


class Asking:
    """One answer on its way from the coordinator."""

    def __init__(self, mesh: LoadedMesh, length: int) -> None:
        """Ask, and return once the first token is there."""
        self._channel = grpc.insecure_channel(f"unix:{mesh.state}/coordinator.sock", options=channel_options())
        request = generation_pb2.GenerateRequest(
            prompt="SECRET", length=length, temperature=0, top_p=1, ignore_eos=True
        )  # fmt: skip
        self._stream = generation_pb2_grpc.GenerationServiceStub(self._channel).Generate(request)
        self.token_count = 0
        while not self.token_count:
            self._take(next(self._stream))

    def finish(self, token_count: int | None = None) -> None:
        """Read on to the end, or until so many tokens are there. Raises: ShardmeshError: what it ended with."""
        try:
            for response in self._stream:
                self._take(response)
                if self.token_count == token_count:
                    return
        except grpc.RpcError as error:
            raise error_from_rpc(error, "the coordinator") from error

    def close(self) -> None:
        self._stream.cancel()
        self._channel.close()

    def _take(self, response: generation_pb2.GenerateResponse) -> None:
        self.token_count += response.WhichOneof("part") == "token"


@contextmanager
def asking(mesh: LoadedMesh, length: int) -> Iterator[Asking]:
    """Have an answer under way."""
    made = Asking(mesh, length)
    try:
        yield made
    finally:
        made.close()


def end(mesh: LoadedMesh) -> Callable[[], None]:
    """Return what the coordinator does from a signal on."""

    def work() -> None:
        mesh.coordinator.stop()
        mesh.coordinator.wait()

    return work


def test_a_coordinator_that_is_told_to_end_completes_what_it_has_begun(
    mesh: LoadedMesh, caplog: pytest.LogCaptureFixture
) -> None:
    """It still hears its members, without whom there is no answer; who asks, or invites, is refused in words."""
    length = 800
    caplog.set_level(logging.INFO)
    grace = mock.patch("coordinator.program.daemon.DRAIN_SECONDS", 100)  # for a machine that is busy
    with grace, asking(mesh, length) as answer, told_to_end(end(mesh)):
        wait_until(lambda: "ending answers=1 most_seconds=100" in caplog.text, limit_seconds=5, what="a word of it")
        with pytest.raises(NodeError, match="the coordinator is ending; ask again when it is back"):
            mesh.answer("another")
        with OwnerClient(mesh.state) as owner, pytest.raises(NodeError, match="invite again when it is back"):
            owner.invite(60)
        assert [is_alive(node) for node in owner_access(mesh.state).nodes()] == [True]
        answer.finish()
        assert answer.token_count == length
    assert "has ended" in caplog.text
    assert "SECRET" not in caplog.text


def test_an_answer_that_the_coordinator_has_waited_for_in_vain_ends_in_words(
    mesh: LoadedMesh, caplog: pytest.LogCaptureFixture
) -> None:
    """Its text so far has arrived; the end says why, and what to do."""
    with (
        mock.patch("coordinator.program.daemon.DRAIN_SECONDS", 0.1),
        asking(mesh, ENDLESS) as answer,
        told_to_end(end(mesh)),
        pytest.raises(NodeError, match=r"told to end, .* not complete within 0.1 s; ask again when it is back"),
    ):
        answer.finish()
    assert "ending what is not complete answers=1 seconds=0.1" in caplog.text


def test_a_node_of_a_mesh_that_is_told_to_end_completes_the_answer_under_way(mesh: LoadedMesh) -> None:
    """It is heard until then; whoever asks meanwhile is told why nothing comes, also who asks for its state."""
    length = 800
    node = mesh.node

    def work() -> None:
        node.stop()
        node.wait()

    grace = mock.patch("shardnode.run.DRAIN_SECONDS", 100)  # for a machine that is busy
    with grace, asking(mesh, length) as answer, told_to_end(work):
        access = owner_access(mesh.state)
        wait_until(lambda: _trouble(mesh), limit_seconds=5, what="the node says that it ends")
        assert "kitchen: it was told to end" in _trouble(mesh)
        with pytest.raises(NodeError, match=r"kitchen.*: it was told to end and begins nothing new; ask again"):
            mesh.answer("another")
        assert [is_alive(one) for one in access.nodes()] == [True]
        answer.finish()
        assert answer.token_count == length


def _trouble(mesh: LoadedMesh) -> str:
    try:
        list_slices(owner_access(mesh.state), "kitchen")
    except ShardmeshError as error:
        return str(error)
    return ""
