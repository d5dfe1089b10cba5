"""Is a round's limit what rounds of its kind make likely, and is it the one that clients keep?"""

from __future__ import annotations

from pathlib import Path

from common.weights.slice_format import ATTENTION, FFN
from coordinator.ranks.round_limits import LEAST_SECONDS, MEASURED_FROM, TIMES, RoundLimits
from coordinator.ranks.transports.transport import ROUND_LIMIT_SECONDS
from tests.support.mesh import run_alone, sliced, thread_mesh
from tests.support.tiny_checkpoint import write_tiny_checkpoint


def test_nothing_is_expected_before_it_was_measured() -> None:
    """Nor of another kind, nor of far more rows."""
    limits = RoundLimits()
    for number in range(MEASURED_FROM):
        assert limits.seconds(FFN, 1) == ROUND_LIMIT_SECONDS, number
        limits.took(FFN, 1, 0.01)
    assert limits.seconds(FFN, 1) == LEAST_SECONDS
    assert limits.seconds(ATTENTION, 1) == ROUND_LIMIT_SECONDS
    assert limits.seconds(FFN, 300) == ROUND_LIMIT_SECONDS


def test_the_longest_counts_and_is_forgotten_in_the_end() -> None:
    """A node that streams from a slow disk has the time it needs; one bad moment is no licence for ever."""
    limits = RoundLimits()
    for seconds in (*(0.01,) * MEASURED_FROM, 1.0, 0.01):
        limits.took(FFN, 1, seconds)
    assert 0.99 * TIMES < limits.seconds(FFN, 1) <= TIMES
    for _ in range(5000):
        limits.took(FFN, 1, 0.01)
    assert limits.seconds(FFN, 1) == LEAST_SECONDS
    limits.took(FFN, 1, 1000.0)
    assert limits.seconds(FFN, 1) == ROUND_LIMIT_SECONDS


def test_clients_keep_the_limit_of_the_round_under_way(tmp_path: Path) -> None:
    """Over both transports."""
    checkpoint = write_tiny_checkpoint(tmp_path / "model", layers=4)
    with sliced(checkpoint, tmp_path / "slices", world_size=2) as model:
        for transport in ("direct", "grpc"):
            with thread_mesh(model, memory_window=2, transport=transport) as conversation:  # type: ignore[arg-type]
                clients = conversation.engine.ranks.clients
                assert {client.round_limit_seconds for client in clients} == {ROUND_LIMIT_SECONDS}
                run_alone(conversation, [1, 2], length=MEASURED_FROM)
                assert {client.round_limit_seconds for client in clients} == {LEAST_SECONDS}
