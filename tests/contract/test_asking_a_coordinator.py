"""Does a coordinator answer as one process would: several at once, through failures, and nobody else than its owner?

Covers: GenerationService over mutual TLS and the owner's socket, with a real node. Does not cover: whole programs
(tests/e2e/test_mesh_of_devices.py), sweeps of several sequences (tests/golden/test_batching.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import grpc
import pytest

from common.errors import (
    InputError,
    ModelNotFound,
    NodeError,
    NodeLost,
    NoSuchNode,
    NotTrusted,
    PromptTooLong,
    ShardmeshError,
)
from common.trust.certificates import COORDINATOR, PeerName
from common.trust.identity import load_identity
from common.trust.tls import secure_channel
from common.wire.rpc import Status, channel_options, error_from, error_from_rpc, status_of
from coordinator.answering.requests import Reading, Started, Token
from coordinator.cli import answer_there as asking
from coordinator.cli.consent import loss_of_model
from coordinator.membership.owner_client import OwnerClient
from coordinator.membership.reach import owner_access
from coordinator.models import loading, replacing
from coordinator.models.records import LoadedModels
from coordinator.models.unloading import unload
from protos.shardmesh.v1 import generation_pb2, generation_pb2_grpc
from shardnode.membership.join import IDENTITY_DIRECTORY
from tests.support.cli import run_here
from tests.support.loaded_here import load_here
from tests.support.loaded_mesh import LENGTH, LoadedMesh, tokens_of
from tests.support.mesh import new_sequence, run_alone, sliced, thread_mesh
from tests.support.mesh_members import LIMIT_SECONDS, joined
from tests.support.shipped_slices import NAME
from tests.support.tiny_checkpoint import write_tiny_checkpoint
from tests.support.waiting import wait_until

PROMPTS = ("1 2 3", "hello", "the third one is longer than the others")


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedMesh]:
    """Return a mesh that has a model."""
    with LoadedMesh(tmp_path_factory.mktemp("mesh")) as made:
        yield made


@pytest.fixture(scope="module")
def expected(mesh: LoadedMesh, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int]]:
    """Return what a mesh of this process answers to each prompt, asked one after another."""
    from coordinator.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(mesh.model)
    slices = tmp_path_factory.mktemp("slices")
    with sliced(mesh.model, slices, world_size=1) as model, thread_mesh(model, memory_window=2) as opened:
        assert new_sequence(opened, [1], length=1).prompt_ids == (1,)
        return {prompt: run_alone(opened, tokenizer.encode(prompt), length=LENGTH) for prompt in PROMPTS}


def test_answers_are_those_of_one_process_also_at_once(mesh: LoadedMesh, expected: dict[str, list[int]]) -> None:
    """Each as if it were alone."""
    assert mesh.answer(PROMPTS[0]) == expected[PROMPTS[0]]
    with ThreadPoolExecutor(len(PROMPTS)) as pool:
        answers = dict(zip(PROMPTS, pool.map(mesh.answer, PROMPTS), strict=True))
    assert answers == expected


def test_a_node_that_restarts_is_found_again_without_a_hand(mesh: LoadedMesh, expected: dict[str, list[int]]) -> None:
    """At another port; while it is away, an error names it."""
    mesh.node.close()
    # The coordinator runs in this process; waiting longer for a node that stays away proves no more.
    with (
        mock.patch("coordinator.ranks.transports.connecting.STATS_TIMEOUT_SECONDS", 1.0),
        pytest.raises(NodeError, match=NAME),
    ):
        mesh.answer(PROMPTS[0])
    mesh.restart()
    mesh.wait_until_heard()
    assert mesh.answer(PROMPTS[0]) == expected[PROMPTS[0]]


def test_what_cannot_be_answered_says_why_and_harms_nobody(mesh: LoadedMesh, expected: dict[str, list[int]]) -> None:
    """An unknown model, an answer that is too long, a length of nothing."""
    for error, asked in (
        (ModelNotFound, {"model": "nix"}), (ModelNotFound, {"model": "../x"}), (PromptTooLong, {"length": 1 << 20}),
        (InputError, {"length": 0}), (InputError, {"length": -5}),
    ):  # fmt: skip
        with pytest.raises(error):
            mesh.answer(PROMPTS[0], **asked)  # type: ignore[arg-type] # two kinds of values
    assert mesh.answer(PROMPTS[0]) == expected[PROMPTS[0]]


def test_a_caller_that_goes_ends_its_answer(mesh: LoadedMesh, expected: dict[str, list[int]]) -> None:
    """Keys and values are free again on the node."""
    with grpc.insecure_channel(f"unix:{mesh.state}/coordinator.sock", options=channel_options()) as channel:
        request = generation_pb2.GenerateRequest(prompt="x", length=20_000, top_p=1, ignore_eos=True)
        stream = generation_pb2_grpc.GenerationServiceStub(channel).Generate(request)
        assert next(stream).WhichOneof("part") == "started"
        assert next(stream).WhichOneof("part") == "token"
        stream.cancel()
    serving = mesh.node._serving.current()
    wait_until(lambda: serving.kv_cache.reserved_bytes == 0, limit_seconds=LIMIT_SECONDS, what="keys and values free")
    assert mesh.answer(PROMPTS[0]) == expected[PROMPTS[0]]


def test_whoever_unloads_a_model_that_answers_is_told_what_ends(mesh: LoadedMesh) -> None:
    """While it answers, and not a moment longer: a script that asks and then unloads is not held up."""
    assert loss_of_model("tiny", mesh.state) == ""
    with grpc.insecure_channel(f"unix:{mesh.state}/coordinator.sock", options=channel_options()) as channel:
        request = generation_pb2.GenerateRequest(prompt="x", length=20_000, top_p=1, ignore_eos=True)
        stream = generation_pb2_grpc.GenerationServiceStub(channel).Generate(request)
        assert next(stream).WhichOneof("part") == "started"
        assert next(stream).WhichOneof("part") == "token"
        assert loss_of_model("tiny", mesh.state) == "tiny is answering: unload ends 1 answer under way"
        stream.cancel()
    mesh.answer(PROMPTS[0], length=2)
    wait_until(lambda: loss_of_model("tiny", mesh.state) == "", limit_seconds=LIMIT_SECONDS, what="nothing is lost")


def test_another_model_takes_its_turn(mesh: LoadedMesh, expected: dict[str, list[int]], tmp_path: Path) -> None:
    """The node changes its slice when it is asked for, and back; unloading one leaves the other."""
    other = write_tiny_checkpoint(tmp_path / "other", seed=5)
    mesh.load(other)
    with pytest.raises(InputError, match="several models are loaded"):
        mesh.answer(PROMPTS[0])
    answers = [mesh.answer(PROMPTS[0], model=name) for name in ("other", "tiny", "other", "tiny")]
    assert answers[0] == answers[2] != answers[1] == answers[3] == expected[PROMPTS[0]]
    models = LoadedModels(mesh.state)
    assert unload("other", models, owner_access(mesh.state)) == []
    assert mesh.answer(PROMPTS[0]) == expected[PROMPTS[0]]
    assert len([path for path in (mesh.data / "slices").iterdir() if path.name != "arriving"]) == 1


def tokens_until_notice(stream: Iterator[generation_pb2.GenerateResponse]) -> list[int]:
    """Return what comes before a notice."""
    before = itertools.takewhile(lambda part: part.WhichOneof("part") != "notice", stream)
    return [part.token.token_id for part in before]


@pytest.mark.parametrize("is_known", [True, False])
def test_an_answer_is_unharmed_by_the_load_of_another_model(
    mesh: LoadedMesh, expected: dict[str, list[int]], tmp_path: Path, *, is_known: bool
) -> None:
    """Whether the load knows of it and leaves its node alone, or takes the node, as one that came in between may."""
    other = write_tiny_checkpoint(tmp_path / f"other{is_known}", seed=6)
    in_use = mesh.coordinator._generator.nodes_in_use
    with grpc.insecure_channel(f"unix:{mesh.state}/coordinator.sock", options=channel_options()) as channel:
        request = generation_pb2.GenerateRequest(
            model="tiny", prompt=PROMPTS[0], length=20_000, temperature=0, top_p=1, ignore_eos=True
        )
        stream = generation_pb2_grpc.GenerationServiceStub(channel).Generate(request, timeout=60)
        heard = [next(stream).WhichOneof("part"), next(stream).WhichOneof("part")]
        assert (heard, in_use(other.name), in_use("tiny")) == (["started", "token"], {NAME}, set())
        load_here(mesh.state, other, [NAME], in_use=in_use if is_known else lambda name: ())
        tokens = [] if is_known else tokens_until_notice(stream)
        tokens += [next(stream).token.token_id for _ in range(LENGTH)]
        stream.cancel()
    wait_until(lambda: not in_use(other.name), limit_seconds=LIMIT_SECONDS, what="nothing answers")
    assert mesh.answer(PROMPTS[0], model=other.name) != expected[PROMPTS[0]]
    assert mesh.answer(PROMPTS[0], model="tiny", length=1 + len(tokens))[1:] == tokens
    unload(other.name, LoadedModels(mesh.state), owner_access(mesh.state))


@pytest.mark.parametrize("step", ["ship", "_keep_tokenizer", "serve_slice"])
def test_the_model_of_before_answers_until_another_of_its_name_is_there(
    mesh: LoadedMesh, expected: dict[str, list[int]], tmp_path: Path, step: str
) -> None:
    """A load that is interrupted has taken nothing away; after a whole one nothing of the old model is left."""
    other = write_tiny_checkpoint(tmp_path / "tiny", seed=5)
    place = replacing if step == "serve_slice" else loading
    with mock.patch.object(place, step, side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        mesh.load(other)
    assert mesh.answer(PROMPTS[0]) == expected[PROMPTS[0]]
    mesh.load(other)
    assert mesh.answer(PROMPTS[0]) != expected[PROMPTS[0]]
    mesh.load(mesh.model)
    assert mesh.answer(PROMPTS[0]) == expected[PROMPTS[0]]
    files = [path for path in (mesh.state / "models" / "tiny").iterdir() if path.suffix != ".copy"]
    assert len(files) == 3  # the record, the plan, what belongs to it


def test_a_coordinator_that_ends_in_an_answer_is_told_with_what_to_do() -> None:
    """What it says of others stays as it has worded it."""
    gone = error_from(Status(code="UNAVAILABLE", reason="", message="Stream removed"), asking.COORDINATOR)
    told = asking._without_place(gone)
    assert type(told) is NodeLost
    assert "start it again" in str(told)
    other = error_from(status_of(NodeLost("kitchen is gone (reset)")), asking.COORDINATOR)
    assert str(asking._without_place(other)) == "kitchen is gone (reset)"


def test_only_the_owner_may_ask(mesh: LoadedMesh, expected: dict[str, list[int]], tmp_path: Path) -> None:
    """With the coordinator's own identity; a node of the mesh may not."""
    own = load_identity(mesh.state)
    node = joined(mesh.state, "cellar", tmp_path / "cellar")
    assert load_identity(tmp_path / "cellar" / IDENTITY_DIRECTORY) == node
    coordinator = PeerName(mesh="home", role=COORDINATOR, name="home")
    with secure_channel(mesh.coordinator.address, own, coordinator) as channel:
        assert tokens_of(channel, PROMPTS[0]) == expected[PROMPTS[0]]
    with secure_channel(mesh.coordinator.address, node, coordinator) as channel, pytest.raises(NotTrusted):
        tokens_of(channel, PROMPTS[0])
    with grpc.insecure_channel(mesh.coordinator.address) as channel, pytest.raises(ShardmeshError):
        tokens_of(channel, PROMPTS[0])


def test_a_node_that_is_removed_hears_nothing_more_of_any_answer(tmp_path: Path) -> None:
    """Neither of the answer under way, nor of the next one: both end with its name, and what to do."""
    with LoadedMesh(tmp_path) as mesh, grpc.insecure_channel(f"unix:{mesh.state}/coordinator.sock") as channel:
        request = generation_pb2.GenerateRequest(prompt="x", length=20_000, top_p=1, ignore_eos=True)
        stream = generation_pb2_grpc.GenerationServiceStub(channel).Generate(request, timeout=LIMIT_SECONDS)
        assert [next(stream).WhichOneof("part") for _ in range(2)] == ["started", "token"]
        with OwnerClient(mesh.state) as owner:
            owner.remove(NAME)
        with pytest.raises(grpc.RpcError) as ended:
            list(stream)
        assert f"{NAME} was removed from the mesh" in str(error_from_rpc(ended.value, "coordinator"))
        with pytest.raises(NoSuchNode, match=f"no node called '{NAME}'.* load the model again"):
            mesh.answer("x")


def test_how_far_a_prompt_is_read_travels_and_who_does_not_know_of_it_loses_nothing(
    mesh: LoadedMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As whoever waits for a local answer hears it; an older program reads the same tokens."""
    monkeypatch.setattr("coordinator.engine.reading.TELL_SECONDS", 0.0)
    prompt = "a long prompt " * 60
    request = generation_pb2.GenerateRequest(prompt=prompt, length=3, temperature=0, top_p=1, ignore_eos=True)
    with grpc.insecure_channel(f"unix:{mesh.state}/coordinator.sock", options=channel_options()) as channel:
        events = list(asking._events(generation_pb2_grpc.GenerationServiceStub(channel).Generate(request)))
    counts = [event.read_count for event in events if isinstance(event, Reading)]
    prompt_count = len(events[0].prompt_token_ids) if isinstance(events[0], Started) else 0
    assert 0 < counts[0] <= counts[-1] == prompt_count
    assert {event.prompt_count for event in events if isinstance(event, Reading)} == {prompt_count}
    # What a program of before knows of a message is what is left without the part that is new.
    assert generation_pb2.GenerateResponse.DESCRIPTOR.fields_by_name["reading"].number == 5
    tokens = [event.token_id for event in events if isinstance(event, Token)]
    assert tokens == mesh.answer(prompt, length=3)


def test_seeds_and_k_of_any_size_travel(
    mesh: LoadedMesh, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A message has 64 bits with a sign for the one and 31 for the other; a local answer takes more of both."""

    def answer(*options: str) -> str:
        asked = ["generate", "--coordinator", f"unix:{mesh.state}/coordinator.sock", "--prompt", "hi", "--length", "9"]
        finished = run_here("coordinator-cli", [*asked, "--temperature", "3", *options], monkeypatch, capfd)
        assert finished.code == 0, finished.err
        return finished.out

    assert answer("--seed", str((1 << 64) - 1)) == answer("--seed", "-1") != answer("--seed", "1")
    assert answer("--seed", str(1 << 63)) == answer("--seed", str(-(1 << 63)))
    assert answer("--k", str(1 << 40)) == answer("--k", "0")
