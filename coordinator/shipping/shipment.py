"""A model's slices to all their nodes at once.

Covers: asking every node before the first byte goes to any, one thread a node, one failure ends all.
Does not cover: one slice (slice_sender.py), who the nodes are (membership/reach.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial

import grpc

from common.weights.slice_description import SliceDescription
from coordinator.checkpoints.checkpoint import Checkpoint
from coordinator.shipping.block_feed import BlockFeed, FeedClosed
from coordinator.shipping.slice_sender import SliceSender, Transferred

PATIENCE_SECONDS = 60.0
REPORT_SECONDS = 0.1

Report = Callable[[str, Transferred], None]
"""Called with a node's name and how far its slice is, again and again."""


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """What came of one node's slice."""

    name: str
    slice_id: str
    total_bytes: int
    sent_bytes: int
    """0 when all of it was there."""


def ship(
    checkpoint: Checkpoint,
    slices: Sequence[SliceDescription],
    names: Sequence[str],
    connect: Callable[[str], grpc.Channel],
    report: Report,
    *,
    verify: bool = False,
    patience_seconds: float = PATIENCE_SECONDS,
) -> list[Arrival]:
    """Send to each of `names` its slice, what is there already left out, and return once all are whole.

    Args: connect: a channel to a node, by name. verify: have every byte looked at that was there before.
    Raises: DiskFull: before a byte is sent; NodeError, SliceError, CheckpointError: what has arrived stays.
    """
    feed, stopping = BlockFeed(checkpoint, slices[0].encodings), threading.Event()
    senders = [
        SliceSender(name, description, partial(connect, name), feed, stopping)
        for name, description in zip(names, slices, strict=True)
    ]
    lacking = [sender for sender in senders if not sender.is_there(verify=verify)]
    with ThreadPoolExecutor(len(senders), thread_name_prefix="ship") as pool:
        running = [pool.submit(sender.send, patience_seconds) for sender in lacking]
        try:
            while True:
                done, left = wait(running, timeout=REPORT_SECONDS, return_when=FIRST_EXCEPTION)
                for sender in senders:
                    report(sender.name, sender.progress)
                for future in sorted(done, key=lambda future: isinstance(future.exception(), FeedClosed)):
                    future.result()
                if not left:
                    break
        finally:
            stopping.set()
            feed.close()
    return [
        Arrival(
            name=sender.name, slice_id=sender.description.slice_id, total_bytes=sender.progress.total_bytes,
            sent_bytes=sender.progress.sent_bytes,
        )
        for sender in senders
    ]  # fmt: skip
