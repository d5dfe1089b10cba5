"""A process that speaks as the one that does a load, in one of several ways; there is neither a model nor a node.

    python tests/support/fake_load.py WAY DESCRIPTION.json

Covers: what a coordinator program may hear, and not hear. Does not cover: what a load does
(tests/contract/test_loading.py).
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the process has no use for them
    from coordinator.models.model_series import ModelSeries

LIMIT_SECONDS = 20.0
WHOLE, WAITS, REFUSES, DIES, IS_KILLED, BABBLES, SKIPS = (
    "whole", "waits", "refuses", "dies", "is killed", "babbles", "skips"
)  # fmt: skip
NODE = "kitchen"
TOLD = "measuring"


def load_in_vain(series: ModelSeries, directory: Path) -> None:
    """Have a coordinator's worker load something that is refused."""
    from coordinator.membership.reach import MeshAccess
    from coordinator.program.model_worker import ModelWorker
    from protos.shardmesh.v1 import models_pb2

    mesh = MeshAccess(mesh_name="home", identity=NotImplemented, nodes=list)
    worker = ModelWorker(directory, mesh, series, lambda name: (), [sys.executable, __file__, REFUSES, "-"])
    load = worker.load(models_pb2.LoadModelRequest(path=b"/models/small"))
    assert load.wait(LIMIT_SECONDS)
    worker.close()


def say(kind: str, **values: object) -> None:
    """Write one piece of news."""
    print(json.dumps({"kind": kind, **values}), flush=True)


def main(way: str, description: Path) -> None:
    """Behave."""
    order = json.loads(sys.stdin.readline())
    assert order["path"].startswith("/")
    say("Told", text=TOLD)
    if way == REFUSES:
        say("Failed", reason="UNSUPPORTED_MODEL", message="config.json has 'x', which is not computed here")
    elif way == BABBLES:
        print("Loading weights...", flush=True)
    elif way == SKIPS:
        say("Brought", sent_bytes=[5], total_bytes=[10])
    else:
        say("Planned", node_names=[NODE], description=json.loads(description.read_text()), prediction=None)
        assert sys.stdin.readline() == "go\n"
        say("Progress", node=NODE, arrived_bytes=5, total_bytes=10)
        if way == WAITS:
            sys.stdin.read()  # until the program lets go
        elif way == DIES:
            sys.exit(3)
        elif way == IS_KILLED:
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            say("Brought", sent_bytes=[5], total_bytes=[10])


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
