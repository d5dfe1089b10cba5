"""The process that does one load for the coordinator program: reads, measures, cuts, sends.

Covers: what the program's engine must not wait for, and what gRPC's threads there do not survive: it is started anew,
not forked. Does not cover: records, which the program alone writes (records.py, replacing.py); the program's end of the
pipes (program/load_child.py).
Threads: the main one works; one reads the program's lines, and ends the process when the program has ended.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from common.machine.durable_files import failure_to_write
from common.machine.operating_system import be_first_to_go, give_way
from common.program.logs import configure_logs
from coordinator.models.load_messages import Brought, Failed, LoadOrder, News, Planned, Progress, Told, line_of
from coordinator.models.model_path import check_readable

if TYPE_CHECKING:  # numpy comes with them, and a path that is wrong is told before
    from common.model.plan import Plan
    from common.weights.slice_description import SliceDescription
    from coordinator.membership.reach import MeshAccess
    from coordinator.shipping.slice_sender import Transferred
    from protos.shardmesh.v1 import mesh_pb2

REPORT_SECONDS = 0.1


class Teller:
    """Writes news to the program. Safe for several threads."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe, self._lock = pipe, threading.Lock()
        self._last: dict[str, tuple[float, int]] = {}

    def tell(self, text: str) -> None:
        """Tell a person."""
        self.send(Told(text=text))

    def send(self, news: News) -> None:
        """Write; a program that has ended is none of this thread's business."""
        with self._lock, suppress(BrokenPipeError):
            self._pipe.write(line_of(news))
            self._pipe.flush()

    def report(self, node: str, progress: Transferred) -> None:
        """Tell how far a slice is."""
        self._progress(node, progress.arrived_bytes, progress.total_bytes)

    def report_own(self, done_bytes: int, total_bytes: int) -> None:
        """Tell how far the coordinator's own slice is."""
        self._progress("", done_bytes, total_bytes)

    def _progress(self, node: str, done_bytes: int, total_bytes: int) -> None:
        """Tell if there is something new, and not too often."""
        now = time.monotonic()
        told_at, told_bytes = self._last.get(node, (0.0, -1))
        if done_bytes != told_bytes and (done_bytes == total_bytes or now - told_at >= REPORT_SECONDS):
            self._last[node] = now, done_bytes
            self.send(Progress(node=node, arrived_bytes=done_bytes, total_bytes=total_bytes))


def run(order: LoadOrder, teller: Teller, may_go: threading.Event) -> None:
    """Do a load. Raises: ShardmeshError of many kinds."""
    path, state = Path(order.path), Path(order.state_directory)
    check_readable(path)
    from coordinator.checkpoints.model_place import find_model

    find_model(path)  # a mistake is told before anything is imported that takes time
    from coordinator.checkpoints.checkpoint import as_stored_in, open_checkpoint
    from coordinator.membership.reach import owner_access
    from coordinator.models.loading import bring
    from coordinator.models.records import LoadedModels
    from coordinator.planning.outline import outline

    mesh, models = owner_access(state), LoadedModels(state)
    with closing(open_checkpoint(path)) as checkpoint:
        members = [mesh.node(name) for name in order.node_names] or _alive(mesh, teller)
        names = [member.name for member in members]
        description = outline(checkpoint).description(order.weights_dtype or None)
        plan = None if order.split_strategy else models.planned(order.name, description, names)
        prediction = None
        if plan is None:
            strategy = order.split_strategy or "measured"
            plan, prediction = _planned(description, strategy, mesh, members, state, teller, order.rounds)
        description = replace(description, plan=plan)
        stored = as_stored_in(checkpoint, description.dtype)
        teller.send(Planned(node_names=names, description=description.to_json(), prediction=prediction))
        may_go.wait()
        give_way()  # so that cutting takes what the engine leaves; not before, since what is measured would be less
        model = models.future(order.name, path, description, names)
        arrivals = bring(
            stored, model, mesh, report=teller.report, report_own=teller.report_own, verify=order.verify
        )  # fmt: skip
    teller.send(Brought(
        sent_bytes=[one.sent_bytes for one in arrivals], total_bytes=[one.total_bytes for one in arrivals]
    ))  # fmt: skip


def _alive(mesh: MeshAccess, teller: Teller) -> Sequence[mesh_pb2.Node]:
    """Return the nodes that are alive, and say who is not and therefore left out."""
    alive = mesh.alive()
    missing = sorted({node.name for node in mesh.nodes()} - {node.name for node in alive})
    if missing:
        teller.tell(f"not alive, so left out: {', '.join(missing)}")
    return alive


def _planned(
    description: SliceDescription, strategy: str, mesh: MeshAccess, members: Sequence[mesh_pb2.Node], state: Path,
    teller: Teller, rounds: str,
) -> tuple[Plan, dict[str, object] | None]:  # fmt: skip
    """Return who holds what; where that follows from measurements, they are made, and what they predict comes too."""
    from common.weights.balanced_plans import balanced_plan
    from coordinator.planning.prediction import Workload, predict
    from coordinator.planning.strategies import MEASURED, MEMORY, plan_for
    from coordinator.planning.survey import survey

    if strategy not in (MEASURED, MEMORY):
        return balanced_plan(description, strategy, len(members)), None
    workload = Workload()
    hidden_size = description.spec.hidden_size
    devices = survey(mesh, members, state, hidden_size, workload, teller.tell, rounds=rounds).devices
    plan = plan_for(description, strategy, devices, workload)
    return plan, asdict(predict(replace(description, plan=plan), devices, workload))


def _obey(program: BinaryIO, may_go: threading.Event) -> None:
    """Go on when the program says so, and end with it: nothing is half written that the next attempt would believe."""
    while program.readline():
        may_go.set()
    os._exit(1)


def main() -> None:
    """Do the load that the program orders."""
    news = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get between
    be_first_to_go()
    teller, may_go = Teller(news), threading.Event()
    program = sys.stdin.buffer
    order = LoadOrder.of_line(program.readline())
    configure_logs("warning", order.log_format)
    threading.Thread(target=_obey, args=(program, may_go), name="lifeline", daemon=True).start()
    try:
        run(order, teller, may_go)
    except OSError as error:
        kind = failure_to_write(error)
        teller.send(Failed.of(kind(f"cannot write what belongs to the model: {error.strerror or error}; free some "
                                   "room, and load again")))  # fmt: skip
    except Exception as error:  # noqa: BLE001 - the edge of a process; status_of logs what is not ours
        teller.send(Failed.of(error))
    os._exit(0)  # past the interpreter's own end, which takes long with gRPC


if __name__ == "__main__":
    main()
