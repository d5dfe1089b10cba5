"""Memory for long rounds that this process and nodes of this host both see: made once, used by every round.

    input of all ranks -> one file that only we write      partial sum of a rank -> a file of that rank's own

A row of a prompt would else be copied six times on its way to each rank, and as often back: tensor, message, socket,
message, tensor, each time into pages that are new.
Covers: making it, which ranks use it, their partial sums. Does not cover: files (common/wire/memory_file.py), messages
(ranks.py), nodes' side (shardnode/sessions/round_memory.py).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from common.weights.stored_numbers import Floats
from common.wire.memory_file import MemoryFile, Room, make_memory
from protos.shardmesh.v1 import shard_pb2

SHORTEST_BYTES = 1 << 16
"""Shorter tensors go in messages: a copy of them costs less than what avoids it."""
_FLOAT_BYTES = 4


class RoundMemory:
    """One input and an answer for each rank that can open files; close it once they have answered the offer."""

    def __init__(self, ranks: Collection[int], byte_count: int) -> None:
        """Make it for `ranks`; nobody uses it where the system has no such memory.

        Args: byte_count: of the longest input or answer.
        """
        self._byte_count = byte_count
        self._files: list[MemoryFile] = []
        self._offers: dict[int, tuple[MemoryFile, MemoryFile]] = {}
        self._answers: dict[int, Room] = {}
        inputs = self._make(peers_write=False) if ranks else None
        self._input = Room(inputs.floats) if inputs is not None else None
        for rank in ranks:
            answers = self._make(peers_write=True) if inputs is not None else None
            if inputs is not None and answers is not None:
                self._offers[rank] = (inputs, answers)

    def offer(self, rank: int, opening: shard_pb2.OpenSession) -> Sequence[int]:
        """Return the descriptors to send with a rank's first message, which is made to tell of them; none: no offer."""
        if rank not in self._offers:
            opening.ClearField("memory_bytes")
            return ()
        opening.memory_bytes = self._byte_count
        return [file.descriptor for file in self._offers[rank]]

    def opened(self, rank: int, answer: shard_pb2.SessionOpened) -> None:
        """Use the memory with a rank that has taken the offer."""
        if answer.uses_memory and rank in self._offers:
            self._answers[rank] = Room(self._offers[rank][1].floats)

    def close_files(self) -> None:
        """Close the descriptors: every rank has its own by now. What nobody uses is freed."""
        for file in self._files:
            file.close()
        self._files, self._offers = [], {}

    def input_place(self, shape: Sequence[int]) -> Floats | None:
        """Return where inputs of that shape go, to be written once no rank works on the last; None: into messages."""
        if self._input is None or not self._answers or math.prod(shape) * _FLOAT_BYTES < SHORTEST_BYTES:
            return None
        return self._input.view(shape)

    def ranks(self) -> Collection[int]:
        """Return the ranks that read inputs there, and answer in memory of their own."""
        return self._answers.keys()

    def answer_place(self, rank: int, shape: Sequence[int]) -> Floats | None:
        """Return where a rank's partial sum of that shape may lie."""
        return self._answers[rank].view(shape) if rank in self._answers else None

    def _make(self, *, peers_write: bool) -> MemoryFile | None:
        made = make_memory(self._byte_count, peers_write=peers_write)
        if made is not None:
            self._files.append(made)
        return made
