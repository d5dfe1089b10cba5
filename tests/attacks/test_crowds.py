"""Is a mesh there for its owner and its nodes while its ports are crowded in every way at once?

Covers: 1,100 silent connections at coordinator and node, 48 stalled calls each of a member, of one that was removed and
of strangers while a token is open, renewals without an end. Runs with SHARDMESH_THOROUGH=1, as in .ci/run.
Does not cover: how fast an answer goes on, for which the machine has to be quiet (python -m tests.attacks, which make
attacks runs).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.attacks.besieged import BesiegedMesh, Held
from tests.support.thorough import THOROUGH
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(not THOROUGH, reason="it wants both cores for itself; SHARDMESH_THOROUGH=1 runs it")

WATCH_SECONDS = 3.0
LIMIT_SECONDS = 30.0
COMMAND_SECONDS, SILENT_SECONDS = 2.0, 3.5
MORE_DESCRIPTORS, MORE_THREADS, MORE_MEGABYTES = 4, 12, 40
"""What may stay: workers of gRPC, which has them once it has needed them, and what the allocator keeps for them."""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BesiegedMesh]:
    """Return a mesh of real programs."""
    with BesiegedMesh(tmp_path_factory.mktemp("mesh")) as made:
        yield made


def is_back(now: Held, before: Held) -> bool:
    """Tell whether a program holds what it held."""
    return (
        now.descriptors <= before.descriptors + MORE_DESCRIPTORS
        and now.threads <= before.threads + MORE_THREADS
        and now.megabytes <= before.megabytes + MORE_MEGABYTES
    )


def test_crowds_keep_nobody_away_and_leave_nothing_behind(mesh: BesiegedMesh) -> None:
    """Commands answer, heartbeats come, an answer goes on; then descriptors, threads and memory are as before."""
    mesh.watch(0.5)
    before = mesh.held()
    with mesh.siege():
        seen = mesh.watch(WATCH_SECONDS)
    assert seen.longest_command_seconds < COMMAND_SECONDS
    assert seen.longest_silence_seconds < SILENT_SECONDS
    assert seen.tokens_per_second > 0
    wait_until(
        lambda: all(is_back(*pair) for pair in zip(mesh.held(), before, strict=True)), limit_seconds=LIMIT_SECONDS,
        what=f"back at {before}",
    )  # fmt: skip
    said = mesh.log.read_text()
    for why in ("all places are taken", "has too many connections", "let it join again with a new token"):
        assert why in said
    assert "Traceback" not in said
