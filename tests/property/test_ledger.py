"""Is the room that ranks have never promised twice, and all of it given back?

Covers: coordinator/engine/ledger.py under any reservations and releases. Does not cover: who asks for room, and when
(test_schedule.py).
"""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import KvBudgetExceeded, ProtocolError
from common.wording import counted
from tests.support.simulated_ranks import make_ledger

ranks = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 100)), min_size=1, max_size=4)
"""(bytes of a position, bytes of all) of each rank."""
changes = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 60), st.booleans()), max_size=40)
"""(sequence, positions, whether they are reserved or given back)."""


@given(ranks=ranks, changes=changes)
def test_room_is_given_exactly_where_every_rank_has_it(
    ranks: list[tuple[int, int]], changes: list[tuple[int, int, bool]]
) -> None:
    """A sequence gets room if and only if it fits beside all others on each rank, and what was given back is free."""
    ledger = make_ledger(ranks)
    held: dict[int, int] = {}
    for sequence_id, positions, is_reserving in changes:
        if not is_reserving:
            ledger.release(sequence_id)
            held.pop(sequence_id, None)
        elif sequence_id in held:
            with pytest.raises(ProtocolError):
                ledger.reserve(sequence_id, positions)
        else:
            after = sum(held.values()) + positions
            fits = all(after * position_bytes <= budget_bytes for position_bytes, budget_bytes in ranks)
            assert ledger.reserve(sequence_id, positions) is fits
            if fits:
                held[sequence_id] = positions
        assert {number for number in range(1, 7) if ledger.holds(number)} == set(held)
        assert ledger.reserved_positions == sum(held.values())


@given(ranks=ranks, positions=st.integers(1, 120))
def test_what_an_empty_mesh_cannot_hold_is_impossible_and_the_rank_is_named(
    ranks: list[tuple[int, int]], positions: int
) -> None:
    """Whoever could never have room is told so, by the first rank that lacks it; who waits for others is not."""
    ledger = make_ledger(ranks)
    lacking = [
        number
        for number, (position_bytes, budget_bytes) in enumerate(ranks)
        if positions * position_bytes > budget_bytes
    ]
    if lacking:
        with pytest.raises(KvBudgetExceeded, match=re.escape(f"node {lacking[0]}: {counted(positions, 'position')}")):
            ledger.check_possible(positions)
        assert not ledger.reserve(1, positions)
    else:
        assert ledger.reserve(1, positions)
        ledger.check_possible(positions)
