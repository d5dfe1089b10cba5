"""Does a person who reads an error meet words of theirs, and none of gRPC's?

Covers: common/wire/broken_calls.py, and every message in our sources. Does not cover: which error it is
(tests/contract/test_errors_over_loopback.py).
"""

from __future__ import annotations

import ast
import re
from concurrent import futures

import grpc
import pytest

from common.errors import NodeLost
from common.wire.broken_calls import in_words
from common.wire.rpc import Status, error_from, error_from_rpc
from tests.support.source_files import called_name, name_of, python_files, tree_of

TEXTS = {
    "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Failed to connect to remote host: "
    "connect: Connection refused (111)": "nothing listens there",
    "failed to connect to all addresses; last error: UNAVAILABLE: unix:/a: No such file or directory":
        "nothing listens there",
    "DNS resolution failed for nowhere:1: C-ares status is not ARES_SUCCESS": "its name leads nowhere in this network",
    "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.1:1: connect: No route to host (113)":
        "no way leads there",
    "failed to connect to all addresses; last error: UNAVAILABLE: ipv4:1.2.3.4:5: Ssl handshake failed (TSI_PROTOCOL_"
    "FAILURE): SSL_ERROR_SSL: error:1000007d: CERTIFICATE_VERIFY_FAILED": "the two do not trust each other",
    "Socket closed": "the connection broke", "Stream removed": "the connection broke",
    "recvmsg:Connection reset by peer": "the connection broke", "GOAWAY received": "the connection broke",
    "Cancelling all calls": "the connection broke", "Channel closed!": "the connection broke",
    "ping timeout": "it does not answer any more", "Deadline Exceeded": "it does not answer any more",
    "keepalive watchdog timeout": "it does not answer any more",
    "Received message larger than max (5 vs. 4)": "a message is larger than either side takes",
    "CLIENT: Sent message larger than max (5 vs. 4)": "a message is larger than either side takes",
    "Concurrent RPC limit exceeded!": "too many are asking at once",
    "Method not found!": "it does not know what was asked; is it of another version?",
    "Exception calling application: boom": "the connection failed",
    "Exception iterating responses: boom": "Exception iterating responses: boom",
}  # fmt: skip
WORDS = re.compile(
    r"(?i:\bg?rpcs?\b|\bchannels?\b|\bstubs?\b|\bsubchannel|\bservicer\b|\bprotobuf\b|\bipv[46]:)|"
    r"\b(?:UNAVAILABLE|DEADLINE|CANCELLED|UNKNOWN|RESOURCE_EXHAUSTED|UNIMPLEMENTED)\b"
)
SAYING = {"tell", "say", "print", "told", "Option", "path_option", "address_option", "Argument", "path_argument"}
NOT_FOR_PEOPLE = {"InternalError"}


@pytest.mark.parametrize(("text", "words"), TEXTS.items())
def test_what_grpc_says_is_put_into_words(text: str, words: str) -> None:
    """What to look for, without addresses, layers and names of states."""
    assert in_words(text) == words
    assert not WORDS.search(words)


@pytest.mark.parametrize("code", ["UNAVAILABLE", "CANCELLED", "UNKNOWN", "INTERNAL", "RESOURCE_EXHAUSTED", "ABORTED"])
def test_no_word_of_grpcs_is_left_in_an_error(code: str) -> None:
    """Whatever it was that failed, and whatever a later version calls it."""
    for text in [*TEXTS, "RPC failed on transport fd 7", "stub of channel 5", ""]:
        assert not WORDS.search(str(error_from(Status(code=code, reason="", message=text), "kitchen"))), text


def test_what_a_peer_of_ours_says_stays() -> None:
    """Also where it has a reason of a later version, and looks like something else."""
    status = Status(code="UNAVAILABLE", reason="A_REASON_OF_NEXT_YEAR", message="the TV's channel is closed")
    assert "the TV's channel is closed" in str(error_from(status, "kitchen"))


def test_a_call_to_nobody_is_told_in_words() -> None:
    """With gRPC's own text of this version: of a port where nobody listens, and of a method that there is not."""
    with grpc.insecure_channel("127.0.0.1:1") as channel, pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary("/nothing/Here")(b"", timeout=5)
    error = error_from_rpc(raised.value, "kitchen")
    assert (type(error), str(error)) == (NodeLost, "kitchen is gone (nothing listens there)")
    with futures.ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(grpc.RpcError) as raised:
            channel.unary_unary("/nothing/Here")(b"", timeout=5)
        server.stop(None).wait()
    assert "does not know what was asked" in str(error_from_rpc(raised.value, "kitchen"))


def said(tree: ast.AST) -> list[tuple[int, str]]:
    """Return every text of a file that a person may read, with its line: of errors, of what is told, of help."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            call = node.exc
        elif isinstance(node, ast.Call) and called_name(node) in SAYING:
            call = node
        else:
            continue
        if called_name(call) in NOT_FOR_PEOPLE:
            continue
        found += [
            (part.lineno, part.value)
            for part in ast.walk(call)
            if isinstance(part, ast.Constant) and isinstance(part.value, str)
        ]
    return found


def test_no_message_of_ours_has_words_of_grpc() -> None:
    """A channel, a stub and a status are ours to know; what `--rounds` can be is said once."""
    wrong = [
        f"{name_of(path)}:{line}: {text}"
        for path in python_files("coordinator", "shardnode", "common")
        for line, text in said(tree_of(path))
        if WORDS.search(text.replace("grpc, or auto", "")) and not text.startswith("grpc.")
    ]
    assert wrong == []
