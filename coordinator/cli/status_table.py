"""How is the mesh, as a person reads it: the nodes and what each serves, then the models.

Does not cover: finding that out (status.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.wording import counted
from coordinator.cli.tables import Column, Trouble, show_table
from coordinator.cli.telling import say

NODES = (Column("node"), Column("state"), Column("serves"), Column("free disk", is_number=True))
MODELS = (Column("model"), Column("state"), Column("nodes"))


def show_status(found: Mapping[str, Any]) -> None:
    """Print what `status --json` would, for people."""
    nodes, models = found["nodes"], found["models"]
    alive = sum(node["is_alive"] for node in nodes)
    say(f"mesh {found['mesh']}: the coordinator runs; {alive} of {counted(len(nodes), 'node')} "
        f"{'is' if alive == 1 else 'are'} alive")  # fmt: skip
    if nodes:
        print()
        show_table(NODES, [(node["name"], _state(node), _serves(node), _free(node)) for node in nodes])
    print()
    if models:
        show_table(MODELS, [
            (model["name"], model["state"] if model["is_ready"] else Trouble(model["state"]),
             ", ".join(model["node_names"]))
            for model in models
        ])  # fmt: skip
    else:
        say("no model is loaded; coordinator-cli load MODEL puts one onto the mesh")


def _state(node: Mapping[str, Any]) -> str:
    if node["trouble"]:
        return Trouble(node["trouble"])
    return "alive"


def _serves(node: Mapping[str, Any]) -> str:
    if node["serves_model"] is not None:
        return f"{node['serves_model']}, rank {node['serves_rank']} of {node['world_size']}"
    if node["serves_unknown_slice"]:
        return "a slice of no model here"
    return "no model" if node["free_disk_bytes"] is not None else ""


def _free(node: Mapping[str, Any]) -> str:
    return "" if node["free_disk_bytes"] is None else f"{node['free_disk_bytes'] / 1e9:.0f} GB"
