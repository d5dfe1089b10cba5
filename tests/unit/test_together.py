"""Are options of `generate` that contradict each other told as that?"""

from __future__ import annotations

from typing import Any

import pytest

from common.errors import InputError
from coordinator.cli.together import check_together

DEFAULTS = {"nodes": None, "world_size": 1, "kv_budget_bytes": 1 << 30, "insecure": False, "state_dir": None}


def check(**given: Any) -> None:
    """Look at these options; the others were not given."""
    check_together({**DEFAULTS, **given}, lambda name: name in given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"nodes": "kitchen,attic", "world_size": 4}, "--nodes names 2 nodes and --world-size is 4: they contradict"),
        ({"nodes": "127.0.0.1:1", "world_size": 2}, "--nodes names 1 node and --world-size is 2"),
        ({"nodes": "kitchen,attic", "world_size": 1}, "names 2 nodes and --world-size is 1"),
        ({"nodes": "kitchen", "kv_budget_bytes": 1 << 20}, "--kv-budget-bytes is for nodes that this command starts"),
        ({"insecure": True}, "--insecure is for --nodes on other devices"),
        ({"state_dir": "/somewhere"}, "--state-dir is the mesh of --nodes or --coordinator"),
    ],
)
def test_options_that_contradict_each_other_are_told_as_that(given: dict[str, Any], said: str) -> None:
    """Also the default's own value, once a person has typed it; and what would do nothing at all."""
    with pytest.raises(InputError, match=said):
        check(**given)


@pytest.mark.parametrize(
    "given",
    [
        {}, {"world_size": 4}, {"nodes": "kitchen,attic", "world_size": 2}, {"nodes": "kitchen, attic,"},
        {"kv_budget_bytes": 1 << 20}, {"nodes": "192.0.2.1:5", "insecure": True},
        {"nodes": "kitchen", "state_dir": "/somewhere"},
    ],
)  # fmt: skip
def test_options_that_go_together_are_let_through(given: dict[str, Any]) -> None:
    """What was not typed contradicts nothing."""
    check(**given)
