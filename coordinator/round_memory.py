"""Memory for long rounds that this process and nodes of this host both see: made once, used by every round.

    input of all ranks -> one file that only we write      partial sum of a rank -> a file of that rank's own

A row of a prompt would else be copied six times on its way to each rank, and as often back: tensor, message, socket,
message, tensor, each time into pages that are new.
Covers: making it, which ranks use it, their partial sums. Does not cover: files (common/memory_file.py), messages
(mesh.py), nodes' side (shardnode/round_memory.py).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from common.memory_file import MemoryFile, make_memory
from common.tensor_codec import encode_in_memory, fits_memory
from protos.shardmesh.v1 import shard_pb2, tensor_pb2


class RoundMemory:
    """One input and an answer for each rank that can open files; close it once they have answered the offer."""

    def __init__(self, ranks: Collection[int], byte_count: int) -> None:
        """Make it for `ranks`; nobody uses it where the system has no such memory.

        Args: byte_count: of the longest input or answer.
        """
        self._byte_count = byte_count
        self._files: list[MemoryFile] = []
        self._offers: dict[int, tuple[MemoryFile, MemoryFile]] = {}
        self._answers: dict[int, torch.Tensor] = {}
        self._input = self._make(peers_write=False) if ranks else None
        for rank in ranks if self._input is not None else ():
            answer = self._make(peers_write=True)
            if self._input is not None and answer is not None:
                self._offers[rank] = (self._input, answer)

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
            self._answers[rank] = self._offers[rank][1].floats

    def close_files(self) -> None:
        """Close the descriptors: every rank has its own by now. What nobody uses is freed."""
        for file in self._files:
            file.close()
        self._files, self._offers = [], {}

    def ranks_for(self, shape: Sequence[int]) -> Collection[int]:
        """Return the ranks whose input and partial sum of that shape lie here."""
        if self._input is None or not fits_memory(shape, self._input.floats):
            return ()
        return self._answers.keys()

    def put_input(self, rows: torch.Tensor, into: tensor_pb2.Tensor) -> None:
        """Write a round's input, float32 [row_count, hidden_size], for all ranks; none may still work on the last."""
        assert self._input is not None, "ranks_for has named a rank"
        encode_in_memory(rows, into, self._input.floats)

    def answer_of(self, rank: int) -> torch.Tensor | None:
        """Return the memory that a rank's partial sum may lie in, float32 [count]."""
        return self._answers.get(rank)

    def _make(self, *, peers_write: bool) -> MemoryFile | None:
        made = make_memory(self._byte_count, peers_write=peers_write)
        if made is not None:
            self._files.append(made)
        return made
