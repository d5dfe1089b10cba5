"""Is what observing costs split as the kernel counts threads, whatever py-spy has seen or missed of them?

Covers: the arithmetic of tests/bench/see_profile.py. Does not cover: py-spy and the kernel (`bench --only see`).
"""

from __future__ import annotations

import pytest

from tests.bench.see_profile import RATE, Taken, observing

FOLDED = """\
thread (1): engine;run (/p/coordinator/engine/engine.py:1);observe (/p/common/program/tallies.py:3) 1
thread (1): engine;run (/p/coordinator/engine/engine.py:1);swept (/p/coordinator/ranks/trace_watch.py:9);\
is_sampled (/p/coordinator/program/spans.py:3) 2
thread (1): engine;run (/p/coordinator/engine/engine.py:2) 7
thread (8): metrics caller;_answer (/p/common/program/page_server.py:9);wait (/lib/prometheus_client/registry.py:4) 3
thread (9): Thread-4;_consume_request_iterator.<locals>.consume_request_iterator (/lib/grpc/_channel.py:311) 1
thread (9): Thread-4 5
"""


def test_a_threads_time_is_split_by_looks_and_those_that_went_share_what_is_left() -> None:
    """Each look counts for the outermost file; who is only beginning or ending is nobody's."""
    taken = Taken(whole=12.0, ran={1: 10.0, 2: 1.2}, waited={1: 2.0, 2: 0.0}, names={1: "x", 2: "event_engine"})
    found = observing(FOLDED, taken, failed=4)
    assert found.seconds == pytest.approx(
        {"tallies.py": 1.0, "trace_watch.py": 2.0, "page_server.py": 0.75 * 0.8, "echo.py": 0.25 * 0.8}
    )
    assert found.percent == pytest.approx(100 * 3.8 / 12)
    assert (found.grpc_native, found.failed, found.looks) == (1.2, 4, 14)
    assert (found.seen, found.counted) == (10 / RATE, 12.0)
