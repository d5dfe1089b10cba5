"""Draws the dashboards from a real Prometheus' data: of one that runs, or of a mesh that it starts itself.

    python -m tests.dashboards                                        # starts three nodes and has them asked for 5 min
    python -m tests.dashboards --prometheus http://127.0.0.1:9090 --mesh home --node kitchen --model small

Covers: what is drawn of which time. Does not cover: drawing (panel_pictures.py).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.dashboards.panel_data import Look
from tests.dashboards.panel_pictures import draw
from tests.dashboards.watched_mesh import WatchedMesh
from tests.support.source_files import REPOSITORY

DASHBOARDS = REPOSITORY / "deploy/grafana/dashboards"
PICTURES = REPOSITORY / "deploy/grafana/pictures"
MODEL = REPOSITORY / "models/smollm2-135m-instruct"


def main() -> int:
    """Draw all; 1 when a panel had nothing to show."""
    arguments = argparse.ArgumentParser(prog="python -m tests.dashboards", description=__doc__)
    arguments.add_argument("--prometheus", default="", help="one that runs; else a mesh is started here")
    arguments.add_argument("--seconds", type=float, default=300, help="how much time is looked at")
    arguments.add_argument("--ends", type=float, default=0, help="until when, in seconds since 1970; else until now")
    arguments.add_argument("--keep", type=Path, help="where the Prometheus that is started keeps what it sees")
    arguments.add_argument("--mesh", default="home")
    arguments.add_argument("--node", default="attic")
    arguments.add_argument("--model", default=MODEL.name)
    arguments.add_argument("--out", type=Path, default=PICTURES)
    chosen = arguments.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    if chosen.prometheus:
        return _draw_all(chosen.prometheus, chosen)
    with WatchedMesh(MODEL, chosen.keep) as mesh:
        mesh.be_asked(chosen.seconds)
        return _draw_all(mesh.url, chosen)


def _draw_all(url: str, chosen: argparse.Namespace) -> int:
    ends, failed = chosen.ends or time.time(), False
    print(f"{chosen.seconds:.0f} s until {ends:.0f}")
    variables = {"mesh": {}, "node": {"node": chosen.node}, "model": {"model": chosen.model}}
    for name, more in variables.items():
        look = Look(url=url, ends=ends, seconds=chosen.seconds, variables={"mesh": chosen.mesh, **more})
        empty = draw(DASHBOARDS / f"{name}.json", look, chosen.out / f"{name}.png")
        print(f"{chosen.out / name}.png" + (f"; nothing in: {', '.join(empty)}" if empty else ""))
        failed = failed or bool(empty)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
