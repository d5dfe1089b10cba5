"""A process with ports that crowds come to in place of a mesh's: it sends away whom a mesh would, and says nothing.

    python -m tests.attacks.decoy    # prints the ports in place of those for members, for joining, of a node

Covers: what attackers on this machine cost by themselves, which no mesh can help: they do as much here as there, since
they are cut, and come again, as quickly. Does not cover: attacks (crowd.py).
"""

from __future__ import annotations

import os
import sys

from common.program.callers import Callers
from common.program.places import Caller
from coordinator.membership.welcome import joining_places, member_places


def _say_nothing(caller: Caller) -> None:
    while caller.connection.recv(1 << 16):
        pass


def main() -> None:
    """Listen until the input ends."""
    os.nice(19)
    ports = [
        Callers("127.0.0.1", 0, places, _say_nothing, name="decoy", refused="refused", failed="failed")
        for places in (member_places(), joining_places(), member_places())
    ]
    print(*(port.port for port in ports), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
