"""What can a peer named in --nodes do to the coordinator? Nothing but end the answer with a line that names it.

Does not cover: hostile coordinators (tests/contract), nodes that die (test_nodes_by_hand.py).
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from common.errors import EXIT_NODE, EXIT_RESOURCE, EXIT_SLICE
from common.weights.stored_numbers import Stored
from common.wire.rpc import MAX_MESSAGE_BYTES
from common.wire.tensor_codec import encode_tensor
from protos.shardmesh.v1 import shard_pb2
from tests.e2e.conftest import RunHere
from tests.support.lying_node import Lie, honest, lying_node, tensor_of
from tests.support.tiny_checkpoint import HIDDEN_SIZE, write_tiny_checkpoint

Response = shard_pb2.RoundsResponse


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny model to be run on one node."""
    return write_tiny_checkpoint(tmp_path_factory.mktemp("hostile") / "model")


@pytest.fixture(scope="module")
def model_of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny model to be run on two nodes."""
    return write_tiny_checkpoint(tmp_path_factory.mktemp("hostile-two") / "model")


def with_tensor(tensor: Stored) -> Lie:
    """Answer with another partial sum."""

    def lie(answer: Response) -> bytes:
        tensor_of(answer).Clear()
        encode_tensor(tensor, tensor_of(answer))
        return answer.SerializeToString()

    return lie


def changed(change: Callable[[Response], object]) -> Lie:
    """Answer with a changed response."""

    def lie(answer: Response) -> bytes:
        change(answer)
        return answer.SerializeToString()

    return lie


def end_the_stream(answer: Response) -> bytes:
    """Raise on the node's side, with a text that no terminal should see as it is."""
    raise RuntimeError("secret\n\x1b[31mred")


TOO_LONG = "a message that is too long"
LIES: dict[str, Lie] = {
    "another shape": with_tensor(np.zeros((2, HIDDEN_SIZE), np.float32)),
    "another rank of tensor": with_tensor(np.zeros(HIDDEN_SIZE, np.float32)),
    "another dtype": with_tensor(np.zeros((1, HIDDEN_SIZE), np.uint16)),
    "not a number": with_tensor(np.full((1, HIDDEN_SIZE), np.nan, np.float32)),
    "infinity": with_tensor(np.full((1, HIDDEN_SIZE), np.inf, np.float32)),
    "a shape of many dimensions": changed(lambda r: tensor_of(r).shape.extend([1] * 100_000)),
    "a shape without its bytes": changed(lambda r: tensor_of(r).ClearField("data")),
    "negative dimensions": changed(lambda r: tensor_of(r).shape.__setitem__(slice(None), [-1, -HIDDEN_SIZE])),
    "an unknown dtype": changed(lambda r: setattr(tensor_of(r), "dtype", 99)),
    "the answer to another call": changed(lambda r: setattr(r, "call_id", r.call_id - 1)),
    "an answer to another question": changed(lambda r: r.session_opened.SetInParent()),
    "no answer": changed(lambda r: [r.ClearField("block_result"), r.ClearField("layers_result")]),
    "garbage": lambda answer: b"\xff" * 100,
    TOO_LONG: lambda answer: bytes(MAX_MESSAGE_BYTES + 1),
    "the end of the stream": end_the_stream,
}
LIES_OF_ONE_NODE: dict[str, Lie] = LIES | {
    "no layer at all": changed(lambda r: setattr(r.layers_result, "layer_count", 0)),
    "more layers than there are": changed(lambda r: setattr(r.layers_result, "layer_count", 2_000_000_000)),
    "fewer than no layers": changed(lambda r: setattr(r.layers_result, "layer_count", -1)),
}
"""One node runs whole layers; each of several answers rounds."""


@pytest.mark.parametrize("name", LIES_OF_ONE_NODE)
def test_an_answer_that_is_none_is_refused_and_the_node_named(here: RunHere, model: Path, name: str) -> None:
    """Dtype and shape come from the plan; no token is printed, and the node's words are kept on one line.

    gRPC refuses a message that is too long before it is allocated, with a status of its own.
    """
    with lying_node(LIES_OF_ONE_NODE[name]) as address:
        finished = here(
            "coordinator-cli", "generate", "--model", str(model), "--prompt", "1", "--length", "2", "--nodes", address
        )  # fmt: skip
    line = finished.error_line("coordinator-cli", EXIT_RESOURCE if name == TOO_LONG else EXIT_NODE)
    assert address in line
    assert "\x1b" not in line
    assert finished.out == ""


@pytest.mark.parametrize("name", ["another shape", "infinity", "negative dimensions", "no answer", "garbage"])
def test_one_of_two_that_answers_a_round_wrongly_is_named(here: RunHere, model_of_two: Path, name: str) -> None:
    """And not the one that answers well."""
    with lying_node(LIES[name], rank=1) as liar, lying_node(honest, rank=0) as other:
        finished = here(
            "coordinator-cli", "generate", "--model", str(model_of_two), "--prompt", "1", "--length", "2",
            "--nodes", f"{other},{liar}",
        )  # fmt: skip
    line = finished.error_line("coordinator-cli", EXIT_NODE)
    assert liar in line
    assert other not in line
    assert finished.out == ""


@pytest.mark.parametrize("rank", [1, -1, 2_000_000_000])
def test_a_rank_that_nobody_asked_for_is_refused(here: RunHere, model: Path, rank: int) -> None:
    """The ranks of --nodes are 0 to N-1, each once."""
    with lying_node(honest, rank=rank) as address:
        finished = here("coordinator-cli", "generate", "--model", str(model), "--prompt", "1", "--nodes", address)
    assert str(rank) in finished.error_line("coordinator-cli", EXIT_SLICE)


@contextmanager
def talking(greeting: bytes) -> Iterator[str]:
    """Listen, say `greeting` to whoever connects, and hang up; yield the address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(greeting)

        thread = threading.Thread(target=talk)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_a_peer_that_does_not_speak_grpc_is_named(
    here: RunHere, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """A web server, say: within the time that a node may take to be reachable; longer proves no more."""
    monkeypatch.setattr("coordinator.ranks.transports.connecting.STATS_TIMEOUT_SECONDS", 1.0)
    with talking(b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"\xff" * 4096) as address:
        finished = here("coordinator-cli", "generate", "--model", str(model), "--prompt", "1", "--nodes", address)
    assert address in finished.error_line("coordinator-cli", EXIT_NODE)
