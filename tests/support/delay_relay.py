"""A program: relays TCP connections and holds every byte back for some milliseconds, as a long link would.

    python -m tests.support.delay_relay HOST:PORT HOST:PORT MILLISECONDS    # listens at the first, forwards

Each way a byte waits that long; how many bytes pass a second is not limited, what is on the way is.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

PIECE_BYTES = 65536
ON_THE_WAY = 256
"""Pieces that may be on the way at once, each way."""


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_seconds: float) -> None:
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(ON_THE_WAY)

    async def take() -> None:
        while data := await reader.read(PIECE_BYTES):
            await pieces.put((loop.time() + delay_seconds, data))
        await pieces.put((loop.time() + delay_seconds, b""))

    taking = asyncio.create_task(take())
    try:
        while True:
            due, data = await pieces.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not data:
                break
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # one end has gone
    finally:
        taking.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await taking
        writer.close()


async def _relay(listen: str, target: str, delay_seconds: float) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = target.rsplit(":", 1)
        try:
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.close()
            return
        await asyncio.gather(_carry(reader, far_writer, delay_seconds), _carry(far_reader, writer, delay_seconds))

    host, port = listen.rsplit(":", 1)
    server = await asyncio.start_server(connected, host, int(port))
    print("relaying", file=sys.stderr, flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_relay(sys.argv[1], sys.argv[2], float(sys.argv[3]) / 1000))
