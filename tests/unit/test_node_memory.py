"""Does `--memory-budget auto` keep a node below what is free, with all that it will ever take?

Covers: told_budget of shardnode/work/node_memory.py. Does not cover: a kernel that enforces a limit
(tests/systemd/test_memory.py), a budget that is too small (tests/e2e/test_memory_budget.py).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from common.machine.node_budget import WORKING_BYTES, share_budget
from common.program import memory_flags
from shardnode.config import NodeConfig
from shardnode.work.node_memory import told_budget

MB = 1_000_000
PROGRAM_BYTES = 220 * MB


def shared_bytes(free_bytes: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return what keys, values and weights get together of so much free memory."""
    monkeypatch.setattr(memory_flags, "free_memory_bytes", lambda: free_bytes)
    config = NodeConfig(slice_directory=Path("slice"), listen="127.0.0.1:0", memory_budget="auto")
    budget = share_budget(told_budget(config, PROGRAM_BYTES), program_bytes=PROGRAM_BYTES)
    return budget.kv_bytes + budget.weight_bytes


@pytest.mark.parametrize("free_bytes", [100 * MB, 210 * MB, 500 * MB, 640 * MB, 8000 * MB])
def test_all_that_a_node_told_auto_will_take_is_free(free_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What serving takes comes later than the look at what is free, and comes out of it."""
    assert shared_bytes(free_bytes, monkeypatch) + WORKING_BYTES <= free_bytes


def test_a_tenth_of_what_is_free_is_left_to_others_where_that_is_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """What serving takes is within that tenth then, and costs nothing beside it."""
    assert shared_bytes(8000 * MB, monkeypatch) == 7200 * MB
