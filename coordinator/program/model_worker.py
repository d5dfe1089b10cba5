"""The one writer of which model lies where: loads and unloads, one thing at a time, whoever still waits for it.

Covers: who has to wait or is refused, records, what a load's process says, the end of the program. Does not cover:
messages (model_service.py), the process (load_child.py), watching (load_under_way.py).
Threads: one for each load or unload; any may ask.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, wait
from contextlib import closing
from pathlib import Path

from common.errors import (
    InputError,
    InternalError,
    ModelNotFound,
    NodeError,
    ResourceError,
    ShardmeshError,
)
from common.machine.durable_files import failure_to_write
from common.program.logs import entry, log_format
from common.weights.slice_description import SliceDescription
from common.wire.rpc import status_of
from coordinator.membership.reach import MeshAccess
from coordinator.models.load_messages import Brought, LoadOrder, Planned, Progress, Told
from coordinator.models.model_series import ModelSeries
from coordinator.models.records import LoadedModel, LoadedModels, name_for
from coordinator.models.replacing import NodesInUse, put_to_use
from coordinator.models.unloading import one_at_a_time, unload
from coordinator.program.load_child import COMMAND, LoadChild
from coordinator.program.load_under_way import LoadUnderWay
from coordinator.ranks.transports.carriers import AUTO
from protos.shardmesh.v1 import models_pb2

CLOSE_SECONDS = 4.0
MOST_KEPT = 20
"""Loads that have ended and are remembered."""

log = logging.getLogger(__name__)


class ModelWorker:
    """Loads and unloads. Close it."""

    def __init__(
        self, state_directory: Path, mesh: MeshAccess, series: ModelSeries, in_use: NodesInUse,
        command: Sequence[str] = COMMAND, rounds: str = AUTO,
    ) -> None:  # fmt: skip
        """Args: in_use: nodes on which other models answer; command: what does a load; rounds: what carries rounds."""
        self._state_directory, self._mesh, self._series, self._in_use = state_directory, mesh, series, in_use
        self._command, self._rounds = command, rounds
        self._models = LoadedModels(state_directory)
        self._lock = threading.Lock()
        self._loading: LoadUnderWay | None = None
        self._unloading: tuple[str, Future[list[str]]] | None = None
        self._child: LoadChild | None = None
        self._last: dict[str, LoadUnderWay] = {}
        self._is_ending = False

    def load(self, request: models_pb2.LoadModelRequest) -> LoadUnderWay:
        """Return the load that is asked for: the one under way, if it is that, or a new one.

        Raises: InputError: no path, no name, another one is under way; NodeError: the program is ending.
        """
        path = Path(os.fsdecode(request.path))
        if "\0" in str(path):
            raise InputError("the model's path has a zero byte, which none can have")
        if not path.is_absolute():
            raise InputError(f"the model's path has to be absolute, and {path} is not")
        name = name_for(path, request.name)
        with self._lock:
            self._check_free(name)
            if (under_way := self._loading) is not None:
                if (under_way.name, under_way.request) == (name, request):
                    return under_way
                raise _is_loading(under_way.name, is_same=under_way.name == name)
            load = self._loading = LoadUnderWay(name, request)
            self._remember(load)
        try:
            threading.Thread(target=self._run, args=(load, path), name="load", daemon=True).start()
        except RuntimeError as error:
            with self._lock:
                self._loading = None
            load.end(failure := ResourceError(f"no thread can be started for the load ({error}); is the memory full?"))
            raise failure from error
        return load

    def cancel(self, name: str) -> None:
        """Stop a load, and wait until it has ended. Raises: ModelNotFound: it is not under way."""
        with self._lock:
            load = self._loading
        if load is None or load.name != name:
            raise ModelNotFound(f"no load of '{name[:60]}' is under way; coordinator-cli status says what is")
        self._stop(load, InputError(f"the load of {name} was stopped; what has arrived stays: load it again to go on, "
                                    f"or unload it (coordinator-cli unload {name})"))  # fmt: skip
        load.wait()
        if load.failure is None:
            raise InputError(
                f"{name} was loaded before it could be stopped; take it off: coordinator-cli unload {name}"
            )

    def unload(self, name: str) -> list[str]:
        """Take a model off the mesh; return its nodes that could not be asked. Raises: as `unload` of models/."""
        if not name:
            raise InputError("the model to unload has no name")
        with self._lock:
            self._check_free("" if self._unloading is not None and self._unloading[0] == name else name)
            if self._unloading is None:
                if self._loading is not None and self._loading.name != name:
                    raise _is_loading(self._loading.name, is_same=False)
                done: Future[list[str]] = Future()
                arguments = (name, done, self._loading)
                try:
                    threading.Thread(target=self._unload, args=arguments, name="unload", daemon=True).start()
                except RuntimeError as error:
                    raise ResourceError(f"no thread can be started for it ({error}); is the memory full?") from error
                self._unloading = (name, done)
            done = self._unloading[1]
        return done.result()

    def standings(self) -> list[models_pb2.LoadStanding]:
        """Return how the last load of each name stands."""
        with self._lock:
            loads = dict(self._last)
        return [loads[name].standing() for name in sorted(loads)]

    def close(self) -> None:
        """End what is under way: it can be asked again when the program is back. Only the first call waits."""
        with self._lock:
            if self._is_ending:
                return
            self._is_ending = True
            load, unloading = self._loading, self._unloading
        if load is not None:
            self._stop(load, NodeError(f"the coordinator is ending, and the load of {load.name} with it; what has "
                                       "arrived stays: load it again when the coordinator is back"))  # fmt: skip
            if not load.wait(CLOSE_SECONDS):  # a node does not answer; who watches does not have to wait for that
                load.end(load.stop_reason)
        if unloading is not None and wait([unloading[1]], 0 if load is not None else CLOSE_SECONDS).not_done:
            log.warning("%s", entry("unload not done", model=unloading[0], reason=NodeError.reason,
                                    error="a node does not answer; unload it again when the coordinator is back")
                        )  # fmt: skip

    def _remember(self, load: LoadUnderWay) -> None:
        """Keep how it stands, and no more of what came to nothing. Call with the lock held."""
        kept = [one for one in self._last.values() if one.name != load.name and one.has_begun]
        self._last = {one.name: one for one in [*kept[1 - MOST_KEPT :], load]}  # the newest last

    def _check_free(self, name: str) -> None:
        """Call with the lock held. Raises: NodeError: the program is ending; InputError: an unload is under way."""
        if self._is_ending:
            raise NodeError("the coordinator is ending; ask again when it is back")
        if name and self._unloading is not None:
            raise InputError(f"{self._unloading[0]} is being unloaded; ask again in a moment")

    def _stop(self, load: LoadUnderWay, reason: ShardmeshError) -> None:
        with self._lock:
            load.stop_reason = load.stop_reason or reason
            child = self._child if load is self._loading else None
        if child is not None:
            child.end()

    def _run(self, load: LoadUnderWay, path: Path) -> None:
        """Do a load. In a thread of its own."""
        failure: ShardmeshError | None = None
        started = time.monotonic()
        log.info("%s", entry("load begun", model=load.name, path=path))
        try:
            with one_at_a_time(self._models.directory):
                model, sent_bytes = self._load(load, path)
            log.info("%s", entry("load done", model=load.name, nodes=",".join(model.node_names), sent_bytes=sent_bytes,
                                 seconds=time.monotonic() - started))  # fmt: skip
        except Exception as error:  # noqa: BLE001 - the thread's edge; whoever watches hears of it
            failure = load.stop_reason or _as_ours(error)
            event = "load failed" if load.stop_reason is None else "load stopped"
            log.warning("%s", entry(event, model=load.name, reason=failure.reason, error=failure,
                                    seconds=time.monotonic() - started))  # fmt: skip
        outcome = "cancelled" if load.stop_reason is not None else "error"
        self._series.loads.of("done" if failure is None else outcome).value += 1
        with self._lock:
            self._loading = self._child = None
        load.end(failure)

    def _load(self, load: LoadUnderWay, path: Path) -> tuple[LoadedModel, int]:
        """Have a process do its part, and do the program's: return what is loaded, and the bytes that were sent."""
        request = load.request
        order = LoadOrder(
            path=str(path), name=load.name, node_names=list(request.nodes), split_strategy=request.split_strategy,
            weights_dtype=request.weights_dtype, verify=request.verify, state_directory=str(self._state_directory),
            rounds=self._rounds, log_format=log_format(),
        )  # fmt: skip
        with closing(LoadChild(order, self._command)) as child:
            with self._lock:
                self._child = child
            if load.stop_reason is not None:
                raise load.stop_reason
            model, brought = self._listen(load, path, child)
        self._series.brought(model.name, brought.sent_bytes, brought.total_bytes)
        names = model.node_names
        for busy in put_to_use(model, self._models, self._mesh, self._in_use):
            load.tell(f"{busy} is at work for another model and turns to {model.name} when that is asked")
        load.arrive(models_pb2.LoadArrivals(arrivals=[
            models_pb2.LoadArrival(node=name, sent_bytes=sent, total_bytes=total)
            for name, sent, total in zip(names, brought.sent_bytes, brought.total_bytes, strict=True)
        ]))  # fmt: skip
        return model, sum(brought.sent_bytes)

    def _listen(self, load: LoadUnderWay, path: Path, child: LoadChild) -> tuple[LoadedModel, Brought]:
        """Return what lies where it should, by then, and what was sent. Raises: ShardmeshError of many kinds."""
        model: LoadedModel | None = None
        for news in child.news():
            if isinstance(news, Told):
                load.tell(news.text)
            elif isinstance(news, Progress):
                load.progress(models_pb2.LoadProgress(
                    node=news.node, arrived_bytes=news.arrived_bytes, total_bytes=news.total_bytes
                ))  # fmt: skip
            elif isinstance(news, Planned):
                description = SliceDescription.from_json(news.description)
                model = self._models.future(load.name, path, description, news.node_names)
                self._models.plan_ahead(model)
                prediction = b"" if news.prediction is None else json.dumps(news.prediction).encode()
                load.plan(models_pb2.LoadPlanned(
                    nodes=news.node_names, description=json.dumps(news.description).encode(), prediction=prediction
                ), model.total_bytes())  # fmt: skip
                child.go_on()
            elif isinstance(news, Brought) and model is not None:
                return model, news
        raise InternalError("the process that loads it has skipped a step")

    def _unload(self, name: str, done: Future[list[str]], load: LoadUnderWay | None) -> None:
        """Do an unload. In a thread of its own: it goes on when whoever asked has gone."""
        try:
            if load is not None:
                self._stop(load, InputError(f"{name} was unloaded while it was loaded"))
                load.wait()
            missed = unload(name, self._models, self._mesh)
            log.info("%s", entry("unload done", model=name, missed_nodes=",".join(missed) or None))
            with self._lock:
                self._last.pop(name, None)
        except Exception as error:  # noqa: BLE001 - the thread's edge; whoever asked hears of it
            failure = _as_ours(error)
            log.warning("%s", entry("unload failed", model=name, reason=failure.reason, error=failure))
            with self._lock:
                self._unloading = None
            done.set_exception(failure)
            return
        with self._lock:
            self._unloading = None
        done.set_result(missed)


def _is_loading(name: str, *, is_same: bool) -> InputError:
    what = "with other options" if is_same else "now"
    return InputError(f"{name} is being loaded {what}, and one thing is done at a time; ask again when that has ended "
                      f"(coordinator-cli status), or stop it: coordinator-cli load --cancel {name}")  # fmt: skip


def _as_ours(error: Exception) -> ShardmeshError:
    """Return an error that a person can be told; a bug is logged."""
    if isinstance(error, ShardmeshError):
        return error
    if isinstance(error, OSError):
        return failure_to_write(error)(
            f"cannot write the mesh's records: {error.strerror or error}; free some room, and load again"
        )
    return InternalError(status_of(error).message)
