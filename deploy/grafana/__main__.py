"""Writes the dashboards' JSON anew, or with --check says which files are not what the code makes.

    python -m deploy.grafana [--check] [DIRECTORY]

Covers: files, order of keys, nothing in them that is null. Does not cover: what is on a dashboard (mesh_dashboard.py).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana.mesh_dashboard import mesh_dashboard
from deploy.grafana.model_dashboard import model_dashboard
from deploy.grafana.node_dashboard import node_dashboard

DASHBOARDS = {"mesh": mesh_dashboard, "node": node_dashboard, "model": model_dashboard}
HERE = Path(__file__).resolve().parent / "dashboards"
OF_OTHER_VARIABLES = ("id", "auto", "auto_count", "auto_min")
"""What the SDK writes for every kind of variable, ours or not."""


def main() -> int:
    """Write or check; 1 when a file that is checked is another."""
    arguments = argparse.ArgumentParser(prog="python -m deploy.grafana", description=__doc__)
    arguments.add_argument("--check", action="store_true", help="write nothing; fail where a file is another")
    arguments.add_argument("directory", nargs="?", type=Path, default=HERE)
    chosen = arguments.parse_args()
    chosen.directory.mkdir(parents=True, exist_ok=True)
    stale = []
    for name, make in DASHBOARDS.items():
        path, made = chosen.directory / f"{name}.json", as_json(make())
        if chosen.check and (not path.is_file() or path.read_text(encoding="utf-8") != made):
            stale.append(path.name)
        elif not chosen.check:
            path.write_text(made, encoding="utf-8")
    if stale:
        print(f"dashboards: {', '.join(stale)} is not what deploy/grafana makes; run: make dashboards", file=sys.stderr)
    return 1 if stale else 0


def as_json(made: dashboard.Dashboard) -> str:
    """Return a dashboard as Grafana imports it: what the SDK writes and Grafana's types do not allow is left out."""
    described = json.loads(JSONEncoder(sort_keys=True).encode(made.build()))
    described.pop("style")
    for variable in described["templating"]["list"]:
        for name in OF_OTHER_VARIABLES:
            variable.pop(name)
    return json.dumps(_without_nulls(described), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _without_nulls(value: Any) -> Any:
    """Leave out what says null, which Grafana's types do not allow; but a threshold without a value is the lowest."""
    if isinstance(value, dict):
        return {
            key: _without_nulls(inner)
            for key, inner in value.items()
            if inner is not None or (key == "value" and "color" in value)
        }
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


if __name__ == "__main__":
    sys.exit(main())
