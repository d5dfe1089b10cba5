"""How many files and connections may this process have open?

Covers: raising the limit that it starts with, and what that leaves for connections. Does not cover: who gets them
(common/program/places.py).
"""

from __future__ import annotations

import resource

WANTED = 16384
"""Far more than all ports together give away; some systems' hard limit is a thousand times as much, and tables grow."""
RESERVED = 512
"""For files of slices and state, heartbeats, the owner's socket, what libraries open: connections get none of it."""
EACH = 3
"""A connection to a gate takes two, and gRPC behind it one."""


def raise_limit(wanted: int = WANTED) -> int:
    """Raise the soft limit of open files as far as `wanted`, the hard one permitting, and return what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft == unlimited or soft >= wanted:
        return wanted if soft == unlimited else soft
    best = wanted if hard == unlimited else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (best, hard))
    except (OSError, ValueError):  # a system with a limit of its own beneath this one
        return soft
    return best


def places(wanted: int, share: float = 1.0) -> int:
    """Return how many connections may be open at once, at most `wanted`: fewer where the limit is low.

    Args: share: of what is not reserved that goes to these.
    """
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft == resource.RLIM_INFINITY:
        return wanted
    left = max(soft - RESERVED, soft // 4)
    return max(4, min(wanted, int(left * share) // EACH))
