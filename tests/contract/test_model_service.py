"""Does a coordinator load what its owner asks it to, as its own user, and nobody else's wish?

Covers: ModelService over the owner's socket with a real process and a real node, and what the command makes of it.
Does not cover: who waits for whom (tests/unit/test_model_worker.py), terminals that close, kills
(tests/e2e/test_load_goes_on.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import grpc
import pytest

from common.errors import InputError, ModelNotFound, NodeFault, NodeLost, ShardmeshError
from common.trust.certificates import COORDINATOR, PeerName
from common.trust.identity import Identity, load_identity
from common.trust.tls import secure_channel
from common.wire.rpc import bind, error_from_rpc, make_server
from coordinator.cli import load as load_verb
from coordinator.cli.load import load
from coordinator.cli.unload import unload
from coordinator.membership.owner_client import OwnerClient
from coordinator.membership.state import SOCKET_FILE
from coordinator.models.model_path import user_name
from coordinator.models.records import LoadedModels
from protos.shardmesh.v1 import models_pb2, models_pb2_grpc
from tests.support.mesh_members import LIMIT_SECONDS, joined
from tests.support.shipped_slices import NAME, ShippingMesh
from tests.support.tiny_checkpoint import write_tiny_checkpoint
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShippingMesh]:
    """Return a coordinator and a node that it hears."""
    with ShippingMesh(tmp_path_factory.mktemp("mesh")) as made, OwnerClient(made.state_directory) as owner:
        wait_until(
            lambda: owner.nodes().nodes[0].silent_seconds >= 0, limit_seconds=LIMIT_SECONDS, what="the node is heard"
        )
        yield made


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model."""
    return write_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


def asked(mesh: ShippingMesh, path: Path, **options: object) -> list[models_pb2.LoadModelResponse]:
    """Return all news of a load. Raises: ShardmeshError."""
    request = models_pb2.LoadModelRequest(
        path=os.fsencode(path), split_strategy="uniform", **options,  # type: ignore[arg-type] # of several types
    )  # fmt: skip
    with OwnerClient(mesh.state_directory) as owner:
        return list(owner.load(request))


def test_a_model_is_loaded_by_the_program_and_not_sent_twice(
    mesh: ShippingMesh, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a path as people type it; from the caller's directory, and from home."""
    state = mesh.state_directory
    monkeypatch.chdir(model.parent)
    load(Path("tiny"), split_strategy="uniform", state_dir=state)
    assert f"{NAME}: 0 of 0 MB sent" in capsys.readouterr().err
    assert LoadedModels(state).get("").source == str(model)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(model.parent))
    load(Path("~/tiny"), state_dir=state)
    assert f"{NAME}: all was there" in capsys.readouterr().err
    unload("tiny", state_dir=state)
    assert capsys.readouterr().err == "tiny is unloaded\n"
    assert not LoadedModels(state).all()


def test_a_command_that_is_interrupted_says_how_to_see_and_how_to_stop_what_goes_on(
    mesh: ShippingMesh, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And it does go on: the same command, typed again, has nothing more to send."""

    def interrupted(news: Iterator[models_pb2.LoadModelResponse]) -> None:
        next(news)
        raise KeyboardInterrupt

    state = mesh.state_directory
    with monkeypatch.context() as patch:
        patch.setattr(load_verb, "_show", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load(model, split_strategy="uniform", state_dir=state)
    said = capsys.readouterr().err
    assert "goes on in the coordinator; to see it, type the same again" in said
    assert f"coordinator-cli load --cancel tiny --state-dir {state}" in said
    with OwnerClient(state) as owner:
        wait_until(lambda: not owner.loads()[0].is_under_way, limit_seconds=LIMIT_SECONDS, what="it has ended")
        assert owner.loads()[0].failure == ""
    assert asked(mesh, model)[-1].arrivals.arrivals[0].sent_bytes == 0
    with pytest.raises(ModelNotFound, match="no load of 'tiny' is under way"):
        load(Path("tiny"), cancel=True, state_dir=state)


@pytest.mark.parametrize("wrong", ["missing", "a loop", "a weight that is not there", "no right"])
def test_what_the_program_cannot_read_is_refused_with_its_user_and_a_place_that_works(
    mesh: ShippingMesh, model: Path, tmp_path: Path, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a path in somebody's home is, which a service does not even see."""
    path = tmp_path / "theirs"
    if wrong == "a loop":
        path.symlink_to(path)
    elif wrong == "a weight that is not there":
        write_tiny_checkpoint(path)
        (path / "model.safetensors").unlink()
        (path / "model.safetensors").symlink_to("blobs/of-a-cache")
    elif wrong == "no right":
        path = write_tiny_checkpoint(tmp_path / "theirs").parent
        if os.geteuid() == 0:
            pytest.skip("root may read everything")
        path.chmod(0)
    with pytest.raises(InputError) as refused:
        asked(mesh, path)
    said = str(refused.value)
    assert f"runs as the user {user_name()}, who cannot read {path}" in said
    place = Path(said.rsplit(": ", 1)[1])
    assert place.name == path.name
    assert place.parent.is_dir()


def test_only_the_owners_socket_loads_anything(mesh: ShippingMesh, model: Path, tmp_path: Path) -> None:
    """Over mutual TLS not even the coordinator's own identity does, and certainly no node's or nobody's."""
    state = mesh.state_directory
    coordinator = PeerName(mesh="home", role=COORDINATOR, name="home")
    request = models_pb2.LoadModelRequest(path=os.fsencode(model))

    def channel(identity: Identity | None) -> grpc.Channel:
        address = mesh.coordinator.address
        return grpc.insecure_channel(address) if identity is None else secure_channel(address, identity, coordinator)

    for identity in (load_identity(state), joined(state, "cellar", tmp_path / "cellar"), None):
        with channel(identity) as to:
            stub = models_pb2_grpc.ModelServiceStub(to)
            calls = (
                lambda: list(stub.LoadModel(request, timeout=LIMIT_SECONDS)),  # noqa: B023 - called at once
                lambda: stub.CancelLoad(models_pb2.CancelLoadRequest(name="tiny"), timeout=LIMIT_SECONDS),  # noqa: B023
                lambda: stub.UnloadModel(models_pb2.UnloadModelRequest(name="tiny"), timeout=LIMIT_SECONDS),  # noqa: B023
                lambda: stub.ListLoads(models_pb2.ListLoadsRequest(), timeout=LIMIT_SECONDS),  # noqa: B023
            )
            for call in calls:
                with pytest.raises(grpc.RpcError) as refused:
                    call()
                expected = "UNAVAILABLE" if identity is None else "UNIMPLEMENTED"
                assert refused.value.code().name == expected, error_from_rpc(refused.value, "it")


def test_a_coordinator_that_is_gone_or_of_an_older_build_is_said_to_be(model: Path, tmp_path: Path) -> None:
    """With what to do: start it, start it again."""
    verbs: Sequence[Callable[[], None]] = (
        lambda: load(model, split_strategy="uniform", state_dir=tmp_path),
        lambda: load(model, cancel=True, state_dir=tmp_path), lambda: unload("tiny", state_dir=tmp_path),
    )  # fmt: skip

    def all_say(kind: type[ShardmeshError], words: str) -> None:
        for verb in verbs:
            with pytest.raises(kind, match=words):
                verb()

    all_say(InputError, "no coordinator runs on .* start it")
    older = make_server(2)
    bind(older, f"unix:{tmp_path / SOCKET_FILE}")
    older.start()
    all_say(NodeFault, "of an older version than this command; restart it")
    older.stop(0).wait()
    (tmp_path / SOCKET_FILE).touch()
    all_say(NodeLost, "does not answer; start it")
