"""Does the coordinator do one load or unload at a time to its end, whoever watches, and say in words what ended it?

Covers: coordinator/program/model_worker.py and what it is made of, with a process that only speaks.
Does not cover: true loads (tests/contract/test_model_service.py, tests/contract/test_loading.py).
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from common.errors import (
    InputError,
    InternalError,
    ModelNotFound,
    NodeError,
    ResourceError,
    ShardmeshError,
    UnsupportedModel,
)
from common.trust.identity import Identity
from coordinator.membership.reach import MeshAccess
from coordinator.models.model_series import SENT, THERE, ModelSeries
from coordinator.program import model_worker
from coordinator.program.load_under_way import LoadUnderWay
from coordinator.program.model_worker import ModelWorker
from protos.shardmesh.v1 import models_pb2
from tests.support import fake_load
from tests.support.fake_load import NODE, TOLD
from tests.support.planned_models import DESCRIPTION
from tests.support.series_totals import total_of
from tests.support.waiting import wait_until

LIMIT_SECONDS = 20.0
BROUGHT = "shardmesh_coordinator_slice_bytes_total"
Make = Callable[..., ModelWorker]


def no_identity() -> Identity:
    """Nobody is reached in these tests."""
    raise AssertionError


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have nodes obey, and return which were told to serve."""
    told: list[str] = []
    monkeypatch.setattr("coordinator.models.replacing.serve_slice", lambda mesh, name, slice_id: told.append(name))
    return told


@pytest.fixture
def registry() -> CollectorRegistry:
    """Return what has the workers' series."""
    return CollectorRegistry()


@pytest.fixture
def make(tmp_path: Path, served: list[str], registry: CollectorRegistry) -> Iterator[Make]:
    """Return what makes workers whose process behaves in a way; they are closed."""
    (tmp_path / "description.json").write_text(json.dumps(DESCRIPTION.to_json()))
    made: list[ModelWorker] = []
    series = ModelSeries(registry)

    def worker(way: str, in_use: Sequence[str] = (), command: Sequence[str] = ()) -> ModelWorker:
        mesh = MeshAccess(mesh_name="home", identity=no_identity, nodes=list)
        speaking = [sys.executable, fake_load.__file__, way, str(tmp_path / "description.json")]
        made.append(ModelWorker(tmp_path, mesh, series, lambda name: in_use, command or speaking))
        return made[-1]

    yield worker
    for one in made:
        one.close()


def request(path: str = "/models/small", **options: object) -> models_pb2.LoadModelRequest:
    """Return what a command asks."""
    return models_pb2.LoadModelRequest(path=path.encode(), **options)  # type: ignore[arg-type] # of several types


def parts(load: LoadUnderWay) -> list[str]:
    """Return what a watcher hears, by kind. Raises: what the load has failed with."""
    return [str(news.WhichOneof("part")) for news in load.watch()]


def begun(worker: ModelWorker, **options: object) -> LoadUnderWay:
    """Return a load whose process is at work."""
    load = worker.load(request(**options))  # type: ignore[arg-type] # of several types
    wait_until(lambda: load.standing().arrived_bytes == 5, limit_seconds=LIMIT_SECONDS, what="the process works")
    return load


def test_whoever_watches_hears_all_of_it_whenever_they_come(
    make: Make, served: list[str], tmp_path: Path, registry: CollectorRegistry
) -> None:
    """In the right order, also when it has ended; then the record is there, nodes serve, and bytes are counted."""
    worker = make(fake_load.WHOLE)
    load = worker.load(request())
    heard = parts(load)
    assert heard == parts(load) == ["accepted", "told", "planned", "progress", "arrivals"]
    news = list(load.watch())
    assert (news[0].accepted.name, news[1].told, list(news[2].planned.nodes)) == ("small", TOLD, [NODE])
    (arrival,) = news[-1].arrivals.arrivals
    assert (arrival.node, arrival.sent_bytes, arrival.total_bytes) == (NODE, 5, 10)
    assert served == [NODE]
    assert [total_of(registry, BROUGHT, model="small", origin=origin) for origin in (SENT, THERE)] == [5, 5]
    assert (tmp_path / "models" / "small" / "model.json").is_file()
    (standing,) = worker.standings()
    assert (standing.name, standing.is_under_way, standing.failure) == ("small", False, "")


def test_the_same_load_typed_twice_is_one_load(make: Make) -> None:
    """The second one watches; once it has ended, the next is a new one."""
    worker = make(fake_load.WAITS)
    load = begun(worker)
    assert worker.load(request()) is load
    worker.cancel("small")
    again = begun(worker)
    assert again is not load


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"path": "/models/large"}, "small is being loaded now"),
        ({"verify": True}, "small is being loaded with other options"),
        ({"nodes": ["attic"]}, "with other options"),
        ({"path": "/elsewhere/small"}, "with other options"),
    ],
)
def test_another_load_is_refused_with_what_is_under_way(make: Make, other: dict[str, object], words: str) -> None:
    """Neither waits for an hour without a word, nor takes the nodes away from the first."""
    worker = make(fake_load.WAITS)
    load = begun(worker)
    with pytest.raises(InputError, match=f"{words}.* load --cancel small"):
        worker.load(request(**other))  # type: ignore[arg-type] # of several types
    with pytest.raises(InputError, match="small is being loaded now"):
        worker.unload("large")
    assert not load.has_ended


def test_a_watcher_that_goes_leaves_the_load_alone(make: Make) -> None:
    """As a command does that is killed."""
    load = begun(make(fake_load.WAITS))
    is_there = True
    watching = load.watch(lambda: is_there)
    heard = [next(watching).WhichOneof("part") for _ in range(4)]
    assert heard == ["accepted", "told", "planned", "progress"]
    is_there = False
    load.wake()
    assert list(watching) == []
    assert not load.has_ended


def test_a_load_that_is_stopped_can_be_gone_on_with(make: Make, tmp_path: Path) -> None:
    """Its plan stays; who watches is told; one that is not under way is said to be none."""
    worker = make(fake_load.WAITS)
    load = begun(worker)
    worker.cancel("small")
    with pytest.raises(InputError, match="was stopped; what has arrived stays"):
        parts(load)
    assert (tmp_path / "models" / "small" / "plan.json").is_file()
    assert not (tmp_path / "models" / "small" / "model.json").exists()
    assert "was stopped" in worker.standings()[0].failure
    for name in ("small", "large"):
        with pytest.raises(ModelNotFound, match="is under way"):
            worker.cancel(name)


@pytest.mark.parametrize(
    ("way", "kind", "words"),
    [
        (fake_load.REFUSES, UnsupportedModel, "config.json has 'x'"),
        (fake_load.DIES, InternalError, "has ended with exit code 3 and without a word"),
        (fake_load.IS_KILLED, ResourceError, "was killed; most likely memory ran out"),
        (fake_load.BABBLES, InternalError, "said what nobody understands"),
        (fake_load.SKIPS, InternalError, "skipped a step"),
    ],
)
def test_how_a_process_ended_is_told_in_words(
    make: Make, way: str, kind: type[ShardmeshError], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With the class of what it has failed with; the log has it too, and the next load is taken."""
    worker = make(way)
    with pytest.raises(kind, match=words):
        parts(worker.load(request()))
    assert "load failed model=small reason=" in caplog.text
    with pytest.raises(kind, match=words):
        parts(worker.load(request()))


def test_how_the_last_load_ended_is_remembered(make: Make) -> None:
    """Of each name, until it is loaded again; what came to nothing before it had a plan, until the next load."""
    worker = make(fake_load.DIES)
    for name in ("small", "large"):
        assert worker.load(request(f"/models/{name}")).wait(LIMIT_SECONDS)
    assert [(one.name, bool(one.failure)) for one in worker.standings()] == [("large", True), ("small", True)]
    refusing = make(fake_load.REFUSES)
    for name in ("small", "large"):
        assert refusing.load(request(f"/models/{name}")).wait(LIMIT_SECONDS)
    assert [one.name for one in refusing.standings()] == ["large"]


def test_a_process_that_cannot_be_started_is_told(make: Make) -> None:
    """As on a machine without room for another one."""
    with pytest.raises(ResourceError, match="no process can be started"):
        parts(make("", command=["/nowhere/python"]).load(request()))


def test_the_end_of_the_program_ends_a_load_in_words(make: Make) -> None:
    """Its process is gone by then; what comes later is refused."""
    worker = make(fake_load.WAITS)
    load = begun(worker)
    child = worker._child
    assert child is not None
    worker.close()
    assert load.has_ended
    assert child._process.poll() is not None
    with pytest.raises(NodeError, match="the coordinator is ending, and the load of small with it"):
        parts(load)
    for ask in (lambda: worker.load(request()), lambda: worker.unload("small")):
        with pytest.raises(NodeError, match="is ending"):
            ask()


def test_unloading_what_is_being_loaded_stops_that_first(make: Make, tmp_path: Path) -> None:
    """And takes away what it has left; unloaded again, it is not there."""
    worker = make(fake_load.WAITS)
    load = begun(worker)
    assert worker.unload("small") == []
    with pytest.raises(InputError, match="unloaded while it was loaded"):
        parts(load)
    assert not (tmp_path / "models" / "small").exists()
    assert not worker.standings()
    with pytest.raises(ModelNotFound):
        worker.unload("small")


def test_a_node_on_which_another_model_answers_is_left_alone(make: Make, served: list[str]) -> None:
    """Else that answer would end; it is told, and the node turns when it is asked."""
    load = make(fake_load.WHOLE, [NODE]).load(request())
    told = [news.told for news in load.watch() if news.WhichOneof("part") == "told"]
    assert any(f"{NODE} is at work for another model" in text for text in told)
    assert served == []


@pytest.mark.parametrize(("path", "why"), [("small", "absolute"), ("/small\0", "zero byte")])
def test_a_path_that_cannot_be_is_refused(make: Make, path: str, why: str) -> None:
    """The program's own directory is not the caller's; no file's name has a zero byte."""
    with pytest.raises(InputError, match=why):
        make(fake_load.WHOLE).load(request(path))


def test_disks_that_are_full_when_the_record_is_written_are_told(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """No traceback, and no model that is half there."""

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("coordinator.models.records.write_state", full)
    with pytest.raises(ResourceError, match="No space left on device; free some room"):
        parts(make(fake_load.WHOLE).load(request()))


def test_a_node_that_does_not_answer_holds_neither_watchers_nor_the_end_twice(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process has ended by then; the program has only so much time."""
    may_answer, is_asked = threading.Event(), threading.Event()

    def serve(mesh: MeshAccess, name: str, slice_id: str) -> None:
        is_asked.set()
        may_answer.wait(60)

    monkeypatch.setattr("coordinator.models.replacing.serve_slice", serve)
    monkeypatch.setattr(model_worker, "CLOSE_SECONDS", 0.01)
    worker = make(fake_load.WHOLE)
    load = worker.load(request())
    assert is_asked.wait(LIMIT_SECONDS)
    worker.close()
    with pytest.raises(NodeError, match="the coordinator is ending"):
        parts(load)
    monkeypatch.setattr(model_worker, "CLOSE_SECONDS", 3600.0)
    worker.close()
    may_answer.set()


def test_unloading_needs_a_name(make: Make) -> None:
    """Nothing else that is under way is meant."""
    with pytest.raises(InputError, match="no name"):
        make(fake_load.WAITS).unload("")
