"""Does every error arrive at the other end as the class it was raised as, and nothing that is not ours with its text?

Covers: the whole tree of common/errors.py, over gRPC and the direct socket. Does not cover: when errors are raised.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import grpc
import pytest

from common.errors import (
    EXIT_OK,
    InternalError,
    NodeFault,
    NodeLost,
    NodeTimeout,
    ResourceError,
    ShardmeshError,
    all_error_classes,
)
from common.wire.rpc import REASON_KEY, Status, error_from, status_of
from protos.shardmesh.v1 import shard_pb2
from shardnode.sessions.session import Session
from tests.support.listening_nodes import NAME, TRANSPORTS, ListeningNode, ask
from tests.support.session_messages import close_sequence
from tests.support.sliced_models import SlicedModel

SECRET = "the prompt was: my diary"


@pytest.fixture(scope="module", params=TRANSPORTS)
def listening(sliced: SlicedModel, request: pytest.FixtureRequest) -> Iterator[ListeningNode]:
    """Return a node behind each transport in turn."""
    with ListeningNode(sliced, request.param) as node:
        yield node


def arrived(listening: ListeningNode, monkeypatch: pytest.MonkeyPatch, raised: Exception) -> ShardmeshError:
    """Return what a client gets when the node's session raises `raised`."""

    def fail(session: Session, request: shard_pb2.RoundsRequest) -> shard_pb2.RoundsResponse:
        raise raised

    monkeypatch.setattr(Session, "_handle", fail)
    client = listening.connect()
    with pytest.raises(ShardmeshError) as caught:
        ask(client, close_sequence(1))
    client.close()
    return caught.value


def test_the_tree_has_one_reason_per_class_and_real_statuses() -> None:
    """A reason means one class, in capitals; a status is one of gRPC's; only success exits with 0."""
    classes = all_error_classes()
    assert len(classes) == len(set(classes)) >= 20
    reasons = [cls.reason for cls in classes]
    assert len(reasons) == len(set(reasons))
    for cls in classes:
        assert cls.reason.isascii()
        assert cls.reason == cls.reason.upper().replace(" ", "_")
        assert cls.status in grpc.StatusCode.__members__
        assert cls.status != "OK"
        assert cls.exit_code not in (EXIT_OK, 1)
        assert cls.__doc__


def test_a_child_of_a_class_is_as_final_as_its_parent() -> None:
    """Subclasses keep their parent's exit code, so that a script may test for the family."""
    for cls in all_error_classes():
        parent = cls.__bases__[0]
        assert parent is ShardmeshError or cls.exit_code == parent.exit_code


@pytest.mark.parametrize("kind", all_error_classes(), ids=lambda kind: kind.__name__)
def test_every_error_arrives_as_its_own_class(
    listening: ListeningNode, monkeypatch: pytest.MonkeyPatch, kind: type[ShardmeshError]
) -> None:
    """The class crosses the wire with its message behind the node's name; a bug of a peer is its fault, not ours."""
    error = arrived(listening, monkeypatch, kind("the disk\nof this node is full; free some"))
    assert type(error) is (NodeFault if kind is InternalError else kind)
    assert str(error) == f"{NAME}: the disk of this node is full; free some"


@pytest.mark.parametrize("raised", [ValueError(SECRET), RuntimeError(SECRET), KeyError(SECRET), MemoryError(SECRET)])
def test_an_unknown_exception_never_carries_its_text(
    listening: ListeningNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, raised: Exception
) -> None:
    """What is not ours arrives as NodeFault with an id, and the id stands in the node's log beside the text."""
    with caplog.at_level(logging.ERROR):
        error = arrived(listening, monkeypatch, raised)
    assert type(error) is NodeFault
    assert "diary" not in str(error)
    (record,) = [record for record in caplog.records if record.name == "common.wire.rpc"]
    error_id = str(error).split("internal error ")[1].split(";")[0]
    assert error_id in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[1] is raised


@pytest.mark.parametrize("letter", ["x", "ä", "火", "🔥"])
def test_a_very_long_message_still_arrives_as_its_class(
    listening: ListeningNode, monkeypatch: pytest.MonkeyPatch, letter: str
) -> None:
    """A message is cut before it outgrows what a gRPC trailer may carry, in any script."""
    error = arrived(listening, monkeypatch, ResourceError(letter * 100_000))
    assert type(error) is ResourceError
    assert str(error).startswith(f"{NAME}: {letter * 100}")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (Status(code="UNAVAILABLE", reason="", message="connection reset"), NodeLost),
        (Status(code="CANCELLED", reason="", message=""), NodeLost),
        (Status(code="DEADLINE_EXCEEDED", reason="", message="late"), NodeTimeout),
        (Status(code="RESOURCE_EXHAUSTED", reason="", message="too large"), ResourceError),
        (Status(code="UNKNOWN", reason="", message="?"), NodeFault),
        (Status(code="PERMISSION_DENIED", reason="A_REASON_OF_NEXT_YEAR", message="?"), NodeFault),
        (Status(code="no code at all", reason="", message=""), NodeFault),
    ],
    ids=lambda value: value.code if isinstance(value, Status) else value.__name__,
)
def test_a_status_without_a_reason_of_ours_still_means_something(status: Status, kind: type[ShardmeshError]) -> None:
    """Statuses that gRPC itself makes, and reasons of later versions, become the nearest error of a node."""
    error = error_from(status, NAME)
    assert type(error) is kind
    assert NAME in str(error)


def test_what_a_peer_says_is_one_printable_line() -> None:
    """Line breaks and terminal control codes of a peer do not reach a person's terminal."""
    error = error_from(Status(code="ABORTED", reason="PROTOCOL", message="a\n\x1b[2Jb\tc\x00" + "z" * 9000), NAME)
    assert str(error).isprintable()
    assert str(error).startswith(f"{NAME}: a \ufffd[2Jb c\ufffdzzz")
    assert len(str(error)) < 1000
    assert status_of(ResourceError("a\n b")).message == "a b"


def test_the_reason_travels_as_documented(sliced: SlicedModel) -> None:
    """Any gRPC client finds status, message and the trailing metadata key that shard.proto names."""
    with ListeningNode(sliced, "grpc-tcp") as listening:
        method = listening.channel().stream_stream(
            "/shardmesh.v1.ShardService/Rounds",
            request_serializer=shard_pb2.RoundsRequest.SerializeToString,
            response_deserializer=shard_pb2.RoundsResponse.FromString,
        )
        call = method(iter([close_sequence(1)]))
        with pytest.raises(grpc.RpcError):
            next(call)
        assert call.code() is grpc.StatusCode.ABORTED
        assert call.details() == "change_sequences came before open_session"
        assert (REASON_KEY, "PROTOCOL") in [tuple(pair) for pair in call.trailing_metadata()]
        assert REASON_KEY == "shardmesh-reason"
