"""Why is a connection sent away? As series count it, and as the log says it.

Covers: ports of all kinds. Does not cover: calls (door_series.CALL_REASONS), sending away (callers.py).
"""

from __future__ import annotations

CROWDED, FAST, SLOW, MANY, UNTRUSTED, REMOVED, NO_FILES = (
    "crowded", "fast", "slow", "many", "untrusted", "removed", "no_files"
)  # fmt: skip
"""Why a connection was sent away: no place was left, or somebody else's was worth more; its address opens too many a
second; it was not let in in time; its peer has too many; he is not believed; not any more; no file could be opened."""
REASONS = (CROWDED, FAST, SLOW, MANY, UNTRUSTED, REMOVED, NO_FILES)
WORDS = {
    CROWDED: "all places are taken, and its address has more than others",
    FAST: "its address opens too many connections a second",
    SLOW: "it has not said in time who it is",
    MANY: "its peer has too many connections, of which this one is the oldest",
    REMOVED: "its peer is no member of the mesh any more",
    NO_FILES: "this process may open no more files (ulimit -n; LimitNOFILE of a unit)",
}
