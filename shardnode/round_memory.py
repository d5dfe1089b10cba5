"""Where long tensors of one coordinator's rounds lie, when it runs on this host and offers memory for them.

Covers: accepting an offer with distrust, inputs out of it, answers into it. Does not cover: files
(common/memory_file.py), when it is used (session.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from common.errors import ProtocolError
from common.memory_file import open_memory
from common.rpc import MAX_MESSAGE_BYTES
from common.tensor_codec import encode_in_memory, encode_tensor, fits_memory
from protos.shardmesh.v1 import tensor_pb2

FILE_COUNT = 2
"""Descriptors that come with the first message of a session: of inputs and of answers."""


@dataclass(frozen=True, kw_only=True)
class RoundMemory:
    """Both memories of a session, float32 [count]; they are freed with this object."""

    inputs: torch.Tensor
    """The coordinator's; it changes when the next round begins. It cannot be written here: that would end the node."""
    answers: torch.Tensor

    @classmethod
    def accept(cls, files: Sequence[int], byte_count: int) -> RoundMemory | None:
        """Return what a coordinator offers; None where it offers nothing or no descriptor came through.

        Args: files: descriptors, which the caller closes; byte_count: of each memory, as the coordinator says.
        Raises: ProtocolError: the files are not what they are said to be.
        """
        if not byte_count or not files:
            return None
        if byte_count > MAX_MESSAGE_BYTES:
            raise ProtocolError(f"{byte_count} bytes of memory were offered; at most {MAX_MESSAGE_BYTES} are allowed")
        if len(files) != FILE_COUNT:
            raise ProtocolError(f"{len(files)} files came with an offer of memory instead of {FILE_COUNT}")
        return cls(
            inputs=open_memory(files[0], byte_count, writes=False),
            answers=open_memory(files[1], byte_count, writes=True),
        )

    def answer(self, partial: torch.Tensor, into: tensor_pb2.Tensor) -> None:
        """Write a partial sum, float32 [row_count, hidden_size], to the memory, or into the message if it is short."""
        if fits_memory(partial.shape, self.answers):
            encode_in_memory(partial, into, self.answers)
        else:
            encode_tensor(partial, into)
