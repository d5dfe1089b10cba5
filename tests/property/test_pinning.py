"""Do window and resident tiles stay within every budget, leave a window that works, and lie evenly over the cycle?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import WindowTooSmall
from common.weights.pinning import least_weight_bytes, plan_weights
from common.weights.placement import least_window_bytes, plan_placement

PAGE = 4096
sizes = st.lists(st.integers(1, 40).map(lambda pages: pages * PAGE), min_size=1, max_size=60)


@given(sizes, st.integers(0, 3000), st.integers(1, 200))
def test_every_budget_is_kept_or_refused_with_the_least_that_works(
    tile_bytes: list[int], budget_pages: int, window_pages: int
) -> None:
    """What is planned fits the budget and can be placed; what is refused is below the least, which itself works."""
    budget, wanted = budget_pages * PAGE, window_pages * PAGE
    least = least_weight_bytes(tile_bytes)
    if budget < least:
        with pytest.raises(WindowTooSmall, match=f"at least {least}"):
            plan_weights(tile_bytes, window_bytes=wanted, budget_bytes=budget)
        budget = least
    plan = plan_weights(tile_bytes, window_bytes=wanted, budget_bytes=budget)
    resident_bytes = sum(tile_bytes[index] for index in plan.resident)
    streamed = [size for index, size in enumerate(tile_bytes) if index not in plan.resident]
    assert resident_bytes + plan.window_bytes <= budget
    assert plan.window_bytes >= least_window_bytes(streamed)
    if streamed:
        plan_placement(streamed, plan.window_bytes)  # raises when it does not fit
    else:
        assert plan.window_bytes == 0


@given(sizes, st.integers(1, 100))
def test_a_budget_for_everything_leaves_no_window(tile_bytes: list[int], window_pages: int) -> None:
    """With room for all tiles nothing is streamed."""
    plan = plan_weights(tile_bytes, window_bytes=window_pages * PAGE, budget_bytes=sum(tile_bytes))
    assert plan.resident == frozenset(range(len(tile_bytes)))
    assert plan.window_bytes == 0


@given(st.integers(20, 200), st.integers(5, 95))
def test_resident_tiles_lie_evenly_over_the_cycle(tile_count: int, percent: int) -> None:
    """Of equal tiles, any stretch of the cycle has its share of resident ones, give or take two."""
    room = tile_count * percent // 100
    plan = plan_weights([PAGE] * tile_count, window_bytes=2 * PAGE, budget_bytes=(room + 2) * PAGE)
    if len(plan.resident) == tile_count:
        return
    assert len(plan.resident) == room
    for stop in range(tile_count):
        expected = stop * room / tile_count
        assert abs(sum(index < stop for index in plan.resident) - expected) <= 2


def test_without_a_budget_there_is_the_window_and_nothing_else() -> None:
    """The window that is wanted is what is planned; 0 keeps all."""
    assert plan_weights([PAGE] * 9, window_bytes=3 * PAGE, budget_bytes=None).resident == frozenset()
    assert plan_weights([PAGE] * 9, window_bytes=3 * PAGE, budget_bytes=None).window_bytes == 3 * PAGE
    assert len(plan_weights([PAGE] * 9, window_bytes=0, budget_bytes=None).resident) == 9


def test_everything_resident_is_refused_when_the_budget_is_smaller() -> None:
    """`--memory-window 0` under a budget that does not hold all weights is no silent streaming."""
    with pytest.raises(WindowTooSmall, match=f"all weights take {9 * PAGE} bytes and {8 * PAGE} are allowed"):
        plan_weights([PAGE] * 9, window_bytes=0, budget_bytes=8 * PAGE)
