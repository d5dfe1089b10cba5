"""Facts that `slices` shows: plans of a model here, and what nodes of a mesh hold. See screens.py.

Does not cover: finding facts out (tests/unit/test_slices_verb.py, tests/contract/test_kept_tiles.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coordinator.cli.held_slices import show_held
from coordinator.cli.slices import show_plans

GB = 10**9


def show_slices() -> None:
    """Show the plans that a model is cut for, two of which share most, and a directory with slices of one dtype."""
    plans = [
        {"name": f"{nodes}-{letter * 12}", "world_size": nodes, "split_strategy": strategy, "dtype": "gguf",
         "slice_bytes": 1_698_000_000 + alone, "alone_bytes": alone}
        for nodes, letter, strategy, alone in ((3, "a", "ratio:3,1,1", 250_000_000), (4, "b", "uniform", 0),
                                               (12, "c", "uniform", 901_000))
    ]  # fmt: skip
    found = {
        "plans": plans, "disk_bytes": 2_140_000_000, "kept_bytes": 190_000_000, "has_slices_of_one_dtype": False,
    }  # fmt: skip
    show_plans(found, Path("models/my-model/split"))
    show_plans({**found, "plans": [], "has_slices_of_one_dtype": True}, Path("models/other/split"))


def show_slices_of_nodes() -> None:
    """Show what nodes hold: served, kept, arriving, of no record, nothing, and one that is not heard."""
    kept = {"model": "my-model", "model_identity": "7" * 64, "byte_count": 190_000_000}
    of_kitchen = [
        _held("my-model", "2 of 2"), _held("other", "1 of 1", is_whole=False, is_served=False),
        _held(None, None, is_served=False),
    ]  # fmt: skip
    show_held({"nodes": [
        _node("attic", [_held("my-model", "1 of 2")], [kept]),
        _node("kitchen", of_kitchen, [{**kept, "model": None}]),
        _node("study", [], []),
        {**_node("cellar", [], []), "free_bytes": None, "trouble": "it is not heard"},
    ]})  # fmt: skip


def _node(name: str, slices: list[dict[str, Any]], kept: list[dict[str, Any]]) -> dict[str, Any]:
    return {"name": name, "slices": slices, "kept": kept, "free_bytes": 9 * GB, "trouble": ""}


def _held(model: str | None, part: str | None, *, is_whole: bool = True, is_served: bool = True) -> dict[str, Any]:
    return {
        "slice_id": "5" * 64, "model": model, "part": part, "byte_count": 812_000_000, "is_whole": is_whole,
        "is_served": is_served,
    }  # fmt: skip
