"""A process with ports that crowds come to in place of a mesh's: it takes all, says nothing, cuts them in time.

    python -m tests.attacks.decoy 3    # prints as many ports

Covers: what attackers on this machine cost by themselves, which no mesh can help. Does not cover: attacks (crowd.py).
"""

from __future__ import annotations

import asyncio
import os
import sys

CUT_SECONDS = 5.0
"""As the ports of a mesh do with who says nothing."""


async def _take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(CUT_SECONDS)
    writer.transport.abort()


async def _serve(count: int) -> None:
    servers = [await asyncio.start_server(_take, "127.0.0.1", 0, backlog=256) for _ in range(count)]
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    os.nice(19)
    asyncio.run(_serve(int(sys.argv[1])))
