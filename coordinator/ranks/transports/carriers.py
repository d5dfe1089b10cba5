"""What may carry rounds to a node: by the names of `--rounds`, and what it came to.

Does not cover: choosing (connecting.py).
"""

from __future__ import annotations

from typing import NamedTuple

AUTO, DIRECT, FRAMES, GRPC = "auto", "direct", "frames", "grpc"
ROUNDS = (AUTO, FRAMES, GRPC)
"""To other devices: frames where a node takes them and gRPC elsewhere, or one of the two always."""
CARRIERS = (DIRECT, FRAMES, GRPC)
"""A Unix socket of this host, TCP with TLS or without, gRPC."""


class Carrier(NamedTuple):
    """What carries rounds to one node."""

    name: str
    """Of CARRIERS."""
    is_fallback: bool = False
    """Whether frames were tried, and could not be had."""
    port: int = 0
    """Where frames were tried: the node's port for rounds; 0: it told none."""


OVER_GRPC = Carrier(GRPC)
"""Nothing else was tried."""
