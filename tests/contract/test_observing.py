"""Does a running coordinator tell how nodes and requests stand, and does a request's name reach every log?

Covers: ObserveService over the owner's socket, `top` where there is no screen, request ids from the caller to the node.
Does not cover: rates and asking nodes (tests/unit/test_overview.py), a terminal (tests/e2e/test_top.py).
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import grpc
import pytest

from common.errors import EXIT_INPUT, EXIT_OK, KvBudgetExceeded
from common.program.request_id import REQUEST_ID_KEY
from common.wire.rpc import channel_options
from coordinator.cli import top as top_verb
from coordinator.cli.top_document import document_of
from coordinator.membership.owner_client import OwnerClient
from protos.shardmesh.v1 import generation_pb2, generation_pb2_grpc
from shardnode.work.kv_cache import KvCache
from tests.support.cli import run_here
from tests.support.documented_keys import documented, keys
from tests.support.loaded_mesh import LoadedMesh
from tests.support.mesh_members import LIMIT_SECONDS
from tests.support.shipped_slices import NAME
from tests.support.waiting import wait_until

NAMED = "ticket-4711"


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedMesh]:
    """Return a mesh of one node that has a model, called tiny."""
    with LoadedMesh(tmp_path_factory.mktemp("mesh")) as made:
        yield made


def look(mesh: LoadedMesh) -> dict[str, Any]:
    """Return how everything stands."""
    with OwnerClient(mesh.state) as owner:
        return document_of(owner.overview())


class Asking:
    """One request under way, whose answer nobody has to wait for. Use as a context manager."""

    def __init__(self, mesh: LoadedMesh, *, length: int, name: str = NAMED) -> None:
        self._channel = grpc.insecure_channel(f"unix:{mesh.state}/coordinator.sock", options=channel_options())
        request = generation_pb2.GenerateRequest(prompt="1 2 3", length=length, top_p=1, ignore_eos=True)
        named = ((REQUEST_ID_KEY, name),) if name else ()
        self.call = generation_pb2_grpc.GenerationServiceStub(self._channel).Generate(request, metadata=named)

    @property
    def answered_name(self) -> str:
        """What the coordinator calls it."""
        return str(dict(self.call.initial_metadata())[REQUEST_ID_KEY])

    def __enter__(self) -> Asking:
        return self

    def __exit__(self, *error: object) -> None:
        self.call.cancel()
        self._channel.close()


def test_an_overview_tells_of_nodes_that_rest(mesh: LoadedMesh) -> None:
    """What each serves by the name that people gave its model, and, a moment later, what it holds."""
    wait_until(
        lambda: look(mesh)["nodes"][0]["serves_model"] == "tiny", limit_seconds=LIMIT_SECONDS, what="a heartbeat"
    )
    wait_until(lambda: look(mesh)["nodes"][0]["rss_bytes"], limit_seconds=LIMIT_SECONDS, what="an answer of the node")
    found = look(mesh)
    (node,) = found["nodes"]
    assert (node["name"], node["is_up"], node["serves_rank"], node["world_size"]) == (NAME, True, 0, 1)
    assert node["kv_budget_bytes"] == 1 << 24
    assert found["mesh"] == "home"
    assert found["requests"] == []


def is_counted(found: dict[str, Any]) -> bool:
    """Tell whether rounds have been looked at and a second token has come, without which there is no speed."""
    return bool(found["nodes"][0]["last_share"]) and found["requests"][0]["tokens_per_second"] > 0


def test_an_overview_tells_of_a_request_under_way(mesh: LoadedMesh) -> None:
    """Its name, its model, how far it is and how fast; and which node everybody waits for."""
    with Asking(mesh, length=500) as asking:
        look(mesh)
        next(part for part in asking.call if part.WhichOneof("part") == "token")
        wait_until(lambda: is_counted(look(mesh)), limit_seconds=LIMIT_SECONDS, what="rounds, and a speed")
        found = look(mesh)
    assert asking.answered_name == NAMED
    (request,) = found["requests"]
    assert (request["request_id"], request["model"], request["state"]) == (NAMED, "tiny", "answering")
    assert request["most_answer_tokens"] == 500
    assert request["prompt_token_count"] == request["read_token_count"] > 0
    assert request["answer_token_count"] > 0
    assert request["tokens_per_second"] > 0
    assert found["nodes"][0]["last_share"] == 1.0
    assert found["nodes"][0]["round_seconds"] > 0
    assert (found["nodes"][0]["rounds_over"], found["nodes"][0]["frames_failed"]) == ("frames", False)
    assert found["open_model"] == "tiny"
    assert keys(found) == documented("top")
    wait_until(lambda: look(mesh)["requests"] == [], limit_seconds=LIMIT_SECONDS, what="its end")


def test_where_there_is_no_screen_it_is_told_once(
    mesh: LoadedMesh, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As a table for people, as a document for programs, and nothing that a terminal would obey."""
    monkeypatch.setattr(top_verb, "FIRST_SECONDS", 0.1)
    shown = run_here("coordinator-cli", ["top", "--state-dir", str(mesh.state)], monkeypatch, capfd)
    assert (shown.code, shown.err) == (EXIT_OK, "")
    assert "mesh home: 1 of 1 node up" in shown.out
    assert "\x1b" not in shown.out
    assert NAME in shown.out
    document = run_here("coordinator-cli", ["top", "--json", "--state-dir", str(mesh.state)], monkeypatch, capfd)
    assert json.loads(document.out)["nodes"][0]["name"] == NAME
    wrong = run_here("coordinator-cli", ["top", "--interval-seconds", "0"], monkeypatch, capfd)
    assert "--interval-seconds is 0" in wrong.error_line("coordinator-cli", EXIT_INPUT)


def test_a_request_without_a_name_is_given_one(mesh: LoadedMesh, caplog: pytest.LogCaptureFixture) -> None:
    """And so is one whose name cannot be printed; the caller hears it, and the log has it."""
    caplog.set_level(logging.INFO)
    for name in ("", "x" * 65):
        with Asking(mesh, length=2, name=name) as asking:
            list(asking.call)
            assert len(asking.answered_name) == 16
            assert f"request ended request={asking.answered_name} " in caplog.text


def test_a_request_that_a_node_refuses_has_its_name_in_both_logs(
    mesh: LoadedMesh, caplog: pytest.LogCaptureFixture
) -> None:
    """The node's line says which request it was, and so does the coordinator's."""
    refusal = KvBudgetExceeded("no room")
    with (
        mock.patch.object(KvCache, "open", side_effect=refusal),
        Asking(mesh, length=4) as asking,
        pytest.raises(grpc.RpcError),
    ):
        list(asking.call)
    lines = [record.getMessage() for record in caplog.records]
    assert f'sequence refused request={NAMED} reason=KV_BUDGET_EXCEEDED error="no room"' in lines
    (failed,) = [line for line in lines if line.startswith("request failed")]
    assert f"request={NAMED}" in failed


def test_a_request_that_goes_while_it_is_answered_has_its_name_in_the_log_of_the_node(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The coordinator ends in the middle of an answer: the node says whose sequence it was."""
    caplog.set_level(logging.DEBUG, logger="shardnode")
    with LoadedMesh(tmp_path) as mesh, Asking(mesh, length=900) as asking:
        next(part for part in asking.call if part.WhichOneof("part") == "token")
        assert f"sequence opened request={NAMED}" in caplog.text
        ending = threading.Thread(target=mesh.coordinator.close)
        ending.start()
        wait_until(
            lambda: f"requests={NAMED}" in caplog.text or f"sequence closed request={NAMED}" in caplog.text,
            limit_seconds=LIMIT_SECONDS, what="a word of the node",
        )  # fmt: skip
        ending.join()
